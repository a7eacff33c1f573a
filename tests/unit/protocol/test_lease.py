from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge.errors import RemoteProtocolError
from kvedge.model.stamp import Rid
from kvedge.protocol.exchange import Kind, Outgoing
from kvedge.protocol.lease import (
    Event,
    Extended,
    Keep,
    Kill,
    Leases,
    Memory,
    Mode,
    Run,
    Stop,
    View,
    Vouched,
    Want,
    Why,
    first_voters,
    messages,
)
from kvedge.protocol.lease.granting import Granter, Post
from kvedge.protocol.lease.messages import (
    Ask,
    Claim,
    Free,
    Grant,
    Held,
    Hold,
    Look,
    Message,
    Release,
    Released,
    Told,
)
from kvedge.protocol.lease.terms import bound_s, muted_until
from kvedge.protocol.lease.voters import (
    Number,
    Proposal,
    Voters,
    is_quorum,
    majority,
    quorum_end,
)

A, B, C = Rid("a", 1), Rid("b", 1), Rid("c", 1)
VOTERS = Voters(1, ("a", "b", "c"), 5000)
VIEW = View(VOTERS)
STAMP = VIEW.stamp


# --- quorums ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_a_majority_is_more_than_half(size: int, needed: int) -> None:
    assert majority(tuple("abcde"[:size])) == needed


NODES = st.sets(st.sampled_from("abcdefg"), min_size=1, max_size=5).map(lambda s: tuple(sorted(s)))
AGREED = st.sets(st.sampled_from("abcdefg"))


@given(NODES, NODES, AGREED, AGREED)
def test_two_quorums_that_share_a_list_share_a_voter(
    one: tuple[str, ...], two: tuple[str, ...], agreed: set[str], others: set[str]
) -> None:
    if is_quorum((one, two), agreed) and is_quorum((two,), others):
        assert agreed & others & set(two)


@given(NODES, st.dictionaries(st.sampled_from("abcdefg"), st.floats(0, 100)))
def test_a_quorum_is_bound_until_its_end_and_none_is_for_longer(
    nodes: tuple[str, ...], ends: dict[str, float]
) -> None:
    end = quorum_end((nodes,), ends)
    assert is_quorum((nodes,), {n for n, e in ends.items() if e >= end}) == (end > float("-inf"))
    assert not is_quorum((nodes,), {n for n, e in ends.items() if e > end})


def test_a_change_is_newer_than_what_it_changes_and_older_than_what_it_becomes() -> None:
    new = Voters(2, ("a", "d", "e"), 5000)
    pending = VIEW._replace(proposal=Proposal(Number(3, "a"), new))
    again = VIEW._replace(proposal=Proposal(Number(3, "b"), new))
    decided = View(new, before=VOTERS)
    assert VIEW.stamp < pending.stamp < again.stamp < decided.stamp
    assert pending.lists(is_settled=True) == (VOTERS.nodes, new.nodes)
    assert decided.lists(is_settled=False) == (new.nodes, VOTERS.nodes)
    assert decided.lists(is_settled=True) == (new.nodes,)


def test_the_first_voters_are_five_at_most() -> None:
    assert first_voters("abcdefg", lease_ms=5000) == Voters(1, tuple("abcde"), 5000)


# --- time -------------------------------------------------------------------------------------


@given(st.integers(1000, 600_000), st.floats(-0.01, 0.01), st.floats(-0.01, 0.01))
def test_a_voter_is_bound_for_longer_than_the_holder_counts(
    lease_ms: int, holder: float, voter: float
) -> None:
    assert bound_s(lease_ms) / (1 + voter) > lease_ms / 1000 / (1 + holder)


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (None, 100 + bound_s(5000)),
        (Memory("this", 8000, {}), 100 + bound_s(8000)),
        (Memory("before", 8000, {}), bound_s(8000)),
    ],
)
def test_a_voter_is_mute_until_what_it_may_have_granted_is_over(
    memory: Memory | None, expected: float
) -> None:
    assert muted_until(100, "this", memory) == pytest.approx(expected)


# --- voters -------------------------------------------------------------------------------------


def ask(ballot: int = 1, round_: int = 1, fence: int = 0, serial: str = "s") -> Ask:
    return Ask("j", "g", ballot, round_, STAMP, fence, 5000, serial)


def sent(posts: Iterable[Post]) -> list[Message]:
    return [post.message for post in posts]


def test_a_voter_grants_to_one_until_it_is_not_bound_any_more() -> None:
    voter = Granter(0)
    assert sent(voter.ask(A, ask(), VIEW, 10, 7)) == [Grant("j", 1, 1, 7)]
    [refused] = sent(voter.ask(B, ask(), VIEW, 10 + bound_s(5000) - 0.01, 7))
    assert isinstance(refused, Held)
    assert not refused.is_firm
    assert sent(voter.ask(B, ask(), VIEW, 10 + bound_s(5000), 7)) == [Grant("j", 1, 1, 7)]


