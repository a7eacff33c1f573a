"""Writes that one server asks another one to make: what goes there and back arrives as it was."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge import errors
from kvedge.errors import (
    AgentError,
    BadValue,
    ChainMismatch,
    FencedOff,
    LimitExceeded,
    NotConnected,
    RemoteError,
    RemoteProtocolError,
    StoreLocked,
    TimedOut,
    WriteRefused,
    WriteUncertain,
)
from kvedge.limits import VALUE_MAX_BYTES
from kvedge.model.entry import Fence
from kvedge.model.path import P, Path
from kvedge.model.stamp import Dot, Rid
from kvedge.model.value import MISSING, decode, pack, packb
from kvedge.protocol.batches import Carried
from kvedge.protocol.codec import NUMBER_MAX, packed_map
from kvedge.protocol.envelope import Sealer, mac_key
from kvedge.protocol.forwarding import (
    BODY_MAX_BYTES,
    answer,
    failure,
    question,
    read_answer,
    read_question,
)
from kvedge.protocol.messages import DeleteValue, SetValue, read, written

HOME, PEER = Rid("home", 5 << 40), Rid("peer", 2 << 40)
AB = P("a.b").key

# --- what is drawn ----------------------------------------------------------------------------

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_NUMBERS = st.integers(0, 3) | st.integers(0, NUMBER_MAX)
_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), 1 << 70),
    st.floats(allow_nan=False),
    st.binary(max_size=8),
    _TEXTS,
    st.builds(lambda parts: Path(*parts), st.lists(_TEXTS | st.integers(0, 9), max_size=3)),
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(_TEXTS | st.integers(-5, 5) | st.binary(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
).map(pack)
_PATHS = st.lists(_TEXTS | st.integers(-9, 9) | st.binary(max_size=3), max_size=4).map(
    lambda parts: Path(*parts).key
)
_COMMON: dict[str, st.SearchStrategy[Any]] = {
    "path": _PATHS,
    "chain": st.just(MISSING) | st.none() | st.tuples(_TEXTS, _NUMBERS),
    "prev": st.just(MISSING) | _VALUES,
    "nchain": st.integers(-1, 6),
    "fence": st.none()
    | st.builds(Fence, st.text(min_size=1, max_size=20).filter(str.isprintable), _NUMBERS),
}
_REQUESTS = st.builds(
    SetValue, value=_VALUES, idem=st.booleans(), relaxed=st.booleans(), **_COMMON
) | st.builds(DeleteValue, **_COMMON)


@given(_REQUESTS)
def test_what_is_written_is_read_again(request: SetValue | DeleteValue) -> None:
    assert read(written(request), b"") == request


@given(_REQUESTS)
def test_a_question_arrives_as_it_was(request: SetValue | DeleteValue) -> None:
    assert read_question(question(request)) == request


EVERY_FIELD: dict[str, SetValue | DeleteValue] = {
    "a set": SetValue(
        AB,
        pack({"a": (1, None)}),
        chain=("n", 7),
        prev=pack(None),
        nchain=3,
        idem=True,
        relaxed=True,
        fence=Fence("job.a", 9),
    ),
    "a set of a new entry": SetValue(AB, pack(1), chain=None),
    "a plain set": SetValue(AB, pack(None)),
    "a deletion": DeleteValue(AB, chain=("n", 7), prev=pack(0), nchain=-1, fence=Fence("j", 0)),
    "a plain deletion": DeleteValue(b""),
    "the longest name of a job": DeleteValue(AB, fence=Fence("ü" * 127 + "x", NUMBER_MAX)),
    "the largest value": SetValue(AB, pack(bytes(VALUE_MAX_BYTES - 5))),
}


@pytest.mark.parametrize("name", EVERY_FIELD)
def test_no_field_is_lost(name: str) -> None:
    request = EVERY_FIELD[name]
    assert read_question(question(request)) == request


NO_QUESTIONS: dict[str, Any] = {
    "a number": 1,
    "nothing": None,
    "an empty map": {},
    "a list": (1, 2),
    "an action that is not known": {"action": "novelty", "path": ("a",)},
    "a read": {"action": "get_value", "path": ("a",)},
    "a tree": {"action": "delete_tree", "path": ("a",)},
    "no path": {"action": "set_value", "value": 1},
    "no value": {"action": "set_value", "path": ("a",)},
    "a path that is none": {"action": "set_value", "path": ({},), "value": 1},
    "a fence without a job": {
        "action": "set_value",
        "path": ("a",),
        "value": 1,
        "fence": ("", 1),
    },
    "a fence without a number": {
        "action": "delete_value",
        "path": ("a",),
        "fence": ("job",),
    },
    "a chain that is none": {"action": "delete_value", "path": ("a",), "chain": 7},
    "a value that is too large": {
        "action": "set_value",
        "path": ("a",),
        "value": bytes(VALUE_MAX_BYTES + 1),
    },
}


@pytest.mark.parametrize("name", NO_QUESTIONS)
def test_a_call_that_asks_for_something_else(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        read_question(packb(NO_QUESTIONS[name]))


@given(st.binary(max_size=60))
def test_random_bytes_are_no_question_and_no_answer(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_question(body)
    with pytest.raises(RemoteProtocolError):
        read_answer(body)


# --- answers ----------------------------------------------------------------------------------

RECORD = Carried(AB, 99, (Dot(HOME, 3), Dot(PEER, 2)), packb("v"), Fence("job.a", 9))
BASES = {HOME: 100, PEER: 2000}


@pytest.mark.parametrize(
    "record",
    [None, RECORD, Carried(AB, 1, (Dot(HOME, 1),), MISSING)],
    ids=["nothing there", "an entry", "a tombstone"],
)
def test_an_answer_brings_the_reply_and_the_record(record: Carried | None) -> None:
    reply = packb({"seq": 0, "changed": True, "tock": 7, "chain": {"node": "home", "tick": 103}})
    result, records, bases = read_answer(answer(reply, record, BASES.__getitem__))
    assert result == {"changed": True, "tock": 7, "chain": {"node": "home", "tick": 103}}
    assert records == ([] if record is None else [record])
    assert bases == {dot.rid: BASES[dot.rid] for dot in (record.chain if record else ())}


@pytest.mark.parametrize(
    "value", [None, (), {}, b"\xff", 0.0, P("a.b"), {"failed": True}], ids=repr
)
def test_the_value_that_was_there_before_is_told(value: Any) -> None:
    reply = packb({"seq": 0, "changed": True, "prev": value})
    result, _, _ = read_answer(answer(reply, None, BASES.__getitem__))
    assert result == {"changed": True, "prev": value}


FAILURES: list[AgentError] = [
    ChainMismatch("a.b", expected="change 1 of n", found="no entry"),
    FencedOff("job.a", fence=3, known=5),
    LimitExceeded("a value", actual=9, limit=8, unit="bytes"),
    BadValue("x" * 10, "it is odd"),
    WriteRefused("full"),
    WriteUncertain("broken"),
    TimedOut("something", 2.5),
    NotConnected("node x", "it is away"),
    StoreLocked("/data", 77),
]


def sealed_bytes(body: bytes) -> int:
    """Return how long a message with this body is at most; raise where it is too long."""
    longest = Rid("n" * 63, (1 << 62) - 1)
    return len(Sealer("net" * 21, mac_key("net", b"key" * 9), longest).seal("q/x", "answer", body))


def test_the_value_that_was_there_before_is_left_out_where_it_does_not_fit() -> None:
    value = packb(bytes(VALUE_MAX_BYTES - 5))
    chain = tuple(Dot(Rid(letter * 63, (1 << 62) - 1), 1 << 39) for letter in "abcde")
    record = Carried(Path(*["x" * 30] * 60).key, 99, chain, value, Fence("j" * 255, 9))
    fields = {"seq": 0, "changed": True, "tock": 7, "chain": {"node": "home", "tick": 103}}
    reply = packed_map(fields, [("prev", value)])
    body = answer(reply, record, lambda _: 1 << 40)
    sealed_bytes(packb((HOME.incarnation, NUMBER_MAX, body)))
    result, records, _ = read_answer(body)
    assert result == {"changed": True, "tock": 7, "chain": {"node": "home", "tick": 103}}
    assert records == [record]


def test_two_large_values_are_too_much_to_ask_for() -> None:
    value = pack(bytes(VALUE_MAX_BYTES - 5))
    with pytest.raises(LimitExceeded, match="a write that another node makes"):
        question(SetValue(AB, value, prev=value))
    largest = pack(bytes(BODY_MAX_BYTES - VALUE_MAX_BYTES - 100))
    body = question(SetValue(AB, value, prev=largest))
    sealed_bytes(packb((HOME.incarnation, NUMBER_MAX, "write", body)))


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_failure_keeps_class_fields_and_certainty(error: AgentError) -> None:
    result, records, _ = read_answer(answer(failure(error), RECORD, BASES.__getitem__))
    assert type(result) is type(error)
    assert str(result) == str(error)
    assert isinstance(result, AgentError)
    assert result.certain == error.certain
    for name in error.fields:
        assert getattr(result, name) == getattr(error, name)
    assert records == [RECORD]


def test_a_failure_that_this_version_does_not_know() -> None:
    reply = packb({"failed": {"error": "it is new", "etype": "novelty", "certain": False}})
    result, _, _ = read_answer(answer(reply, None, BASES.__getitem__))
    assert type(result) is RemoteError
    assert "it is new" in str(result)
    assert not result.certain


def test_fields_of_another_type_do_not_hide_that_it_failed() -> None:
    wire = errors.to_wire(FAILURES[0]) | {"fields": {"path": 7}}
    result, _, _ = read_answer(answer(packb({"failed": wire}), None, BASES.__getitem__))
    assert type(result) is RemoteError


RIGHT = decode(answer(packb({"changed": True}), RECORD, BASES.__getitem__))
NO_ANSWERS: dict[str, Any] = {
    "too short": RIGHT[:2],
    "a map": {"a": 1},
    "a reply that is no bytes": ({"changed": True}, *RIGHT[1:]),
    "a reply of nothing": (None, *RIGHT[1:]),
    "a reply that is no map": (packb((1, 2)), *RIGHT[1:]),
    "a reply that is cut": (RIGHT[0][:-1], *RIGHT[1:]),
    "writers that are none": (RIGHT[0], 7, ()),
    "a writer that is not listed": (RIGHT[0], (), RIGHT[2]),
    "records that are none": (*RIGHT[:2], 7),
    "a record that is none": (*RIGHT[:2], ((1, 2),)),
}


@pytest.mark.parametrize("name", NO_ANSWERS)
def test_an_answer_that_is_none(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        read_answer(packb(NO_ANSWERS[name]))


def test_more_parts_come_from_newer_versions() -> None:
    result, records, _ = read_answer(packb((*RIGHT, "new")))
    assert (result, records) == ({"changed": True}, [RECORD])
