"""What a store's files come to: any order, any repetition, any numbering, damaged parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge.model import entry as entries
from kvedge.model.path import P
from kvedge.model.stamp import Dot, Rid, RidTable
from kvedge.model.value import MISSING, Missing, packb, unpack
from kvedge.model.vector import Vector
from kvedge.protocol.membership import Kept
from kvedge.server.records import (
    Loaded,
    ceiling_payload,
    kept_payload,
    load_file,
    preamble,
    record_payload,
    rid_payload,
    seen_payloads,
    snapshot_payloads,
    unheard_payload,
)

OLD, NEW, OTHER = Rid("me", 1 << 40), Rid("me", 2 << 40), Rid("other", 7 << 40)
BASES = {OLD: 10, NEW: 500, OTHER: 3}
KEYS = [P("a").key, P("a.b").key, P(":n.x").key]

Change = tuple[Rid, int, int, bytes, bytes | Missing]  # who, tick, tock, where, what


class File:
    """A file in the making, with rid numbers of its own."""

    def __init__(self, *order: Rid) -> None:
        self.rids = RidTable()
        for rid in order:
            self.rids.number(rid, BASES[rid])
        self.payloads = preamble(self.rids, 0)

    def add(self, change: Change) -> None:
        rid, tick, tock, key, value = change
        number = self.rids.number(rid, BASES[rid])
        packed = entries.join(tock, (entries.link(number, tick),), value)
        self.payloads += [rid_payload(number, rid, BASES[rid]), record_payload(key, packed)]


def loaded_from(*files: File) -> Loaded:
    into = Loaded()
    for file in files:
        load_file(into, file.payloads)
    return into


def tree_of(loaded: Loaded) -> dict[bytes, tuple[int, Rid, int, object]]:
    """Return what was loaded in terms that do not depend on numbering."""
    found: dict[bytes, tuple[int, Rid, int, object]] = {}
    for key, packed in loaded.entries.items():
        entry = entries.unpack_entry(packed, loaded.rids)
        value = MISSING if isinstance(entry.value, Missing) else unpack(entry.value)
        found[key] = (entry.tock, entry.dot.rid, entry.dot.tick, value)
    return found


def test_files_with_different_numbering_make_one_tree() -> None:
    first, second = File(OLD, OTHER), File(OTHER, NEW, OLD)
    first.add((OLD, 1, 5, KEYS[0], packb("old")))
    first.add((OTHER, 4, 6, KEYS[1], packb("other")))
    second.add((NEW, 1, 7, KEYS[0], packb("new")))

    loaded = loaded_from(first, second)
    assert tree_of(loaded) == {KEYS[0]: (7, NEW, 1, "new"), KEYS[1]: (6, OTHER, 4, "other")}
    assert loaded.tock == 7
    assert [loaded.rids.base(loaded.rids.number(rid)) for rid in (OLD, NEW, OTHER)] == [10, 500, 3]


def test_whole_chains_are_translated() -> None:
    file = File(OTHER, NEW)
    links = (entries.link(1, 9), entries.link(0, 2))
    file.payloads.append(record_payload(KEYS[0], entries.join(8, links, packb(1))))
    into = Loaded()
    into.rids.number(OLD, 1)  # takes number 0
    load_file(into, file.payloads)
    packed = into.entries[KEYS[0]]
    assert entries.chain_of(packed, into.rids) == (Dot(NEW, 9), Dot(OTHER, 2))
    assert entries.value_of(packed) == packb(1)


def test_seen_has_overwritten_changes_too_and_shows_gaps() -> None:
    file = File(NEW)
    for tick in (1, 2, 4, 3, 9):
        file.add((NEW, tick, tick, KEYS[0], packb(tick)))
    assert loaded_from(file).seen.ranges(NEW) == ((1, 4), (9, 9))


def test_a_tombstone_wins_by_its_tock() -> None:
    file = File(NEW)
    file.add((NEW, 2, 9, KEYS[0], MISSING))
    file.add((NEW, 1, 8, KEYS[0], packb(1)))
    assert tree_of(loaded_from(file)) == {KEYS[0]: (9, NEW, 2, MISSING)}


def test_records_whose_writer_is_damaged_are_counted_as_lost() -> None:
    file = File(OLD, NEW)
    file.add((OLD, 1, 5, KEYS[0], packb(1)))
    file.add((NEW, 1, 6, KEYS[0], packb(2)))
    file.add((NEW, 2, 7, KEYS[1], packb(3)))
    number = file.rids.number(NEW)
    damaged = rid_payload(number, NEW, BASES[NEW])
    file.payloads = [payload for payload in file.payloads if payload != damaged]

    loaded = loaded_from(file)
    assert loaded.lost == 2
    assert tree_of(loaded) == {KEYS[0]: (5, OLD, 1, 1)}


def test_numbers_of_one_file_do_not_hold_in_the_next() -> None:
    first, second = File(OLD), File()
    second.payloads.append(
        record_payload(KEYS[0], entries.join(5, (entries.link(0, 1),), packb(1)))
    )
    assert loaded_from(first, second).lost == 1


def test_the_largest_ceiling_counts() -> None:
    into = Loaded()
    load_file(into, [ceiling_payload(90), ceiling_payload(40)])
    load_file(into, [ceiling_payload(50)])
    assert into.tock == 90


def test_payloads_of_a_newer_version_are_passed_over() -> None:
    into = Loaded()
    load_file(into, [packb((99, "what", b"ever")), ceiling_payload(5)])
    assert into.tock == 5


def test_a_snapshot_holds_the_same() -> None:
    file = File(OLD, OTHER)
    file.add((OLD, 1, 5, KEYS[0], packb({"x": 1})))
    file.add((OTHER, 4, 6, KEYS[2], MISSING))
    loaded = loaded_from(file)
    loaded.seen.add_range(OLD, 2, 9)  # overwritten: no entry tells of these any more
    into = Loaded()
    items = list(
        snapshot_payloads([*loaded.entries.items()], seen_payloads(loaded.seen, loaded.rids))
    )
    load_file(into, [*preamble(loaded.rids, loaded.tock), *items])
    assert tree_of(into) == tree_of(loaded)
    assert into.claimed == loaded.seen


# --- vectors and members ----------------------------------------------------------------------

_TICKS = st.integers(1, 9)
_RIDS = st.sampled_from((OLD, NEW, OTHER))
_RANGES = st.lists(st.tuples(_TICKS, _TICKS).map(lambda ends: (min(ends), max(ends))), min_size=1)
_VECTORS = st.builds(
    Vector.of,
    st.dictionaries(_RIDS, _RANGES.map(tuple)),
    st.dictionaries(st.sampled_from(("me", "other", "gone")), st.integers(1, 9)),
)
_KEPT = st.dictionaries(
    st.sampled_from(("me", "other")),
    st.builds(Kept, st.integers(0, 1 << 60), st.integers(0, 1 << 60), _VECTORS),
)


def numbered(*vectors: Vector) -> RidTable:
    """Return a table with the rids of vectors."""
    table = RidTable()
    for rid, _ in (row for vector in vectors for row in vector):
        table.number(rid, BASES[rid])
    return table


@given(_VECTORS, st.lists(_RIDS))
def test_what_was_seen_is_claimed_whatever_the_numbers(seen: Vector, known: list[Rid]) -> None:
    table, into = numbered(seen), Loaded()
    for rid in known:
        into.rids.number(rid)
    load_file(into, [*preamble(table, 0), *seen_payloads(seen, table)])
    assert into.claimed == seen
    assert into.seen == Vector()  # claims alone are nothing where something is damaged


@given(_VECTORS, _VECTORS)
def test_claims_of_several_files_are_joined(one: Vector, other: Vector) -> None:
    into = Loaded()
    for seen in (one, other):
        table = numbered(seen)
        load_file(into, [*preamble(table, 0), *seen_payloads(seen, table)])
    assert into.claimed == one.union(other)


@given(_KEPT, st.lists(_RIDS))
def test_what_members_announced_is_kept_whatever_the_numbers(
    kept: dict[str, Kept], known: list[Rid]
) -> None:
    table, into = numbered(*(what.vector for what in kept.values())), Loaded()
    for rid in known:
        into.rids.number(rid)
    payloads = [kept_payload(node, what, table) for node, what in kept.items()]
    load_file(into, [*preamble(table, 0), *payloads])
    assert into.kept == kept
    assert not into.claimed
    assert not into.seen


def test_the_last_word_of_a_member_counts() -> None:
    first, last = Vector.of({OLD: ((1, 9),)}), Vector.of({OLD: ((1, 2),)})
    into, table = Loaded(), numbered(first)
    load_file(into, [*preamble(table, 0), kept_payload("me", Kept(1, 0, first), table)])
    load_file(into, [*preamble(table, 0), kept_payload("me", Kept(2, 1, last), table)])
    assert into.kept == {"me": Kept(2, 1, last)}


@pytest.mark.parametrize("lost", [OLD, OTHER])
def test_an_announcement_that_names_a_damaged_number_was_not_made(lost: Rid) -> None:
    """With a part of it a member would seem to have less than it said."""
    vector = Vector.of({OLD: ((1, 2),), OTHER: ((1, 3),)}, {"gone": 4})
    other = Kept(4, 0, Vector.of({rid: ((1, 1),) for rid in (OLD, OTHER) if rid != lost}))
    table = numbered(vector)
    damaged = rid_payload(table.number(lost), lost, BASES[lost])
    payloads = [
        *preamble(table, 0),
        kept_payload("me", Kept(3, 0, vector), table),
        kept_payload("other", other, table),
    ]
    into = Loaded()
    load_file(into, [payload for payload in payloads if payload != damaged])
    assert into.kept == {"other": other}


@pytest.mark.parametrize("lost", [OLD, OTHER])
def test_a_claim_that_names_a_damaged_number_is_not_made(lost: Rid) -> None:
    seen = Vector.of({OLD: ((1, 2),), OTHER: ((1, 3),)}, {"gone": 4})
    table = numbered(seen)
    damaged = rid_payload(table.number(lost), lost, BASES[lost])
    payloads = [*preamble(table, 0), *seen_payloads(seen, table)]
    into = Loaded()
    load_file(into, [payload for payload in payloads if payload != damaged])
    rest = {rid: ranges for rid, ranges in seen if rid != lost}
    assert into.claimed == Vector.of(rest, {"gone": 4})


def test_for_how_long_a_member_was_not_heard_is_told_in_whole_seconds() -> None:
    into = Loaded()
    load_file(into, [unheard_payload("b", 7.9), unheard_payload("c", 5.0)])
    load_file(into, [unheard_payload("b", 3600.2)])
    assert into.unheard_s == {"b": 3600, "c": 5}


_VALUES = st.integers(0, 3).map(packb) | st.just(MISSING)
_HISTORIES = st.lists(
    st.tuples(
        st.sampled_from((OLD, NEW, OTHER)), st.integers(1, 4), st.integers(1, 4),
        st.sampled_from(KEYS), _VALUES,
    ),
    max_size=12,
    unique_by=lambda change: (change[0], change[1]),
)  # fmt: skip


@given(history=_HISTORIES, data=st.data())
def test_order_repetition_and_cuts_into_files_do_not_matter(
    history: list[Change], data: st.DataObject
) -> None:
    plain = File()
    for change in history:
        plain.add(change)

    again = data.draw(st.lists(st.sampled_from(history))) if history else []
    files = [File(OTHER, OLD), File(NEW), File()]
    for change in data.draw(st.permutations([*history, *again])):
        data.draw(st.sampled_from(files)).add(change)
    shuffled = loaded_from(*data.draw(st.permutations(files)))

    expected = loaded_from(plain)
    assert tree_of(shuffled) == tree_of(expected)
    assert shuffled.seen == expected.seen == Vector.of(_ranges(history))
    assert shuffled.tock == expected.tock == max((change[2] for change in history), default=0)
    assert shuffled.lost == 0


def _ranges(history: list[Change]) -> dict[Rid, tuple[tuple[int, int], ...]]:
    rids = {rid for rid, *_ in history}
    return {rid: tuple((t, t) for r, t, *_ in history if r == rid) for rid in rids}
