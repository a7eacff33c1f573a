"""Errors: what each one says, its family, and its way across a connection."""

from __future__ import annotations

from typing import Any

import pytest

from kvedge import errors
from kvedge.errors import AgentError, RemoteError, from_wire, to_wire

# Every class with fields: one error of it, and what a user reads.
MESSAGES: list[tuple[AgentError, str]] = [
    (errors.BadPath("a..b", "an element is empty"), "'a..b' is not a path: an element is empty"),
    (
        errors.BadValue("a set", "only plain data can"),
        "a set cannot be stored: only plain data can",
    ),
    (
        errors.BadRequest("get", "there is no such action"),
        "the request 'get' is not understood: there is no such action",
    ),
    (errors.BadSetting("server.dir", "it is no folder"), "server.dir: it is no folder"),
    (
        errors.LimitExceeded("a value", actual=300, limit=256, unit="bytes"),
        "a value has 300 bytes; at most 256 bytes are allowed",
    ),
    (
        errors.ChainMismatch("a.b", expected="n:7", found="n:8"),
        "a.b has changed: expected n:7, found n:8",
    ),
    (
        errors.FencedOff("job.a", fence=3, known=5),
        "the job job.a may not write any more: its fence 3 is below 5",
    ),
    (errors.EntryAbsent("a.b"), "No data at a.b"),
    (
        errors.SchemaViolation("a.b", schema="int", why="'x' is not a number"),
        "a.b must be of type int: 'x' is not a number",
    ),
    (errors.AuthRequired("password"), "You need to log in using: password"),
    (errors.AuthFailed("joe"), "the login of 'joe' was refused"),
    (errors.NotAllowed("a.b", "write"), "a.b: you lack the right to write"),
    (errors.LocalProtocolError("no seq"), "defect in this program: no seq"),
    (errors.RemoteProtocolError("no map"), "the other side sent something unusable: no map"),
    (errors.ServerFailure("KeyError: 1"), "the server failed: KeyError: 1"),
    (
        errors.NotConnected("127.0.0.1:27586", "Connection refused"),
        "cannot reach 127.0.0.1:27586: Connection refused",
    ),
    (errors.Disconnected("the server stopped"), "the connection ended: the server stopped"),
    (errors.TimedOut("set a.b", 30.0), "set a.b: no answer after 30 s; it may have happened"),
    (
        errors.JournalCorrupt("j-1", offset=12, why="wrong checksum"),
        "j-1 is damaged at byte 12: wrong checksum",
    ),
    (
        errors.BadDump("a.dump", offset=12, why="it was cut"),
        "a.dump cannot be loaded: at byte 12: it was cut",
    ),
    (
        errors.SnapshotMissing("s-1"),
        "s-1 is missing, and the journal that is left does not reach back",
    ),
    (errors.WrongStore("/data", "it is of node b"), "/data cannot be used: it is of node b"),
    (errors.StoreLocked("/data", 77), "/data is in use by process 77; stop that one first"),
    (
        errors.NameTaken("b", "/data"),
        "another server has taken over the name b from /data",
    ),
    (errors.WriteRefused("disk full"), "writes are refused, nothing was changed: disk full"),
    (errors.WriteUncertain("I/O error"), "the write may have happened: I/O error"),
    (errors.JobFailed("job.a", "KeyError: 1"), "job.a failed: KeyError: 1"),
    (errors.NotPlaced("job.a", 2.5), "no node took job.a within 2.5 s"),
    (errors.RunnerBusy("single n", "n:77"), "the jobs of single n are already run by n:77"),
    (errors.PortUnavailable("i2c-1", "no such file"), "i2c-1 cannot be reached: no such file"),
    (errors.PortBusy("i2c-1", "a scan runs"), "i2c-1 is busy: a scan runs"),
    (errors.DeviceAbsent("10.345"), "10.345 does not answer"),
    (errors.BadReading("85.0", "power-on value"), "85.0 is not a reading: power-on value"),
    (RemoteError("new", "something new"), "something new"),
]

# A family, and the built-in that a caller may catch instead.
FAMILIES: list[tuple[type[AgentError], type[Exception], str]] = [
    (errors.UsageError, ValueError, "BadPath BadValue BadRequest BadSetting LimitExceeded"),
    (errors.ConflictError, AgentError, "ChainMismatch FencedOff EntryAbsent SchemaViolation"),
    (errors.AccessError, PermissionError, "AuthRequired AuthFailed NotAllowed"),
    (errors.ProtocolError, AgentError, "LocalProtocolError RemoteProtocolError ServerFailure"),
    (errors.LinkError, ConnectionError, "NotConnected Disconnected TimedOut"),
    (
        errors.StorageError,
        OSError,
        "JournalCorrupt BadDump SnapshotMissing WrongStore StoreLocked NameTaken WriteRefused"
        " WriteUncertain",
    ),
    (errors.JobError, AgentError, "JobFailed NotPlaced RunnerBusy"),
    (errors.DriverError, AgentError, "PortUnavailable PortBusy DeviceAbsent BadReading"),
]

