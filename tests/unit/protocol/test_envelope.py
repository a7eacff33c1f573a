"""Envelopes: what was sealed opens once, and everything else is refused with its cause."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from struct import pack

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge.errors import BadSetting, LimitExceeded
from kvedge.limits import BROADCAST_MAX_BYTES, NODES_MAX, REPLAY_WINDOW
from kvedge.model.stamp import Rid
from kvedge.protocol import envelope
from kvedge.protocol.envelope import MAC_BYTES, Cause, Opened, Opener, Refused, Sealer, mac_key

NETWORK = "garden"
KEY = mac_key(NETWORK, b"0123456789abcdef")
SENDER = Rid("alpha", 3 << 40 | 17)
OWN = Rid("beta", 1 << 40)
BODY = msgpack.packb({"n": 1})


def sealer(sender: Rid = SENDER, network: str = NETWORK, key: bytes = KEY) -> Sealer:
    return Sealer(network, key, sender)


def opener(network: str = NETWORK, key: bytes = KEY) -> Opener:
    return Opener(network, key, OWN)


def sealed(sender: Rid = SENDER, number: int = 1) -> bytes:
    """Return the message of a sender with a number."""
    made = sealer(sender)
    made._number = number - 1
    return made.seal("d", "digest", BODY)


def by_hand(array: object, *, major: int = 1, minor: int = 0, topic: str = "d") -> bytes:
    """Return a message as another version might make it, with a right MAC."""
    raw = array if isinstance(array, bytes) else msgpack.packb(array)
    name = NETWORK.encode()
    size = 8 + 1 + len(name) + len(raw) + MAC_BYTES
    signed = pack(">2sBBI", b"kv", major, minor, size) + bytes((len(name),)) + name + raw
    return signed + envelope._mac(KEY, topic, signed)


def cause(outcome: Opened | Refused) -> Cause | None:
    return outcome.cause if isinstance(outcome, Refused) else None


FIELDS = ("alpha", 17, 1, "digest", BODY)


# --- there and back ---------------------------------------------------------------------------


@given(
    st.from_regex(r"[A-Za-z0-9_-]{1,63}", fullmatch=True),
    st.integers(0, (1 << 63) - 1),
    st.text(min_size=1, max_size=60),
    st.from_regex(r"[a-z_]{1,31}", fullmatch=True),
    st.binary(max_size=300),
)
def test_what_was_sealed_opens(
    node: str, incarnation: int, topic: str, kind: str, body: bytes
) -> None:
    sender = Rid(node, incarnation)
    data = sealer(sender).seal(topic, kind, body)
    assert opener().open(topic, data) == Opened(sender, 0, 1, kind, body)


def test_numbers_rise_over_all_topics() -> None:
    made, receiver = sealer(), opener()
    outcomes = [receiver.open(topic, made.seal(topic, "x", b"")) for topic in "abc"]
    assert [outcome.number for outcome in outcomes if isinstance(outcome, Opened)] == [1, 2, 3]


def test_largest_message_opens_and_a_larger_one_is_not_made() -> None:
    made = sealer()
    overhead = len(made.seal("d", "x", bytes(70_000))) - 70_000
    largest = bytes(BROADCAST_MAX_BYTES - overhead)
    data = made.seal("d", "x", largest)
    assert len(data) == BROADCAST_MAX_BYTES
    outcome = opener().open("d", data)
    assert isinstance(outcome, Opened)
    assert outcome.body == largest
    with pytest.raises(LimitExceeded):
        made.seal("d", "x", largest + b"\0")
    again = opener().open("d", made.seal("d", "x", b""))
    assert isinstance(again, Opened)
    assert again.number == outcome.number + 1


def test_form_is_the_same_in_every_version() -> None:
    """The bytes of version 1.0, written out: boards with older software must read them."""
    assert sealed().hex() == (
        "6b76 01 00 0000003d 06 67617264656e"
        "95 a5616c706861 cf0000030000000011 01 a6646967657374 c404 81a16e01"
        "d6b29702a7240a4bc3585d1fcb2f11d7"
    ).replace(" ", "")


# --- versions ---------------------------------------------------------------------------------


def test_fields_of_a_later_minor_are_passed_over() -> None:
    data = by_hand((*FIELDS, "later", {"more": [1, 2]}), minor=7)
    assert opener().open("d", data) == Opened(Rid("alpha", 17), 7, 1, "digest", BODY)


def test_unknown_kind_is_opened() -> None:
    outcome = opener().open("d", by_hand((*FIELDS[:3], "hologram", BODY), minor=7))
    assert isinstance(outcome, Opened)
    assert outcome.kind == "hologram"


@pytest.mark.parametrize("major", [0, 2, 255])
def test_other_major_is_refused_whatever_follows(major: int) -> None:
    for data in (by_hand(FIELDS, major=major), b"kv" + bytes((major,)), b"kv%cxyz" % major):
        outcome = opener().open("d", data)
        assert outcome == Refused(Cause.WRONG_MAJOR, f"{major}, ours is 1")


# --- what is not for us, or not whole ---------------------------------------------------------

FLAWS: dict[str, tuple[Callable[[bytes], bytes], Cause]] = {
    "nothing": (lambda data: b"", Cause.TRUNCATED),
    "first byte": (lambda data: data[:1], Cause.TRUNCATED),
    "half a head": (lambda data: data[:6], Cause.TRUNCATED),
    "head alone": (lambda data: data[:8], Cause.TRUNCATED),
    "last byte lost": (lambda data: data[:-1], Cause.TRUNCATED),
    "byte more": (lambda data: data + b"\0", Cause.TRAILING),
    "twice": (lambda data: data + data, Cause.TRAILING),
    "msgpack": (lambda data: BODY, Cause.FOREIGN),
    "text": (lambda data: b"online", Cause.FOREIGN),
    "huge": (lambda data: data + bytes(BROADCAST_MAX_BYTES), Cause.TOO_LARGE),
    "length of an empty one": (lambda data: pack(">2sBBI", b"kv", 1, 0, 8), Cause.MALFORMED),
    "MAC alone": (lambda data: pack(">2sBBI", b"kv", 1, 0, 24) + bytes(16), Cause.MALFORMED),
    "other network": (lambda data: data.replace(b"garden", b"Garden"), Cause.WRONG_NETWORK),
    "wild name": (lambda data: pack(">2sBBI", b"kv", 1, 0, 44) + b"\xff" * 36, Cause.WRONG_NETWORK),
    "other minor": (lambda data: data[:3] + b"\x01" + data[4:], Cause.BAD_MAC),
    "other sender": (lambda data: data.replace(b"alpha", b"alphb"), Cause.BAD_MAC),
    "other kind": (lambda data: data.replace(b"digest", b"dingst"), Cause.BAD_MAC),
    "other MAC": (lambda data: data[:-1] + bytes((data[-1] ^ 1,)), Cause.BAD_MAC),
}


@pytest.mark.parametrize(("damage", "wanted"), FLAWS.values(), ids=FLAWS)
def test_flaw_has_its_cause(damage: Callable[[bytes], bytes], wanted: Cause) -> None:
    receiver = opener()
    outcome = receiver.open("d", damage(sealed()))
    assert isinstance(outcome, Refused)
    assert outcome.cause is wanted
    assert outcome.sender is None
    assert outcome.detail.isascii()
    assert outcome.detail.isprintable()
    assert cause(receiver.open("d", sealed())) is None  # the number was not used up


@given(st.integers(0, len(sealed()) * 8 - 1))
def test_no_flipped_bit_passes(bit: int) -> None:
    data = bytearray(sealed())
    data[bit // 8] ^= 1 << bit % 8
    assert cause(opener().open("d", bytes(data))) is not None


@given(st.binary(max_size=80), st.text(max_size=5))
def test_garbage_never_raises(garbage: bytes, topic: str) -> None:
    for data in (garbage, b"kv\x01" + garbage, by_hand(garbage, topic=topic)):
        opener().open(topic, data)
    with_mac = cause(opener().open("d", by_hand(garbage)))
    assert with_mac in (Cause.MALFORMED, None)


def test_topic_with_a_lone_surrogate_never_raises() -> None:
    assert cause(opener().open("\ud800", sealed())) is Cause.BAD_MAC


@pytest.mark.parametrize("topic", ["", "D", "d ", "u/alpha"])
def test_other_topic_is_refused(topic: str) -> None:
    assert cause(opener().open(topic, sealed())) is Cause.BAD_MAC


@pytest.mark.parametrize(
    "array",
    [
        b"",
        b"\xc1",
        msgpack.packb(FIELDS) + b"\0",
        5,
        {},
        FIELDS[:4],
        ("a.b", *FIELDS[1:]),
        ("", *FIELDS[1:]),
        ("a\n", *FIELDS[1:]),
        ("a" * 64, *FIELDS[1:]),
        (b"alpha", *FIELDS[1:]),
        ("alpha", -1, *FIELDS[2:]),
        ("alpha", 1 << 63, *FIELDS[2:]),
        ("alpha", 1.0, *FIELDS[2:]),
        ("alpha", True, *FIELDS[2:]),
        ("alpha", 17, -1, *FIELDS[3:]),
        ("alpha", 17, 1, 5, BODY),
        ("alpha", 17, 1, "A", BODY),
        ("alpha", 17, 1, "x" * 32, BODY),
        ("alpha", 17, 1, "digest", "text"),
        ("alpha", 17, 1, "digest", {}),
        (*FIELDS, [[]] * 64),
        (msgpack.ExtType(99, b""), *FIELDS[1:]),
        ("alpha", msgpack.ExtType(2, b"\xff" * 300), *FIELDS[2:]),
        ("alpha", {1: 1, 1.5: 2}, *FIELDS[2:]),
    ],
)  # fmt: skip
def test_malformed_though_its_mac_is_right(array: object) -> None:
    assert cause(opener().open("d", by_hand(array))) is Cause.MALFORMED


def test_many_empty_lists_cost_little() -> None:
    """A quarter of a megabyte of them would become 18 MB of objects."""
    count = BROADCAST_MAX_BYTES - 100
    data = by_hand(b"\xdd" + count.to_bytes(4, "big") + b"\x90" * count)
    tracemalloc.start()
    outcome = opener().open("d", data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert cause(outcome) is Cause.MALFORMED
    assert peak < 4 * BROADCAST_MAX_BYTES


# --- keys -------------------------------------------------------------------------------------


def test_keys_differ_by_name_and_by_network_key() -> None:
    secret = b"0123456789abcdef"
    keys = {
        mac_key("a", None),
        mac_key("b", None),
        mac_key("a", secret),
        mac_key("b", secret),
        mac_key("a", secret + b"x"),
        mac_key("a0", secret[1:] + b"x"),
    }
    assert len(keys) == 6
    assert all(len(key) == 32 for key in keys)


def test_white_space_around_a_network_key_does_not_count() -> None:
    assert mac_key("a", b"0123456789abcdef") == mac_key("a", b" 0123456789abcdef\r\n")


@pytest.mark.parametrize("secret", [b"", b" " * 40, b"0123456789abcde\n"])
def test_short_network_key_is_refused(secret: bytes) -> None:
    with pytest.raises(BadSetting, match=r"net\.key_file: the key has \d+ bytes"):
        mac_key("a", secret)


def test_same_name_and_another_key_is_refused() -> None:
    other = sealer(key=mac_key(NETWORK, b"another key of the same size"))
    assert cause(opener().open("d", other.seal("d", "x", b""))) is Cause.BAD_MAC


def test_no_key_is_not_the_same_as_any_key() -> None:
    open_network = sealer(key=mac_key(NETWORK, None))
    assert cause(opener().open("d", open_network.seal("d", "x", b""))) is Cause.BAD_MAC


@pytest.mark.parametrize("name", ["gardens", "garde", "g", "x" * 255])
def test_network_of_another_name_is_named(name: str) -> None:
    other = sealer(network=name, key=mac_key(name, None)).seal("d", "x", b"")
    assert opener().open("d", other) == Refused(Cause.WRONG_NETWORK, f"{name!r}")


# --- ourselves, repetition, the past ----------------------------------------------------------


def test_own_message_is_refused_and_a_namesake_is_heard() -> None:
    receiver = opener()
    assert receiver.open("d", sealed(OWN)) == Refused(Cause.OWN, sender=OWN)
    for incarnation in (OWN.incarnation - 1, OWN.incarnation + 1):
        outcome = receiver.open("d", sealed(Rid(OWN.node, incarnation)))
        assert cause(outcome) is None


def test_repeated_message_is_refused() -> None:
    receiver = opener()
    assert cause(receiver.open("d", sealed())) is None
    assert receiver.open("d", sealed()) == Refused(Cause.REPLAYED, "number 1", SENDER)


@given(st.permutations(range(1, 40)), st.integers(1, 1 << 40))
def test_any_order_within_the_window_passes_once(numbers: list[int], base: int) -> None:
    window = envelope._Window(1)
    assert all(window.take(base + number) for number in numbers)
    assert not any(window.take(base + number) for number in numbers)


@given(st.lists(st.integers(1, 5 * REPLAY_WINDOW), max_size=200))
def test_window_against_a_set(numbers: list[int]) -> None:
    window = envelope._Window(1)
    taken: set[int] = set()
    for number in numbers:
        highest = max(taken, default=0)
        wanted = number not in taken and number > highest - REPLAY_WINDOW
        assert window.take(number) is wanted
        if wanted:
            taken.add(number)
    assert window._bits.bit_length() <= REPLAY_WINDOW


def test_jump_over_the_window_forgets_what_is_behind() -> None:
    window = envelope._Window(1)
    numbers = [*range(1, 11), 10 + REPLAY_WINDOW, *range(1 + REPLAY_WINDOW, 10 + REPLAY_WINDOW)]
    assert all(map(window.take, numbers))


@pytest.mark.parametrize(
    ("late_by", "wanted"), [(REPLAY_WINDOW - 1, None), (REPLAY_WINDOW, Cause.REPLAYED)]
)
def test_edge_of_the_window(late_by: int, wanted: Cause | None) -> None:
    receiver = opener()
    receiver.open("d", sealed(number=5000))
    assert cause(receiver.open("d", sealed(number=5000 - late_by))) is wanted


def test_repeatable_message_may_come_late_and_often() -> None:
    made, receiver = sealer(), opener()
    assert cause(receiver.open("d", made.seal("d", "x", b""))) is None
    will = made.seal("p/alpha", "will", b"", is_repeatable=True)
    for _ in range(2 * REPLAY_WINDOW):
        data = made.seal("d", "x", b"")
        assert cause(receiver.open("d", data)) is None
    for _ in range(2):
        outcome = receiver.open("p/alpha", will)
        assert isinstance(outcome, Opened)
        assert outcome.number == 0
    assert cause(receiver.open("d", data)) is Cause.REPLAYED


def test_numbers_of_incarnations_are_apart() -> None:
    receiver = opener()
    for incarnation in (5, 6):
        assert cause(receiver.open("d", sealed(Rid("alpha", incarnation)))) is None
    for incarnation in (5, 6):
        outcome = receiver.open("d", sealed(Rid("alpha", incarnation)))
        assert cause(outcome) is Cause.REPLAYED


@given(st.permutations([2, 3, 5, 8, 9]))
def test_newest_two_incarnations_are_heard(incarnations: list[int]) -> None:
    receiver = opener()
    heard: list[int] = []
    for number, incarnation in enumerate(incarnations, 1):
        sender = Rid("alpha", incarnation)
        outcome = receiver.open("d", sealed(sender, number))
        newest = sorted({*heard, incarnation})[-2:]
        if incarnation in newest:
            assert cause(outcome) is None
            heard.append(incarnation)
        else:
            detail = f"{incarnation}, the newest is {max(heard)}"
            assert outcome == Refused(Cause.OLD_INCARNATION, detail, sender, max(heard))


def test_repeatable_message_of_an_old_incarnation_is_refused() -> None:
    receiver = opener()
    for incarnation in (2, 3):
        receiver.open("d", sealed(Rid("alpha", incarnation)))
    will = sealer(Rid("alpha", 1)).seal("d", "will", b"", is_repeatable=True)
    assert cause(receiver.open("d", will)) is Cause.OLD_INCARNATION


def test_memory_is_bounded_and_keeps_those_heard_last() -> None:
    receiver = opener()
    for number in range(1, 4):
        for node in range(NODES_MAX + 10):
            for incarnation in range(5):
                receiver.open("d", sealed(Rid(f"n{node}", incarnation), number))
            receiver.open("d", sealed(Rid("faithful", 1), number * 1000 + node))
    assert len(receiver._windows) == NODES_MAX
    assert all(len(windows) == 2 for node, windows in receiver._windows.items() if node[0] == "n")
    assert cause(receiver.open("d", sealed(Rid("faithful", 1), 3000))) is Cause.REPLAYED
