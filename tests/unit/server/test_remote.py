"""Writes that one server makes for another: who is answered, when, and with what."""

from __future__ import annotations

from typing import Any

import pytest

from kvedge.errors import (
    AgentError,
    ChainMismatch,
    FencedOff,
    LimitExceeded,
    RemoteProtocolError,
    TimedOut,
    WriteRefused,
    WriteUncertain,
)
from kvedge.model.entry import Fence, fence_of
from kvedge.model.path import P
from kvedge.model.stamp import Dot, Rid
from kvedge.model.value import MISSING, packb
from kvedge.model.vector import Vector
from kvedge.protocol import calls as calls_module
from kvedge.protocol.batches import Carried
from kvedge.protocol.calls import ASK_AGAIN_S, Calls
from kvedge.protocol.exchange import Kind, Outgoing
from kvedge.protocol.membership import Membership, Record, State
from kvedge.protocol.messages import DeleteValue, SetValue
from kvedge.server.commands import carry_out
from kvedge.server.fences import Fences
from kvedge.server.peers import StoreShelf
from kvedge.server.records import Loaded
from kvedge.server.remote import TIMEOUT_S, Deputy, RemoteWrites, away
from kvedge.server.store import Store

ME, HOME = Rid("me", 5 << 40), Rid("home", 2 << 40)
A = P("a").key
Asked = SetValue | DeleteValue


class Log:
    """Counts."""

    def __init__(self) -> None:
        self.number = 0

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        self.number += 1
        return self.number


class Board:
    """One server: its disk and its messages wait for the test."""

    def __init__(self, rid: Rid, base: int) -> None:
        self.rid = rid
        self.log = Log()
        self.store = Store(rid, base, Loaded(), self.log)
        self.shelf = StoreShelf(self.store)
        self.fences = Fences(self.store)
        self.members = Membership(
            rid, Vector(), self.shelf.base, is_fresh=True, kept={}, unheard_s={}
        )
        self.members.records = {node: Record(State.MEMBER) for node in ("me", "home")}
        self.sent: list[Outgoing] = []
        self.carried_out: list[Asked] = []
        self.told: list[Any] = []
        self.is_holding_back = False
        self.calls = Calls(rid)
        self.live()

    def live(self) -> None:
        self.remote = RemoteWrites(
            self.calls, self.store, self.shelf, self.members, self, self.fences, lambda: None
        )

    # --- Ways ---------------------------------------------------------------------------------

    def send(self, message: Outgoing) -> None:
        self.sent.append(message)

    def merge(self, records: list[Carried], bases: dict[Rid, int]) -> None:
        for record in () if self.is_holding_back else records:
            self.store.take(record, bases)

    def carry_out(self, request: Asked, deputy: Deputy) -> None:
        self.carried_out.append(request)
        carry_out(request, deputy)

    # --- by hand --------------------------------------------------------------------------------

    def ask(self, request: Asked, now: float = 0.0) -> None:
        self.remote.ask(HOME, "a", request, self.told.append, now)

    def sync(self) -> None:
        for pending in self.store.confirm(written_to=self.log.number, synced_to=self.log.number):
            self.shelf.settled(pending)
            self.remote.settled(pending.packed)
            pending.done(None)

    def write(self, value: object) -> None:
        packed: Any = MISSING if value is MISSING else packb(value)
        self.store.write(A, packed, wall_ms=None, relaxed=False, done=lambda _: None)
        self.sync()

    def deliver(self, to: Board, *, times: int = 1) -> None:
        """Bring what was sent to another one."""
        sent, self.sent = self.sent, []
        for message in sent * times:
            assert message.to == to.rid.node
            to.remote.receive(message.kind, self.rid, message.body)


class Pair:
    """Who asks, and the home."""

    def __init__(self) -> None:
        self.me, self.home = Board(ME, 100), Board(HOME, 2000)

    def run(self, request: Asked) -> Any:
        """Have a write made; return what the asker is told."""
        self.me.ask(request)
        self.me.deliver(self.home)
        self.home.sync()
        self.home.deliver(self.me)
        self.me.sync()
        [told] = self.me.told
        return told


@pytest.fixture
def pair() -> Pair:
    """Two members of a network."""
    return Pair()


# --- it works ---------------------------------------------------------------------------------


def test_a_write_is_made_at_the_home_and_told_as_it_was_there(pair: Pair) -> None:
    told = pair.run(SetValue(A, packb("v"), nchain=2))
    assert told["changed"] is True
    assert told["chain"] == {"node": "home", "tick": 2001, "prev": None}
    assert "seq" not in told
    mine, theirs = pair.me.store.get(A), pair.home.store.get(A)
    assert mine is not None
    assert theirs is not None
    assert pair.me.store.shown_links(mine) == pair.home.store.shown_links(theirs)
    assert pair.me.store.dot_of(mine) == Dot(HOME, 1)


