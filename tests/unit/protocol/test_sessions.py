"""Both halves of a connection: greeting, seq rules, errors with and without classes."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from kvedge import errors, limits
from kvedge.errors import AgentError, RemoteError, RemoteProtocolError
from kvedge.model.path import P
from kvedge.model.value import pack
from kvedge.protocol.client_session import ClientSession
from kvedge.protocol.codec import FEATURES, encode
from kvedge.protocol.messages import GetTock, GetValue, SetValue, Stop
from kvedge.protocol.server_session import Acked, Asked, Broken, Reply, ServerSession

HELLO = encode({"seq": 0, "kvedge": FEATURES})
TOCK = {"action": "get_tock"}


def unpacked(data: bytes) -> dict[str, Any]:
    made: dict[str, Any] = msgpack.unpackb(data, use_list=False)
    return made


def server(*messages: dict[str, Any] | bytes) -> ServerSession:
    """Return a session that has taken some messages and is not broken."""
    session = ServerSession(logged_in=True)
    for message in messages:
        events = session.receive(message if isinstance(message, bytes) else encode(message))
        assert not any(isinstance(event, Broken) for event in events)
    return session


def client() -> ClientSession:
    """Return a session that was greeted."""
    session = ClientSession()
    greeting = ServerSession(logged_in=True).greeting(node="n", tick=3, tock=4)
    assert session.receive(greeting) == []
    return session


# --- the server's half -----------------------------------------------------------------------


def test_greeting() -> None:
    greeting = unpacked(server().greeting(node="n", tick=3, tock=4))
    assert greeting["seq"] == 0
    assert greeting["kvedge"] == 1
    assert greeting["version"]
    assert (greeting["node"], greeting["tick"], greeting["tock"]) == ("n", 3, 4)


def test_requests_come_out_in_order() -> None:
    data = [
        {"seq": 1, "action": "get_value", "path": ("a",)},
        {"seq": 2, "action": "set_value", "path": ("a",), "value": 5},
        {"seq": 7, "action": "get_tock"},
    ]
    assert server().receive(b"".join(map(encode, data))) == [
        Asked(1, GetValue(P("a").key)),
        Asked(2, SetValue(P("a").key, pack(5))),
        Asked(7, GetTock()),
    ]


def test_features_and_window_of_a_client() -> None:
    session = server(HELLO)
    assert session.features == frozenset(FEATURES)
    assert session.window == 0
    assert server().features == frozenset()
    other = server({"seq": 0, "qlen": 9})
    assert (other.features, other.window) == (frozenset(), 9)
    assert other.receive(encode({"seq": 1, **TOCK})) == [Asked(1, GetTock())]


def test_streams_are_acknowledged_and_closed() -> None:
    session = server({"seq": 5, **TOCK})
    assert session.receive(encode({"seq": 2, "state": "ack", "ack": 9})) == [Acked(2, 9)]
    assert session.receive(encode({"seq": 2, "state": "end"})) == []
    assert session.receive(encode({"seq": 2, "state": "ack", "ack": "x"})) == []
    assert session.receive(encode({"seq": 6, "action": "stop", "task": 2})) == [Asked(6, Stop(2))]


def test_root_of_a_session() -> None:
    session = server()
    session.root = P("some").key
    request = encode({"seq": 1, "action": "get_value", "path": ("a",)})
    assert session.receive(request) == [Asked(1, GetValue(P("some.a").key))]


def test_root_holds_for_what_comes_with_it() -> None:
    session = server()
    data = [
        {"seq": 1, "action": "root", "path": ("a",)},
        {"seq": 2, "action": "root", "path": ("b",)},
        {"seq": 3, "action": "get_value", "path": ("c",)},
    ]
    events = session.receive(b"".join(map(encode, data)))
    assert events[2] == Asked(3, GetValue(P("a.b.c").key))
    assert session.receive(encode(data[2] | {"seq": 4})) == [Asked(4, GetValue(P("a.b.c").key))]


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([TOCK], "no seq"),
        ([{"seq": None, **TOCK}], "no seq"),
        ([{"seq": "1", **TOCK}], "no seq"),
        ([{"seq": 1.0, **TOCK}], "no seq"),
        ([{"seq": True, **TOCK}], "no seq"),
        ([{"seq": -1, **TOCK}], "below 1"),
        ([{"seq": 1 << 63, **TOCK}], "no seq"),
        ([{"seq": 1 << 1000, **TOCK}], "no seq"),
        ([{"seq": msgpack.ExtType(2, b"\xff" * 20_000), **TOCK}], "no seq"),
        ([{"seq": msgpack.ExtType(9, b"a"), **TOCK}], "no seq"),
        ([{"seq": 1, **TOCK}, {"seq": 1, **TOCK}], "seq 1 came after seq 1"),
        ([{"seq": 9, **TOCK}, {"seq": 3, **TOCK}], "seq 3 came after seq 9"),
        ([{"seq": 9, "action": "?"}, {"seq": 9, **TOCK}], "seq 9 came after seq 9"),
        ([{"seq": 1, **TOCK}, {"seq": 0, "kvedge": ()}], "below 1"),
        ([{"seq": 0, "kvedge": ()}, {"seq": 0, "kvedge": ()}], "below 1"),
        ([{"seq": 0, "kvedge": 7}], "its field 'kvedge' is a list of texts"),
        ([[1]], "starts with byte 91"),
        ([{"seq": 1, "a": [()] * (limits.ELEMENTS_MAX + 1)}], "parts"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_broken_rules_end_the_connection(messages: list[Any], why: str) -> None:
    for kinds in (False, True):
        session = server(HELLO) if kinds and messages[0] != {"seq": 0, "kvedge": 7} else server()
        events = [event for message in messages for event in session.receive(encode(message))]
        assert isinstance(events[-1], Broken)
        assert not any(isinstance(event, Broken) for event in events[:-1])
        answer = unpacked(events[-1].data)
        assert why in events[-1].why
        assert why in answer["error"]
        assert "seq" not in answer
        assert session.receive(encode({"seq": 99, **TOCK})) == []


def test_nothing_behind_a_broken_rule_is_done() -> None:
    data = [{"seq": 2, **TOCK}, {"seq": 1, **TOCK}, {"seq": 3, **TOCK}]
    first, second = server().receive(b"".join(map(encode, data)))
    assert first == Asked(2, GetTock())
    assert isinstance(second, Broken)


def test_stranger_may_say_less() -> None:
    size = limits.MESSAGE_BEFORE_LOGIN_MAX_BYTES
    data = encode({"seq": 1, "action": "set_value", "path": ("a",), "value": "x" * size})
    (refused,) = ServerSession(logged_in=False).receive(data)
    assert isinstance(refused, Broken)
    assert f"at most {size} bytes" in refused.why
    (taken,) = ServerSession(logged_in=True).receive(data)
    assert isinstance(taken, Asked)


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"action": "?"}, "BadRequest", "request"),
    ({"action": b"\xff"}, "BadRequest", "request"),
    ({"action": "get_value", "path": "a"}, "BadPath", "path"),
    ({"action": "get_value", "path": [[[]] * 70]}, "LimitExceeded", "limit"),
    ({"action": "set_value", "path": ["a"], "value": msgpack.ExtType(9, b"")},
     "BadValue", "value"),
    ({"action": "set_value", "path": ["a"], "value": "x" * 300_000}, "LimitExceeded", "limit"),
    ({}, "BadRequest", "request"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "name", "code"), WRONG)
def test_wrong_request_is_answered_and_the_connection_goes_on(
    fields: dict[str, Any], name: str, code: str
) -> None:
    data = msgpack.packb({"seq": 1, **fields})
    for session in (server(), server(HELLO)):
        (event,) = session.receive(data)
        assert isinstance(event, Reply)
        answer = unpacked(event.data)
        assert answer["seq"] == 1
        if session.features:
            error = errors.from_wire(answer)
            assert (type(error).__name__, answer["etype"]) == (name, code)
            assert str(error) == answer["error"]
        else:
            assert set(answer) == {"seq", "error"}
            assert answer["error"].startswith(f"{name}: ")
        assert session.receive(encode({"seq": 2, **TOCK})) == [Asked(2, GetTock())]


def head(action: bytes, field: bytes) -> bytes:
    return b"\x83\xa3seq\x01\xa6action" + action + field


@pytest.mark.parametrize(
    "data",
    [
        head(b"\xa9get_value", b"\xa4path" + b"\x91" * 30 + b"\x90"),
        head(b"\xa9get_value", b"\xa4path" + b"\x91" * 300 + b"\x90"),
        head(b"\xa9get_value", b"\xa4path" + b"\x91" * 900 + b"\x90"),
        head(b"\xa9get_value", b"\xa4path" + b"\x81\x01" * 400 + b"\x01"),
        head(b"\x91" * 900 + b"\x90", b"\xa4path\x90"),
        head(b"\x81\x01" * 400 + b"\x90", b"\xa4path\x90"),
        head(b"\xa1\xff", b"\xa4path\x90"),
        head(b"\xc8\x4e\x20\x02" + b"\xff" * 20_000, b"\xa4path\x90"),
        head(b"\xa4stop", b"\xa4task\xc8\x4e\x20\x02" + b"\xff" * 20_000),
        head(b"\xa9get_value", b"\xa4path\xc8\x4e\x20\x02" + b"\xff" * 20_000),
        head(b"\xa9get_value", b"\xa4path\xc7\x06\x03\x81\x80\x01\x01\x01\x01"),
        head(b"\xa9get_value", b"\xa4path\xa1\xff"),
        head(b"\xa9get_value", b"\xa4path\x91\xa1\xff"),
    ],
    ids=lambda data: data[12:40].hex(),
)
def test_what_is_hard_to_show_is_answered(data: bytes) -> None:
    for session in (server(), server(HELLO)):
        (event,) = session.receive(data)
        if isinstance(event, Reply):
            assert len(unpacked(event.data)["error"]) < 400
        else:
            assert isinstance(event, Asked)
        assert session.receive(encode({"seq": 2, **TOCK})) == [Asked(2, GetTock())]


def test_deep_seq_is_told() -> None:
    (event,) = server().receive(b"\x81\xa3seq" + b"\x91" * 900 + b"\x90")
    assert isinstance(event, Broken)
    assert "no seq" in event.why


# --- the client's half -----------------------------------------------------------------------


def test_client_and_server_understand_each_other() -> None:
    there, here = server(), ClientSession()
    assert here.receive(there.greeting(node="n", tick=3, tock=4)) == []
    assert here.greeting is not None
    assert here.greeting["node"] == "n"
    assert there.receive(here.hello(window=5)) == []
    assert (there.features, there.window) == (frozenset(FEATURES), 5)
    assert here.request("get_tock", {}) == (1, encode({"seq": 1, **TOCK}))
    seq, data = here.request("get_value", {"path": ("a",)})
    assert there.receive(data) == [Asked(seq, GetValue(P("a").key))]
    assert here.receive(there.reply(seq, {"value": 7})) == [(seq, {"seq": seq, "value": 7})]
    assert there.receive(here.ack(seq, 4)) == [Acked(seq, 4)]
    (_, failed), *_ = here.receive(there.error(seq, errors.EntryAbsent("a")))
    assert isinstance(errors.from_wire(failed), errors.EntryAbsent)


def test_messages_in_pieces() -> None:
    session = client()
    data = encode({"seq": 1, "value": 5}) + encode({"seq": 2, "state": "start"})
    found = [found for at in range(len(data)) for found in session.receive(data[at : at + 1])]
    assert found == [(1, {"seq": 1, "value": 5}), (2, {"seq": 2, "state": "start"})]


@pytest.mark.parametrize(
    "greeting",
    [{}, {"seq": 0}, {"version": (0, 1)}, {"seq": 1, "version": (0, 1)}, {"seq": 1, "value": 2}],
)
def test_who_greets_otherwise_is_no_server(greeting: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError, match="does not greet"):
        ClientSession().receive(encode(greeting))


@pytest.mark.parametrize("data", [b"HTTP/1.1 400", b"\x81\xa1a\xc1", b"\x05"])
@pytest.mark.parametrize("session", [client, ClientSession])
def test_garbage_from_a_server_is_told(session: Any, data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        session().receive(data)


def test_end_of_the_conversation_has_its_reason() -> None:
    refusal = server().refusal(errors.LimitExceeded("a server", actual=9, limit=8, unit="clients"))
    for session in (client(), ClientSession()):
        with pytest.raises(errors.LimitExceeded, match="9 clients"):
            session.receive(refusal)
    with pytest.raises(RemoteError, match="bye"):
        client().receive(encode({"error": "bye"}))
    with pytest.raises(AgentError, match="has no seq"):
        client().receive(encode({"value": 1}))