def test_a_repeated_question_binds_no_longer_and_an_older_one_says_nothing() -> None:
    voter = Granter(0)
    voter.ask(A, ask(round_=2, fence=9), VIEW, 10, 7)
    assert sent(voter.ask(A, ask(round_=2, fence=9), VIEW, 14, 7)) == [Grant("j", 1, 2, 9)]
    assert voter.ask(A, ask(round_=1), VIEW, 14, 7) == []
    [held] = sent(voter.look(B, Look("j", "g"), 14))
    assert held == Held("j", 0, 1251, is_firm=True)


def test_a_mute_voter_grants_nothing() -> None:
    [held] = sent(Granter(20).ask(A, ask(), VIEW, 19, 7))
    assert held == Held("j", 1, 1001, is_firm=True)


def test_an_older_list_of_voters_is_refused() -> None:
    newer = View(Voters(2, ("a", "b"), 5000), before=VOTERS)
    assert sent(Granter(0).ask(A, ask(), newer, 10, 7)) == [Told("g", newer)]


def release(rid: Rid = A, ballot: int = 1, serial: str = "s", *, was_held: bool = True) -> Release:
    return Release("j", rid, ballot, serial, None, was_held)


@pytest.mark.parametrize(
    ("sender", "given", "is_free"),
    [
        (A, release(), True),
        (Rid("a", 2), release(), True),  # the next life of the same board
        (B, release(), False),
        (A, release(ballot=2), False),
        (A, release(serial="of a copied card"), False),
        (Rid("a", 2), release(Rid("a", 2)), False),
    ],
)
def test_a_lease_ends_early_by_the_word_of_its_board_alone(
    sender: Rid, given: Release, is_free: bool
) -> None:
    voter = Granter(0)
    voter.ask(A, ask(), VIEW, 10, 7)
    voter.release(sender, given, 11)
    [held] = sent(voter.look(C, Look("j", "g"), 11))
    assert isinstance(held, Held)
    assert (held.left_ms == 0) == is_free


def test_a_ballot_that_was_released_is_granted_no_more() -> None:
    voter = Granter(0)
    assert sent(voter.release(A, release(ballot=3), 10)) == [Released("j", 3)]
    assert voter.ask(A, ask(ballot=3), VIEW, 11, 7) == []
    assert sent(voter.ask(A, ask(ballot=4), VIEW, 11, 7)) == [Grant("j", 4, 1, 7)]


def test_who_has_looked_is_told_that_a_lease_is_free() -> None:
    voter = Granter(0)
    voter.ask(A, ask(), VIEW, 10, 7)
    voter.look(B, Look("j", "g"), 11)
    assert Post("b", Free("j", None)) in voter.release(A, release(), 12)


# --- one server ---------------------------------------------------------------------------------


def server(rid: Rid = A, mode: Mode = Mode.QUORUM, *, tock: int = 40) -> Leases:
    """Return one that may grant, at time 0, and wants the job."""
    made = Leases(
        rid,
        "s",
        boot="this",
        memory=Memory("before", 5000, {}),
        now=100.0,
        random=Random(1),
        tock=lambda: tock,
    )
    made.learn("g", VIEW, 100.0)
    made.want(Want("j", "g", mode), 100.0)
    return made


def kept(made: Leases, events: list[Event], now: float) -> list[Event]:
    """Let what is to be kept be durable at once."""
    found: list[Event] = []
    for event in events:
        if isinstance(event, Keep) and event.number is not None:
            found += kept(made, made.kept(event.number, now), now)
        elif not isinstance(event, Keep):
            found.append(event)
    return found


def give(made: Leases, sender: Rid, message: Message, now: float) -> list[Event]:
    return kept(made, made.receive(Kind.LEASE, sender, messages.packed(message), now), now)


def said(events: list[Event]) -> list[tuple[str | None, Message | None]]:
    return [(e.to, messages.read(e.body)) for e in events if isinstance(e, Outgoing)]


def holding(made: Leases) -> tuple[list[Event], float]:
    """Let it get the lease, asking at 101 s for the second time; return what it did."""
    kept(made, made.tick(100.5), 100.5)
    give(made, B, Held("j", 0, 0, is_firm=False), 100.5)
    give(made, B, Grant("j", 1, 1, 99), 101.0)
    return give(made, B, Grant("j", 1, _round(made), 100), 101.5), 101.0


def _round(made: Leases) -> int:
    contest = made._contests["j"]
    assert hasattr(contest, "_round")
    return int(contest._round)


