"""The server among its peers: what it makes of messages, right ones and wrong ones."""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random
from typing import Any
from unittest.mock import create_autospec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge import limits
from kvedge.errors import LocalProtocolError, NotConnected, TimedOut
from kvedge.model.path import P
from kvedge.model.stamp import Rid
from kvedge.model.value import packb
from kvedge.model.vector import Vector
from kvedge.protocol.batches import read_body
from kvedge.protocol.envelope import VERSION_MAJOR, Cause, Opened, Opener, Sealer, mac_key
from kvedge.protocol.exchange import Kind
from kvedge.protocol.membership import Membership, Record, Standing, State
from kvedge.protocol.messages import SetValue
from kvedge.protocol.replication import Copied
from kvedge.server.network import COUNT_INTERVAL_S, Host, Network
from kvedge.server.program import program_version, version_said
from kvedge.server.records import Loaded, load_file
from kvedge.server.remote import TIMEOUT_S
from kvedge.server.store import Store
from kvedge.transport.broadcast import Counts

NAME = "net"
ME, PEER = Rid("me", 5 << 40), Rid("peer", 3 << 40)
KINDS = (*(kind.name.lower() for kind in Kind), "beat", "gone", "bye")
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
    """Takes payloads."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.is_closed = False

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        if self.is_closed:
            raise LocalProtocolError("a payload was submitted to a closed committer")
        self.payloads.append(payload)
        return len(self.payloads)

    def loaded(self) -> Loaded:
        into = Loaded()
        load_file(into, self.payloads)
        return into


class Said:
    """Implements `Broadcast`: keeps what was published."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.counts = Counts()

    def publish(self, topic: str, payload: bytes) -> None:
        self.messages.append((topic, payload))

    def close(self) -> None:
        """Do nothing."""


def host_of(clock: Clock, soon: list[Callable[[], None]]) -> Any:
    """Return what a network wants of its server; what is to be done soon is kept."""
    host = create_autospec(Host, instance=True)
    host.later.side_effect = soon.append
    host.wall_ms.side_effect = lambda: int(clock.wall_s() * 1000)
    host.is_awaited.return_value = False
    return host


class Board:
    """A network object with all that is around it."""

    def __init__(self, rid: Rid = ME) -> None:
        self.clock = Clock()
        self.soon: list[Callable[[], None]] = []
        self.log = Log()
        self.store = Store(rid, 0, Loaded(), self.log)
        self.network = Network(
            self.store,
            host_of(self.clock, self.soon),
            name=NAME,
            key=b"a key that is long enough",
            root="root",
            clock=self.clock,
            random=Random(1),
            loaded=Loaded(),
        )
        self.network.members.records |= {node: Record(State.MEMBER) for node in ("me", "peer")}
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


PEERS = sealer()


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
    assert board.network.seen == ["peer"]
    assert board.network.version_of("peer") == program_version() != ""


def test_a_beat_without_a_version_counts_all_the_same(board: Board) -> None:
    board.hear("p/peer", sealer().seal("p/peer", "beat", packb((1,))))
    assert board.network.seen == ["peer"]
    assert board.network.version_of("peer") == ""


def test_a_version_is_shown_only_if_it_looks_like_one() -> None:
    assert version_said(["1.0rc1.dev3+local", "of a newer one"]) == "1.0rc1.dev3+local"
    for odd in ([], [7], [b"1.0"], ["1.0\n"], [""], ["1" * 64], ["\x1b[2J"]):
        assert version_said(odd) == ""


def test_a_kind_of_a_newer_minor_version_is_passed_over(board: Board) -> None:
    board.hear("d", sealer().seal("d", "novelty", packb((1,))))
    assert board.refused == {}


# --- who is away ------------------------------------------------------------------------------


def let_hours_pass(board: Board, hours: int, *, is_there: bool) -> None:
    for _ in range(hours):
        board.clock.now_s += COUNT_INTERVAL_S
        if is_there:
            board.hear("p/peer", PEERS.seal("p/peer", "beat", packb((1,))))
        board.network.tick()


def test_for_how_long_a_member_was_away_outlives_a_restart(board: Board) -> None:
    let_hours_pass(board, 3, is_there=False)
    assert board.log.loaded().unheard_s == {"peer": 3 * COUNT_INTERVAL_S}


