"""Bodies of servers' messages: what is packed is read again, and anything else is refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge import limits
from kvedge.errors import RemoteProtocolError
from kvedge.model.entry import JOB_MAX_BYTES, TICK_MAX, Fence
from kvedge.model.path import P, Path, elements_of, key_of
from kvedge.model.stamp import TOCK_MAX, Dot, Rid
from kvedge.model.value import MISSING, decode, pack, packb
from kvedge.model.vector import Vector
from kvedge.protocol import batches
from kvedge.protocol.batches import (
    INCARNATION_MAX,
    Carried,
    Writers,
    read_body,
    read_records,
    read_vector,
    read_writers,
    record_parts,
    vector_hash,
    vector_parts,
)

ALPHA, BETA = Rid("alpha", 3 << 40), Rid("beta", INCARNATION_MAX)
BASES = {ALPHA: 7, BETA: TOCK_MAX}
KEY = P("a.b").key
LISTED = ((*ALPHA, 7), (*BETA, TOCK_MAX))

RIDS = st.builds(Rid, st.sampled_from("abcdefg"), st.integers(0, 2) | st.just(INCARNATION_MAX))
TICKS = st.integers(1, 9) | st.integers(1, TICK_MAX)
CHAINS = st.lists(
    st.builds(Dot, RIDS, TICKS),
    min_size=1,
    max_size=limits.CHAIN_LINKS_MAX,
    unique_by=lambda dot: dot.rid.node,
).map(tuple)
ELEMENTS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), 1 << 200)
    | st.text(max_size=8)
    | st.binary(max_size=8)
)
KEYS = st.lists(ELEMENTS | st.tuples(ELEMENTS), max_size=4).map(lambda given: Path(*given).key)
VALUES = st.just(MISSING) | st.recursive(
    ELEMENTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner)
).map(pack)
FENCES = st.none() | st.builds(
    Fence, st.text("ab.ä", min_size=1, max_size=JOB_MAX_BYTES // 2), st.integers(0, TOCK_MAX)
)
RECORDS = st.builds(Carried, KEYS, st.integers(0, TOCK_MAX), CHAINS, VALUES, FENCES)
RANGES = st.tuples(TICKS, TICKS).map(lambda ends: (min(ends), max(ends)))
FLOORS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 3) | st.just(1 << 22))
VECTORS = st.builds(
    Vector.of, st.dictionaries(RIDS, st.lists(RANGES, min_size=1).map(tuple)), FLOORS
)


def base_of(rid: Rid) -> int:
    return rid.incarnation % 1000


def body_of(records: list[Carried], vector: Vector, bases: Callable[[Rid], int] = base_of) -> bytes:
    """Return a body that says all there is to say."""
    writers = Writers()
    listed = [record_parts(record, writers, bases) for record in records]
    rows = vector_parts(vector, writers, bases)
    return packb((writers.listed, listed, rows))


def read(body: bytes) -> tuple[list[Carried], Vector, dict[Rid, int]]:
    """Return what a body says."""
    listed, records, rows = read_body(body, 3)[:3]
    writers = read_writers(listed)
    return read_records(records, writers), read_vector(rows, writers), dict(writers)


# --- there and back ---------------------------------------------------------------------------


@given(st.lists(RECORDS, max_size=4), VECTORS)
def test_what_is_packed_is_read_again(records: list[Carried], vector: Vector) -> None:
    found, seen, bases = read(body_of(records, vector))
    assert (found, seen) == (records, vector)
    assert bases == {rid: base_of(rid) for rid in bases}
    named = {dot.rid for record in records for dot in record.chain} | {rid for rid, _ in vector}
    assert set(bases) == named


def test_a_writer_is_listed_once_whoever_names_it() -> None:
    record = Carried(KEY, 5, (Dot(ALPHA, 2), Dot(BETA, 1)), MISSING)
    vector = Vector.of({ALPHA: ((1, 2),)})
    listed, records, rows = decode(body_of([record, record], vector, BASES.__getitem__))
    assert listed == LISTED
    assert records == ((KEY, 5, (0, 2, 1, 1), None),) * 2
    assert rows == ((0, 1, 2),)


def test_a_newer_minor_version_may_append_parts_anywhere() -> None:
    more = ("more", None)
    body = packb(
        (
            [(*row, *more) for row in LISTED],
            [(KEY, 5, (0, 2), packb(1), None, *more), (KEY, 6, (0, 3), None, ("job", 7, *more))],
            [(0, 1, 2)],
            *more,
        )
    )
    found, seen, bases = read(body)
    fenced = Carried(KEY, 6, (Dot(ALPHA, 3),), MISSING, Fence("job", 7))
    assert found == [Carried(KEY, 5, (Dot(ALPHA, 2),), packb(1)), fenced]
    assert seen == Vector.of({ALPHA: ((1, 2),)})
    assert bases == BASES


@pytest.mark.parametrize(
    "row",
    [(0, 1, 3, 5, 9), (0, 5, 9, 1, 3), (0, 1, 2, 2, 3, 6, 9, 5, 5)],
    ids=["in order", "out of order", "overlapping"],
)
def test_ranges_come_in_any_order(row: tuple[int, ...]) -> None:
    assert read_vector((row,), read_writers(LISTED)).ranges(ALPHA) == ((1, 3), (5, 9))


def test_rows_of_the_same_writer_are_joined() -> None:
    seen = read_vector(((0, 1, 3), (1, 1, 1), (0, 4, 4)), read_writers((*LISTED, LISTED[0])))
    assert seen == Vector.of({ALPHA: ((1, 4),), BETA: ((1, 1),)})


def test_floors_are_the_last_rows_and_may_come_anywhere() -> None:
    vector = Vector.of({ALPHA: ((1, 2),)}, {"beta": 9, "alpha": 2})
    _, _, rows = decode(body_of([], vector))
    assert rows == ((0, 1, 2), ("alpha", 2), ("beta", 9))
    assert read_vector(rows[::-1], read_writers(LISTED)) == vector


def test_a_row_below_a_floor_of_the_same_vector_says_nothing() -> None:
    seen = read_vector(((0, 1, 3), ("alpha", 4)), read_writers(LISTED))
    assert seen == Vector.of({}, {"alpha": 4})


@given(VECTORS, VECTORS)
def test_a_hash_stands_for_ranges_and_floors(one: Vector, other: Vector) -> None:
    assert vector_hash(one) == vector_hash(one.copy())
    assert (vector_hash(one) == vector_hash(other)) == (one == other)


def test_a_hash_knows_a_floor_from_the_ranges_below_it() -> None:
    open_, closed = Vector.of({ALPHA: ((1, 3),)}), Vector.of({}, {"alpha": 4})
    both = Vector.of({BETA: ((1, 3),)}, {"alpha": 4})
    assert len({vector_hash(v) for v in (Vector(), open_, closed, both)}) == 4
    assert len(vector_hash(both)) == 16


def test_as_many_ranges_as_a_message_holds_are_read_at_once() -> None:
    """One after another would take minutes, and a message is enough to ask for it."""
    row = [0]
    for tick in range(60_000, 0, -2):
        row += (tick, tick)
    started_s = time.process_time()
    seen = read_vector((tuple(row),), read_writers(LISTED))
    assert time.process_time() - started_s < 2
    assert len(seen.ranges(ALPHA)) == 30_000


# --- what is refused --------------------------------------------------------------------------

DEEP = pack(1)
for _ in range(limits.DEPTH_MAX + 1):
    DEEP = b"\x91" + DEEP

WRONG_KEYS = {
    "text": "a",
    "nothing": None,
    "no code": b"\x0b",
    "code zero": b"\0",
    "an end that is missing": b"\x08a",
    "an escape without an end": b"\x08a\0\xff",
    "no UTF-8": b"\x08\xff\0",
    "surrogates": b"\x08\xed\xa0\x80\0",
    "an integer with a leading zero": b"\x05\x01\0",
    "an integer that ends early": b"\x05\x02\x01",
    "an integer without its length": b"\x05",
    "an integer beyond the bound": b"\x05\xff" + b"\1" * 255,
    "zero as a negative": b"\x04\xff",
    "a float that ends early": b"\x06\x80\0",
    "minus zero": b"\x06\x7f" + b"\xff" * 7,
    "NaN": b"\x06\xff\xf8" + bytes(6),
    "a tuple without an end": b"\x09\x08a\0",
    "a tuple too deep": b"\x09" * 500 + bytes(500),
    "a tuple far too deep": b"\x09" * 50_000,
    "too many elements": b"\x01" * (limits.PATH_ELEMENTS_MAX + 1),
    "too many bytes": b"\x08" + b"a" * limits.PATH_MAX_BYTES + b"\0",
}

WRONG_VALUES = {
    "not packed": 1,
    "text": "a",
    "no bytes": b"",
    "two objects": b"\x01\x01",
    "half an object": b"\x92\x01",
    "a longer form": b"\xcd\x00\x01",
    "a list in a longer form": b"\xdc\x00\x01\x01",
    "no UTF-8": b"\xa1\xff",
    "a key twice": b"\x82\x01\x01\x01\x02",
    "equal keys": b"\x82\x01\x01\xc3\x02",
    "a list as key": b"\x81\x90\x01",
    "an unknown extension": b"\xd4\x63\0",
    "a time": b"\xd6\xff\0\0\0\0",
    "a broken path": msgpack.packb(msgpack.ExtType(3, b"\xc1")),
    "an integer in a longer form": msgpack.packb(msgpack.ExtType(2, b"\x01")),
    "too deep": DEEP,
    "far too deep": b"\x91" * 100_000 + b"\x01",
    "too many parts": packb([0] * (limits.ELEMENTS_MAX + 1)),
    "too large": packb(bytes(limits.VALUE_MAX_BYTES)),
}

TOO_LARGE = (-1, True, 1.0, "1", None, 1 << 64)

WRONG_FENCES = {
    "no list": 1,
    "text": "job",
    "one part": ("job",),
    "no job": ("", 1),
    "a job that is no text": (b"job", 1),
    "a long job": ("a" * (JOB_MAX_BYTES + 1), 1),
    "a long job of few letters": ("ä" * (JOB_MAX_BYTES // 2 + 1), 1),
    **{f"number {number!r}": ("job", number) for number in (*TOO_LARGE, TOCK_MAX + 1)},
}

WRONG_RECORDS = {
    "no list": 1,
    "a map": {},
    "three parts": (KEY, 5, (0, 1)),
    **{f"tock {tock!r}": (KEY, tock, (0, 1), None) for tock in (*TOO_LARGE, TOCK_MAX + 1)},
    **{f"tick {tick!r}": (KEY, 5, (0, tick), None) for tick in (0, *TOO_LARGE, TICK_MAX + 1)},
    **{f"writer {number!r}": (KEY, 5, (number, 1), None) for number in (2, *TOO_LARGE)},
    "no chain": (KEY, 5, None, None),
    "an empty chain": (KEY, 5, (), None),
    "half a link": (KEY, 5, (0, 1, 1), None),
    "a node twice": (KEY, 5, (0, 2, 1, 1, 0, 1), None),
    "a node twice in two lives": (KEY, 5, (0, 2, 2, 1), None),
    "a long chain": (KEY, 5, (3, 1, 4, 1, 5, 1, 6, 1, 7, 1, 8, 1), None),
    **{f"path: {name}": (key, 5, (0, 1), None) for name, key in WRONG_KEYS.items()},
    **{f"value: {name}": (KEY, 5, (0, 1), value) for name, value in WRONG_VALUES.items()},
    **{f"fence: {name}": (KEY, 5, (0, 1), None, fence) for name, fence in WRONG_FENCES.items()},
}

SURROGATE = msgpack.Packer(unicode_errors="surrogateescape").pack("\udcff")
WRONG_WRITERS = {
    "no list": 1,
    "two parts": ("alpha", 1),
    **{
        f"node {node!r}"[:30]: (node, 1, 0)
        for node in ("", b"alpha", None, 1, "a.b", "a/b", "a\n", "a" * 64)
    },
    **{f"incarnation {n!r}": ("alpha", n, 0) for n in (*TOO_LARGE, INCARNATION_MAX + 1)},
    **{f"base {n!r}": ("alpha", 1, n) for n in (*TOO_LARGE, TOCK_MAX + 1)},
}

WRONG_ROWS = {
    "no list": 1,
    "nobody's": (),
    "half a range": (0, 1),
    "no range": (0, 0, 0),
    "turned round": (0, 3, 2),
    **{f"writer {number!r}": (number, 1, 1) for number in (2, *TOO_LARGE)},
    **{f"first {first!r}": (0, first, 5) for first in (0, *TOO_LARGE)},
    **{f"last {last!r}": (0, 1, last) for last in (*TOO_LARGE, TICK_MAX + 1)},
    **{
        f"floor {floor!r}": ("alpha", floor)
        for floor in (*TOO_LARGE, INCARNATION_MAX + 1, (1,), b"")
    },
    **{
        f"floor of {node!r}"[:30]: (node, 1)
        for node in ("", b"alpha", None, "a.b", "a/b", "a\n", "a" * 64)
    },
    "no floor": ("alpha",),
    "two floors": ("alpha", 1, 2),
    "a floor and a range": ("alpha", 1, 1, 2, 2),
}


def as_received(thing: object) -> Any:
    """Return what a message would carry as it comes out of the decoder."""
    packer = msgpack.Packer(default=lambda number: msgpack.ExtType(2, number.to_bytes(9, "big")))
    return decode(packer.pack(thing))


@pytest.mark.parametrize("name", WRONG_RECORDS)
def test_a_wrong_record_spoils_the_message(name: str) -> None:
    nodes = (("alpha", 9, 0), *((f"node{i}", 1, 0) for i in range(6)))
    limit = 9 if "chain" in name or "lives" in name else 2
    writers = read_writers((*LISTED, *nodes)[:limit])
    good = (KEY, 5, (0, 1), packb(1))
    with pytest.raises(RemoteProtocolError, match="is wrong in"):
        read_records(as_received((good, WRONG_RECORDS[name])), writers)


@pytest.mark.parametrize("name", WRONG_WRITERS)
def test_a_wrong_writer_spoils_the_message(name: str) -> None:
    with pytest.raises(RemoteProtocolError, match="is wrong in a"):
        read_writers(as_received((LISTED[0], WRONG_WRITERS[name])))


@pytest.mark.parametrize("name", WRONG_ROWS)
def test_a_wrong_row_spoils_the_message(name: str) -> None:
    with pytest.raises(RemoteProtocolError, match="is wrong in"):
        read_vector(as_received(((0, 1, 1), WRONG_ROWS[name])), read_writers(LISTED))


def test_a_node_whose_name_is_no_text_is_refused() -> None:
    """It could neither be stored nor hashed nor told to others."""
    with pytest.raises(RemoteProtocolError, match="a node's name"):
        read_writers(decode(b"\x91\x93" + SURROGATE + b"\x01\x00"))


def test_a_job_whose_name_is_no_text_is_refused() -> None:
    """It could neither be stored nor told to others."""
    packer = msgpack.Packer(unicode_errors="surrogateescape")
    records = decode(packer.pack([(KEY, 5, (0, 1), None, ("\udcff", 1))]))
    with pytest.raises(RemoteProtocolError, match="a fence's job"):
        read_records(records, read_writers(LISTED))


@pytest.mark.parametrize("reads", [read_records, read_vector])
@pytest.mark.parametrize("given", [None, 1, "ab", b"ab", {}, {1: 2}])
def test_what_is_no_list_is_refused(reads: Callable[[Any, Any], Any], given: object) -> None:
    with pytest.raises(RemoteProtocolError, match="is wrong in its"):
        reads(given, [])
    with pytest.raises(RemoteProtocolError, match="its writers"):
        read_writers(given)


BODIES = {
    "nothing": (b"", "cannot be read"),
    "cut": (b"\x93\x01", "cannot be read"),
    "two": (b"\x93\x01\x01\x01\x01", "cannot be read"),
    "far too deep": (b"\x91" * 100_000, "cannot be read"),
    "too few parts": (packb((1, 2)), "lacks parts"),
    "no list": (packb("abc"), "lacks parts"),
    "a map": (packb({1: 1, 2: 2, 3: 3}), "lacks parts"),
}


@pytest.mark.parametrize("name", BODIES)
def test_what_is_no_body_is_refused(name: str) -> None:
    body, words = BODIES[name]
    with pytest.raises(RemoteProtocolError, match=words):
        read_body(body, 3)


# --- anything at all --------------------------------------------------------------------------

ODD: tuple[Any, ...] = (
    *(None, True, 0, 1, 2, -1, 1.5, TICK_MAX + 1, (1 << 64) - 1, "", "a", b"", b"\0", [], {}),
    *(msgpack.ExtType(2, b"\xff" * 200), msgpack.ExtType(3, b"\xc1"), msgpack.ExtType(9, b"")),
    *("\udcff", b"\x06\x80", b"\x09" * 3000, b"\x91" * 3000, {"a": [None]}, [[[]]], {b"k": 1}),
    *(WRONG_KEYS.values()),
    *(value for name, value in WRONG_VALUES.items() if name != "too large"),
)


def torn(random: Random, body: bytes) -> bytes:
    """Return a body with some bytes changed, left out, doubled or put in."""
    raw = bytearray(body)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(raw) + 1)
        size = random.choice((0, 1, 1, 2, 9))
        new = random.choice((random.randbytes(random.randint(0, 3)), bytes(raw[at:][:9]), b"\xff"))
        raw[at : at + size] = new
    return bytes(raw)


def warped(random: Random, thing: Any) -> Any:
    """Return a structure in which something somewhere is something else."""
    if not isinstance(thing, (tuple, list)) or not thing or random.random() < 0.15:
        return random.choice(ODD)
    parts = list(thing)
    at = random.randrange(len(parts))
    parts[at : at + random.choice((1, 1, 1, 1, 0))] = [warped(random, parts[at])]
    if random.random() < 0.1:
        del parts[-1]
    return parts


def test_a_wrong_body_is_refused_in_words_and_in_no_other_way() -> None:
    """A right one that comes of it by chance holds nothing that may not be in the tree."""
    random = Random(20_250)
    records = [
        Carried(KEY, 5, (Dot(ALPHA, 2), Dot(BETA, 1)), pack({"a": [1, (P("x"), 1 << 70)]})),
        Carried(Path(None, (1.5, b"\0"), -700).key, 6, (Dot(BETA, 2),), MISSING, Fence("job", 3)),
    ]
    vector = Vector.of({ALPHA: ((1, 2), (5, 9)), BETA: ((1, 1),)}, {"alpha": 2, "gamma": 8})
    whole = body_of(records, vector)
    structure = decode(whole)
    packer = msgpack.Packer(unicode_errors="surrogateescape")
    reasons = []
    for number in range(6000):
        is_torn = number % 2
        body = torn(random, whole) if is_torn else packer.pack(warped(random, structure))
        try:
            found, seen, bases = read(body)
        except RemoteProtocolError as error:
            reasons.append(str(error))
            continue
        assert read(body_of(found, seen, bases.__getitem__))[:2] == (found, seen)
        for record in found:
            assert key_of(elements_of(record.key)) == record.key
            assert record.value is MISSING or pack(decode(record.value)) == record.value
    assert len(reasons) > 4500
    assert min(len(reason.split()) for reason in reasons) > 8


@given(st.lists(st.sampled_from([b"\x01", b"\x05", b"\x08", b"\0", b"\xff", b"\x02", b"a"])))
def test_the_short_way_to_know_a_key_takes_no_other(parts: list[bytes]) -> None:
    key = b"".join(parts)
    if batches._USUAL_KEY.fullmatch(key):
        assert key_of(elements_of(key)) == key


@pytest.mark.parametrize("text", ["a.b", ":", "a:5:0:65536", ":n.member.x", "a:4294967295"])
def test_usual_keys_take_the_short_way(text: str) -> None:
    assert batches._USUAL_KEY.fullmatch(P(text).key)


@pytest.mark.parametrize("count", [limits.PATH_ELEMENTS_MAX, limits.PATH_ELEMENTS_MAX + 1])
def test_the_short_way_counts_elements(count: int) -> None:
    is_right = count <= limits.PATH_ELEMENTS_MAX
    assert bool(batches._USUAL_KEY.fullmatch(b"\x08a\0" * count)) is is_right
