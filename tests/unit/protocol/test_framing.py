"""Framing: any split gives the same messages; garbage and excess are refused before they cost."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvedge.errors import LimitExceeded, RemoteProtocolError
from kvedge.protocol.framing import Framer, check_parts

PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(),
    st.text(max_size=40),
    st.binary(max_size=300),
)
PARTS = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=20).map(tuple)
        | st.dictionaries(st.text(max_size=5), inner, max_size=18)
    ),
    max_leaves=20,
)
MESSAGES = st.dictionaries(st.text(max_size=5), PARTS, max_size=18)


def packed(thing: object) -> bytes:
    made: bytes = msgpack.packb(thing)
    return made


def fed(pieces: list[bytes]) -> list[str]:
    framer = Framer()
    return [repr(message) for piece in pieces for message in framer.feed(piece)]


@given(st.lists(MESSAGES, max_size=5), st.lists(st.integers(0, 2000)))
def test_any_split_gives_the_same_messages(messages: list[dict[str, Any]], cuts: list[int]) -> None:
    data = b"".join(map(packed, messages))
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    pieces = [data[low:high] for low, high in pairwise(edges)]
    wanted = [repr(message) for message in messages]
    assert fed([data]) == fed(pieces) == wanted


@given(MESSAGES)
def test_single_bytes_and_empty_pieces(message: dict[str, Any]) -> None:
    data = packed(message) + packed({"n": 2})
    pieces = [b"", *(data[at : at + 1] for at in range(len(data))), b""]
    assert fed(pieces) == [repr(message), "{'n': 2}"]


@given(MESSAGES)
def test_half_message_is_no_message(message: dict[str, Any]) -> None:
    assert fed([packed(message)[:-1]]) == []


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n", "starts with byte 47"),
        (b"\x16\x03\x01", "starts with byte 16"),  # TLS
        (b"\x00", "starts with byte 00"),
        (b"\x90", "starts with byte 90"),
        (b"\xc1", "starts with byte c1"),
        (b"\xa1a", "starts with byte a1"),
        (b"\xff", "starts with byte ff"),
        (b"\x81\xa1a\xc1", "not msgpack"),
        (b"\x81\xa1a" + b"\x91" * 5000, "nested too deep"),
        (b"\x81\xa1a" + b"\x81\xa1a" * 5000, "nested too deep"),
        (b"\x82\xa1a\x01\xa1a\x02", "same key twice"),
        (b"\x82\x01\x01\xc3\x02", "same key twice"),
        (b"\x81\x80\x01", "key of a map"),
        (b"\x81\xa1a\xd5\xff\0\0", "cannot be read"),
    ],
    ids=lambda given: given[:8].hex() if isinstance(given, bytes) else None,
)
def test_garbage_is_told(data: bytes, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        Framer().feed(data)
    with pytest.raises(RemoteProtocolError, match=why):
        fed([data[at : at + 1] for at in range(len(data))])


def test_good_messages_before_garbage_are_returned() -> None:
    framer = Framer()
    assert framer.feed(b"\x80\x80\xc1") == [{}, {}]
    assert isinstance(framer.failure, RemoteProtocolError)
    assert "starts with byte c1" in str(framer.failure)


@given(st.binary(max_size=60))
@example(b"\x81\xa1a\xc7\x06\x03\x81\x80\x01")
def test_any_bytes_are_messages_or_told(data: bytes) -> None:
    try:
        messages = Framer().feed(data)
    except (RemoteProtocolError, LimitExceeded):
        return
    assert all(type(message) is dict for message in messages)


# --- size ------------------------------------------------------------------------------------


def test_message_may_be_as_large_as_the_limit() -> None:
    message = packed({"a": "x" * 1000})
    assert len(Framer(len(message)).feed(message)) == 1
    assert len(Framer(len(message)).feed(message * 3)) == 3
    small = Framer(len(message) - 1)
    with pytest.raises(LimitExceeded, match=f"{len(message)} bytes; at most {len(message) - 1}"):
        small.feed(message)


def test_half_a_message_counts_too() -> None:
    framer = Framer(100)
    assert framer.feed(b"\x81\xa1a\xda\xff\xff" + b"x" * 94) == []
    with pytest.raises(LimitExceeded, match="a message has 101 bytes"):
        framer.feed(b"x")


def test_limit_may_be_raised_on_the_way() -> None:
    message = packed({"a": "x" * 1000})
    framer = Framer(100)
    assert framer.feed(message[:50]) == []
    framer.size_max_bytes = 2000
    assert framer.feed(message[50:]) == [{"a": "x" * 1000}]


# --- memory ----------------------------------------------------------------------------------

MB = 1 << 20


def peak_bytes(run: Callable[[], object]) -> int:
    """Return what a call holds at most, beyond what there was before."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def many(head: str, body: bytes) -> bytes:
    """Return a message of nearly 1 MB whose one field holds as many bodies as fit."""
    count = (MB - 16) // len(body)
    return b"\x81\xa1a" + bytes.fromhex(head) + count.to_bytes(4, "big") + body * count


