"""Calls between servers: asked until answered, carried out once, whatever the broker does."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kvedge.errors import LimitExceeded, RemoteProtocolError
from kvedge.model.stamp import Rid
from kvedge.model.value import packb
from kvedge.protocol import calls as module
from kvedge.protocol.calls import (
    ANSWERS_MAX,
    ANSWERS_MAX_BYTES,
    ASK_AGAIN_S,
    OPEN_MAX,
    Answered,
    Called,
    Calls,
    Unanswered,
)
from kvedge.protocol.exchange import Kind, Outgoing

ME, HOME, LATER, OTHER = Rid("me", 1), Rid("home", 5), Rid("home", 6), Rid("other", 5)
TIMEOUT_S = 10.0


def asked(calls: Calls, to: Rid = HOME, *, body: bytes = b"b", now: float = 0.0) -> Outgoing:
    """Call, and return the question that is to be sent."""
    _, [sent] = calls.call(to, "verb", body, now, timeout_s=TIMEOUT_S)
    assert isinstance(sent, Outgoing)
    return sent


def called(calls: Calls, question: Outgoing, sender: Rid = ME) -> Called:
    [event] = calls.receive(Kind.CALL, sender, question.body)
    assert isinstance(event, Called)
    return event


def question(number: int, incarnation: int = HOME.incarnation) -> bytes:
    return packb((incarnation, number, "verb", b"b"))


def answered(home: Calls, number: int, body: bytes = b"x", sender: Rid = ME) -> Outgoing:
    """Let a home carry out a call."""
    [event] = home.receive(Kind.CALL, sender, question(number))
    assert isinstance(event, Called)
    return home.answer(event, body)


# --- asking -----------------------------------------------------------------------------------


def test_a_call_and_its_answer() -> None:
    me, home = Calls(ME), Calls(HOME)
    number, [sent] = me.call(HOME, "verb", b"question", 0.0, timeout_s=TIMEOUT_S)
    assert isinstance(sent, Outgoing)
    assert (sent.kind, sent.to) == (Kind.CALL, "home")
    [event] = home.receive(Kind.CALL, ME, sent.body)
    assert event == Called(ME, number, "verb", b"question")
    back = home.answer(event, b"answer")
    assert (back.kind, back.to) == (Kind.ANSWER, "me")
    assert me.receive(Kind.ANSWER, HOME, back.body) == [Answered(number, b"answer")]
    assert me.receive(Kind.ANSWER, HOME, back.body) == []  # it comes twice


def test_it_is_asked_again_until_the_time_is_over() -> None:
    me = Calls(ME)
    sent = asked(me, now=100.0)
    asked_at = []
    now = 100.0
    while now < 100.0 + TIMEOUT_S - 0.1:
        now += 0.1
        for event in me.expired(now):
            assert event == sent
            asked_at.append(now)
    assert asked_at[0] == pytest.approx(100.0 + ASK_AGAIN_S, abs=0.11)
    gaps = [two - one for one, two in pairwise(asked_at)]
    assert all(ASK_AGAIN_S - 0.01 <= gap <= ASK_AGAIN_S + 0.11 for gap in gaps)
    assert me.expired(100.0 + TIMEOUT_S) == [Unanswered(1)]
    assert me.expired(1000.0) == []


def test_it_is_not_asked_again_once_it_is_answered() -> None:
    me, home = Calls(ME), Calls(HOME)
    back = home.answer(called(home, asked(me)), b"")
    me.receive(Kind.ANSWER, HOME, back.body)
    assert me.expired(1000.0) == []


def test_what_is_given_up_is_not_asked_and_its_number_not_used_again() -> None:
    me, home = Calls(ME), Calls(HOME)
    old = home.answer(called(home, asked(me)), b"old")
    me.give_up()
    assert me.expired(1000.0) == []
    number, _ = me.call(HOME, "verb", b"new", 1000.0, timeout_s=TIMEOUT_S)
    assert number == 2
    assert me.receive(Kind.ANSWER, HOME, old.body) == []


def test_open_calls_are_bounded() -> None:
    me = Calls(ME)
    for _ in range(OPEN_MAX):
        asked(me)
    with pytest.raises(LimitExceeded, match=r"the list of open calls.*1025.*1024 calls"):
        asked(me)
    assert len(me.expired(TIMEOUT_S)) == OPEN_MAX
    asked(me)


WRONG_ANSWERS: dict[str, tuple[Rid, tuple[Any, ...]]] = {
    "of somebody else": (OTHER, (ME.incarnation, 1, b"")),
    "of another life of the home": (LATER, (ME.incarnation, 1, b"")),
    "for another life of ours": (HOME, (ME.incarnation + 1, 1, b"")),
    "for a call that was not made": (HOME, (ME.incarnation, 2, b"")),
}


@pytest.mark.parametrize("name", WRONG_ANSWERS)
def test_answers_that_are_not_the_one_that_is_awaited(name: str) -> None:
    sender, parts = WRONG_ANSWERS[name]
    me = Calls(ME)
    asked(me)
    assert me.receive(Kind.ANSWER, sender, packb(parts)) == []
    assert me.receive(Kind.ANSWER, HOME, packb((ME.incarnation, 1, b""))) == [Answered(1, b"")]


# --- being asked ------------------------------------------------------------------------------


def test_it_is_carried_out_once_and_answered_as_often_as_it_is_asked() -> None:
    home = Calls(HOME)
    event = home.receive(Kind.CALL, ME, question(1))[0]
    assert isinstance(event, Called)
    assert home.receive(Kind.CALL, ME, question(1)) == []  # it is being carried out
    back = home.answer(event, b"answer")
    assert home.receive(Kind.CALL, ME, question(1)) == [back]
    assert home.receive(Kind.CALL, ME, question(1)) == [back]


def test_callers_and_their_lives_have_numbers_of_their_own() -> None:
    home = Calls(HOME)
    for sender in (ME, OTHER, Rid(ME.node, ME.incarnation + 1)):
        assert home.receive(Kind.CALL, sender, question(1)) == [Called(sender, 1, "verb", b"b")]


@pytest.mark.parametrize("incarnation", [HOME.incarnation - 1, HOME.incarnation + 1, "5", None])
def test_a_call_for_another_life_is_not_carried_out(incarnation: Any) -> None:
    assert Calls(HOME).receive(Kind.CALL, ME, question(1, incarnation)) == []


def test_what_was_ignored_is_taken_up_when_it_comes_again() -> None:
    home = Calls(HOME)
    event = called(home, asked(Calls(ME)))
    home.ignore(event)
    assert home.receive(Kind.CALL, ME, question(1)) == [event]


def test_answers_beyond_the_memory_are_not_given_and_calls_not_carried_out_again() -> None:
    """Or a broker that is slow makes a write happen twice."""
    home = Calls(HOME)
    for number in range(1, ANSWERS_MAX + 3):
        answered(home, number)
    assert [home.receive(Kind.CALL, ME, question(number)) for number in (1, 2)] == [[], []]
    assert home.receive(Kind.CALL, ME, question(3)) != []
    assert home.receive(Kind.CALL, OTHER, question(1)) != []  # that is another one's
    assert home.receive(Kind.CALL, Rid("me", 0), question(3)) == []  # a life that is over
    assert home.receive(Kind.CALL, Rid("me", 2), question(1)) != []


def test_what_takes_long_is_carried_out_once_whatever_is_answered_meanwhile() -> None:
    home = Calls(HOME)
    slow = home.receive(Kind.CALL, ME, question(1))[0]
    assert isinstance(slow, Called)
    for number in range(2, ANSWERS_MAX + 10):
        answered(home, number)
    assert home.receive(Kind.CALL, ME, question(1)) == []
    back = home.answer(slow, b"late")
    assert home.receive(Kind.CALL, ME, question(1)) == [back]


def test_remembered_answers_are_bounded_in_bytes() -> None:
    home = Calls(HOME)
    size = ANSWERS_MAX_BYTES // 4
    for number in range(1, 7):
        answered(home, number, bytes(size))
    known = [number for number in range(1, 7) if home.receive(Kind.CALL, ME, question(number))]
    assert known == [4, 5, 6]
    answered(home, 7, bytes(2 * ANSWERS_MAX_BYTES))
    assert home.receive(Kind.CALL, ME, question(7)) != []  # the newest one, however large
    answered(home, 8)
    answered(home, 9)
    assert [bool(home.receive(Kind.CALL, ME, question(n))) for n in (7, 8, 9)] == [
        False, True, True
    ]  # fmt: skip


# --- wrong messages ---------------------------------------------------------------------------

WRONG: dict[str, tuple[Kind, bytes]] = {
    "no msgpack": (Kind.CALL, b"\xc1"),
    "no list": (Kind.CALL, packb({"a": 1})),
    "a call that is too short": (Kind.CALL, packb((5, 1, "verb"))),
    "a number that is none": (Kind.CALL, packb((5, "1", "verb", b""))),
    "a truth value as a number": (Kind.CALL, packb((5, True, "verb", b""))),
    "a negative number": (Kind.CALL, packb((5, -1, "verb", b""))),
    "a huge number": (Kind.CALL, packb((5, 1 << 63, "verb", b""))),
    "a verb that is no text": (Kind.CALL, packb((5, 1, b"verb", b""))),
    "a verb that is no Unicode": (Kind.CALL, b"\x94\x05\x01\xa1\xff\xc4\x00"),
    "a body of text": (Kind.CALL, packb((5, 1, "verb", ""))),
    "no body": (Kind.CALL, packb((5, 1, "verb", None))),
    "an answer that is too short": (Kind.ANSWER, packb((5, 1))),
    "an answer's number": (Kind.ANSWER, packb((5, 1.0, b""))),
    "an answer's body": (Kind.ANSWER, packb((5, 1, {}))),
    "nothing": (Kind.ANSWER, b""),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_messages_are_refused(name: str) -> None:
    kind, body = WRONG[name]
    with pytest.raises(RemoteProtocolError):
        Calls(HOME).receive(kind, ME, body)


@given(st.sampled_from([Kind.CALL, Kind.ANSWER]), st.binary(max_size=40))
def test_random_bytes_are_refused_or_mean_nothing(kind: Kind, body: bytes) -> None:
    calls = Calls(HOME)
    try:
        events = calls.receive(kind, ME, body)
    except RemoteProtocolError:
        return
    assert all(isinstance(event, Called) for event in events)


def test_more_parts_come_from_newer_versions() -> None:
    body = packb((HOME.incarnation, 1, "verb", b"b", "new"))
    assert Calls(HOME).receive(Kind.CALL, ME, body) == [Called(ME, 1, "verb", b"b")]
    me = Calls(ME)
    asked(me)
    body = packb((ME.incarnation, 1, b"answer", "new"))
    assert me.receive(Kind.ANSWER, HOME, body) == [Answered(1, b"answer")]


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.CALL, Kind.ANSWER)])
def test_other_messages_are_none_of_theirs(kind: Kind) -> None:
    assert Calls(HOME).receive(kind, ME, b"anything") == []


# --- any broker -------------------------------------------------------------------------------


class AnyBroker(RuleBasedStateMachine):
    """Loses, repeats, delays and reorders; the memory is small, so that it is left often."""

    def __init__(self) -> None:
        super().__init__()
        self.max, module.ANSWERS_MAX = module.ANSWERS_MAX, 3
        self.me, self.home = Calls(ME), Calls(HOME)
        self.now = 0.0
        self.on_the_way: list[tuple[Kind, bytes]] = []
        self.carried_out: list[int] = []
        self.under_way: list[Called] = []
        self.open: set[int] = set()
        self.told: list[int] = []

    def teardown(self) -> None:
        module.ANSWERS_MAX = self.max

    def act(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, Outgoing):
                self.on_the_way.append((event.kind, event.body))
            elif isinstance(event, Called):
                self.carried_out.append(event.number)
                self.under_way.append(event)
            else:
                if isinstance(event, Answered):
                    assert event.body == b"%d" % event.number
                    assert event.number in self.carried_out
                self.told.append(event.number)

    @rule()
    def call(self) -> None:
        number, events = self.me.call(HOME, "verb", b"", self.now, timeout_s=TIMEOUT_S)
        self.open.add(number)
        self.act(list(events))

    @rule(seconds=st.sampled_from([0.1, 0.6, 4.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.act(list(self.me.expired(self.now)))

    @rule(data=st.data(), stays=st.booleans())
    def deliver(self, data: st.DataObject, stays: bool) -> None:
        if not self.on_the_way:
            return
        kind, body = data.draw(st.sampled_from(self.on_the_way))
        if not stays:
            self.on_the_way.remove((kind, body))
        to, sender = (self.home, ME) if kind is Kind.CALL else (self.me, HOME)
        self.act(list(to.receive(kind, sender, body)))

    @rule()
    def lose(self) -> None:
        self.on_the_way.clear()

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        if self.under_way:
            event = data.draw(st.sampled_from(self.under_way))
            self.under_way.remove(event)
            self.act([self.home.answer(event, b"%d" % event.number)])

    @invariant()
    def nothing_is_done_or_told_twice(self) -> None:
        assert len(set(self.carried_out)) == len(self.carried_out)
        assert len(set(self.told)) == len(self.told)
        assert set(self.told) <= self.open


TestAnyBroker = pytest.mark.slow(AnyBroker.TestCase)
