"""The server among its peers: what it makes of messages, right ones and wrong ones."""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge import limits
from kvedge.model.path import P
from kvedge.model.stamp import Rid
from kvedge.model.value import packb
from kvedge.protocol.envelope import VERSION_MAJOR, Cause, Sealer, mac_key
from kvedge.server.network import Network
from kvedge.server.program import program_version, version_said
from kvedge.server.records import Loaded
from kvedge.server.store import Store
from kvedge.transport.broadcast import Counts

NAME = "net"
ME, PEER = Rid("me", 5 << 40), Rid("peer", 3 << 40)
KINDS = ("update", "digest", "ask", "give", "beat", "gone", "bye")
BODIES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 63) | st.floats() | st.binary() | st.text(),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.text(max_size=4), parts),
    max_leaves=8,
)


class Clock:
    """Stands where the test says."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def wall_s(self) -> float:
        return 1.7e9 + self.now_s

    def wall_is_synchronised(self) -> bool:
        return True

    def boottime_s(self) -> float:
        return self.now_s


class Log:
    """Takes payloads and keeps none."""

    def __init__(self) -> None:
        self.number = 0

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        self.number += 1
        return self.number


class Said:
    """Implements `Broadcast`: keeps what was published."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.counts = Counts()

    def publish(self, topic: str, payload: bytes) -> None:
        self.messages.append((topic, payload))

    def close(self) -> None:
        """Do nothing."""


class Board:
    """A network object with all that is around it."""

    def __init__(self, rid: Rid = ME) -> None:
        self.clock = Clock()
        self.soon: list[Callable[[], None]] = []
        self.store = Store(rid, 0, Loaded(), Log())
        self.network = Network(
            self.store,
            name=NAME,
            key=b"a key that is long enough",
            root="root",
            clock=self.clock,
            random=Random(1),
            later=self.soon.append,
        )
        self.said = Said()
        self.network.join(self.said)
        self.network.connected(1)

    def hear(self, topic: str, payload: bytes) -> None:
        self.network.received(f"root/{topic}", payload)

    @property
    def refused(self) -> dict[Cause, int]:
        return dict(self.network.refused)


def sealer(
    rid: Rid = PEER, name: str = NAME, key: bytes | None = b"a key that is long enough"
) -> Sealer:
    return Sealer(name, mac_key(name, key), rid)


@pytest.fixture
def board() -> Board:
    """A server that is connected."""
    return Board()


# --- versions ---------------------------------------------------------------------------------


def test_a_beat_tells_the_version_of_the_program(board: Board) -> None:
    peer = Board(PEER)
    peer.network.tick()
    for topic, payload in peer.said.messages:
        board.hear(topic.removeprefix("root/"), payload)
    assert board.network.seen == {"peer": PEER}
    assert board.network.version_of("peer") == program_version() != ""


def test_a_beat_without_a_version_counts_all_the_same(board: Board) -> None:
    board.hear("p/peer", sealer().seal("p/peer", "beat", packb((1,))))
    assert board.network.seen == {"peer": PEER}
    assert board.network.version_of("peer") == ""


def test_a_version_is_shown_only_if_it_looks_like_one() -> None:
    assert version_said(["1.0rc1.dev3+local", "of a newer one"]) == "1.0rc1.dev3+local"
    for odd in ([], [7], [b"1.0"], ["1.0\n"], [""], ["1" * 64], ["\x1b[2J"]):
        assert version_said(odd) == ""


def test_a_kind_of_a_newer_minor_version_is_passed_over(board: Board) -> None:
    board.hear("d", sealer().seal("d", "novelty", packb((1,))))
    assert board.refused == {}


# --- wrong messages ---------------------------------------------------------------------------

GOOD = sealer().seal("d", "digest", packb((bytes(16), bytes(16))))
REFUSED = {
    "another network": (sealer(name="else").seal("d", "digest", b"\x90"), Cause.WRONG_NETWORK),
    "another key": (sealer(key=None).seal("d", "digest", b"\x90"), Cause.BAD_MAC),
    "another topic": (sealer().seal("u/peer", "digest", b"\x90"), Cause.BAD_MAC),
    "another major": (GOOD[:2] + bytes((VERSION_MAJOR + 1,)) + GOOD[3:], Cause.WRONG_MAJOR),
    "cut": (GOOD[:-1], Cause.TRUNCATED),
    "nothing": (b"", Cause.TRUNCATED),
    "longer": (GOOD + b"x", Cause.TRAILING),
    "garbage": (b"\x00" * 99, Cause.FOREIGN),
    "nonsense": (sealer().seal("d", "digest", packb("nonsense")), Cause.BAD_BODY),
    "our own": (sealer(ME).seal("d", "digest", b"\x90"), Cause.OWN),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_messages_are_counted_and_told_once(
    board: Board, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    payload, cause = REFUSED[name]
    for _ in range(3):
        board.hear("d", payload)
    count = 1 if cause is Cause.BAD_BODY else 3  # the others of it are repetitions
    assert board.refused[cause] == count
    lines = [r.getMessage() for r in caplog.records if cause.value in r.getMessage()]
    assert len(lines) == (0 if cause is Cause.OWN else 1), lines
    assert board.store.seen == board.store.taken
    assert not list(board.store.tree.items())


def test_a_repeated_message_is_told(board: Board, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        board.hear("d", GOOD)
    assert board.refused == {Cause.REPLAYED: 2}
    assert "refused a message of peer: repeated" in caplog.text


def test_what_goes_on_is_told_every_hour_with_its_count(
    board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    board.hear("d", b"")
    for _ in range(9):
        board.clock.now_s += limits.REFUSAL_TOLD_INTERVAL_S / 10
        board.hear("d", b"")
    assert caplog.text.count("truncated") == 1
    board.clock.now_s += limits.REFUSAL_TOLD_INTERVAL_S / 10
    board.hear("d", b"")
    assert "refused a message: truncated: 0 bytes (11 so far)" in caplog.text
    assert caplog.text.count("truncated") == 2


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(st.sampled_from(KINDS), st.lists(BODIES, min_size=1, max_size=7)), max_size=4
    )
)
def test_nonsense_in_a_body_never_raises_and_never_merges(
    given: list[tuple[str, list[object]]],
) -> None:
    board, peer = Board(), sealer()
    for kind, parts in given:
        board.hear("d", peer.seal("d", kind, packb(tuple(parts))))
        board.hear("d", peer.seal("d", kind, packb(parts[0])))
    assert not list(board.store.tree.items())
    assert set(board.refused) <= {Cause.BAD_BODY}


@given(st.sampled_from(KINDS), st.binary(max_size=60))
def test_random_bytes_as_a_body_never_raise(kind: str, body: bytes) -> None:
    board = Board()
    board.hear("d", sealer().seal("d", kind, body))
    assert not list(board.store.tree.items())


def test_a_right_update_is_taken_after_all_that(board: Board) -> None:
    peer = Board(PEER)
    write = peer.store.write(P("a").key, packb(1), wall_ms=1, relaxed=False, done=lambda _: None)
    for payload, cause in REFUSED.values():
        if cause is not Cause.BAD_BODY:  # which takes a number, as the peer's own does
            board.hear("d", payload)
    [settled] = peer.store.confirm(written_to=write.number, synced_to=write.number)
    peer.network.settled(settled)
    [flush] = peer.soon
    flush()
    for topic, payload in peer.said.messages:
        board.hear(topic.removeprefix("root/"), payload)
    assert board.store.taken == peer.store.taken
