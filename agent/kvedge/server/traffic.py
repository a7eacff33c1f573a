"""The messages between servers as they pass, for whoever wants to see them.

The network tells its `Taps` of each message; each reader's stream sends it on, decoded, or drops
it and counts while its reader is slow.  Nothing is queued here, and where nobody listens nothing
is decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from kvedge.model.value import packb
from kvedge.protocol.envelope import Cause, Opened, Refused
from kvedge.protocol.summary import summary_of
from kvedge.server.streams import Flow, Reader


@dataclass(frozen=True, slots=True)
class Passed:
    """A message that went out or came in.

    Attributes:
        time_s: When, by the wall clock of this board, right or wrong.
        direction: "in" or "out".
        topic: Where, below the network's root.
        content: What it was, or why it was refused.
        size: Of the sealed message, in bytes.
    """

    time_s: float
    direction: str
    topic: str
    content: Opened | Refused
    size: int

    def fields(self) -> dict[str, Any]:
        """Return it as a message to a client carries it."""
        content = self.content
        return {
            "time": self.time_s,
            "direction": self.direction,
            "topic": self.topic,
            "sender": content.sender and content.sender.node,
            "kind": content.kind if isinstance(content, Opened) else None,
            "size": self.size,
            **summary_of(content),
        }


class Listener(Protocol):
    """Who is told of the traffic."""

    def take(self, passed: Passed) -> None:
        """Take note of a message; must not raise."""


class Taps:
    """Who listens to the traffic of a network."""

    def __init__(self) -> None:
        self._listeners: dict[Listener, None] = {}

    def __len__(self) -> int:
        return len(self._listeners)

    def add(self, listener: Listener) -> None:
        """Tell it of each message from now on."""
        self._listeners[listener] = None

    def remove(self, listener: Listener) -> None:
        """Tell it no more; it may have been removed before."""
        self._listeners.pop(listener, None)

    def tell(
        self,
        direction: str,
        topic: str,
        content: Opened | Refused,
        *,
        size: int,
        time_s: float,
    ) -> None:
        """Tell of a message; what the broker brings back of our own is left out."""
        if not self._listeners or (isinstance(content, Refused) and content.cause is Cause.OWN):
            return
        passed = Passed(time_s, direction, topic, content, size)
        for listener in [*self._listeners]:
            listener.take(passed)


class Traffic:
    """The answer to `traffic`: a stream that does not end."""

    def __init__(self, taps: Taps, reader: Reader, seq: int, *, window: int) -> None:
        self._taps = taps
        self._reader = reader
        self._seq = seq
        self._dropped = 0
        self.flow = Flow(reader, window)
        reader.send(packb({"seq": seq, "state": "start"}))
        taps.add(self)

    def take(self, passed: Passed) -> None:
        """Send a message on, or count it while the reader is slow."""
        self.pump()
        if self._dropped or not self.flow.room():
            self._dropped += 1
        else:
            self._send(passed.fields())

    def pump(self) -> None:
        """Tell how many were dropped, when the reader can take more."""
        if self._dropped and self.flow.room():
            dropped, self._dropped = self._dropped, 0
            self._send({"dropped": dropped})

    def _send(self, fields: dict[str, Any]) -> None:
        number = self.flow.number()
        more = {} if number is None else {"wseq": number}
        self._reader.send(packb({"seq": self._seq, **fields, **more}))

    def leave(self) -> None:
        """Listen no more."""
        self._taps.remove(self)

    def stop(self) -> None:
        """End it."""
        self.leave()
        self._reader.send(packb({"seq": self._seq, "state": "end"}))
        self._reader.finished(self._seq)
