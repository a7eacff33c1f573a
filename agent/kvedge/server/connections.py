"""One client connection of the server: a session, its streams, and what is held back.

A client that reads too slowly is read no further itself, and what it has asked for already waits,
so that at most a send buffer and one answer wait for it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kvedge import limits
from kvedge.errors import AgentError, LimitExceeded
from kvedge.protocol.server_session import Acked, Asked, Event, Reply, ServerSession
from kvedge.server.commands import COMMANDS
from kvedge.server.store import Store
from kvedge.server.streams import TreeStream, Watch
from kvedge.server.traffic import Traffic

if TYPE_CHECKING:
    from kvedge.server.fences import Fences
    from kvedge.server.homes import Homes
    from kvedge.server.network import Network
    from kvedge.server.server import Server
    from kvedge.transport.aio import Link

log = logging.getLogger(__name__)


class Connection:
    """A client of the server; the handler of its link."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._session = ServerSession(logged_in=True)
        self._streams: dict[int, TreeStream | Watch | Traffic] = {}
        self._events: deque[Event] = deque()  # came, and wait for their turn
        self._unanswered = 0
        self._is_paused = False
        self._is_due = False
        self._link: Link | None = None

    # --- what the link tells --------------------------------------------------------------

    def opened(self, link: Link) -> None:
        """Greet, or refuse one connection too many."""
        self._link = link
        store = self.store
        if not self._server.admit(self):
            error = LimitExceeded(
                "the server",
                actual=limits.CONNECTIONS_MAX,
                limit=limits.CONNECTIONS_MAX,
                unit="connections",
            )
            link.write(self._session.refusal(error))
            link.close()
            return
        log.debug("%s connected", link.peer)
        self.send(
            self._session.greeting(node=store.rid.node, tick=store.tick_shown, tock=store.tock)
        )

    def received(self, data: bytes) -> None:
        """Work through what came."""
        self._events.extend(self._session.receive(data))
        self.proceed()

    def drained(self) -> None:
        """Go on with what the slow reader was spared."""
        for stream in list(self._streams.values()):
            stream.pump()
        self.proceed()

    def closed(self) -> None:
        """Drop what belonged to the connection; writes under way go on."""
        for stream in self._streams.values():
            self._leave(stream)
        self._streams.clear()
        self._events.clear()
        self._server.dismiss(self)
        if self._link is not None:
            log.debug("%s disconnected", self._link.peer)
        self._link = None

    def _run(self, event: Asked) -> None:
        try:
            COMMANDS[type(event.request)](self, event.seq, event.request)
        except AgentError as error:
            self.fail(event.seq, error)

    def _go_on(self, event: Acked) -> None:
        stream = self._streams.get(event.seq)
        if stream is not None:
            stream.flow.ack(event.number)
            stream.pump()

    def _end(self, data: bytes, why: str) -> None:
        assert self._link is not None
        log.warning("%s broke the rules and is disconnected: %s", self._link.peer, why)
        self.send(data)
        self._link.close()

    def proceed(self) -> None:
        """Work through what waits, as far as may be, and stop or resume reading accordingly."""
        self._is_due = False
        if self._link is None:
            return
        if self._is_paused and not self._is_held():
            self._is_paused = False
            self._link.resume()
        while self._events and not self._is_held():
            self._take(self._events.popleft())
        if self._is_held():
            self._is_paused = True
            self._link.pause()

    def _is_held(self) -> bool:
        """Tell whether too much is under way.  Whatever ends that calls `proceed`."""
        store = self.store
        if (
            store.pending_count > limits.COMMIT_WAITING_MAX
            or store.pending_bytes > limits.COMMIT_WAITING_MAX_BYTES
        ):
            self._server.hold(self)
            return True
        return self.is_slow() or self._unanswered > limits.REQUESTS_OPEN_MAX

    def _take(self, event: Event) -> None:
        if isinstance(event, Asked):
            self._unanswered += 1
            self._run(event)
        elif isinstance(event, Reply):
            self.send(event.data)
        elif isinstance(event, Acked):
            self._go_on(event)
        else:
            self._end(event.data, event.why)

    # --- what commands may do -------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The server's store."""
        return self._server.store

    @property
    def network(self) -> Network | None:
        """The server's part among its peers; None where it works alone."""
        return self._server.network

    @property
    def fences(self) -> Fences:
        """The highest fence of each job."""
        return self._server.fences

    @property
    def homes(self) -> Homes | None:
        """Which node writes what."""
        return self._server.homes

    @property
    def window(self) -> int:
        """How many items of a stream the client takes without acknowledging; 0 for any."""
        return self._session.window

    def wall_ms(self) -> int | None:
        """Return unix milliseconds, None while the clock is not synchronised."""
        return self._server.wall_ms()

    def knows(self, feature: str) -> bool:
        """Tell whether the client said that it knows a feature."""
        return feature in self._session.features

    def send(self, data: bytes) -> None:
        """Send bytes; dropped when the connection is gone."""
        if self._link is not None:
            self._link.write(data)

    def is_slow(self) -> bool:
        """Tell whether the other side should be given no more for now."""
        return self._link is None or self._link.is_congested

    def later(self, call: Callable[[], None]) -> None:
        """Call back when others have had their turn."""
        self._server.later(call)

    def answer(self, seq: int, fields: dict[str, Any]) -> None:
        """Answer a request."""
        self.answer_packed(self._session.reply(seq, fields))

    def answer_packed(self, data: bytes) -> None:
        """Answer a request with a message that is ready."""
        self._unanswered -= 1
        self.send(data)
        if self._is_paused and not self._is_due:
            self._is_due = True
            self.later(self.proceed)

    def fail(self, seq: int, error: AgentError) -> None:
        """Answer a request with an error."""
        self.answer_packed(self._session.error(seq, error))

    def open(self, seq: int, stream: TreeStream | Watch | Traffic) -> None:
        """Take up a stream and start it."""
        if len(self._streams) >= limits.STREAMS_MAX:
            raise LimitExceeded(
                "the connection",
                actual=len(self._streams) + 1,
                limit=limits.STREAMS_MAX,
                unit="streams",
            )
        self._unanswered -= 1
        self._streams[seq] = stream
        if isinstance(stream, Watch):
            self._server.watchers.add(stream)
        stream.pump()

    def stop(self, seq: int) -> bool:
        """End a stream; False where there is none."""
        stream = self._streams.get(seq)
        if stream is None:
            return False
        stream.stop()
        return True

    def finished(self, seq: int) -> None:
        """Forget a stream that has ended."""
        stream = self._streams.pop(seq, None)
        if stream is not None:
            self._leave(stream)

    def _leave(self, stream: TreeStream | Watch | Traffic) -> None:
        """Tell a stream of nothing more."""
        if isinstance(stream, Watch):
            self._server.watchers.remove(stream)
        elif isinstance(stream, Traffic):
            stream.leave()

    def close(self) -> None:
        """End the connection after what was written is out."""
        if self._link is not None:
            self._link.close()
