"""The server between a log moved by hand and its connections: who is told what, and when."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from kvedge import limits
from kvedge.errors import BadSetting, WriteRefused, WriteUncertain
from kvedge.model.path import P
from kvedge.model.places import HOMES
from kvedge.model.stamp import Rid
from kvedge.model.value import MISSING, packb, unpack
from kvedge.protocol.messages import SetValue
from kvedge.server.records import Loaded
from kvedge.server.remote import Deputy
from kvedge.server.server import Server, _base, run_server
from kvedge.server.settings import ServerSettings
from kvedge.server.store import Store

ClientOf = Callable[[Any], Any]


class HandClock:
    """Right or wrong, as the test says."""

    def __init__(self) -> None:
        self.is_right = False

    def wall_s(self) -> float:
        return 1_700_000_000.5

    def wall_is_synchronised(self) -> bool:
        return self.is_right

    def boottime_s(self) -> float:
        return 5.0


@pytest.fixture
def clock() -> HandClock:
    """A clock that is not synchronised."""
    return HandClock()


@pytest.fixture
async def real(clock: HandClock, server: Any) -> Server:
    """The real server on the log of the one that is moved by hand."""
    return Server(Store(Rid("me", 1 << 40), 0, Loaded(), server.log), server.log, clock)


async def test_a_write_is_told_to_watchers_before_it_is_answered(
    real: Server, server: Any, client_of: ClientOf
) -> None:
    client = client_of(real)
    client.send("watch", path=())
    client.send("set_value", path=("a",), value=1)
    client.link.read()
    real.confirm(server.log.number, server.log.number)
    assert [message["seq"] for message in client.link.read()] == [1, 2]


@pytest.mark.parametrize("how", ["confirm", "refuse", "doubt"])
async def test_who_was_held_back_proceeds_whatever_became_of_the_writes(
    real: Server,
    server: Any,
    client_of: ClientOf,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    monkeypatch.setattr(limits, "COMMIT_WAITING_MAX", 2)
    writer, reader = client_of(real), client_of(real)
    for value in range(3):
        writer.send("set_value", path=("a",), value=value)
    reader.link.read()
    reader.send("get_tock")
    assert reader.link.is_paused
    assert not reader.link.buffer
    last = server.log.number
    if how == "confirm":
        real.confirm(last, last)
    elif how == "refuse":
        real.refuse(1, WriteRefused("full"))
    else:
        real.doubt(last, WriteUncertain("broken"))
    assert "tock" in reader.link.read()[0]
    assert not reader.link.is_paused


async def test_a_client_that_was_held_back_and_is_gone(
    real: Server, server: Any, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "COMMIT_WAITING_MAX", 0)
    client = client_of(real)
    client.send("set_value", path=("a",), value=1)
    client.send("get_tock")
    client.link.read()
    client.connection.closed()
    real.confirm(server.log.number, server.log.number)
    assert not client.link.buffer


async def test_connections_are_counted(
    real: Server, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 1)
    first, second = client_of(real), client_of(real)
    assert "error" not in first.link.read()[0]
    assert "error" in second.link.read()[0]
    second.connection.closed()
    first.connection.closed()
    assert "error" not in client_of(real).link.read()[0]


async def test_the_wall_clock_counts_while_it_is_right(
    real: Server, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert real.wall_ms() is None
    clock.is_right = True
    assert real.wall_ms() == real.wall_ms() == 1_700_000_000_500
    clock.is_right = False
    assert real.wall_ms() is None
    assert [record.getMessage() for record in caplog.records] == [
        "the clock is synchronised", "the clock is not synchronised"
    ]  # fmt: skip


def test_shown_ticks_go_on_rising() -> None:
    loaded = Loaded()
    for rid, base, last in (("me", 100, 7), ("me", 50, 900), ("other", 5000, 9)):
        who = Rid(rid, base)
        loaded.rids.number(who, base)
        loaded.seen.add_range(who, 1, last)
    assert _base(loaded, "me") == 950 + (1 << 14)  # some of those shown may have been lost
    assert 0 <= _base(Loaded(), "me") < 1 << 20


@pytest.mark.parametrize("listen", [("nowhere",), ("unix:",), ("127.0.0.1:99999",)])
async def test_an_address_that_is_none(clock: HandClock, listen: tuple[str, ...]) -> None:
    with pytest.raises(BadSetting):
        async with run_server(ServerSettings("me", listen=listen), clock=clock):
            pass


async def test_in_memory(clock: HandClock) -> None:
    async with run_server(ServerSettings("me", initial={"a": 1}), clock=clock) as server:
        assert server.store.get(b"") is not None
        assert server.store.tree.live_count == 1
        assert server.beats != server.beats
    async with run_server(ServerSettings("me", initial=MISSING), clock=clock) as server:
        assert server.store.get(b"") is None


@pytest.mark.parametrize(("home", "is_made"), [("me", True), ("other", False), (None, True)])
async def test_a_write_for_another_server_is_made_where_the_home_is(
    real: Server, server: Any, home: str | None, *, is_made: bool
) -> None:
    """Who asks may not have heard yet that it has moved."""
    if home is not None:
        place = (HOMES / "door").key
        real.store.write(place, packb(home), wall_ms=None, relaxed=False, done=lambda _: None)
        real.confirm(server.log.number, server.log.number)
    replies: list[bytes] = []
    deputy = Deputy(real.store, real.fences, lambda: None, replies.append)
    real.carry_out(SetValue(P("door.lock").key, packb(1)), deputy)
    real.confirm(server.log.number, server.log.number)
    assert ("failed" in unpack(replies[0])) is not is_made
    assert (real.store.get(P("door.lock").key) is not None) is is_made
