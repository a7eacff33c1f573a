"""Calls from one server to another: asked until answered, carried out once.

A call names the life of the node that it is for, and a number.  The broker may lose a question or
its answer, so the caller asks again until its time is over; the other side remembers its latest
answers, and gives the one it gave.  What is older than its memory, or belongs to a life that has
ended, is not carried out: then the caller learns that it may have happened.

Sans-IO; times are seconds of a clock that never falls.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from kvedge.errors import LimitExceeded, RemoteProtocolError
from kvedge.model.stamp import Rid
from kvedge.model.value import packb
from kvedge.protocol.batches import read_body
from kvedge.protocol.codec import is_number, is_text
from kvedge.protocol.exchange import Kind, Outgoing

ASK_AGAIN_S = 0.5
"""A broker that is well takes milliseconds, a disk a tenth of a second."""

ANSWERS_MAX = 512
"""Answers that are remembered; a caller asks again for seconds, not for hours."""

ANSWERS_MAX_BYTES = 2 * 1024 * 1024
"""What these take at most, but for the newest one."""

OPEN_MAX = 1024
"""Calls that wait for their answers."""


@dataclass(frozen=True, slots=True)
class Called:
    """Another server wants something done; it is to be answered with `Calls.answer`."""

    sender: Rid
    number: int
    verb: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """A call of ours was answered."""

    number: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A call of ours was not answered in time; it may have been carried out."""

    number: int


Event = Outgoing | Called | Answered | Unanswered


@dataclass(slots=True)
class _Open:
    to: Rid
    packed: bytes
    again_s: float
    until_s: float


class Calls:
    """The calls of one server, both ways."""

    def __init__(self, rid: Rid) -> None:
        self._rid = rid
        self._number = 0
        self._open: dict[int, _Open] = {}
        self._under_way: set[tuple[Rid, int]] = set()
        self._answers: OrderedDict[tuple[Rid, int], bytes] = OrderedDict()
        self._answers_bytes = 0
        # Up to which call of a node, as (incarnation, number), answers are remembered no more.
        self._forgotten: dict[str, tuple[int, int]] = {}

    # --- asking -------------------------------------------------------------------------------

    def call(
        self, to: Rid, verb: str, body: bytes, now: float, *, timeout_s: float
    ) -> tuple[int, list[Event]]:
        """Ask another server for something; return the call's number, and what to send.

        Raises:
            LimitExceeded: Too many calls are open.
        """
        if len(self._open) >= OPEN_MAX:
            what = "the list of open calls"
            raise LimitExceeded(what, actual=OPEN_MAX + 1, limit=OPEN_MAX, unit="calls")
        self._number += 1
        packed = packb((to.incarnation, self._number, verb, body))
        made = _Open(to, packed, now + ASK_AGAIN_S, now + timeout_s)
        self._open[self._number] = made
        return self._number, [Outgoing(Kind.CALL, to.node, packed)]

    def expired(self, now: float) -> list[Event]:
        """Ask again, or give up."""
        events: list[Event] = []
        for number, call in list(self._open.items()):
            if now >= call.until_s:
                del self._open[number]
                events.append(Unanswered(number))
            elif now >= call.again_s:
                call.again_s = now + ASK_AGAIN_S
                events.append(Outgoing(Kind.CALL, call.to.node, call.packed))
        return events

    def give_up(self) -> None:
        """Ask for nothing any more; numbers are not used again."""
        self._open.clear()

    # --- being asked --------------------------------------------------------------------------

    def receive(self, kind: Kind, sender: Rid, body: bytes) -> list[Event]:
        """Take a message of another server.

        Raises:
            RemoteProtocolError: It is wrong.
        """
        if kind is Kind.CALL:
            return self._take_call(sender, body)
        if kind is Kind.ANSWER:
            return self._take_answer(sender, body)
        return []

    def _take_call(self, sender: Rid, body: bytes) -> list[Event]:
        incarnation, number, verb, inner = read_body(body, 4)[:4]
        if not (is_number(number) and is_text(verb) and isinstance(inner, bytes)):
            raise RemoteProtocolError("a server's message is wrong in its call")
        if incarnation != self._rid.incarnation:
            return []
        key = sender, number
        known = self._answers.get(key)
        if known is not None:
            return [Outgoing(Kind.ANSWER, sender.node, known)]
        newest_forgotten = self._forgotten.get(sender.node, (0, 0))
        if key in self._under_way or (sender.incarnation, number) <= newest_forgotten:
            return []
        self._under_way.add(key)
        return [Called(sender, number, verb, inner)]

    def ignore(self, called: Called) -> None:
        """Forget a call that is not carried out; it is taken up anew when it comes again."""
        self._under_way.discard((called.sender, called.number))

    def answer(self, called: Called, body: bytes) -> Outgoing:
        """Answer a call; the answer is remembered for a while."""
        packed = packb((called.sender.incarnation, called.number, body))
        self._under_way.discard((called.sender, called.number))
        self._answers[called.sender, called.number] = packed
        self._answers_bytes += len(packed)
        while len(self._answers) > 1 and (
            len(self._answers) > ANSWERS_MAX or self._answers_bytes > ANSWERS_MAX_BYTES
        ):
            (sender, number), old = self._answers.popitem(last=False)
            self._answers_bytes -= len(old)
            newest = self._forgotten.get(sender.node, (0, 0))
            self._forgotten[sender.node] = max(newest, (sender.incarnation, number))
        return Outgoing(Kind.ANSWER, called.sender.node, packed)

    def _take_answer(self, sender: Rid, body: bytes) -> list[Event]:
        incarnation, number, inner = read_body(body, 3)[:3]
        if not (is_number(number) and isinstance(inner, bytes)):
            raise RemoteProtocolError("a server's message is wrong in its answer")
        call = self._open.get(number)
        if incarnation != self._rid.incarnation or call is None or call.to != sender:
            return []
        del self._open[number]
        return [Answered(number, inner)]
