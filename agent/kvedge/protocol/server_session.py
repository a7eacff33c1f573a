"""The server's half of a client connection: greeting, requests, replies, streams.

States: the greeting goes out first; the client may answer it with what it knows (a client of
ours does, with seq 0); then requests come with strictly increasing seq, and each is answered by
one message or by a stream that `start` opens and `end` closes.  A message that breaks these
rules ends the connection, after an error without seq that says why.  A request that is merely
wrong is answered with an error under its seq, and the connection goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kvedge import limits
from kvedge.errors import AgentError, LimitExceeded, RemoteProtocolError, to_wire
from kvedge.protocol.codec import FEATURE_LEVEL, VERSION, encode, is_number
from kvedge.protocol.framing import Framer
from kvedge.protocol.messages import Request, SetRoot, read, read_hello


@dataclass(frozen=True, slots=True)
class Asked:
    """The client wants something; `request.path` is a whole key."""

    seq: int
    request: Request


@dataclass(frozen=True, slots=True)
class Reply:
    """The session itself answers: bytes to send."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Acked:
    """The client has taken the items of a stream up to a number."""

    seq: int
    number: int


@dataclass(frozen=True, slots=True)
class Broken:
    """The rules were broken: send these bytes and end the connection."""

    data: bytes
    why: str


Event = Asked | Reply | Acked | Broken


class ServerSession:
    """One client connection, as the server sees it.

    Attributes:
        features: What the client said it knows; empty for clients of other make.
        window: How many items of a stream it takes without acknowledging; 0 for any number.
        root: The key below which the client's paths lie.
    """

    def __init__(self, *, logged_in: bool) -> None:
        bound = limits.MESSAGE_MAX_BYTES if logged_in else limits.MESSAGE_BEFORE_LOGIN_MAX_BYTES
        self._framer = Framer(bound)
        self._last_seq = 0
        self._answered = False
        self._closed = False
        self.features: frozenset[str] = frozenset()
        self.window = 0
        self.root = b""

    def greeting(self, *, node: str, tick: int, tock: int) -> bytes:
        """Return the first message of the connection."""
        return encode(
            {
                "seq": 0,
                "version": VERSION,
                "kvedge": FEATURE_LEVEL,
                "node": node,
                "tick": tick,
                "tock": tock,
                "qlen": 0,
            }
        )

    def receive(self, data: bytes) -> list[Event]:
        """Return what these bytes come to, in order; nothing once the session is broken."""
        if self._closed:
            return []
        try:
            messages = self._framer.feed(data)
        except (RemoteProtocolError, LimitExceeded) as error:
            return [self._break(error)]
        events: list[Event] = []
        for message in messages:
            event = self._take(message)
            if event is not None:
                events.append(event)
            if isinstance(event, Broken):
                return events
        if self._framer.failure is not None:
            events.append(self._break(self._framer.failure))
        return events

    def _take(self, message: dict[Any, Any]) -> Event | None:
        seq = message.get("seq")
        if seq == 0 and not self._answered and not self._last_seq:
            return self._take_hello(message)
        if not is_number(seq) or not seq:
            return self._break(RemoteProtocolError("a message has no seq, or one below 1"))
        if "action" not in message and "state" in message:
            return _take_state(seq, message)
        if seq <= self._last_seq:
            why = f"seq {seq} came after seq {self._last_seq}"
            return self._break(RemoteProtocolError(why))
        self._last_seq = seq
        try:
            request = read(message, self.root)
        except AgentError as error:
            return Reply(self.error(seq, error))
        if isinstance(request, SetRoot):
            self.root = request.path  # at once: what follows may have come with it
        return Asked(seq, request)

    def _take_hello(self, message: dict[Any, Any]) -> Event | None:
        self._answered = True
        try:
            hello = read_hello(message)
        except AgentError as error:
            return self._break(error)
        self.features = frozenset(hello.kvedge)
        self.window = hello.qlen
        return None

    def _break(self, error: AgentError) -> Broken:
        self._closed = True
        return Broken(encode(self._error_fields(error)), str(error))

    def _error_fields(self, error: AgentError) -> dict[str, object]:
        if "etype" in self.features:
            return to_wire(error)
        return {"error": f"{type(error).__name__}: {error}"}

    # --- what the server sends ------------------------------------------------------------

    def error(self, seq: int, error: AgentError) -> bytes:
        """Return the message that a request failed."""
        return encode({"seq": seq, **self._error_fields(error)})

    def reply(self, seq: int, fields: dict[str, Any]) -> bytes:
        """Return the answer to a request."""
        return encode({"seq": seq, **fields})

    def refusal(self, error: AgentError) -> bytes:
        """Return what is said instead of a greeting."""
        return encode(to_wire(error))


def _take_state(seq: int, message: dict[Any, Any]) -> Acked | None:
    """Return what a client says about a stream; its ends need no answer."""
    number = message.get("ack")
    return Acked(seq, number) if type(number) is int else None
