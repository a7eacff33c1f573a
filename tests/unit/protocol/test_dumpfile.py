"""Dumps: what was written is read, however it is cut into pieces; and each way to be damaged."""

from __future__ import annotations

from zlib import crc32

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge import limits
from kvedge.errors import BadDump
from kvedge.model.path import P
from kvedge.model.value import pack, packb
from kvedge.protocol.dumpfile import DumpEntry, DumpHeader, DumpReader, DumpWriter

HEADER = DumpHeader("one", "kvedge", 1_700_000_000, 77)
ENTRIES = [
    DumpEntry(P(":").key, 1, (("one", 5),), pack("Testing")),
    DumpEntry(P("a.:1.:t.:(1,2)").key, 2, (("two", 9), ("one", 6)), pack({"x": [1, b"y", None]})),
    DumpEntry(P(":n.auth").key, 3, (), pack(None)),
    DumpEntry(P(f":{1 << 70}").key, (1 << 62) + 1, (("one", 7),), pack(1 << 80)),
]


def written(entries: list[DumpEntry] = ENTRIES, header: DumpHeader = HEADER) -> bytes:
    writer = DumpWriter()
    return b"".join([writer.start(header), *map(writer.entry, entries), writer.end()])


def read(data: bytes, step: int = 1 << 16) -> list[DumpEntry | DumpHeader]:
    reader = DumpReader("a.dump")
    pieces = (data[at : at + step] for at in range(0, len(data), step))
    found = [item for piece in pieces for item in reader.feed(piece)]
    reader.finish()
    return found


def failure(data: bytes) -> BadDump:
    with pytest.raises(BadDump) as caught:
        read(data)
    assert caught.value.file == "a.dump"
    return caught.value


@given(st.integers(1, 200))
def test_what_was_written_is_read(step: int) -> None:
    assert read(written(), step) == [HEADER, *ENTRIES]


def test_a_dump_may_be_empty_and_know_little() -> None:
    header = DumpHeader("one")
    assert read(written([], header)) == [header]


def test_dumps_may_follow_each_other() -> None:
    assert read(written() + written([])) == [HEADER, *ENTRIES, HEADER]


def test_every_cut_is_noticed_at_its_byte() -> None:
    data = written()
    for size in range(1, len(data)):
        error = failure(data[:size])
        assert error.offset == size
        assert "cut" in error.why
    assert failure(b"").why == "it is empty"


def test_every_flipped_bit_is_noticed() -> None:
    data = written()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            found = read(bytes(changed))
        except BadDump:
            continue
        pytest.fail(f"bit {bit} went unnoticed: {found}")


@pytest.mark.parametrize(
    "data",
    [b"root:x:0:0:", b"\xc1", b"\x00" * 99, packb({"nodes": {}, "tock": 1}), b"\x94\xa1x", b"\xff"],
)
def test_something_else_is_told_at_once(data: bytes) -> None:
    error = failure(data + written())
    assert (error.offset, error.why) == (0, "it is no dump of kvedge")


def test_garbage_behind_a_dump_is_told() -> None:
    error = failure(written() + b"more")
    assert (error.offset, error.why) == (len(written()), "something else follows the dump")


@pytest.mark.parametrize(("major", "age"), [(2, "a newer"), (0, "an older")])
def test_another_version_is_told(major: int, age: str) -> None:
    header = packb(("kvedge dump", major, 3, {"node": "x", "tock": 1}))
    assert failure(header).why == f"it is of {age} version (format {major}.3, not 1.x)"
    assert age in failure(packb(("kvedge dump", major, 3, "new", "shape"))).why


def test_a_later_minor_version_may_add_parts() -> None:
    head = packb(("kvedge dump", 1, 9, {"node": "one", "tock": 0, "new": 1}, "more"))
    entry = packb((("a",), 1, ("one", 1), "v", "more"))
    found = read(head + entry + packb(("end", 1, crc32(head + entry), "more")))
    assert found[1:] == [DumpEntry(P("a").key, 1, (("one", 1),), pack("v"))]


@pytest.mark.parametrize(
    "item",
    [
        (("a",), 1, ("one",), 1),  # half a link
        (("a",), 1, (5, 1), 1),
        (("a",), 1, ("n", 1) * 6, 1),
        (("a",), -1, (), 1),
        (("a",), 1 << 63, (), 1),
        (("a",), True, (), 1),
        (({"x": 1},), 1, (), 1),
        (("a",) * 100, 1, (), 1),
        (("a",), 1, ()),
        ("a", 1, (), 1),
        7,
    ],
)
def test_what_is_no_entry_is_told(item: object) -> None:
    start = DumpWriter().start(HEADER)
    assert failure(start + packb(item)).offset == len(start)


@pytest.mark.parametrize(
    ("packed", "why"),
    [
        (packb("x" * limits.VALUE_MAX_BYTES), "a value has"),
        (packb([0] * (limits.ELEMENTS_MAX + 1)), "parts"),
        (b"\xa1\xff", "not valid Unicode"),
        (msgpack.packb(msgpack.ExtType(9, b"x")), "extension type 9"),
        (b"\x91" * 40 + b"\xc0", "levels"),
    ],
)
def test_a_value_that_cannot_be_stored_is_told(packed: bytes, why: str) -> None:
    start = DumpWriter().start(HEADER)
    entry = b"\x94" + packb(("a",)) + packb(1) + packb(()) + packed
    error = failure(start + entry)
    assert why in error.why
    assert error.offset == len(start)


def test_a_huge_item_is_refused_before_it_is_held() -> None:
    reader = DumpReader("a.dump")
    list(reader.feed(DumpWriter().start(HEADER)))
    head = b"\x94" + packb(("a",)) + packb(1) + packb(()) + b"\xc6\x7f\xff\xff\xff"
    list(reader.feed(head))
    for _ in range(limits.MESSAGE_MAX_BYTES // 65536 - 1):
        assert not list(reader.feed(b"\0" * 65536))
    with pytest.raises(BadDump, match=f"longer than {limits.MESSAGE_MAX_BYTES} bytes"):
        list(reader.feed(b"\0" * 65536))


def test_a_lost_entry_and_an_unfinished_dump_are_told() -> None:
    writer = DumpWriter()
    parts = [writer.start(HEADER), *map(writer.entry, ENTRIES), writer.end()]
    assert "its end says 4" in failure(b"".join(parts[:2] + parts[3:])).why
    assert "whose end is missing" in failure(b"".join(parts[:2]) + written()).why