@pytest.mark.parametrize(
    "data",
    [
        many("dd", b"\x80"),
        many("dd", b"\x90"),
        many("dd", b"\xa0"),
        many("dd", b"\x91\x91\x91\xc0"),
        many("dd", b"\xd4\x09\x00"),
        many("dd", b"\xd4\x03\x80"),
        many("df", b"\x00\x80"),
    ],
    ids=["maps", "lists", "texts", "nested", "extensions", "paths", "map"],
)
def test_too_many_parts_are_refused_before_they_are_made(data: bytes) -> None:
    def feed() -> None:
        with pytest.raises(LimitExceeded, match="parts"):
            Framer().feed(data)

    assert peak_bytes(feed) < 8 * MB


@pytest.mark.parametrize("body", [b"\x80", b"\xc0", b"\x90"], ids=["maps", "nothings", "lists"])
def test_parts_of_a_path_are_not_made_either(body: bytes) -> None:
    message = b"\x81\xa1a\xc9" + (MB - 20).to_bytes(4, "big") + b"\x03" + body * (MB - 20)
    assert peak_bytes(lambda: Framer().feed(message)) < 8 * MB


@pytest.mark.parametrize("head", ["db", "c6", "dd", "df", "c9", "da", "de"])
def test_huge_claims_cost_nothing(head: str) -> None:
    def claim() -> None:
        try:
            assert Framer().feed(b"\x81\xa1a" + bytes.fromhex(head) + b"\x7f\xff\xff\xff\x03") == []
            Framer().feed(b"\x81\xa1a" + bytes.fromhex(head) + b"\xff\xff\xff\xff\x03")
        except RemoteProtocolError:
            pass

    assert peak_bytes(claim) < MB


def test_endless_message_is_held_no_longer_than_allowed() -> None:
    framer = Framer()

    def feed() -> None:
        framer.feed(b"\x81\xa1a\xc6\x7f\xff\xff\xff")
        for _ in range(15):
            assert framer.feed(b"x" * 65536) == []
        with pytest.raises(LimitExceeded):
            framer.feed(b"x" * 65536)

    assert peak_bytes(feed) < 8 * MB


def test_what_was_taken_is_not_held() -> None:
    message = packed({"a": b"x" * 60_000})
    framer = Framer()

    def feed() -> None:
        for _ in range(300):
            framer.feed(message)

    assert peak_bytes(feed) < MB


# --- counting parts --------------------------------------------------------------------------


def count_of(thing: object) -> int:
    if isinstance(thing, dict):
        return 1 + sum(count_of(key) + count_of(value) for key, value in thing.items())
    if isinstance(thing, tuple) and not isinstance(thing, msgpack.ExtType):
        return 1 + sum(map(count_of, thing))
    return 1


def assert_counts(raw: bytes, count: int) -> None:
    check_parts(raw, count)
    with pytest.raises(LimitExceeded, match=f"{count} parts; at most {count - 1} "):
        check_parts(raw, count - 1)


@given(PARTS)
def test_count_of_parts(thing: Any) -> None:
    assert_counts(packed(thing), count_of(thing))


# One of each form that msgpack has, full of 80 and 91, which would count if one stepped wrongly.
FORMS = """
    00 7f 80 8100c0 90 91c0 a0 a180 a4809180ff c0 c2 c3 c40180 c5000180 c60000000180
    c7010980 c80002098091 c900000002098091
    ca80808080 cb8080808080808080 cc80 cd8080 ce80808080 cf8080808080808080
    d080 d18080 d280808080 d38080808080808080
    d40980 d5098080 d60980808080 d7098080808080808080 d80980808080808080808080808080808080
    d90180 da000180 db0000000180 dc000180 dd0000000180 de00010080 df000000010080 e0 ff
"""


@pytest.mark.parametrize("form", FORMS.split())
def test_count_of_each_form(form: str) -> None:
    raw = bytes.fromhex(form)
    thing = msgpack.unpackb(
        raw, use_list=False, strict_map_key=False, unicode_errors="surrogateescape"
    )
    assert_counts(b"\x93\x01" + raw + b"\x02", 3 + count_of(thing))


def test_every_first_byte_was_tried() -> None:
    tried = {int(form[:2], 16) for form in FORMS.split()}
    assert tried >= set(range(0xC0, 0xE0)) - {0xC1}


def test_lists_that_are_only_announced_take_no_room() -> None:
    """Each of them claims as many items as there are bytes, inside the one before."""
    announced = b"\x81\xa1a" + b"\xdd\x00\x00\x0f\xa0" * 900

    def feed() -> None:
        assert Framer().feed(announced) == []

    assert peak_bytes(feed) < MB