def test_it_is_answered_when_it_can_be_read_here(pair: Pair) -> None:
    pair.me.ask(SetValue(A, packb("v")))
    pair.me.deliver(pair.home)
    assert pair.home.sent == []  # its disk has nothing yet
    pair.home.sync()
    pair.home.deliver(pair.me)
    assert pair.me.told == []  # nor has ours
    assert pair.me.store.get(A) is None
    pair.me.sync()
    assert len(pair.me.told) == 1
    assert pair.me.store.get(A) is not None


def test_it_is_answered_at_once_where_the_record_is_here(pair: Pair) -> None:
    pair.me.ask(SetValue(A, packb("v")))
    pair.me.deliver(pair.home)
    pair.home.sync()
    packed = pair.home.store.get(A)
    assert packed is not None
    pair.me.merge([pair.home.shelf.carried(A, packed)], {HOME: 2000})  # the update was faster
    pair.me.sync()
    pair.home.deliver(pair.me)
    assert len(pair.me.told) == 1


def test_a_deletion(pair: Pair) -> None:
    pair.home.write("old")
    told = pair.run(DeleteValue(A))
    assert (told["changed"], told["prev"]) == (True, "old")


def test_a_large_value_in_the_place_of_a_large_one(pair: Pair) -> None:
    pair.home.write(bytes(200_000))
    told = pair.run(SetValue(A, packb(bytes(150_000))))
    assert told["changed"] is True
    assert "prev" not in told  # both do not fit into one message
    with pytest.raises(LimitExceeded):
        pair.me.ask(SetValue(A, packb(bytes(150_000)), prev=packb(bytes(150_000))))


def test_nothing_there_and_nothing_to_do(pair: Pair) -> None:
    assert pair.run(DeleteValue(A))["changed"] is False
    assert pair.me.store.get(A) is None


def test_a_fence_goes_with_it(pair: Pair) -> None:
    pair.run(SetValue(A, packb("v"), fence=Fence("job", 5)))
    assert fence_of(pair.me.store.get(A) or b"") == Fence("job", 5)
    pair.me.told.clear()
    pair.home.fences.check(Fence("job", 7))
    told = pair.run(SetValue(A, packb("late"), fence=Fence("job", 5)))
    assert type(told) is FencedOff


def test_who_expected_something_else_is_told_and_can_read_what_is_there(pair: Pair) -> None:
    pair.home.write("theirs")
    told = pair.run(SetValue(A, packb("v"), chain=None))
    assert type(told) is ChainMismatch
    assert told.certain
    assert pair.me.store.get(A) is not None


def test_two_who_wait_for_the_same_record_are_both_told(pair: Pair) -> None:
    """Both were too late for the same winner."""
    pair.home.write("theirs")
    for _ in range(2):
        pair.me.ask(SetValue(A, packb("v"), chain=None))
    pair.me.deliver(pair.home)
    pair.home.deliver(pair.me)
    pair.me.sync()
    assert [type(told) for told in pair.me.told] == [ChainMismatch, ChainMismatch]


# --- a broker that loses and repeats ----------------------------------------------------------


def test_a_question_that_was_lost_is_asked_again(pair: Pair) -> None:
    pair.me.ask(SetValue(A, packb("v")))
    pair.me.sent.clear()
    pair.me.remote.tick(ASK_AGAIN_S)
    pair.me.deliver(pair.home)
    assert len(pair.home.carried_out) == 1


def test_what_comes_twice_is_made_once(pair: Pair) -> None:
    pair.me.ask(SetValue(A, packb("v"), chain=None))
    pair.me.remote.tick(ASK_AGAIN_S)
    pair.me.deliver(pair.home, times=3)
    pair.home.sync()
    pair.me.remote.tick(2 * ASK_AGAIN_S)
    pair.me.deliver(pair.home)
    assert len(pair.home.carried_out) == 1
    pair.home.deliver(pair.me, times=2)
    pair.me.sync()
    assert [told["changed"] for told in pair.me.told] == [True]


def test_without_an_answer_it_may_have_happened(pair: Pair) -> None:
    pair.me.ask(SetValue(A, packb("v")), now=50.0)
    pair.me.remote.tick(50.0 + TIMEOUT_S - 0.1)
    assert pair.me.told == []
    pair.me.remote.tick(50.0 + TIMEOUT_S)
    [told] = pair.me.told
    assert type(told) is TimedOut
    assert not told.certain
    assert "home, the home of a" in str(told)
    pair.me.remote.tick(1000.0)
    assert len(pair.me.told) == 1


def test_an_answer_that_comes_too_late_is_passed_over(pair: Pair) -> None:
    pair.me.ask(SetValue(A, packb("v")))
    pair.me.deliver(pair.home)
    pair.home.sync()
    pair.me.remote.tick(TIMEOUT_S)
    pair.home.deliver(pair.me)
    pair.me.sync()
    assert [type(told) for told in pair.me.told] == [TimedOut]


def test_an_answer_that_cannot_be_read_ends_the_wait(pair: Pair) -> None:
    pair.me.ask(SetValue(A, packb("v")))
    with pytest.raises(RemoteProtocolError):
        pair.me.remote.receive(Kind.ANSWER, HOME, packb((ME.incarnation, 1, b"\xc1")))
    [told] = pair.me.told
    assert type(told) is WriteUncertain
    assert not told.certain


