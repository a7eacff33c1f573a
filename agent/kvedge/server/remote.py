"""Writes that one server makes for another: below a home, see `homes`.

`RemoteWrites` has both sides: it asks, and has the record in the tree before its client is
answered; and it lets its host carry out what others ask for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from kvedge.errors import AgentError, NotConnected, RemoteProtocolError, TimedOut, WriteUncertain
from kvedge.model.stamp import Dot, Rid
from kvedge.model.value import packb
from kvedge.protocol.batches import Carried
from kvedge.protocol.calls import Answered, Called, Calls, Event, Unanswered
from kvedge.protocol.exchange import Kind, Outgoing
from kvedge.protocol.forwarding import (
    VERB,
    Result,
    answer,
    failure,
    question,
    read_answer,
    read_question,
)
from kvedge.protocol.membership import Membership
from kvedge.protocol.messages import DeleteValue, SetValue
from kvedge.server.fences import Fences
from kvedge.server.peers import StoreShelf
from kvedge.server.store import Store

TIMEOUT_S = 10.0
"""How long a write at another node may take: what a broker that restarts takes, and a slow card."""

Write = SetValue | DeleteValue
CarryOut = Callable[[Write, "Deputy"], None]
Told = Callable[[Result], None]


class Ways(Protocol):
    """How what is decided here gets out."""

    def send(self, message: Outgoing) -> None:
        """Send a message."""

    def merge(self, records: list[Carried], bases: dict[Rid, int]) -> None:
        """Take records of another server."""

    def carry_out(self, request: Write, deputy: Deputy) -> None:
        """Make a write; the deputy is answered."""


class Deputy:
    """Stands for a client of another server.  Implements `kvedge.server.commands.Caller`."""

    network = None
    homes = None
    window = 0

    def __init__(
        self,
        store: Store,
        fences: Fences,
        wall_ms: Callable[[], int | None],
        done: Callable[[bytes], None],
    ) -> None:
        self.store = store
        self.fences = fences
        self.wall_ms = wall_ms
        self._done = done

    def knows(self, _: str) -> bool:
        """Tell that the client knows no additions: they are the other server's affair."""
        return False

    def answer(self, _: int, fields: dict[str, Any]) -> None:
        """Take the reply."""
        self._done(packb(fields))

    def answer_packed(self, data: bytes) -> None:
        """Take the reply."""
        self._done(data)

    def fail(self, _: int, error: AgentError) -> None:
        """Take the error."""
        self._done(failure(error))


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Who waits for an answer, until when, and how it is called in messages."""

    what: str
    done: Told
    until_s: float

    def give_up(self) -> None:
        self.done(TimedOut(self.what, TIMEOUT_S))


class RemoteWrites:
    """The writes that this server makes for others, and they for it.

    `calls` may outlive it, but not the incarnation.
    """

    def __init__(
        self,
        calls: Calls,
        store: Store,
        shelf: StoreShelf,
        members: Membership,
        ways: Ways,
        fences: Fences,
        wall_ms: Callable[[], int | None],
    ) -> None:
        self._store = store
        self._fences = fences
        self._shelf = shelf
        self._members = members
        self._ways = ways
        self._wall_ms = wall_ms
        self._calls = calls
        self._waiting: dict[int, _Waiting] = {}
        self._coming: dict[Dot, list[tuple[_Waiting, Result]]] = {}  # to be read here first

    def ask(self, home: Rid, path: str, request: Write, done: Told, now: float) -> None:
        """Have a write made by the node that is the home of its place.

        Args:
            home: Who that is.
            path: The place, for messages.
            request: What is to be done.
            done: Is told the fields of the reply, or what went wrong, when the write can be read
                here.
            now: Boottime in seconds.

        Raises:
            LimitExceeded: It does not fit into a message, or too many are under way.
        """
        what = f"the write at {home.node}, the home of {path}"
        number, events = self._calls.call(home, VERB, question(request), now, timeout_s=TIMEOUT_S)
        self._waiting[number] = _Waiting(what, done, now + TIMEOUT_S)
        self._act(events)

    def receive(self, kind: Kind, sender: Rid, body: bytes) -> None:
        """Take a message of another server."""
        self._act(self._calls.receive(kind, sender, body))

    def tick(self, now: float) -> None:
        """Ask again, or give up."""
        self._act(self._calls.expired(now))
        for dot, answers in list(self._coming.items()):  # the disk may have refused the record
            if all(now >= waiting.until_s for waiting, _ in answers):
                del self._coming[dot]
                _tell_in_vain(answers)

    def settled(self, packed: bytes) -> None:
        """Answer who waits for a record that is in the tree now."""
        if self._coming:
            for waiting, result in self._coming.pop(self._store.dot_of(packed), ()):
                waiting.done(result)

    def end(self) -> None:
        """Tell all who wait that nobody will answer: this life ends."""
        self._calls.give_up()
        waiting, self._waiting = self._waiting, {}
        coming, self._coming = self._coming, {}
        for one in waiting.values():
            one.give_up()
        for answers in coming.values():
            _tell_in_vain(answers)

    def _act(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Outgoing():
                    self._ways.send(event)
                case Called():
                    self._called(event)
                case Answered():
                    self._answered(event)
                case Unanswered():
                    self._waiting.pop(event.number).give_up()

    def _called(self, called: Called) -> None:
        """Make a write for a member; a verb that is not known is one of a newer minor version."""
        if called.verb != VERB or not self._members.takes_updates_of(called.sender.node):
            self._calls.ignore(called)
            return
        try:
            request = read_question(called.body)
        except RemoteProtocolError:
            self._calls.ignore(called)
            raise

        def done(reply: bytes) -> None:
            packed = self._store.get(request.path)
            record = None if packed is None else self._shelf.carried(request.path, packed)
            body = answer(reply, record, self._shelf.base)
            self._ways.send(self._calls.answer(called, body))

        self._ways.carry_out(request, Deputy(self._store, self._fences, self._wall_ms, done))

    def _answered(self, answered: Answered) -> None:
        waiting = self._waiting.pop(answered.number)
        try:
            result, records, bases = read_answer(answered.body)
        except RemoteProtocolError as error:
            waiting.done(WriteUncertain(f"{waiting.what}: {error.why}"))
            raise
        self._ways.merge(records, bases)
        missing = [record.dot for record in records if record.dot not in self._store.seen]
        if missing:
            self._coming.setdefault(missing[0], []).append((waiting, result))
        else:
            waiting.done(result)


def _tell_in_vain(answers: list[tuple[_Waiting, Result]]) -> None:
    """Tell who waited to read a record here that it did not come."""
    for waiting, result in answers:
        if isinstance(result, AgentError):
            waiting.done(result)
        else:
            waiting.give_up()


def away(home: str, path: str) -> NotConnected:
    """Return the error for a write whose home is not there: nothing was done."""
    return NotConnected(f"node {home}", f"it is the home of {path}, and is not there")
