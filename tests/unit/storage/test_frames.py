"""Frames: what is written is read, and what is damaged costs no more than itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge import limits
from kvedge.errors import LimitExceeded, WrongStore
from kvedge.storage import frames
from kvedge.storage.frames import FileContent, Header, Kind, Loss, LossKind

HEADER = Header(Kind.JOURNAL, 7, "net", "board", (1 << 63) - 1, 42, 0xDEADBEEF)


def read(data: bytes) -> FileContent:
    return frames.read_frames(data, name="here", network="net")


@dataclass
class Piece:
    """One frame of a file.

    Attributes:
        start: Where it begins.
        end: Where it ends.
        payload: What is lost with it, None where there is another copy.
        whole: How many payloads can be read from the file up to here.
    """

    start: int
    end: int
    payload: bytes | None
    whole: int


def build(payloads: list[tuple[bytes, bool]]) -> tuple[bytes, list[Piece]]:
    """Return the bytes of a file, and the frames in it."""
    data = frames.encode_header(HEADER)
    pieces = [Piece(0, len(data) // 2, None, 0), Piece(len(data) // 2, len(data), None, 0)]
    for whole, (payload, vital) in enumerate(payloads, 1):
        data += frames.encode([(payload, vital)], salt=HEADER.salt, offset=len(data))
        start, size = pieces[-1].end, frames.HEAD_BYTES + len(payload)
        for _ in range(2 if vital else 1):
            pieces.append(Piece(start, start + size, None if vital else payload, whole))
            start += size
    return data, pieces


MIXED = [(b"table-%d" % n if n % 5 == 0 else b"value-%d" % n, n % 5 == 0) for n in range(14)]


def test_what_is_written_is_read() -> None:
    data, _ = build(MIXED)
    content = read(data)
    assert content.header == HEADER
    assert content.payloads == [payload for payload, _ in MIXED]
    assert content.losses == []
    assert content.count is None


@given(st.lists(st.tuples(st.binary(max_size=60), st.booleans())))
def test_any_payloads_come_back(payloads: list[tuple[bytes, bool]]) -> None:
    content = read(build(payloads)[0])
    assert content.payloads == [payload for payload, _ in payloads]
    assert not content.losses


def test_payloads_encoded_together_or_apart_are_the_same_bytes() -> None:
    data, _ = build(MIXED)
    start = frames.encode_header(HEADER)
    assert data == start + frames.encode(MIXED, salt=HEADER.salt, offset=len(start))


def test_empty_file_is_not_a_loss() -> None:
    assert read(b"") == FileContent()


def test_rubbish_is_a_loss_and_no_error() -> None:
    content = read(b"\xc1" * 1000)
    assert content.header is None
    assert content.losses == [Loss(0, 1000, LossKind.TORN)]


@pytest.mark.slow
def test_every_cut_gives_an_exact_prefix() -> None:
    payloads = [(b"%d" % n, n % 50 == 0) for n in range(300)]
    data, pieces = build(payloads)
    expected = [payload for payload, _ in payloads]
    ends = {0: 0} | {piece.end: piece.whole for piece in pieces}
    whole = 0
    for cut in range(len(data) + 1):
        whole = ends.get(cut, whole)
        content = read(data[:cut])
        assert content.payloads == expected[:whole], cut
        assert [loss.kind for loss in content.losses] in ([], [LossKind.TORN]), cut
        assert (cut in ends) == (not content.losses), cut


@pytest.mark.slow
def test_every_flipped_bit_costs_its_frame_and_is_reported() -> None:
    data, pieces = build(MIXED)
    everything = [payload for payload, _ in MIXED]
    for piece in pieces:
        rest = [payload for payload in everything if payload != piece.payload]
        for bit in range(piece.start * 8, piece.end * 8):
            content = read(flipped(data, bit))
            assert content.header == HEADER, bit
            assert content.payloads == rest, bit
            assert content.losses == [
                Loss(piece.start, piece.end - piece.start, loss_of(piece, data))
            ]


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit >> 3] ^= 1 << (bit & 7)
    return bytes(changed)


def loss_of(piece: Piece, data: bytes) -> LossKind:
    if piece.end == len(data):
        return LossKind.TORN
    return LossKind.SPARED if piece.payload is None else LossKind.DAMAGED


def test_vital_payload_at_the_end_survives_in_its_first_copy() -> None:
    data, pieces = build([(b"a", False), (b"table", True)])
    content = read(flipped(data, pieces[-1].start * 8))
    assert content.payloads == [b"a", b"table"]
    assert content.losses == [Loss(pieces[-1].start, 15, LossKind.TORN)]


def test_both_copies_of_a_vital_payload_damaged_lose_it() -> None:
    data, pieces = build([(b"a", False), (b"table", True), (b"b", False)])
    for piece in pieces[3:5]:
        data = flipped(data, piece.start * 8)
    content = read(data)
    assert content.payloads == [b"a", b"b"]
    assert [loss.kind for loss in content.losses] == [LossKind.DAMAGED]


def test_equal_vital_payloads_in_a_row_are_kept_apart() -> None:
    payloads = [(b"same", True)] * 3
    assert read(build(payloads)[0]).payloads == [b"same"] * 3


def test_value_that_holds_frames_is_not_taken_for_frames() -> None:
    inner, _ = build([(b"forged", False)])
    for trap in (inner, inner + frames.encode([(b"forged", False)], salt=HEADER.salt, offset=0)):
        data, pieces = build([(b"a", False), (trap, False), (b"b", False)])
        content = read(flipped(data, pieces[3].start * 8))
        assert content.payloads == [b"a", b"b"]
        assert content.losses == [Loss(pieces[3].start, len(trap) + 10, LossKind.DAMAGED)]


def test_frame_does_not_verify_at_another_place_of_the_same_file() -> None:
    data, pieces = build([(b"one", False), (b"two", False)])
    moved = data[: pieces[2].start] + data[pieces[3].start : pieces[3].end]
    assert read(moved + data[pieces[3].start :]).payloads == [b"two"]


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Something that happens to a file: bytes changed, zeroed, copied, lost, or put in."""
    kind = draw(st.sampled_from(["write", "zero", "copy", "cut", "insert"]))
    start, size, other = (draw(st.integers(0, 700)) for _ in range(3))
    new = draw(st.binary(min_size=1, max_size=20))

    def apply(data: bytes) -> bytes:
        at = min(start, len(data))
        match kind:
            case "write":
                return data[:at] + new + data[at + len(new) :]
            case "zero":
                return data[:at] + b"\0" * size + data[at + size :]
            case "copy":
                return data[:at] + data[other : other + size] + data[at + size :]
            case "cut":
                return data[:at]
            case _:
                return data[:at] + new + data[at:]

    return apply


