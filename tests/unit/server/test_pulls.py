"""Parts of a pull are merged a moment after they came, and what may happen in that moment."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any
from unittest.mock import create_autospec

import pytest

from kvedge.model.stamp import Dot, Rid
from kvedge.model.value import packb
from kvedge.model.vector import Vector
from kvedge.protocol.batches import Carried
from kvedge.protocol.replication import Arrived, Way
from kvedge.server.network import Host, Network
from kvedge.server.records import Loaded
from kvedge.server.store import Store
from kvedge.testing.clock import VirtualClock
from kvedge.transport.broadcast import Broadcast

KEY = b"\x08k\0"
OTHER = Rid("other", 1 << 40)
SEEN = Vector.of({OTHER: ((1, 1),)})
PART = Arrived([Carried(KEY, 5, (Dot(OTHER, 1),), packb(1))], {OTHER: 0}, SEEN, Way.PULL)


class Board:
    """A store and its network; the log tells when it is asked."""

    def __init__(self) -> None:
        self.number = 0
        self.due: list[Callable[[], None]] = []
        self.store = Store(Rid("me", 1 << 40), 0, Loaded(), self)
        self.host: Any = create_autospec(Host, instance=True)
        self.host.later.side_effect = self.due.append
        self.host.wall_ms.return_value = None
        self.network = Network(
            self.store,
            self.host,
            name="net",
            key=None,
            root="net",
            clock=VirtualClock(),
            random=Random(1),
            loaded=Loaded(),
        )

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        self.number += 1
        return self.number

    def confirm(self) -> None:
        for write in self.store.confirm(written_to=self.number, synced_to=self.number):
            self.network.settled(write)

    def do_what_is_due(self) -> None:
        while self.due:
            self.due.pop(0)()


@pytest.fixture
def board() -> Board:
    """A server that has just got the last part of a pull."""
    made = Board()
    made.confirm()
    made.do_what_is_due()
    made.network._act([PART])
    return made


def test_a_part_is_merged_when_others_had_their_turn(board: Board) -> None:
    assert board.store.newest(KEY) is None
    board.do_what_is_due()
    board.confirm()
    assert board.store.get(KEY) is not None
    assert board.store.seen.covers(SEEN)


def test_an_update_is_merged_at_once(board: Board) -> None:
    key = b"\x08u\0"
    record = Carried(key, 6, (Dot(OTHER, 2),), packb(1))
    board.network._act([Arrived([record], {OTHER: 0})])
    board.confirm()
    assert board.store.get(key) is not None


def test_a_refusal_in_that_moment_takes_the_claim_away(board: Board) -> None:
    board.store.refuse(board.number + 1)
    board.do_what_is_due()
    board.confirm()
    assert board.store.get(KEY) is not None
    assert not board.store.seen.covers(SEEN)


def test_a_part_for_another_life_is_dropped(board: Board) -> None:
    board.network._speak_as(Rid("me", 2 << 40))
    board.do_what_is_due()
    board.confirm()
    assert board.store.get(KEY) is None
    assert not board.store.seen.covers(SEEN)


def test_what_we_have_is_told_at_every_connect() -> None:
    board, broadcast = Board(), create_autospec(Broadcast, instance=True)
    board.network.join(broadcast)
    for number in (1, 2):
        board.network.connected(number)
    assert [call.args[0] for call in broadcast.publish.call_args_list] == ["net/d"] * 2