UNCERTAIN = {"ServerFailure", "Disconnected", "TimedOut", "WriteUncertain"}


def every_class(base: type[AgentError] = AgentError) -> list[type[AgentError]]:
    own = [kind for kind in base.__subclasses__() if kind.__module__ == errors.__name__]
    return [base, *(found for kind in own for found in every_class(kind))]


def name_of(thing: object) -> str:
    return type(thing).__name__


@pytest.mark.parametrize(("error", "text"), MESSAGES, ids=name_of)
def test_message(error: AgentError, text: str) -> None:
    assert str(error) == text


def test_every_message_was_read() -> None:
    assert {type(error) for error, _ in MESSAGES} == {k for k in every_class() if k.fields}


def test_every_class_has_a_family() -> None:
    told = {getattr(errors, name) for *_, names in FAMILIES for name in names.split()}
    families = {family for family, *_ in FAMILIES}
    assert told | families | {AgentError, RemoteError} == set(every_class())


@pytest.mark.parametrize(("family", "builtin", "names"), FAMILIES)
def test_family(family: type[AgentError], builtin: type[Exception], names: str) -> None:
    for name in names.split():
        kind = getattr(errors, name)
        assert issubclass(kind, family)
        assert issubclass(kind, builtin)


def test_built_in_relatives() -> None:
    assert issubclass(errors.EntryAbsent, KeyError)
    assert issubclass(errors.TimedOut, TimeoutError)


def test_codes_are_stable_words_of_one_class_each() -> None:
    codes = [kind.code for kind in every_class()]
    assert len(set(codes)) == len(codes)
    assert all(code.isalpha() and code.islower() for code in codes)
    assert {kind.code: kind for kind in every_class()} == errors.BY_CODE


def test_what_may_have_happened() -> None:
    assert {kind.__name__ for kind in every_class() if not kind.certain} == UNCERTAIN


def assert_same(one: AgentError, other: AgentError) -> None:
    assert type(one) is type(other)
    assert str(one) == str(other)
    assert one.certain is other.certain
    assert [getattr(one, f) for f in one.fields] == [getattr(other, f) for f in other.fields]


@pytest.mark.parametrize("error", [error for error, _ in MESSAGES], ids=name_of)
@pytest.mark.parametrize("certain", [None, True, False])
def test_error_crosses_a_connection(error: AgentError, certain: bool | None) -> None:
    sent = type(error)(**{name: getattr(error, name) for name in error.fields})
    if certain is not None:
        sent.certain = certain
    assert_same(from_wire(to_wire(sent)), sent)


@pytest.mark.parametrize("kind", [k for k in every_class() if not k.fields])
def test_family_crosses_a_connection(kind: type[AgentError]) -> None:
    assert_same(from_wire(to_wire(kind("something"))), kind("something"))


def test_wire_form() -> None:
    assert to_wire(errors.TimedOut("set a", 1.0)) == {
        "error": "set a: no answer after 1 s; it may have happened",
        "etype": "timeout",
        "fields": {"what": "set a", "after_s": 1.0},
        "certain": False,
    }


@pytest.mark.parametrize(
    "message",
    [
        {"error": "text", "etype": "new in version 9", "fields": {"a": 1}},
        {"error": "text"},
        {"error": "text", "etype": None, "fields": None},
        {"error": "text", "etype": "path"},
        {"error": "text", "etype": "path", "fields": {}},
        {"error": "text", "etype": "path", "fields": {"text": "a"}},
        {"error": "text", "etype": "path", "fields": {"text": "a", "why": "b", "more": "c"}},
        {"error": "text", "etype": "path", "fields": ["text", "why"]},
        {"error": "text", "etype": "timeout", "fields": {"what": "a", "after_s": "long"}},
        {"error": "text", "etype": "timeout", "fields": {"what": "a", "after_s": None}},
    ],
)
def test_what_is_not_understood_keeps_its_text(message: dict[str, Any]) -> None:
    error = from_wire(message)
    assert type(error) is RemoteError
    assert str(error) == "text"
    assert error.etype == str(message.get("etype"))
    assert error.certain
    assert not from_wire(message | {"certain": False}).certain


def test_plain_error_of_another_make() -> None:
    assert str(from_wire({"error": "ClientChainError(...)"})) == "ClientChainError(...)"
    assert str(from_wire({})) == "None"
