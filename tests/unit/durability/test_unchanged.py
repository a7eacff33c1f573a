"""A write that would change nothing is answered no sooner than what it relies on is durable."""

from __future__ import annotations

from typing import Any

import pytest

from kvedge.errors import AgentError, WriteRefused
from kvedge.model.path import P
from kvedge.model.stamp import Rid
from kvedge.model.value import unpack
from kvedge.protocol import messages
from kvedge.server import commands
from kvedge.server.records import Loaded
from kvedge.server.store import Store


class HandLog:
    """Counts; the caller says what is durable."""

    number = 0

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        self.number += 1
        return self.number


class Caller:
    """What a command needs of its connection."""

    def __init__(self) -> None:
        self.log = HandLog()
        self.store = Store(Rid("me", 1 << 40), 0, Loaded(), self.log)
        self.answers: dict[int, Any] = {}
        self.homes = None

    def wall_ms(self) -> None:
        return None

    def answer(self, seq: int, fields: dict[str, Any]) -> None:
        self.answers[seq] = fields

    def answer_packed(self, data: bytes) -> None:
        message = unpack(data)
        self.answers[message["seq"]] = message

    def fail(self, seq: int, error: AgentError) -> None:
        self.answers[seq] = error

    def ask(self, seq: int, request: messages.SetValue | messages.DeleteValue) -> None:
        kind: Any = type(request)
        caller: Any = self
        commands.COMMANDS[kind](caller, seq, request)

    def confirm(self) -> None:
        for pending in self.store.confirm(written_to=self.log.number, synced_to=self.log.number):
            pending.done(None)

    def refuse(self) -> None:
        for pending in self.store.refuse(1):
            pending.done(WriteRefused("no room"))


KEY = P("a").key
SET = messages.SetValue(KEY, b"\x01", idem=True)
DELETE = messages.DeleteValue(KEY)


@pytest.fixture
def caller() -> Caller:
    """A caller whose log is moved by hand."""
    return Caller()


@pytest.mark.parametrize("request_", [SET, DELETE], ids=["set", "delete"])
def test_what_an_unsafe_write_did_already_is_not_answered_before_it_is_safe(
    caller: Caller, request_: messages.SetValue | messages.DeleteValue
) -> None:
    caller.ask(1, messages.SetValue(KEY, b"\x02"))
    caller.confirm()
    caller.ask(2, request_)
    caller.ask(3, request_)
    assert caller.answers.keys() == {1}
    caller.refuse()
    assert [type(caller.answers[seq]) for seq in (2, 3)] == [WriteRefused, WriteRefused]


@pytest.mark.parametrize("request_", [SET, DELETE], ids=["set", "delete"])
def test_what_a_safe_write_did_already_is_answered_at_once(
    caller: Caller, request_: messages.SetValue | messages.DeleteValue
) -> None:
    caller.ask(1, messages.SetValue(KEY, b"\x02"))
    caller.ask(2, request_)
    caller.confirm()
    caller.ask(3, request_)
    assert caller.answers[3]["changed"] is False


def test_deletion_that_meets_another_one_under_way_changes_nothing(caller: Caller) -> None:
    caller.ask(1, messages.SetValue(KEY, b"\x02"))
    caller.ask(2, DELETE)
    caller.ask(3, DELETE)
    caller.confirm()
    assert [caller.answers[seq]["changed"] for seq in (1, 2, 3)] == [True, True, False]
