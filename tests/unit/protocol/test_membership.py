"""Who is a member, what it announced, who has fallen back, and what may be forgotten for good."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvedge.errors import RemoteProtocolError
from kvedge.model.stamp import GENERATION_MAX, Dot, Rid, generation_of, new_incarnation
from kvedge.model.value import decode, packb
from kvedge.model.vector import Vector
from kvedge.protocol.exchange import Kind, Outgoing
from kvedge.protocol.membership import (
    ANNOUNCE_AGAIN_S,
    ANNOUNCE_INTERVAL_S,
    EXPIRE_AFTER_S,
    SURE_AFTER_S,
    Admit,
    Event,
    Fallen,
    Keep,
    Kept,
    Membership,
    Record,
    Standing,
    State,
    announced_hash,
)

MEMBER, EXPIRED, UNKNOWN = State.MEMBER, State.EXPIRED, State.UNKNOWN
UNSURE, GOOD, REGRESSED = Standing.UNSURE, Standing.GOOD, Standing.REGRESSED


def rid(node: str, generation: int, bits: int = 0) -> Rid:
    return Rid(node, new_incarnation(generation, bits))


ME, B, C = rid("me", 5), rid("b", 3), rid("c", 7)
MINE_1, MINE_2 = Dot(ME, 1), Dot(ME, 2)


def vector(*dots: Dot, floors: dict[str, int] | None = None) -> Vector:
    made = Vector()
    for dot in dots:
        made.add(dot)
    for node, floor in (floors or {}).items():
        made.close(node, floor)
    return made


def membership(
    me: Rid = ME,
    *,
    start: Vector | None = None,
    is_fresh: bool = False,
    standing: Standing | None = None,
    members: Sequence[str] = (),
    expired: Sequence[str] = (),
    kept: dict[str, Kept] | None = None,
    unheard_s: dict[str, float] | None = None,
) -> Membership:
    made = Membership(
        me,
        start or Vector(),
        lambda rid: 0,
        is_fresh=is_fresh,
        kept=kept or {},
        unheard_s=unheard_s or {},
    )
    made.records |= {node: Record(MEMBER) for node in members}
    made.records |= {node: Record(EXPIRED) for node in expired}
    if standing is not None:
        made.standing = standing
    return made


def announcement(of: Membership, durable: Vector, now: float = 0.0) -> Outgoing:
    [message] = of.announce(durable, now)
    assert (message.kind, message.to) == (Kind.VECTOR, None)
    return message


def received(to: Membership, sender: Rid, message: Outgoing, now: float = 0.0) -> list[Event]:
    return to.receive(message.kind, sender, message.body, now)


def verdicts(events: Sequence[Event] | None) -> list[tuple[str | None, Standing, int]]:
    """Return to whom which verdicts go, and with which generation."""
    found = []
    for event in events or ():
        if isinstance(event, Outgoing) and event.kind is Kind.VERDICT:
            _, standing, generation = decode(event.body)[:3]
            found.append((event.to, Standing(standing), generation))
    return found


# --- what is announced ------------------------------------------------------------------------


def test_the_first_announcement_is_due_at_once_and_a_change_after_a_while() -> None:
    me = membership()
    announcement(me, vector(MINE_1), 10.0)
    assert me.announce(vector(MINE_1, MINE_2), 10.0 + ANNOUNCE_INTERVAL_S - 1) == []
    announcement(me, vector(MINE_1, MINE_2), 10.0 + ANNOUNCE_INTERVAL_S)
    assert me.announce(vector(MINE_1, MINE_2), 10.0 + 9 * ANNOUNCE_INTERVAL_S) == []


def test_who_has_nothing_has_nothing_to_announce() -> None:
    me = membership(is_fresh=True)
    assert me.announce(Vector(), 10.0) == []
    announcement(me, vector(MINE_1), 10.0)  # nor has that put off the first one


def test_an_announcement_is_of_its_moment() -> None:
    me, durable = membership(), vector(MINE_1)
    announcement(me, durable)
    digest = me.digest
    durable.add(MINE_2)
    assert me.digest == digest == (announced_hash(ME.incarnation, vector(MINE_1)), UNSURE)


def test_before_the_first_announcement_a_digest_tells_of_an_empty_one() -> None:
    assert membership(is_fresh=True).digest == (announced_hash(ME.incarnation, Vector()), GOOD)


@pytest.mark.parametrize(
    ("incarnation", "after_s", "answers"),
    [
        (ME.incarnation, ANNOUNCE_AGAIN_S, True),
        (ME.incarnation, ANNOUNCE_AGAIN_S - 0.1, False),
        (ME.incarnation - 1, ANNOUNCE_AGAIN_S, False),
        (None, ANNOUNCE_AGAIN_S, False),
        ({}, ANNOUNCE_AGAIN_S, False),
    ],
)
def test_who_wants_an_announcement_gets_the_last_one_now_and_then(
    incarnation: object, after_s: float, answers: bool
) -> None:
    me = membership()
    last = announcement(me, vector(MINE_1), 1.0)
    found = me.receive(Kind.WANT, B, packb((incarnation,)), 1.0 + after_s)
    assert found == ([last] if answers else [])
    if answers:
        assert me.receive(Kind.WANT, C, packb((incarnation,)), 1.0 + after_s) == []


def test_who_has_announced_nothing_answers_nothing() -> None:
    assert membership().receive(Kind.WANT, B, packb((ME.incarnation,)), 9.0) == []


# --- announcements of others ------------------------------------------------------------------

OLD = vector(Dot(B, 1), MINE_1)
MORE = vector(Dot(B, 1), Dot(B, 2), MINE_1)
B_NEXT, B_BEFORE, B_CLONE = rid("b", 4), rid("b", 2), rid("b", 3, bits=9)

Case = tuple[Record, Kept | None, Rid, Vector, Vector, Standing, list[object]]
HEARD: dict[str, Case] = {
    # what the tree says, what is kept, who announces, start, durable, standing -> what follows
    "the first one": (Record(MEMBER), None, B, Vector(), OLD, GOOD, ["kept"]),
    "by one that is unsure": (Record(MEMBER), None, B, OLD, OLD, UNSURE, ["kept", (GOOD, 0)]),
    "of nobody": (Record(UNKNOWN), None, B, OLD, OLD, UNSURE, []),
    "of an expired one": (Record(EXPIRED), None, B, OLD, OLD, GOOD, [(Standing.EXPIRED, 0)]),
    "in the same life": (
        Record(MEMBER),
        Kept(B.incarnation, 0, OLD),
        B,
        Vector(),
        MORE,
        GOOD,
        ["kept"],
    ),
    "in a new life that has all": (
        Record(MEMBER),
        Kept(B.incarnation, 0, OLD),
        B_NEXT,
        MORE,
        MORE,
        UNSURE,
        ["kept", (GOOD, 0)],
    ),
    "in a new life that has exactly that": (
        Record(MEMBER),
        Kept(B.incarnation, 0, OLD),
        B_NEXT,
        OLD,
        OLD,
        UNSURE,
        ["kept", (GOOD, 0)],
    ),
    "in a new life that has less": (
        Record(MEMBER),
        Kept(B.incarnation, 0, MORE),
        B_NEXT,
        OLD,
        MORE,
        UNSURE,
        [(REGRESSED, 3)],
    ),
    "in a new life that has nothing": (
        Record(MEMBER),
        Kept(B.incarnation, 0, OLD),
        B_NEXT,
        Vector(),
        OLD,
        GOOD,
        [(REGRESSED, 3)],
    ),
    "in a new life without a floor": (
        Record(MEMBER),
        Kept(B.incarnation, 0, vector(floors={"c": 2})),
        B_NEXT,
        MORE,
        MORE,
        UNSURE,
        [(REGRESSED, 3)],
    ),
    "in another life of the same generation": (
        Record(MEMBER),
        Kept(B.incarnation, 0, MORE),
        B_CLONE,
        OLD,
        OLD,
        UNSURE,
        [(REGRESSED, 3)],
    ),
    "in an old life": (
        Record(MEMBER),
        Kept(B_NEXT.incarnation, 0, MORE),
        B,
        OLD,
        OLD,
        GOOD,
        [(REGRESSED, 4)],
    ),
    "since it took a copy": (
        Record(MEMBER, B_NEXT.incarnation),
        Kept(B.incarnation, 0, MORE),
        B_NEXT,
        Vector(),
        OLD,
        GOOD,
        ["kept"],
    ),
    "in the life in which it took a copy": (
        Record(MEMBER, B.incarnation),
        None,
        B,
        Vector(),
        OLD,
        GOOD,
        ["kept"],
    ),
    "in a life before it took a copy": (
        Record(MEMBER, B_NEXT.incarnation),
        None,
        B,
        MORE,
        MORE,
        GOOD,
        [(REGRESSED, 4)],
    ),
}


@pytest.mark.parametrize("name", HEARD)
def test_an_announcement(name: str) -> None:
    record, kept, sender, start, durable, standing, follows = HEARD[name]
    me = membership(members=["me"], kept={"b": kept} if kept else {})
    if record.state is not UNKNOWN:
        me.records["b"] = record
    peer = membership(sender, start=start, standing=standing)
    message = announcement(peer, durable)
    events = received(me, sender, message)

    found: list[object] = ["kept" for event in events if isinstance(event, Keep)]
    found += [(standing, generation) for _, standing, generation in verdicts(events)]
    assert found == follows
    if "kept" in follows:
        now_kept = Kept(sender.incarnation, record.since, durable)
        assert events[0] == Keep("b", now_kept)
        assert me.kept["b"] == now_kept
        assert peer.digest[0] == now_kept.digest()
    else:
        assert me.kept.get("b") == kept
    # The verdict is right: who gets it comes to the same, whatever it thought of itself.
    fallen = [received(peer, ME, e) for e in events if isinstance(e, Outgoing)]
    is_bad = any(item != "kept" and item != (GOOD, 0) for item in follows)
    assert any(isinstance(event, Fallen) for found in fallen for event in found) == is_bad
    assert peer.has_left == is_bad
    if (GOOD, 0) in follows:
        assert peer.standing is GOOD


def test_our_own_announcement_says_nothing_to_us() -> None:
    me = membership(members=["me"])
    assert received(me, rid("me", 6), announcement(membership(rid("me", 6)), OLD)) == []
    assert not me.kept


def test_a_regressed_server_learns_what_it_has_lost() -> None:
    me = membership(members=["me", "b"], kept={"b": Kept(B.incarnation, 0, MORE)})
    peer = membership(B_NEXT, start=OLD)
    [verdict] = received(me, B_NEXT, announcement(peer, OLD))
    assert isinstance(verdict, Outgoing)
    assert received(peer, ME, verdict) == [Fallen(REGRESSED, ME, vector(Dot(B, 2)))]
    assert peer.generation_heard == 3


# --- digests of others ------------------------------------------------------------------------

KEPT = Kept(B.incarnation, 0, OLD)


@pytest.mark.parametrize(
    ("record", "announced", "standing", "follows"),
    [
        (Record(MEMBER), KEPT.digest(), GOOD, []),
        (Record(MEMBER), KEPT.digest(), UNSURE, [Kind.VERDICT]),
        (Record(MEMBER), b"other", UNSURE, [Kind.WANT]),
        (Record(MEMBER, B.incarnation), KEPT.digest(), GOOD, [Kind.WANT]),  # it began anew
        (Record(EXPIRED), b"other", UNSURE, [Kind.WANT]),  # its answer is judged
        (None, KEPT.digest(), GOOD, []),
        (None, b"other", GOOD, []),
        (Record(MEMBER), b"other", 99, [Kind.WANT]),
    ],
)
def test_a_digest_asks_for_what_is_not_known(
    record: Record | None, announced: bytes, standing: int, follows: list[Kind]
) -> None:
    me = membership(members=["me"], kept={"b": KEPT} if record else {})
    if record:
        me.records["b"] = record
    events = me.heard(B, announced, standing, 50.0)
    assert [event.kind for event in events if isinstance(event, Outgoing)] == follows
    assert all(isinstance(event, Outgoing) and event.to == "b" for event in events)
    if follows == [Kind.WANT]:
        assert decode(events[0].body) == (B.incarnation,)  # type: ignore[union-attr]
        assert me.heard(B, announced, standing, 50.0 + ANNOUNCE_AGAIN_S - 0.1) == []
        assert len(me.heard(B, announced, standing, 50.0 + ANNOUNCE_AGAIN_S)) == 1


def test_an_expired_node_is_not_called_good() -> None:
    me = membership(members=["me"], expired=["b"], kept={"b": KEPT})
    assert GOOD not in [standing for _, standing, _ in verdicts(me.heard(B, KEPT.digest(), 0, 1))]


def test_a_digest_tells_how_its_sender_stands_in_this_life() -> None:
    me = membership(members=["me", "b"])
    assert me.standing_of(B) is UNSURE
    me.heard(B, b"", GOOD, 0.0)
    assert me.standing_of(B) is GOOD
    assert me.standing_of(B_NEXT) is UNSURE
    me.heard(B, b"", 99, 0.0)
    assert me.standing_of(B) is GOOD


def test_who_is_heard_is_not_unheard() -> None:
    me = membership(members=["me", "b"], unheard_s={"b": 5.0, "c": 6.0})
    me.heard(B, b"", GOOD, 0.0)
    assert me.unheard_s == {"c": 6.0}


# --- verdicts ---------------------------------------------------------------------------------


def verdict_body(
    standing: object, *, of: object = ME.incarnation, generation: object = 0, proof: Any = ()
) -> bytes:
    return packb((of, standing, generation, [(*B, 0)], proof))


Verdict = tuple[Standing, bytes, Standing, bool]
VERDICTS: dict[str, Verdict] = {
    # our standing, the verdict -> our standing then, and whether we have fallen
    "good": (UNSURE, verdict_body(GOOD), GOOD, False),
    "good, which we know": (GOOD, verdict_body(GOOD), GOOD, False),
    "of another life": (UNSURE, verdict_body(REGRESSED, of=1, generation=9), UNSURE, False),
    "expired": (UNSURE, verdict_body(Standing.EXPIRED), Standing.EXPIRED, True),
    "expired while good": (GOOD, verdict_body(Standing.EXPIRED), Standing.EXPIRED, True),
    "regressed by nothing": (UNSURE, verdict_body(REGRESSED, generation=4), UNSURE, False),
    "by what we have": (GOOD, verdict_body(REGRESSED, proof=[(0, 1, 2)]), GOOD, False),
    "by what we have not": (GOOD, verdict_body(REGRESSED, proof=[(0, 1, 3)]), REGRESSED, True),
    "by a floor": (GOOD, verdict_body(REGRESSED, proof=[("b", 9)]), REGRESSED, True),
    "by a generation like ours": (GOOD, verdict_body(REGRESSED, generation=5), REGRESSED, True),
    "by a later generation": (UNSURE, verdict_body(REGRESSED, generation=6), REGRESSED, True),
    "unsure": (GOOD, verdict_body(UNSURE, generation=9), GOOD, False),
    "of a newer version": (GOOD, verdict_body(17, generation=9), GOOD, False),
    "good, too late": (REGRESSED, verdict_body(GOOD), REGRESSED, False),
    "fallen, and outlived once more": (
        REGRESSED,
        verdict_body(REGRESSED, generation=7),
        REGRESSED,
        True,
    ),
    "expired, too late": (REGRESSED, verdict_body(Standing.EXPIRED), REGRESSED, False),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_a_verdict_counts_where_it_is_so(name: str) -> None:
    standing, body, then, falls = VERDICTS[name]
    me = membership(start=vector(Dot(B, 1), Dot(B, 2)), standing=standing)
    events = me.receive(Kind.VERDICT, C, body, 0.0)
    assert me.standing is then
    assert [type(event) for event in events] == [Fallen] * falls
    assert all(isinstance(event, Fallen) and event.by == C for event in events)
    assert me.generation_heard == (decode(body)[2] if falls else 0)


def test_an_expired_node_judges_nobody() -> None:
    me = membership(members=["me"], expired=["c"])
    assert me.receive(Kind.VERDICT, C, verdict_body(REGRESSED, generation=9), 0.0) == []
    assert me.standing is UNSURE


def test_who_is_left_alone_stands_well_in_the_eyes_of_the_others() -> None:
    assert membership(members=["me"], expired=["b"]).digest[1] == GOOD
    assert membership(members=["me", "b"]).digest[1] == UNSURE
    assert membership(members=["me"], standing=REGRESSED).digest[1] == REGRESSED


@pytest.mark.parametrize(("generation", "then"), [(0, GOOD), (5, REGRESSED)])
def test_who_began_with_nothing_is_regressed_by_its_generation_alone(
    generation: int, then: Standing
) -> None:
    me = membership(is_fresh=True)
    me.receive(
        Kind.VERDICT, C, verdict_body(REGRESSED, generation=generation, proof=[(0, 1, 3)]), 0.0
    )
    assert me.standing is then


@pytest.mark.parametrize("generation", [-1, GENERATION_MAX, 1.0, True, None, "1", {}])
def test_a_verdict_with_a_nonsensical_generation_is_refused(generation: object) -> None:
    me = membership()
    with pytest.raises(RemoteProtocolError, match="generation"):
        me.receive(Kind.VERDICT, B, verdict_body(REGRESSED, generation=generation), 0.0)
    assert me.standing is UNSURE


def test_who_was_outlived_is_told_now_and_then() -> None:
    me, old = membership(members=["me", "b"]), membership(B)
    [verdict] = me.outlived(B, B_NEXT.incarnation, 5.0)
    assert verdicts([verdict]) == [("b", REGRESSED, 4)]
    assert me.outlived(B, B_NEXT.incarnation, 5.0 + ANNOUNCE_AGAIN_S - 0.1) == []
    assert len(me.outlived(B, B_NEXT.incarnation, 5.0 + ANNOUNCE_AGAIN_S)) == 1
    assert isinstance(verdict, Outgoing)
    [fallen] = received(old, ME, verdict)
    assert isinstance(fallen, Fallen)
    assert old.next_generation(Vector()) == 5


@pytest.mark.parametrize(
    ("heard", "seen", "generation"),
    [
        (0, vector(), 6),
        (9, vector(), 10),
        (3, vector(), 6),
        (0, vector(Dot(rid("me", 11), 1)), 12),
        (0, vector(MINE_1), 6),
        (0, vector(floors={"me": 20}), 20),
        (0, vector(Dot(rid("b", 40), 1), floors={"b": 50}), 6),
    ],
)
def test_the_next_life_is_above_all_that_anybody_remembers(
    heard: int, seen: Vector, generation: int
) -> None:
    me = membership()
    me.generation_heard = heard
    assert me.next_generation(seen) == generation


# --- who may give and take --------------------------------------------------------------------


@pytest.mark.parametrize("standing", Standing)
@pytest.mark.parametrize("of_b", State)
@pytest.mark.parametrize("is_member", [True, False])
def test_whose_updates_count_and_who_is_pulled_from(
    standing: Standing, of_b: State, is_member: bool
) -> None:
    me = membership(members=["me"] * is_member, standing=standing)
    if of_b is not UNKNOWN:
        me.records["b"] = Record(of_b)
    has_left = standing in (REGRESSED, Standing.EXPIRED)
    assert me.has_left == has_left
    assert me.takes_updates_of("b") == (is_member and of_b is MEMBER and not has_left)
    assert me.pulls_from("b") == (of_b is not EXPIRED and not has_left)
    assert me.is_member == is_member


@pytest.mark.parametrize(
    ("is_fresh", "is_member", "life"),
    [(True, False, ME.incarnation), (True, True, None), (False, False, None), (False, True, None)],
)
def test_who_begins_with_nothing_asks_for_everything_once(
    is_fresh: bool, is_member: bool, life: int | None
) -> None:
    assert membership(is_fresh=is_fresh, members=["me"] * is_member).life == life


def test_a_node_that_the_tree_does_not_name_is_forgotten() -> None:
    me = membership(members=["me", "b"], kept={"b": KEPT}, unheard_s={"b": 5.0})
    me.forget("b")
    me.forget("b")
    assert (me.state("b"), me.kept, me.unheard_s) == (UNKNOWN, {}, {})


SEEN = vector(MINE_1, Dot(C, 1))
NEVER_S = SURE_AFTER_S - 0.1

Question = tuple[dict[str, Record], Standing, int | None, Vector, float, object]
M, X = Record(MEMBER), Record(EXPIRED)
ADMITS: dict[str, Question] = {
    # the tree, our standing, the asker's life, what was seen, when -> what comes first
    "a member": ({"me": M, "b": M}, GOOD, None, SEEN, 9, []),
    "a stranger": ({"me": M}, GOOD, None, SEEN, 9, {"b": B}),
    "a stranger, of a first member": ({}, GOOD, None, SEEN, 9, {"b": B, "me": ME}),
    "of somebody with nothing": ({}, GOOD, B.incarnation, Vector(), 9, []),
    "a stranger that begins": ({"me": M}, GOOD, B.incarnation, SEEN, 9, {"b": B}),
    "a member that begins anew": ({"me": M, "b": M}, GOOD, B.incarnation, SEEN, 9, {"b": B}),
    "a member that goes on to begin": (
        *({"me": M, "b": Record(MEMBER, B.incarnation)}, GOOD, B.incarnation, SEEN, 9),
        [],
    ),
    "a member that begins once more": (
        *({"me": M, "b": Record(MEMBER, B.incarnation)}, GOOD, B_NEXT.incarnation, SEEN, 9),
        {"b": B_NEXT},
    ),
    "an expired one": ({"me": M, "b": X}, GOOD, None, SEEN, 9, ("b", Standing.EXPIRED, 0)),
    "an expired one that begins": ({"me": M, "b": X}, GOOD, B.incarnation, SEEN, 9, {"b": B}),
    "of no member": ({"b": M, "c": M}, GOOD, None, SEEN, 9, None),
    "of an expired one ": ({"me": X, "b": M}, GOOD, None, SEEN, 9, None),
    "of a regressed one": ({"me": M, "b": M}, REGRESSED, None, SEEN, 9, None),
    "of one that has fallen": ({"me": M, "b": M}, Standing.EXPIRED, B.incarnation, SEEN, 9, None),
    "of an unsure one": ({"me": M, "b": M, "c": M}, UNSURE, None, SEEN, NEVER_S, None),
    "of an unsure one that nobody judged": (
        *({"me": M, "b": M, "c": M}, UNSURE, None, SEEN, SURE_AFTER_S, []),
    ),
    "of an unsure one without others": ({"me": M, "b": M}, UNSURE, None, SEEN, NEVER_S, []),
    "of an unsure one that has expired the others": (
        *({"me": M, "b": M, "c": X}, UNSURE, None, SEEN, NEVER_S, []),
    ),
    "of a good one at once": ({"me": M, "b": M, "c": M}, GOOD, None, SEEN, 0, []),
    "a generation that was used": (
        *({"me": M, "b": M}, GOOD, None, vector(Dot(B_CLONE, 1)), 9, ("b", REGRESSED, 3)),
    ),
    "a generation before": (
        *({"me": M, "b": M}, GOOD, None, vector(Dot(B_NEXT, 1)), 9, ("b", REGRESSED, 4)),
    ),
    "a generation that is closed": (
        *({"me": M, "b": M}, GOOD, None, vector(floors={"b": 4}), 9, ("b", REGRESSED, 3)),
    ),
    "the newest generation": ({"me": M, "b": M}, GOOD, None, vector(floors={"b": 3}), 9, []),
    "its own life": ({"me": M, "b": M}, GOOD, None, vector(Dot(B, 4)), 9, []),
    "a generation after": ({"me": M, "b": M}, GOOD, None, vector(Dot(B_BEFORE, 4)), 9, []),
    "a stranger of a used generation": (
        *({"me": M}, GOOD, None, vector(Dot(B_CLONE, 1)), 9, ("b", REGRESSED, 3)),
    ),
    "one that begins with a used generation": (
        *({"me": M}, GOOD, B.incarnation, vector(Dot(B_CLONE, 1)), 9, ("b", REGRESSED, 3)),
    ),
}


@pytest.mark.parametrize("name", ADMITS)
def test_who_asks(name: str) -> None:
    records, standing, life, seen, after_s, first = ADMITS[name]
    me = membership(standing=standing)
    me.records = dict(records)
    me.connected(100.0)
    events = me.admits(B, life, seen, 100.0 + after_s)
    if isinstance(first, dict):
        expected = {node: Record(MEMBER, rid.incarnation) for node, rid in first.items()}
        assert events == [Admit(expected)]
        me.records |= expected  # the question is looked at again
        assert me.admits(B, life, seen, 100.0 + after_s) == []
    elif isinstance(first, tuple):
        assert verdicts(events) == [first]
        assert events is not None
        assert len(events) == 1
    else:
        assert events == first


def test_a_life_that_was_admitted_goes_on_whatever_it_has_written_before() -> None:
    """The last parts of its copy come after its first own changes were heard of."""
    me = membership(members=["me"], standing=GOOD)
    me.records["b"] = Record(MEMBER, B.incarnation)
    seen = vector(Dot(B_CLONE, 1), Dot(B, 1))
    assert me.admits(B, B.incarnation, seen, 9.0) == []


# --- what may be forgotten --------------------------------------------------------------------


def good(durable_of: dict[str, Vector]) -> Membership:
    """Return our side of a network in which others have announced these."""
    kept = {node: Kept(0, 0, vector) for node, vector in durable_of.items()}
    return membership(members=["me", *durable_of], standing=GOOD, kept=kept)


WHOLE = vector(MINE_1, Dot(B, 1), Dot(C, 1))


def test_what_all_members_have_is_stable() -> None:
    me = good({"b": vector(MINE_1, Dot(C, 1)), "c": vector(MINE_1, Dot(B, 1))})
    assert me.stable(WHOLE) == vector(MINE_1)


@pytest.mark.parametrize(
    ("spoil", "stable"),
    [
        (lambda me: None, True),
        (lambda me: me.kept.pop("b"), False),
        (lambda me: me.records.update(b=Record(MEMBER, 9)), False),  # it has begun anew since
        (lambda me: me.kept.update(b=Kept(0, 0, vector(Dot(B, 2)))), False),  # we lack something
        (lambda me: me.records.update(d=Record(MEMBER)), False),
        (lambda me: me.records.update(d=Record(EXPIRED)), True),
        (lambda me: me.records.update(b=Record(EXPIRED)) or me.kept.pop("b"), True),
        (lambda me: me.records.pop("me"), False),
        (lambda me: me.records.update(me=Record(EXPIRED)), False),
        (lambda me: setattr(me, "standing", UNSURE), False),
        (lambda me: setattr(me, "standing", REGRESSED), False),
    ],
    ids=[
        *("all is right", "one said nothing", "one began anew", "we lack something"),
        *("a new member", "an expired member", "the silent one is expired", "we are no member"),
        *("we are expired", "we are unsure", "we are regressed"),
    ],
)
def test_nothing_is_stable_unless_every_member_has_told_and_we_have_that(
    spoil: Any, stable: bool
) -> None:
    me = good({"b": vector(MINE_1, Dot(B, 1)), "c": vector(MINE_1, Dot(C, 1))})
    spoil(me)
    found = me.stable(WHOLE)
    assert (found is not None) == stable
    if found is not None:
        assert MINE_1 in found
    assert stable or me.closable(WHOLE) == {}


@pytest.mark.parametrize("standing", [UNSURE, GOOD])
def test_the_only_member_knows_what_all_have(standing: Standing) -> None:
    me = membership(members=["me"], expired=["b"], standing=standing)
    assert me.stable(WHOLE) == WHOLE


NODES = ("me", "b", "c")
DOTS = st.builds(
    lambda node, generation, bits, tick: Dot(rid(node, generation, bits), tick),
    st.sampled_from(NODES),
    st.integers(1, 3),
    st.integers(0, 1),
    st.integers(1, 3),
)
SHARED = st.sets(DOTS, max_size=12)


@settings(max_examples=200, deadline=None)
@given(SHARED, st.tuples(*[st.sets(DOTS, max_size=2)] * 2), st.sets(DOTS, max_size=2))
def test_stable_is_what_all_have_and_closed_is_what_all_have_alike(
    shared: set[Dot], extra: tuple[set[Dot], ...], own: set[Dot]
) -> None:
    theirs = [shared | more for more in extra]
    mine = shared | own
    me = good({"b": vector(*theirs[0]), "c": vector(*theirs[1])})
    stable = me.stable(vector(*mine))
    floors = me.closable(vector(*mine))
    if not all(each <= mine for each in theirs):
        assert stable is None
        assert floors == {}
        return
    assert stable == vector(*mine.intersection(*theirs))
    by_node = {node: sorted({d.rid for d in mine if d.rid.node == node}) for node in NODES}
    for node, floor in floors.items():
        generations = [generation_of(rid.incarnation) for rid in by_node[node]]
        assert floor in generations
        assert floor > min(generations)
    # Nothing counts as seen that somebody has and another has not.
    closed = {
        dot for dot in mine if generation_of(dot.rid.incarnation) < floors.get(dot.rid.node, 0)
    }
    assert all(closed <= each for each in theirs)
    # And no more is left than what differs, or is the newest.
    for node, rids in by_node.items():
        for rid_ in rids:
            generation = generation_of(rid_.incarnation)
            is_left = generation >= floors.get(node, 0)
            differs = any(
                {d for d in each if d.rid == older} != {d for d in mine if d.rid == older}
                for older in rids
                if generation_of(older.incarnation) <= generation
                for each in theirs
            )
            is_newest = generation == generation_of(rids[-1].incarnation)
            assert is_left == (differs or is_newest)


def test_what_one_has_closed_agrees_with_whatever_others_have_of_it() -> None:
    """One member was quicker; the others have all of it, as it knew."""
    mine = vector(Dot(rid("b", 1), 1), Dot(rid("b", 2), 1), Dot(rid("b", 3), 1), floors={"x": 1})
    theirs = vector(Dot(rid("b", 3), 1), floors={"b": 3})
    me = good({"b": theirs})
    assert me.stable(mine) is None  # of what it has closed we do not know that we have it
    mine.close("b", 2)
    theirs = vector(Dot(rid("b", 2), 1), Dot(rid("b", 3), 1), floors={"b": 2})
    assert good({"b": theirs}).closable(mine) == {"b": 3}


@settings(max_examples=100, deadline=None)
@given(SHARED, st.randoms(use_true_random=False))
def test_members_that_close_and_tell_end_with_the_newest_lives(
    shared: set[Dot], random: Random
) -> None:
    """Each closes what it can and announces that, in any order: they become equal and short."""
    have = {node: vector(*shared) for node in NODES}
    told = {node: each.copy() for node, each in have.items()}
    for _ in range(60):
        node = random.choice(NODES)
        others = {other: Kept(0, 0, told[other]) for other in NODES if other != node}
        me = membership(rid(node, 9), members=NODES, standing=GOOD, kept=others)
        for author, floor in me.closable(have[node]).items():
            have[node].close(author, floor)
        for each in told.values():  # a pull brings floors too
            if random.random() < 0.7:
                have[node].merge(each)
        told[node] = have[node].copy()
    assert have["me"] == have["b"] == have["c"]
    for node in NODES:
        generations = {generation_of(r.incarnation) for r in have[node].rids_of(node)}
        assert len(generations) <= 1


# --- who is away for too long -----------------------------------------------------------------

DAY_S = 24 * 3600.0


def test_a_member_is_expired_after_enough_of_our_own_running_time() -> None:
    me = membership(members=["me", "b", "c"], standing=GOOD)
    passed_s = 0.0
    while not (gone := me.passed(DAY_S, ["b"])):
        passed_s += DAY_S
        assert me.unheard_s == {"c": passed_s}
    assert gone == ["c"]
    assert passed_s + DAY_S == EXPIRE_AFTER_S


def test_time_does_not_count_while_a_member_is_there() -> None:
    me = membership(members=["me", "b", "c"], unheard_s={"c": EXPIRE_AFTER_S - 1})
    assert me.passed(DAY_S, ["b", "c"]) == []
    assert me.unheard_s == {}
    assert me.passed(DAY_S, ["b"]) == []
    assert me.unheard_s == {"c": DAY_S}


@pytest.mark.parametrize(
    ("members", "there", "expires"),
    [
        ("bc", "", False),  # one of three
        ("bc", "b", True),
        ("bcd", "b", False),  # two of four are no majority
        ("bcd", "bd", True),
        ("b", "", False),  # one of two
        ("bc", "bxyz", True),  # strangers do not count
        ("bcd", "xyz", False),
    ],
)
def test_a_minority_expires_nobody(members: str, there: str, expires: bool) -> None:
    unheard_s = dict.fromkeys(set(members) - set(there), EXPIRE_AFTER_S)
    me = membership(members=["me", *members], unheard_s=unheard_s)
    gone = me.passed(1.0, there)
    assert gone == (sorted(unheard_s) if expires else [])


@pytest.mark.parametrize("standing", [REGRESSED, Standing.EXPIRED])
def test_who_has_left_expires_nobody(standing: Standing) -> None:
    late = {"c": EXPIRE_AFTER_S}
    assert membership(members=["me", "b", "c"], unheard_s=late).passed(1.0, "b") == ["c"]
    me = membership(members=["me", "b", "c"], unheard_s=late, standing=standing)
    assert me.passed(1.0, "b") == []
    assert membership(members=["b", "c", "d"], unheard_s=late).passed(1.0, "bd") == []


def test_who_is_expired_already_is_not_expired_again() -> None:
    me = membership(members=["me", "b"], expired=["c"], unheard_s={"c": EXPIRE_AFTER_S})
    assert me.passed(1.0, "b") == []


# --- anything at all --------------------------------------------------------------------------

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2, 3, 1 << 63, 1.5, "\udcff", "b", b"", [], {}, [[]], {"a": 1}),
    *([("b", -1)], [("b", 1, 2)], [(9, 1, 1)], [(0, 3, 1)], [("", 1)], [({}, 1)]),
    *(msgpack.ExtType(2, b"\xff" * 200), msgpack.ExtType(3, b"\xc1")),
)


def bodies() -> list[tuple[Kind, list[Any]]]:
    peer = membership(B, start=OLD)
    announced = list(decode(announcement(peer, MORE).body))
    return [
        (Kind.WANT, [ME.incarnation]),
        (Kind.VECTOR, announced),
        (Kind.VERDICT, list(decode(verdict_body(REGRESSED, proof=[(0, 1, 9), ("c", 3)])))),
    ]


@pytest.mark.parametrize("at", range(3))
def test_wrong_messages_are_refused_in_words_and_in_no_other_way(at: int) -> None:
    packer = msgpack.Packer(unicode_errors="surrogateescape")
    reasons = []
    kind, parts = bodies()[at]
    for place in range(len(parts)):
        for odd in ODD:
            me = membership(members=["me", "b"])
            changed = [*parts[:place], odd, *parts[place + 1 :]]
            try:
                me.receive(kind, B, packer.pack(changed), 0.0)
            except RemoteProtocolError as error:
                reasons.append(str(error))
                assert not me.kept
                assert me.standing is UNSURE
    for count in range(len(parts)):
        with pytest.raises(RemoteProtocolError, match="lacks parts"):
            membership().receive(kind, B, packb(parts[:count]), 0.0)
    assert len(reasons) > (0, 40, 20)[at] or kind is Kind.WANT
    assert all(len(reason.split()) > 6 for reason in reasons)


@pytest.mark.parametrize("at", range(3))
def test_messages_of_a_newer_minor_version_are_read(at: int) -> None:
    kind, parts = bodies()[at]
    plain, newer = (membership(members=["me", "b"]) for _ in range(2))
    for me in (plain, newer):
        announcement(me, OLD)
    found = plain.receive(kind, B, packb(parts), 9.0)
    assert found
    assert newer.receive(kind, B, packb([*parts, "more", {}]), 9.0) == found


def test_messages_of_other_kinds_are_for_others() -> None:
    assert membership().receive(Kind.DIGEST, B, b"", 0.0) == []