def test_open_calls_are_bounded(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "OPEN_MAX", 1)
    pair.me.ask(SetValue(A, packb(1)))
    with pytest.raises(LimitExceeded):
        pair.me.ask(SetValue(A, packb(2)))
    pair.me.remote.tick(TIMEOUT_S)
    assert len(pair.me.told) == 1


# --- a record that does not come --------------------------------------------------------------

LOST: dict[str, tuple[Asked, type[AgentError]]] = {
    "a write": (SetValue(A, packb("v")), TimedOut),
    "a write that failed": (SetValue(A, packb("v"), chain=None), ChainMismatch),
}


@pytest.mark.parametrize("name", LOST)
@pytest.mark.parametrize("how", ["refused by the disk", "held for its clock"])
def test_who_waits_for_a_record_that_does_not_come_is_told_in_time(
    how: str, name: str, pair: Pair
) -> None:
    request, expected = LOST[name]
    if name == "a write that failed":
        pair.home.write("theirs")
    pair.me.is_holding_back = how == "held for its clock"
    pair.me.ask(request, now=50.0)
    pair.me.deliver(pair.home)
    pair.home.sync()
    pair.home.deliver(pair.me)
    if how == "refused by the disk":
        for pending in pair.me.store.refuse(1):
            pending.done(WriteRefused("full"))
    pair.me.remote.tick(50.0 + TIMEOUT_S - 0.1)
    assert pair.me.told == []
    pair.me.remote.tick(50.0 + TIMEOUT_S)
    assert [type(told) for told in pair.me.told] == [expected]
    pair.me.remote.end()
    assert len(pair.me.told) == 1


# --- who may ask ------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [None, State.EXPIRED])
def test_who_is_no_member_asks_in_vain_until_it_is_one(state: State | None, pair: Pair) -> None:
    del pair.home.members.records["me"]
    if state is not None:
        pair.home.members.records["me"] = Record(state)
    pair.me.ask(SetValue(A, packb("v")))
    pair.me.deliver(pair.home)
    assert pair.home.carried_out == []
    assert pair.home.sent == []
    pair.home.members.records["me"] = Record(State.MEMBER)
    pair.me.remote.tick(ASK_AGAIN_S)
    pair.me.deliver(pair.home)
    assert len(pair.home.carried_out) == 1


def test_a_verb_of_a_newer_version_is_passed_over(pair: Pair) -> None:
    _, [sent] = Calls(ME).call(HOME, "novelty", b"", 0.0, timeout_s=1.0)
    assert isinstance(sent, Outgoing)
    pair.home.remote.receive(sent.kind, ME, sent.body)
    assert pair.home.sent == []


def test_a_call_for_nothing_that_is_known_is_refused_each_time(pair: Pair) -> None:
    _, [sent] = Calls(ME).call(HOME, "write", b"\xc1", 0.0, timeout_s=1.0)
    assert isinstance(sent, Outgoing)
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            pair.home.remote.receive(sent.kind, ME, sent.body)
    assert pair.home.carried_out == []


# --- lives that end ---------------------------------------------------------------------------


def test_at_the_end_of_a_life_all_who_wait_are_told(pair: Pair) -> None:
    pair.me.ask(SetValue(P("b").key, packb(1)))
    pair.me.ask(SetValue(A, packb("v")))
    [_, second] = pair.me.sent
    pair.me.sent = [second]
    pair.me.deliver(pair.home)
    pair.home.sync()
    pair.home.deliver(pair.me)  # one waits for its answer, the other for its record
    assert pair.me.told == []
    pair.me.remote.end()
    assert [type(told) for told in pair.me.told] == [TimedOut, TimedOut]
    pair.me.remote.end()
    pair.me.sync()
    pair.me.remote.tick(1000.0)
    assert len(pair.me.told) == 2


def test_the_answer_to_an_earlier_question_is_not_taken_for_that_to_a_new_one(pair: Pair) -> None:
    """A board that takes a copy asks as the life that it will begin, before and after."""
    pair.run(SetValue(A, packb("before")))
    pair.me.remote.end()
    pair.me.live()
    pair.me.told.clear()
    pair.run(SetValue(A, packb("after")))
    assert len(pair.home.carried_out) == 2
    assert pair.me.store.get(A) == pair.me.store.newest(A)
    packed = pair.home.store.get(A)
    assert packed is not None
    assert packed.endswith(packb("after"))


def test_a_home_that_has_begun_anew_does_not_make_what_its_earlier_life_was_asked(
    pair: Pair,
) -> None:
    pair.me.ask(SetValue(A, packb("v")))
    later = Board(Rid("home", 3 << 40), 5000)
    pair.me.deliver(later)
    assert later.carried_out == []
    assert later.sent == []


def test_a_home_that_is_away_is_named() -> None:
    error = away("home", "a.b")
    assert error.certain
    assert str(error) == "cannot reach node home: it is the home of a.b, and is not there"
