"""Values: what is stored and what is refused, the one packed form, limits."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvedge import limits
from kvedge.errors import AgentError, BadPath, BadValue, LimitExceeded
from kvedge.model.path import P, Path
from kvedge.model.value import (
    MISSING,
    Malformed,
    decode,
    is_canonical,
    pack,
    packb,
    unpack,
    wire_path,
)

BIG = (1 << limits.INTEGER_MAX_BITS) - 1


def ext(code: int, data: bytes) -> bytes:
    packed: bytes = msgpack.packb(msgpack.ExtType(code, data))
    return packed


def nested(levels: int, leaf: object = 1) -> Any:
    made = leaf
    for _ in range(levels):
        made = (made,)
    return made


STORED: list[Any] = [
    *(None, True, False, 0, 1, -1, 127, 128, -32, -33, 255, 256, 1 << 32),
    *((1 << 63) - 1, -(1 << 63), (1 << 64) - 1, 1 << 64, BIG),
    *(0.0, -0.0, 1.5, float("inf"), float("-inf")),
    *("", "a", "a" * 31, "a" * 32, "a" * 300, "€\0\n", b"", b"\0\xff", b"a" * 300),
    *((), (1,), (1, True, 1.0, "1", b"1", None), tuple(range(16))),
    *({}, {"a": 1}, {"b": 1, "a": 2}, {1: 1, "1": 2, b"1": 3, None: 4, 1.5: 5}),
    *({"a": {"b": ({}, [])[0]}}, {True: 1}, {BIG: BIG}, {1 << 64: (1 << 64,)}),
    *(Path(), P("a.b"), P(":1.:t.:1:.0.:n.:e.:yff"), P(":(1,(True,'a'))"), Path(BIG, (BIG,))),
    {"path": P("a"), "paths": (P(":"), P("a:1"))},
]

PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), 1 << 70),
    st.floats(allow_nan=False),
    st.text(max_size=10),
    st.binary(max_size=10),
)


def is_unmistakable(made: dict[Any, Any]) -> bool:
    """Leave out {0: .., False: ..}, where drawing keeps the one key and the other value."""
    return all(type(key) in (str, bytes, type(None)) for key in made) or len(made) == 1


VALUES = st.recursive(
    PLAIN | st.from_type(Path).filter(lambda path: ":-" not in str(path) and "-" not in str(path)),
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(PLAIN, inner, max_size=4).filter(is_unmistakable)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("value", STORED, ids=lambda value: ascii(value)[:40])
def test_value_is_stored(value: Any) -> None:
    assert repr(unpack(pack(value))) == repr(value)
    assert repr(decode(pack(value))) == repr(value)


@given(VALUES)
def test_unpacked_value_is_the_packed_one_with_its_types(value: Any) -> None:
    assert repr(unpack(pack(value))) == repr(value)


@given(VALUES)
def test_packed_form_is_canonical(value: Any) -> None:
    packed = pack(value)
    assert pack(unpack(packed)) == packed == pack(decode(packed))


def test_list_becomes_a_tuple() -> None:
    assert pack([1, [2]]) == pack((1, (2,)))


def test_maps_keep_their_order() -> None:
    assert list(unpack(pack({"b": 1, "a": 2, 1: 3}))) == ["b", "a", 1]


@pytest.mark.parametrize(
    ("long", "value"),
    [
        ("cc01", 1),
        ("cd0001", 1),
        ("ce00000001", 1),
        ("cf0000000000000001", 1),
        ("d001", 1),
        ("d3ffffffffffffffff", -1),
        ("ca3fc00000", 1.5),
        ("d90161", "a"),
        ("da000161", "a"),
        ("db0000000161", "a"),
        ("c50001ff", b"\xff"),
        ("c600000001ff", b"\xff"),
        ("dc000101", (1,)),
        ("dd0000000101", (1,)),
        ("de0001a16101", {"a": 1}),
        ("df00000001d90161cc01", {"a": 1}),
        ("d50200ff", 255),
        ("c7040200000001", 1),
        ("c70003", Path()),
        ("c70303d90161", P("a")),
        ("c80003031a9201a161"[:6] + "03cc05", None),
    ][:-1],
)
def test_long_encoding_becomes_the_shortest(long: str, value: Any) -> None:
    decoded = decode(bytes.fromhex(long))
    assert repr(decoded) == repr(value)
    assert pack(decoded) == pack(value)
    assert len(pack(value)) < len(long) // 2 or isinstance(value, float | Path)


# What arrives in a message, and what the refusal must say.
MALFORMED: list[tuple[str, bytes, str]] = [
    ("same key twice", b"\x82\xa1a\x01\xa1a\x02", "same key twice"),
    ("same key in a long form", b"\x82\x01\x01\xcc\x01\x02", "same key twice"),
    ("1 and True", b"\x82\x01\x01\xc3\x02", "same key twice"),
    ("1 and 1.0", b"\x82\x01\x01\xca\x3f\x80\0\0\x02", "same key twice"),
    ("0 and False", b"\x82\0\x01\xc2\x02", "same key twice"),
    ("list as key", b"\x81\x91\x01\x01", "key of a map"),
    ("map as key", b"\x81\x80\x01", "key of a map"),
    ("map in a list as key", b"\x81\x91\x80\x01", "key of a map"),
    ("path as key", b"\x81" + packb(P("a")) + b"\x01", "key of a map"),
    ("unknown extension as key", b"\x81" + ext(9, b"a") + b"\x01", "key of a map"),
    ("time as key", b"\x81\xd6\xff\0\0\0\x01\x01", "Timestamp"),
    ("unknown extension", ext(9, b"abc"), "extension type 9"),
    ("proxy of the peers", ext(4, b"abc"), "extension type 4"),
    ("time of 4 bytes", b"\xd6\xff\0\0\0\x01", "Timestamp"),
    ("time of 8 bytes", b"\xd7\xff" + bytes(8), "Timestamp"),
    ("time of 12 bytes", b"\xc7\x0c\xff" + bytes(12), "Timestamp"),
    ("text that is not UTF-8", b"\xa1\xff", "not valid Unicode"),
    ("text with half a surrogate pair", b"\xa3\xed\xa0\x80", "not valid Unicode"),
    ("key that is not UTF-8", b"\x81\xa1\xff\x01", "not valid Unicode"),
    ("number that is too large", ext(2, b"\1" + bytes(limits.INTEGER_MAX_BITS // 8)), "1025 bits"),
    ("number as key", b"\x81" + ext(2, b"\1" * 200) + b"\x01", "1593 bits"),
    ("path that is torn", ext(3, b"\xa3ab"), "path"),
    ("path that is torn at its end", ext(3, b"\xa1a\xa3b"), "path"),
    ("path of a list's head", ext(3, b"\x92\x01"), "path"),
    ("path with a map", ext(3, b"\x80"), "dict"),
    ("path with a map as a key", ext(3, b"\x81\x80\x01"), "path"),
    ("path with a number as a key", ext(3, b"\x81\x01\x01"), "path"),
    ("path in a path", ext(3, ext(3, b"\xa1a")), "path"),
    ("path with an unknown extension", ext(3, ext(9, b"a")), "extension type 9"),
    ("path with a time", ext(3, b"\xd6\xff\0\0\0\x01"), "Timestamp"),
    ("path that is not UTF-8", ext(3, b"\xa1\xff"), "path"),
    ("path with NaN", ext(3, b"\xcb\x7f\xf8\0\0\0\0\0\0"), "NaN"),
    ("path that is too deep", ext(3, b"\x91" * 200 + b"\x01"), "path"),
    ("path that is far too deep", ext(3, b"\x91" * 3000 + b"\x01"), "path"),
    ("path that is too long", ext(3, b"\xc0" * 100_000), "path"),
    ("path that is not msgpack", ext(3, b"\xc1"), "path"),
]


@pytest.mark.parametrize(("packed", "why"), [case[1:] for case in MALFORMED],
                         ids=[case[0] for case in MALFORMED])  # fmt: skip
@pytest.mark.parametrize("frame", ["%b", "\x91%b", "\x81\xa1k%b"], ids=["bare", "list", "map"])
def test_malformed_part_is_decoded_and_refused_by_name(packed: bytes, why: str, frame: str) -> None:
    decoded = decode(frame.encode("latin-1") % packed)
    with pytest.raises((BadValue, LimitExceeded), match=why) as caught:
        pack(decoded)
    str(caught.value).encode()


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\x91", b"\xa2a", b"\x01\x01", b"\xdf\xff\xff\xff\xff", b"\xd5\xff\0\0",
     b"\xd7\xff" + b"\xff" * 8, b"\x91" * 2000],
    ids=["nothing", "unused byte", "torn list", "torn text", "two objects", "huge map",
         "time of 2 bytes", "time beyond a second", "too deep for msgpack"],
)  # fmt: skip
def test_what_is_no_msgpack_is_told(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(data)


@given(st.binary(max_size=40))
@example(ext(3, b"\x81\x80\x01"))
def test_any_bytes_are_a_value_or_refused(data: bytes) -> None:
    try:
        value = decode(data)
    except ValueError:
        return
    try:
        packed = pack(value)
    except (BadValue, LimitExceeded):
        return
    assert pack(unpack(packed)) == packed


@pytest.mark.parametrize(
    ("thing", "why"),
    [
        ({1, 2}, "set"),
        (object(), "object"),
        (1j, "complex"),
        (bytearray(b"a"), "bytearray"),
        (range(3), "range"),
        (MISSING, "Missing"),
        (Malformed("it is broken"), "it is broken"),
        ({(1,): 1}, "tuple cannot be a key"),
        ({P("a"): 1}, "Path cannot be a key"),
        ({frozenset(): 1}, "frozenset cannot be a key"),
        (-(1 << 63) - 1, "64 bits"),
        (BIG + 1, "1025 bits"),
        (Path(-(1 << 64)), "65 bits"),
        ("\ud800", "not valid Unicode"),
        ({"\ud800": 1}, "not valid Unicode"),
    ],
    ids=lambda given: ascii(given)[:20],
)
def test_what_a_program_may_not_store(thing: Any, why: str) -> None:
    for value in (thing, (1, thing), {"a": thing}, {"a": (thing, 1)}):
        with pytest.raises(BadValue, match=why):
            pack(value)
    assert pack((1, 1 << 64)) == b"\x92\x01" + ext(2, b"\x01" + bytes(8))  # it still works


def deepest(levels: int) -> dict[str, Any]:
    return {
        "lists": nested(levels),
        "empty": nested(levels - 1, ()),
        "maps": nested(levels - 1, {"a": 1}),
        "big number": nested(levels, 1 << 64),
        "path": nested(levels, P("a")),
    }


@pytest.mark.parametrize("kind", deepest(1))
def test_depth(kind: str) -> None:
    pack(deepest(limits.DEPTH_MAX)[kind])
    with pytest.raises(LimitExceeded, match=f"33 levels.* {limits.DEPTH_MAX} levels"):
        pack(deepest(limits.DEPTH_MAX + 1)[kind])
    with pytest.raises(LimitExceeded, match="levels"):
        pack(deepest(limits.DEPTH_MAX + 50_000)[kind])


def with_parts(count: int) -> dict[str, Any]:
    return {
        "list": (1,) * (count - 1),
        "lists": ((),) * (count - 1),
        "paths": (P("a"),) * (count - 1),
        "map": dict.fromkeys(range((count - 3) // 2)) | ({"a": ()} if count % 2 else {"a": (1,)}),
        "tree": ((1,) * (count // 2 - 2), (1,) * (count - count // 2 - 1)),
    }


@pytest.mark.parametrize("kind", with_parts(10))
def test_parts(kind: str) -> None:
    pack(with_parts(limits.ELEMENTS_MAX)[kind])
    with pytest.raises(LimitExceeded, match=f"{limits.ELEMENTS_MAX + 1} parts"):
        pack(with_parts(limits.ELEMENTS_MAX + 1)[kind])


@pytest.mark.parametrize("character", ["a", b"a"])
def test_size(character: Any) -> None:
    head = 5
    assert len(pack(character * (limits.VALUE_MAX_BYTES - head))) == limits.VALUE_MAX_BYTES
    with pytest.raises(LimitExceeded, match=f"{limits.VALUE_MAX_BYTES + 1} bytes"):
        pack(character * (limits.VALUE_MAX_BYTES - head + 1))


@given(...)
def test_path_on_the_wire(path: Path) -> None:
    assert wire_path(path.elements) == wire_path(list(path.elements)) == path.key
    assert wire_path(path) == path.key


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (None, "neither"),
        (1, "neither"),
        ("a.b", "neither"),
        (b"a", "neither"),
        ({}, "neither"),
        (Malformed("it is broken"), "it is broken"),
        (({},), "dict"),
        ((Malformed("it is broken"),), "Malformed"),
        ((P("a"),), "Path"),
        ((float("nan"),), "NaN"),
        (("\udcff",), "not valid Unicode"),
        ("\udcff", "neither"),
        (1 << 100_000, "neither"),
    ],
    ids=lambda given: str(type(given)),
)
def test_what_is_no_path_on_the_wire(given: Any, why: str) -> None:
    with pytest.raises(BadPath, match=why) as caught:
        wire_path(given)
    str(caught.value).encode()


def test_missing_is_one_and_only() -> None:
    assert repr(MISSING) == "MISSING"
    assert copy.deepcopy(MISSING) is MISSING
    assert pickle.loads(pickle.dumps(MISSING)) is MISSING
    assert MISSING is not None
    assert issubclass(BadValue, AgentError)


CODES = b"\x80\x81\x82\x90\x91\x92\x01\xc3\xc0\xcc\xca\xa1\xff\xd4\xd6\xc1\x61\x02\x03"


def is_its_own_packed_form(data: bytes) -> bool:
    """Say what `is_canonical` promises, the long way."""
    try:
        return pack(decode(data)) == data
    except ValueError:
        return False


@pytest.mark.parametrize("value", STORED, ids=repr)
def test_what_is_packed_is_canonical(value: object) -> None:
    assert is_canonical(pack(value))
    assert not is_canonical(pack(value) + b"\x01")


@given(st.lists(st.sampled_from([bytes((b,)) for b in CODES])))
@example([b"\x82", b"\x01", b"\x01", b"\xc3", b"\x01"])
@example([b"\x81", b"\x91", b"\x01", b"\x01"])
@example([b"\x81", b"\x81", b"\x01", b"\x01", b"\x01"])
@example([b"\xa1", b"\xff"])
@example([b"\xcc", b"\x01"])
@example([b"\xd4", b"\xff", b"\x01"])
@example([b"\x91"] * 40 + [b"\x01"])
def test_the_short_way_to_tell_is_right(parts: list[bytes]) -> None:
    data = b"".join(parts)
    assert is_canonical(data) is is_its_own_packed_form(data)
