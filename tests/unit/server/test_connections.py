"""A connection between a link moved by hand and a store: back-pressure, streams, broken rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvedge import limits
from kvedge.errors import AgentError, WriteUncertain
from kvedge.model.value import packb

BIG = b"v" * (limits.VALUE_MAX_BYTES - 10)
NewClient = Callable[[], Any]


def test_the_greeting(server: Any, new_client: NewClient) -> None:
    greeting = new_client().link.read()[0]
    assert greeting["seq"] == 0
    assert greeting["node"] == "me"
    assert greeting["qlen"] == 0


def test_one_too_many_is_refused_in_words(server: Any, new_client: NewClient) -> None:
    server.has_room = False
    link = new_client().link
    message = link.read()[0]
    assert "256 connections are allowed" in message["error"]
    assert message["etype"] == "limit"
    assert link.is_closed


def test_many_large_answers_wait_for_a_client_that_does_not_read(client: Any) -> None:
    """One read may bring thousands of requests; their answers must not pile up in memory."""
    client.ask("set_value", path=("big",), value=BIG)
    client.link.largest = 0
    client.connection.received(
        b"".join(client.packed("get_value", path=("big",)) for _ in range(200))
    )
    assert client.link.is_paused
    assert client.link.largest < limits.SEND_BUFFER_MAX_BYTES + len(BIG) + 1000
    assert [len(message["value"]) for message in client.drain()] == [len(BIG)] * 200
    assert not client.link.is_paused


def test_answers_come_in_the_order_of_requests(client: Any) -> None:
    client.ask("set_value", path=("big",), value=BIG)
    client.connection.received(
        b"".join(client.packed("get_value", path=("big",)) for _ in range(20))
    )
    seqs = [message["seq"] for message in client.drain()]
    assert seqs == list(range(2, 22))


def test_too_many_open_requests_stop_the_reading(
    client: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REQUESTS_OPEN_MAX", 10)
    client.connection.received(
        b"".join(client.packed("set_value", path=("a",), value=i) for i in range(50))
    )
    assert client.link.is_paused
    assert server.store.pending_count <= 11
    answers = []
    while client.link.is_paused or server.store.pending_count:
        server.confirm()
        answers += client.link.read()
    assert len(answers) == 50
    assert server.store.newest(b"\x08a\0") is not None


def test_a_reader_held_back_by_others_writes_goes_on_when_they_are_done(
    client: Any, server: Any, new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has nothing open itself that could wake it up."""
    monkeypatch.setattr(limits, "COMMIT_WAITING_MAX", 3)
    other = new_client()
    other.link.read()
    client.connection.received(
        b"".join(client.packed("set_value", path=(i,), value=i) for i in range(5))
    )
    other.send("get_tock")
    other.send("get_tock")
    assert other.link.is_paused
    server.confirm()
    assert not other.link.is_paused
    assert len(other.link.read()) == 2


def test_writes_in_doubt_hold_nobody_back(
    client: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails for an hour must not stop reading for an hour."""
    monkeypatch.setattr(limits, "COMMIT_WAITING_MAX", 3)
    client.connection.received(
        b"".join(client.packed("set_value", path=(i,), value=i) for i in range(4))
    )
    for done in server.store.doubtful(server.log.number):
        done(WriteUncertain("why"))
    assert server.store.pending_count == 0
    assert "error" in client.link.read()[0]
    server.run_due()
    assert not client.link.is_paused
    server.confirm()
    assert server.store.pending_count == 0


def test_a_client_that_is_gone_leaves_nothing_behind(client: Any, server: Any) -> None:
    client.send("watch", path=())
    client.send("set_value", path=("a",), value=1)
    client.connection.closed()
    assert server.dismissed == [client.connection]
    server.confirm()
    assert server.store.get(b"\x08a\0") is not None
    client.connection.drained()
    assert server.watchers._by_key == {}


def test_broken_rules_end_the_connection_with_words(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client.connection.received(b"GET / HTTP/1.1\r\n\r\n")
    message = client.link.read()[0]
    assert "starts with byte 47" in message["error"]
    assert "seq" not in message
    assert client.link.is_closed
    assert [record.getMessage() for record in caplog.records if record.levelno >= 30] == [
        "uid 7 broke the rules and is disconnected: " + message["error"].split(": ", 1)[1]
    ]


def test_what_came_before_is_answered(client: Any) -> None:
    client.send("get_tock")
    client.send("nonsense")
    client.connection.received(b"\xc1")
    answers = client.link.read()
    assert ["error" in message for message in answers] == [False, True, True]
    assert "no such action" in answers[1]["error"]


def test_a_window_holds_back_a_stream_until_acknowledged(
    server: Any, new_client: NewClient
) -> None:
    client = new_client()
    client.link.read()
    for i in range(4):
        new_client().ask("set_value", path=(i,), value=i)
    client.connection.received(packb({"seq": 0, "kvedge": [], "qlen": 2}))
    client.send("get_tree", path=())
    assert [message.get("wseq") for message in client.link.read()] == [None, 1, 2]
    client.connection.received(packb({"seq": client.seq, "state": "ack", "ack": 2}))
    client.server.run_due()
    assert [message.get("wseq") for message in client.link.read()] == [3, 4]


def test_streams_are_counted(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAMS_MAX", 2)
    client.send("watch", path=())
    client.send("watch", path=())
    error = client.ask("watch", path=())
    assert "3 streams; at most 2" in error["error"]
    assert client.ask("stop", task=1)["result"] is True
    assert client.ask("stop", task=1)["result"] is False
    assert client.ask("watch", path=())["state"] == "start"
    assert client.connection._unanswered == 0


@pytest.mark.parametrize(
    "request_",
    [
        ("get_value", {"path": ("a",)}),
        ("get_value", {"node": "x", "tick": 1}),
        ("set_value", {"path": ("a",), "value": 1}),
        ("set_value", {"path": ("a",), "value": 1, "chain": {"node": "x", "tick": 9}}),
        ("set_value", {"path": ("a",)}),
        ("delete_value", {"path": ("a",)}),
        ("delete_tree", {"path": ("a",)}),
        ("delete_tree", {"path": (), "nchain": 1}),
        ("enum", {"path": ()}),
        ("get_tree", {"path": ()}),
        ("watch", {"path": ()}),
        ("root", {"path": ("a",)}),
        ("get_tock", {}),
        ("get_state", {}),
        ("stop", {"task": 99}),
        ("nonsense", {}),
    ],
)
def test_each_request_is_counted_as_answered_once(
    client: Any, server: Any, request_: tuple[str, dict[str, Any]]
) -> None:
    """A count that drifts would one day hold a connection back for ever."""
    client.ask("set_value", path=("a",), value=1)
    action, fields = request_
    client.ask(action, **fields)
    server.confirm()
    assert client.connection._unanswered == 0


def test_errors_of_writes_reach_who_asked(client: Any, server: Any) -> None:
    client.send("set_value", path=("a",), value=1)
    error: AgentError = WriteUncertain("why")
    for done in server.store.doubtful(server.log.number):
        done(error)
    assert client.link.read()[0]["error"] == "WriteUncertain: the write may have happened: why"
