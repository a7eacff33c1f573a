"""Requests: each action with good and with bad fields, and what the refusals say."""

from __future__ import annotations

from typing import Any

import pytest

from kvedge import limits
from kvedge.errors import BadPath, BadRequest, BadValue, LimitExceeded
from kvedge.model.path import SYSTEM, P
from kvedge.model.value import MISSING, Malformed, pack
from kvedge.protocol.messages import (
    ACTIONS,
    DEPTH_UNBOUNDED,
    DeleteTree,
    DeleteValue,
    Enumerate,
    GetState,
    GetTock,
    GetTree,
    GetValue,
    Hello,
    NetStatus,
    Request,
    SetRoot,
    SetValue,
    Stop,
    Traffic,
    Watch,
    read,
    read_hello,
)

AB = P("a.b").key
PATH = {"path": ("a", "b")}
CHAIN = {"node": "n", "tick": 7, "prev": None}
BROKEN = Malformed("it is broken")
HUGE = 1 << 100_000

GOOD: list[tuple[str, dict[str, Any], Request]] = [
    ("get_value", PATH, GetValue(AB)),
    ("get_value", {"path": P("a.b"), "nchain": -1}, GetValue(AB, nchain=-1)),
    ("get_value", {"path": ["a", "b"], "nchain": 3}, GetValue(AB, nchain=3)),
    ("get_value", {"path": ()}, GetValue(b"")),
    ("get_value", {"node": "n", "tick": 7}, GetValue(node="n", tick=7)),
    ("set_value", PATH | {"value": 1}, SetValue(AB, pack(1))),
    ("set_value", PATH | {"value": None}, SetValue(AB, pack(None))),
    ("set_value", PATH | {"value": 1, "chain": CHAIN}, SetValue(AB, pack(1), chain=("n", 7))),
    ("set_value", PATH | {"value": 1, "chain": None}, SetValue(AB, pack(1), chain=None)),
    ("set_value", PATH | {"value": 1, "prev": {"a": (1,)}, "nchain": 0, "idem": True},
     SetValue(AB, pack(1), prev=pack({"a": (1,)}), nchain=0, idem=True)),
    ("set_value", PATH | {"value": 1, "relaxed": 1, "idem": None},
     SetValue(AB, pack(1), relaxed=True)),
    ("delete_value", PATH, DeleteValue(AB)),
    ("delete_value", PATH | {"chain": CHAIN, "prev": 1, "nchain": 2},
     DeleteValue(AB, chain=("n", 7), prev=pack(1), nchain=2)),
    ("delete_tree", {}, DeleteTree()),
    ("delete_tree", PATH | {"nchain": 1}, DeleteTree(AB, nchain=1)),
    ("enum", PATH, Enumerate(AB)),
    ("enumerate", PATH | {"with_data": True, "empty": True}, Enumerate(AB, True, True)),
    ("get_tree", PATH, GetTree(AB)),
    ("get_tree", PATH | {"min_depth": 1, "max_depth": 2, "nchain": 3, "empty": True},
     GetTree(AB, 3, 1, 2, True)),
    ("get_tree", {"max_depth": None, "min_depth": 0}, GetTree(max_depth=DEPTH_UNBOUNDED)),
    ("get_tree", {"max_depth": -1}, GetTree(max_depth=DEPTH_UNBOUNDED)),
    ("watch", PATH | {"fetch": True, "max_depth": 1}, Watch(AB, fetch=True, max_depth=1)),
    ("watch", {}, Watch()),
    ("root", PATH, SetRoot(AB)),
    ("get_tock", {}, GetTock()),
    ("get_state", {"nodes": True, "missing": True}, GetState(nodes=True, missing=True)),
    ("net_status", {}, NetStatus()),
    ("traffic", {}, Traffic()),
    ("stop", {"task": 3}, Stop(3)),
]  # fmt: skip

BAD: list[tuple[str, dict[str, Any], str]] = [
    ("get_value", {"path": "a.b"}, "neither a list of elements nor a path"),
    ("get_value", {"path": None}, "neither a list of elements nor a path"),
    ("get_value", {"path": ({},)}, "dict cannot be part of a path"),
    ("get_value", {"path": (float("nan"),)}, "NaN"),
    ("get_value", {"path": BROKEN}, "'path' is broken: it is broken"),
    ("get_value", {"path": ("a",) * (limits.PATH_ELEMENTS_MAX + 1)}, "65 elements"),
    ("get_value", {"path": HUGE}, "neither"),
    ("get_value", PATH | {"nchain": -2}, "'nchain' is a whole number, -1 for all"),
    ("get_value", PATH | {"nchain": 1.0}, "'nchain' is a whole number"),
    ("get_value", PATH | {"nchain": True}, "'nchain' is a whole number"),
    ("get_value", PATH | {"nchain": None}, "'nchain' is a whole number"),
    ("get_value", {"node": 1, "tick": 1}, "'node' is a text"),
    ("get_value", {"node": "\udcff", "tick": 1}, "'node'"),
    ("get_value", {"node": "n", "tick": -1}, "'tick' is a whole number from 0"),
    ("get_value", {"node": "n", "tick": "1"}, "'tick' is a whole number"),
    ("get_value", {"node": "n", "tick": HUGE}, "'tick' is a whole number"),
    ("set_value", PATH, "'value' is missing"),
    ("set_value", {"value": 1}, "'path' is missing"),
    ("set_value", PATH | {"value": BROKEN}, "cannot be stored: it is broken"),
    ("set_value", PATH | {"value": (1, {"a": BROKEN})}, "cannot be stored: it is broken"),
    ("set_value", PATH | {"value": "\udcff"}, "not valid Unicode"),
    ("set_value", PATH | {"value": 1, "prev": BROKEN}, "cannot be stored: it is broken"),
    ("set_value", PATH | {"value": 1, "chain": 1}, "a chain is a map"),
    ("set_value", PATH | {"value": 1, "chain": BROKEN}, "'chain' is broken"),
    ("set_value", PATH | {"value": 1, "idem": "yes"}, "'idem' is True or False"),
    ("set_value", PATH | {"value": 1, "relaxed": 2}, "'relaxed' is True or False"),
    ("set_value", PATH | {"value": 1, "relaxed": BROKEN}, "'relaxed' is broken"),
    ("delete_value", {}, "'path' is missing"),
    ("delete_tree", {"path": 1}, "neither"),
    ("enum", {"with_data": ()}, "'with_data' is True or False"),
    ("get_tree", {"max_depth": "1"}, "'max_depth' is a whole number or None"),
    ("get_tree", {"min_depth": 1.5}, "'min_depth' is a whole number or None"),
    ("watch", {"fetch": HUGE}, "'fetch' is True or False"),
    ("root", {"path": {}}, "neither"),
    ("stop", {}, "'task' is missing"),
    ("stop", {"task": True}, "'task' is a whole number from 0"),
    ("stop", {"task": HUGE}, "'task' is a whole number"),
    ("get_state", {"nodes": "all"}, "'nodes' is True or False"),
]