@given(st.lists(damage(), min_size=1, max_size=6))
def test_damage_never_makes_up_a_payload(damages: list[Callable[[bytes], bytes]]) -> None:
    data, _ = build(MIXED)
    for apply in damages:
        data = apply(data)
    content = read(data)
    remaining = iter([payload for payload, _ in MIXED])
    assert all(payload in remaining for payload in content.payloads), "in order, none twice"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (("kvedge", 2, 5), "it was written by a newer version (format 2.5, not 1.x)"),
        (("kvedge", 0, 5), "it was written by an older version"),
        (("other", 1, 0, "journal", 1, "net", "n", 1, 0, 0), "not written by this program"),
        (("kvedge", 1, 0, "journal", 1, "mine", "n", 1, 0, 0), "network mine, not net"),
        ("text", "not written by this program"),
    ],
)
def test_store_of_another_is_refused(fields: object, words: str) -> None:
    padded = (*fields, *[0] * 10)[:12] if isinstance(fields, tuple) else fields
    data = frames.encode([(msgpack.packb(padded), True)], salt=0, offset=0)
    with pytest.raises(WrongStore) as caught:
        read(data)
    assert words in str(caught.value)


def test_minor_version_and_more_fields_are_accepted() -> None:
    fields = ("kvedge", 1, 99, "snapshot", 3, "net", "n", 5, 6, 7, "something new")
    data = frames.encode([(msgpack.packb(fields), True)], salt=0, offset=0)
    assert read(data).header == Header(Kind.SNAPSHOT, 3, "net", "n", 5, 6, 7)


def test_too_large_payload_is_refused() -> None:
    with pytest.raises(LimitExceeded):
        frames.encode([(bytes(limits.MESSAGE_MAX_BYTES + 1), False)], salt=0, offset=0)


def test_end_frame_tells_whether_a_snapshot_is_complete() -> None:
    data, pieces = build(MIXED)
    end = frames.encode_end(len(MIXED), salt=HEADER.salt, offset=len(data))
    assert read(data + end).is_complete
    assert not read(data).is_complete
    assert not read(data + end[:-1]).is_complete
    assert read(flipped(data + end, 0)).is_complete, "the header has a second copy"
    assert not read(flipped(data + end, pieces[5].start * 8)).is_complete