def test_a_member_that_was_heard_again_begins_anew_also_after_a_restart(board: Board) -> None:
    """Or the next time that it is away for a day may be the last one."""
    let_hours_pass(board, 3, is_there=False)
    let_hours_pass(board, 2, is_there=True)
    assert board.network.members.unheard_s == {}
    assert board.log.loaded().unheard_s.get("peer", 0) == 0


# --- while the tree is replaced ---------------------------------------------------------------


def announcement() -> bytes:
    """Return what the peer says that it has on its disk."""
    vector = Vector.of({PEER: ((1, 2),)})
    said = Membership(PEER, vector, lambda _: 0, is_fresh=False, kept={}, unheard_s={})
    [message] = said.announce(vector, 0.0)
    return message.body


def replacing(board: Board) -> None:
    """Let the board have fallen, and have its copy: the log is closed until the next life."""
    board.network.members.standing = Standing.REGRESSED
    board.network._anew(Copied((), {}, Vector()))
    board.network.tick()
    assert board.network._is_ending
    board.log.is_closed = True


def test_what_others_announce_meanwhile_does_not_reach_a_closed_log(board: Board) -> None:
    replacing(board)
    board.hear("d", PEERS.seal("d", "vector", announcement()))


def test_hours_that_pass_meanwhile_do_not_reach_a_closed_log(board: Board) -> None:
    replacing(board)
    let_hours_pass(board, 2, is_there=False)


# --- writes below a home ----------------------------------------------------------------------


def write_at(board: Board, told: list[Any], home: str = "peer") -> None:
    board.network.write_at(home, "a", SetValue(P("a").key, packb(1)), told.append)


def calls_in(board: Board) -> list[tuple[str, int]]:
    """Return the calls that were published: the topic, and the number of each."""
    found = []
    opener = Opener(NAME, mac_key(NAME, b"a key that is long enough"), PEER)
    for topic, payload in board.said.messages:
        opened = opener.open(topic.removeprefix("root/"), payload)
        if isinstance(opened, Opened) and opened.kind == "call":
            found.append((topic, read_body(opened.body, 4)[1]))
    return found


def see(board: Board) -> None:
    board.hear("p/peer", PEERS.seal("p/peer", "beat", packb((1,))))


def test_a_write_at_a_home_that_is_there_is_asked_of_it(board: Board) -> None:
    see(board)
    told: list[Any] = []
    write_at(board, told)
    assert calls_in(board) == [("root/q/peer", 1)]
    assert told == []


def test_a_write_at_a_home_that_is_away_fails_at_once(board: Board) -> None:
    told: list[Any] = []
    with pytest.raises(NotConnected, match="node peer: it is the home of a") as caught:
        write_at(board, told)
    assert caught.value.certain
    see(board)
    with pytest.raises(NotConnected, match="node other"):
        write_at(board, told, home="other")
    board.network.disconnected("the broker is gone")
    with pytest.raises(NotConnected, match="node peer"):
        write_at(board, told)
    assert told == []
    assert calls_in(board) == []


def test_without_an_answer_it_is_told_in_time_also_when_the_broker_has_gone(board: Board) -> None:
    see(board)
    told: list[Any] = []
    write_at(board, told)
    board.network.disconnected("the broker is gone")
    board.clock.now_s += TIMEOUT_S - 0.1
    board.network.tick()
    assert told == []
    board.clock.now_s += 0.2
    board.network.tick()
    assert [type(error) for error in told] == [TimedOut]


def test_who_waits_is_told_when_this_life_ends(board: Board) -> None:
    see(board)
    told: list[Any] = []
    write_at(board, told)
    replacing(board)
    board.log.is_closed = False
    board.network.begin(Copied((), {}, Vector()), [])
    assert [type(error) for error in told] == [TimedOut]


def test_numbers_of_calls_go_on_where_the_incarnation_does(board: Board) -> None:
    """Or the home takes the first questions for ones that it has answered."""
    see(board)
    told: list[Any] = []
    write_at(board, told)
    replacing(board)
    board.log.is_closed = False
    board.network.begin(Copied((), {}, Vector()), [])
    see(board)
    write_at(board, told)
    assert [number for _, number in calls_in(board)] == [1, 2]


# --- wrong messages ---------------------------------------------------------------------------

GOOD = sealer().seal("d", "digest", packb((bytes(16), bytes(16), bytes(16), 0)))
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