def test_a_holder_counts_from_its_question_and_has_the_largest_fence() -> None:
    made = server()
    events, asked = holding(made)
    [run] = [event for event in events if isinstance(event, Run)]
    assert run.until_s <= asked + 5.0
    assert run.fence == 100


def test_a_holder_that_is_not_answered_stops_and_is_killed_in_time() -> None:
    made = server()
    events, _ = holding(made)
    [run] = [event for event in events if isinstance(event, Run)]
    [stop] = [e for e in made.tick(run.until_s - 0.7) if isinstance(e, Stop)]
    assert stop.why is Why.EXPIRING
    assert [e for e in made.tick(run.until_s) if isinstance(e, Kill)] == [Kill("j", 1)]


def test_who_wakes_up_late_kills_before_it_listens() -> None:
    made = server()
    holding(made)
    events = made.receive(Kind.LEASE, B, messages.packed(Grant("j", 1, _round(made), 1)), 300.0)
    assert events[0] == Kill("j", 1)
    assert not any(isinstance(event, Extended) for event in events)


def test_a_holder_releases_when_its_board_vouches_and_not_for_another_board() -> None:
    made = server()
    holding(made)
    assert made.vouched(Vouched("j", A, 1, "another"), 102.0) == []
    assert made.vouched(Vouched("j", A, 2, "s"), 102.0) == []
    released = said(made.vouched(Vouched("j", A, 1, "s"), 102.0))
    assert {to for to, _ in released} == {"b", "c"}


def test_a_last_will_releases_nothing() -> None:
    made = server(C)
    give(made, A, ask(), 120.0)
    made.gone("a", 121.0)
    [(_, held)] = said(give(made, B, ask(), 121.0))
    assert isinstance(held, Held)


def test_a_node_that_is_no_voter_grants_nothing() -> None:
    made = server(Rid("d", 1))
    assert give(made, B, ask(), 120.0) == []


def test_a_grant_waits_until_it_is_known_how_long_to_be_mute_for() -> None:
    made = server(C)
    events = made.receive(Kind.LEASE, A, messages.packed(ask()), 120.0)
    [keep] = [event for event in events if isinstance(event, Keep)]
    assert said(events) == []
    assert keep.kept.boot == "this"
    assert keep.number is not None
    assert said(made.kept(keep.number, 120.1)) == [("a", Grant("j", 1, 1, 40))]


def test_load_and_wishes_choose_who_comes_first() -> None:
    made = server()
    made.loads({"a": 0.5, "b": 0.1, "c": 0.9})
    plain = made._delay(Want("j", "g", Mode.QUORUM))
    preferred = made._delay(Want("j", "g", Mode.QUORUM, prefer=frozenset("a")))
    avoided = made._delay(Want("j", "g", Mode.QUORUM, avoid=frozenset("a")))
    assert preferred < 0.1 < plain < 0.2 < avoided


def test_a_node_that_is_drained_stops_its_jobs_and_takes_none() -> None:
    made = server()
    holding(made)
    [stop] = [e for e in made.drain(102.0, is_draining=True) if isinstance(e, Stop)]
    assert stop.why is Why.HANDED_OVER
    made.vouched(Vouched("j", A, 1, "s"), 102.1)
    assert said(made.tick(160.0)) == []


# --- messages -----------------------------------------------------------------------------------

PENDING = VIEW._replace(proposal=Proposal(Number(3, "a"), Voters(2, ("a", "d"), 5000)))
ALL: tuple[Message, ...] = (
    Look("j", "g"),
    ask(),
    Grant("j", 1, 2, 3),
    Held("j", 1, 2, is_firm=True),
    release(),
    Released("j", 1),
    Free("j", "a"),
    Told("g", PENDING),
    messages.Prepare("g", VIEW, Number(1, "a")),
    messages.Promise("g", Number(1, "a"), PENDING.proposal),
    messages.Promise("g", Number(1, "a"), None),
    messages.Accept("g", VIEW, Proposal(Number(1, "a"), VOTERS)),
    messages.Accepted("g", Number(1, "a"), 5),
    messages.Beaten("g", Number(1, "a"), Number(2, "b")),
    Claim("j", 5),
    Hold("j", 5),
)


@pytest.mark.parametrize("message", ALL, ids=lambda message: type(message).__name__)
def test_a_message_is_read_as_it_was_said(message: Message) -> None:
    assert messages.read(messages.packed(message)) == message


@pytest.mark.parametrize("message", ALL, ids=lambda message: type(message).__name__)
@given(data=st.data())
def test_a_damaged_message_is_refused_and_nothing_else(
    message: Message, data: st.DataObject
) -> None:
    body = bytearray(messages.packed(message))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.integers(0, 255))
    with suppress(RemoteProtocolError):
        messages.read(bytes(body[: data.draw(st.integers(1, len(body)))]))
