"""Each request of the protocol: what it answers, what it refuses, and in which words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvedge import limits
from kvedge.model.value import packb

NewClient = Callable[[], Any]
HELLO = {"seq": 0, "kvedge": ["etype", "pairs", "conflated"]}


@pytest.fixture
def kv(client: Any) -> Any:
    """A client with a few entries: a=1, a.b=2, b.c=3 and system data."""
    for path, value in ((("a",), 1), (("a", "b"), 2), (("b", "c"), 3), ((None, "sys"), 4)):
        client.ask("set_value", path=path, value=value)
    return client


@pytest.fixture
def own(new_client: NewClient, kv: Any) -> Any:
    """A client that has greeted as one of ours, beside `kv`."""
    client = new_client()
    client.connection.received(packb(HELLO))
    return client


def chain(tick: int | None) -> dict[str, Any] | None:
    return None if tick is None else {"node": "me", "tick": tick, "prev": None}


def without_tock(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("seq", "tock")}


@pytest.mark.parametrize(
    ("action", "fields", "answer"),
    [
        ("get_value", {"path": ("a",)}, {"value": 1}),
        ("get_value", {"path": ("a",), "nchain": 3}, {"value": 1, "chain": chain(1)}),
        ("get_value", {"path": ("b",)}, {}),
        ("get_value", {"path": ("no",), "nchain": 1}, {"chain": None}),
        ("get_value", {"path": (None, "sys")}, {"value": 4}),
        ("get_value", {"node": "me", "tick": 2}, {"value": 2}),
        ("get_internal", {"path": ("sys",)}, {"value": 4}),
        ("set_value", {"path": ("a",), "value": 9, "nchain": 0}, {"changed": True, "prev": 1}),
        ("set_value", {"path": ("n",), "value": None}, {"changed": True, "chain": chain(5)}),
        ("set_value", {"path": ("a",), "value": 1, "idem": True, "nchain": 0}, {"changed": False}),
        (
            "set_value",
            {"path": ("a",), "value": 9, "chain": chain(1), "nchain": 1},
            {"changed": True, "chain": chain(5)},
        ),
        ("set_value", {"path": ("a",), "value": 9, "prev": 1, "nchain": 0}, {"changed": True}),
        ("set_value", {"path": ("n",), "value": 9, "chain": None, "nchain": 0}, {"changed": True}),
        ("set_internal", {"path": ("s",), "value": 9, "nchain": 0}, {"changed": True}),
        ("delete_value", {"path": ("a",), "nchain": 0}, {"changed": True, "prev": 1}),
        ("delete_value", {"path": ("no",), "nchain": 0}, {"changed": False}),
        ("delete_value", {"path": ("a",), "chain": chain(1)}, {"changed": True, "chain": None}),
        ("delete_internal", {"path": ("sys",), "nchain": 0}, {"changed": True, "prev": 4}),
        ("delete_tree", {"path": ("a",)}, {"changed": 2}),
        ("delete_tree", {"path": ()}, {"changed": 3}),
        ("delete_tree", {"path": ("no",)}, {"changed": 0}),
        ("enum", {"path": ()}, {"result": ("a",)}),
        ("enum", {"path": (), "empty": True}, {"result": ("a", "b")}),
        ("enumerate", {"path": (), "with_data": True, "empty": True}, {"result": {"a": 1, "b": None}}),  # noqa: E501
        ("enum_internal", {"path": ()}, {"result": ("sys",)}),
        ("root", {"path": ("a",)}, {"value": 1}),
        ("get_tock", {}, {}),
        ("stop", {"task": 1}, {"result": False}),
    ],
)  # fmt: skip
def test_answers(kv: Any, action: str, fields: dict[str, Any], answer: dict[str, Any]) -> None:
    base = kv.server.store.base
    assert base == 0
    told = kv.ask(action, **fields)
    assert told["seq"] == kv.seq
    assert without_tock(told) == answer


@pytest.mark.parametrize(
    ("action", "fields", "words"),
    [
        ("get_value", {}, "neither a path nor a node and a tick"),
        ("get_value", {"node": "me"}, "neither a path nor a node and a tick"),
        ("get_value", {"path": "a"}, "neither a list of elements nor a path"),
        ("get_value", {"path": (float("nan"),)}, "not a path"),
        ("get_value", {"node": "me", "tick": 99}, "No data at tick 99 of me"),
        ("get_value", {"path": (), "nchain": "x"}, "'nchain' is a whole number"),
        ("set_value", {"path": ("a",)}, "its field 'value' is missing"),
        ("set_value", {"path": ("a",), "value": 1, "chain": None}, "expected no entry, found change 1 of me"),  # noqa: E501
        ("set_value", {"path": ("a",), "value": 1, "chain": chain(7)}, "expected change 7 of me"),
        ("set_value", {"path": ("no",), "value": 1, "chain": chain(7)}, "found no entry"),
        ("set_value", {"path": ("a",), "value": 1, "chain": 5}, "a chain is a map"),
        ("set_value", {"path": ("a",), "value": 1, "prev": 5}, "expected the value 5, found 1"),
        ("set_value", {"path": ("no",), "value": 1, "prev": 5}, "expected the value 5, found none"),
        ("delete_value", {"path": ("a",), "chain": chain(7)}, "a has changed"),
        ("stop", {}, "its field 'task' is missing"),
        ("nonsense", {}, "there is no such action; there are get_value"),
    ],
)  # fmt: skip
def test_refusals(kv: Any, action: str, fields: dict[str, Any], words: str) -> None:
    told = kv.ask(action, **fields)
    assert words in told["error"]
    assert "etype" not in told
    assert kv.ask("get_value", path=("a",))["value"] == 1


def test_our_own_clients_get_typed_errors(own: Any) -> None:
    told = own.ask("set_value", path=("a",), value=2, chain=None)
    assert told["etype"] == "chain"
    assert told["certain"] is True
    assert told["fields"]["path"] == "a"


def test_compare_and_set_sees_what_is_pending(kv: Any, new_client: NewClient) -> None:
    other = new_client()
    kv.send("set_value", path=("a",), value=10, chain=chain(1))
    other.link.read()
    other.send("set_value", path=("a",), value=20, chain=chain(1))
    assert "found change 5 of me" in other.link.read()[0]["error"]
    kv.server.confirm()
    assert kv.ask("get_value", path=("a",))["value"] == 10


def test_a_chain_of_sets_can_be_sent_ahead(kv: Any) -> None:
    """Whoever knows the ticks to come may build on writes that are not answered yet."""
    kv.send("set_value", path=("a",), value=2, chain=chain(1))
    kv.send("set_value", path=("a",), value=3, chain=chain(5))
    kv.server.confirm()
    assert ["error" in told for told in kv.link.read()] == [False, False]


@pytest.mark.parametrize(
    ("stored", "expected", "same"),
    [(1, True, False), (1, 1.0, False), ({"x": 1, "y": 2}, {"y": 2, "x": 1}, True), (None, None, True)],  # noqa: E501
)  # fmt: skip
def test_what_counts_as_the_same_value(kv: Any, stored: Any, expected: Any, same: bool) -> None:
    kv.ask("set_value", path=("v",), value=stored)
    told = kv.ask("set_value", path=("v",), value="new", prev=expected)
    assert ("error" not in told) == same


def test_names_that_python_calls_equal_come_as_pairs(own: Any) -> None:
    for element in (True, 1, 1.0):
        own.ask("set_value", path=("e", element), value=str(element))
    told = own.ask("enum", path=("e",), with_data=True)["result"]
    assert [(type(name), value) for name, value in told] == [
        (bool, "True"), (int, "1"), (float, "1.0")
    ]  # fmt: skip


def test_a_list_of_children_is_bounded_in_bytes(kv: Any) -> None:
    """A few dozen large values would be a message that nobody takes."""
    for i in range(6):
        kv.ask("set_value", path=("big", i), value=b"v" * (limits.VALUE_MAX_BYTES - 10))
    assert "at most 1048576 bytes" in kv.ask("enum", path=("big",), with_data=True)["error"]
    assert kv.ask("enum", path=("big",))["result"] == tuple(range(6))


def test_a_list_of_children_is_bounded_in_number(kv: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ELEMENTS_MAX", 2)
    for i in range(3):
        kv.ask("set_value", path=("x", i), value=i)
    assert "3 names; at most 2" in kv.ask("enum", path=("x",))["error"]


def test_a_root_holds_for_all_that_follows(kv: Any) -> None:
    kv.ask("root", path=("a",))
    assert kv.ask("get_value", path=("b",))["value"] == 2
    assert kv.ask("get_internal", path=("sys",))["value"] == 4
    kv.ask("set_value", path=("z",), value=1)
    assert kv.ask("enum", path=())["result"] == ("b", "z")
    assert kv.ask("root", path=("b",))["value"] == 2  # below the one before


def test_get_tree_tells_what_is_there(kv: Any) -> None:
    kv.link.read()
    kv.send("get_tree", path=(), min_depth=1)
    items = kv.link.read()
    assert [(item.get("depth"), item.get("path"), item.get("value")) for item in items] == [
        (None, None, None), (0, ("a",), 1), (1, ("b",), 2), (0, ("b", "c"), 3), (None, None, None)
    ]  # fmt: skip


def test_get_state_in_the_terms_of_the_peers(kv: Any) -> None:
    told = without_tock(kv.ask("get_state", nodes=True, present=True, missing=True))
    assert told == {
        "node": "me", "nodes": {"me": 4}, "present": {"me": ((1, 5),)}, "missing": {}
    }  # fmt: skip


def test_relaxed_and_durable_are_told_to_the_log(kv: Any) -> None:
    kv.ask("set_value", path=("r",), value=1)
    kv.send("set_value", path=("r",), value=2, relaxed=True)
    kv.server.store.confirm(written_to=kv.server.log.number, synced_to=0)
    assert kv.server.store.pending_count == 0


# --- delete_tree ------------------------------------------------------------------------------


def test_delete_tree_goes_chunk_by_chunk(kv: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvedge.server.commands.CHUNK", 10)
    for i in range(25):
        kv.ask("set_value", path=("x", i), value=i)
    kv.link.read()
    kv.send("delete_tree", path=("x",))
    for expected in (10, 10, 5):
        assert kv.server.store.pending_count == expected
        assert not kv.link.buffer
        kv.server.confirm()
    assert without_tock(kv.link.read()[0]) == {"changed": 25}
    assert kv.ask("enum", path=("x",))["result"] == ()


def test_delete_tree_as_a_stream(kv: Any) -> None:
    kv.link.read()
    kv.send("delete_tree", path=("a",), nchain=1)
    kv.server.confirm()
    told = [without_tock(item) for item in kv.link.read()]
    gone = [{"path": (), "depth": 0}, {"path": ("b",), "depth": 0}]
    chains = [{"node": "me", "tick": tick, "prev": None} for tick in (1, 2)]
    assert told == [
        {"state": "start"},
        *(entry | {"chain": chain} for entry, chain in zip(gone, chains, strict=True)),
        {"state": "end", "changed": 2},
    ]


def test_delete_tree_of_a_client_that_is_gone_goes_on(
    kv: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvedge.server.commands.CHUNK", 1)
    kv.send("delete_tree", path=())
    kv.connection.closed()
    for _ in range(4):
        kv.server.confirm()
    assert kv.server.store.tree.live_count == 1  # system data


@pytest.mark.parametrize("nchain", [0, 1])
def test_delete_tree_on_a_disk_that_is_full(
    kv: Any, monkeypatch: pytest.MonkeyPatch, nchain: int
) -> None:
    """What went before stays gone, so the answer must not say that nothing happened."""
    monkeypatch.setattr("kvedge.server.commands.CHUNK", 2)
    kv.link.read()
    kv.send("delete_tree", path=(), nchain=nchain)
    kv.server.confirm()
    kv.server.refuse_all()
    error = kv.link.read()[-1]["error"]
    assert "2 entries are deleted, then" in error
    assert "nothing was changed" not in error
    assert kv.server.store.tree.live_count == 2
    assert kv.connection._unanswered == 0


def test_delete_tree_on_a_disk_that_is_full_from_the_start(kv: Any) -> None:
    kv.link.read()
    kv.send("delete_tree", path=())
    kv.server.refuse_all()
    assert "nothing was changed" in kv.link.read()[-1]["error"]


def test_delete_tree_ends_when_the_server_does(kv: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvedge.server.commands.CHUNK", 1)
    kv.link.read()
    kv.send("delete_tree", path=())
    kv.server.log.is_closed = True
    kv.server.confirm()
    assert "error" in kv.link.read()[-1]
    assert kv.connection._unanswered == 0