@pytest.mark.parametrize(("action", "fields", "request_"), GOOD)
def test_good_request(action: str, fields: dict[str, Any], request_: Request) -> None:
    message = {"seq": 1, "action": action, **fields}
    assert read(message, b"") == request_
    assert read(message | {"new in version 9": 1, 5: 6, None: BROKEN}, b"") == request_


@pytest.mark.parametrize(
    ("action", "fields", "why"), BAD, ids=[f"{action}-{why}" for action, _, why in BAD]
)
def test_bad_request_names_action_and_field(action: str, fields: dict[str, Any], why: str) -> None:
    with pytest.raises((BadRequest, BadPath, BadValue, LimitExceeded)) as caught:
        read({"seq": 1, "action": action, **fields}, b"")
    text = str(caught.value)
    assert why in text
    assert not isinstance(caught.value, BadRequest) or repr(action) in text or "chain" in text
    assert len(text.encode()) < 300


def test_every_action_was_tried() -> None:
    assert {action for action, _, _ in GOOD} == set(ACTIONS)


@pytest.mark.parametrize("action", [None, 1, b"get_value", (), {"a": 1}, True, "\udcff", BROKEN])
def test_no_action(action: Any) -> None:
    with pytest.raises(BadRequest, match="it has no action"):
        read({"seq": 1, "action": action}, b"")


def test_action_that_cannot_be_printed() -> None:
    deep: tuple[Any, ...] = ()
    for _ in range(900):
        deep = (deep,)
    test_no_action(deep)
    test_no_action(HUGE)


@pytest.mark.parametrize("action", ["", "get", "a\0b", "GET_VALUE", "_read", "x" * 100_000, "é"])
def test_unknown_action_is_named_with_those_there_are(action: str) -> None:
    with pytest.raises(BadRequest, match=r"there are get_value, set_value, .*stop") as caught:
        read({"seq": 1, "action": action}, b"")
    assert len(str(caught.value).encode()) < 400
    caught.value.action.encode()


@pytest.mark.parametrize("name", ["get", "set", "delete", "enum", "get_tree"])
def test_internal_action_is_the_plain_one_below_none(name: str) -> None:
    plain = name if name in ACTIONS else f"{name}_value"
    fields = {"path": ("auth",), "value": 1}
    internal = read({"action": f"{name}_internal", **fields}, P("some.root").key)
    assert internal == read({"action": plain, "path": (None, "auth"), "value": 1}, b"")
    at_top = read({"action": "enum_internal"}, b"")
    assert at_top == Enumerate(SYSTEM.key)


def test_paths_are_below_the_root() -> None:
    root = P("some.root").key
    for action, fields, plain in GOOD:
        moved = read({"action": action, **fields}, root)
        path = getattr(plain, "path", MISSING)
        wanted = MISSING if path is MISSING else root + path
        assert getattr(moved, "path", MISSING) == wanted
    assert read({"action": "get_value", "path": (None, "auth")}, root) == GetValue(
        P("some.root.:n.auth").key
    )


@pytest.mark.parametrize("path", [("a" * 1500,), (1,) * 60])
def test_whole_path_keeps_the_limits(path: tuple[Any, ...]) -> None:
    message = {"action": "get_value", "path": path}
    root = read(message, b"").path  # type: ignore[union-attr]  # it is a GetValue
    with pytest.raises(LimitExceeded, match="a path has"):
        read(message, root)  # type: ignore[arg-type]  # it is there


def test_hello() -> None:
    assert read_hello({"seq": 0, "kvedge": ("etype", "new"), "qlen": 5}) == Hello(
        ("etype", "new"), 5
    )
    assert read_hello({"seq": 0}) == Hello((), 0)


@pytest.mark.parametrize(
    "fields",
    [{"kvedge": 1}, {"kvedge": "etype"}, {"kvedge": (1,)}, {"kvedge": BROKEN}, {"qlen": -1},
     {"qlen": "1"}, {"qlen": HUGE}, {"qlen": None}],
    ids=["number", "text", "numbers", "broken", "negative", "no number", "huge", "nothing"],
)  # fmt: skip
def test_bad_hello(fields: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=f"'hello'.*'{next(iter(fields))}'"):
        read_hello({"seq": 0, **fields})
