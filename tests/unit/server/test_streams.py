"""Walks and watches with a reader moved by hand: order, conflation, windows, bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kvedge import limits
from kvedge.model.path import EMPTY, P, Path
from kvedge.model.stamp import Rid
from kvedge.model.value import MISSING, packb
from kvedge.protocol.codec import PathLengthener
from kvedge.protocol.framing import Framer
from kvedge.protocol.messages import DEPTH_UNBOUNDED, GetTree
from kvedge.protocol.messages import Watch as WatchRequest
from kvedge.server import streams
from kvedge.server.records import Loaded
from kvedge.server.store import Store
from kvedge.server.streams import TreeStream, Watch, Watchers


class Nowhere:
    """A log that counts."""

    def __init__(self) -> None:
        self.number = 0

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        self.number += 1
        return self.number


class HandReader:
    """A client that reads when it is told to, within a socket buffer of a few messages."""

    def __init__(self, *, buffer_max: int = 1 << 30) -> None:
        self.buffer_max = buffer_max
        self.unread: deque[bytes] = deque()
        self.items: list[dict[str, Any]] = []
        self.due: deque[Callable[[], None]] = deque()
        self.ended: list[int] = []
        self._framer = Framer()
        self._paths = PathLengthener()

    def send(self, data: bytes) -> None:
        self.unread.append(data)

    def is_slow(self) -> bool:
        return len(self.unread) >= self.buffer_max

    def later(self, call: Callable[[], None]) -> None:
        self.due.append(call)

    def finished(self, seq: int) -> None:
        self.ended.append(seq)

    def run_due(self) -> None:
        while self.due:
            self.due.popleft()()

    def read(self) -> list[dict[str, Any]]:
        """Read all that is in the buffer; paths become `Path`."""
        new = self._framer.feed(b"".join(self.unread))
        self.unread.clear()
        for item in new:
            if "path" in item:
                item["path"] = self._paths.lengthen(item["depth"], item["path"])
        self.items += new
        return new


class World:
    """A store whose writes are durable at once, and those who watch it."""

    def __init__(self) -> None:
        self.store = Store(Rid("me", 1 << 40), 0, Loaded(), Nowhere())
        self.watchers = Watchers()
        self.tree: dict[Path, object] = {}

    def set(self, path: Path, value: object) -> None:
        packed = MISSING if value is MISSING else packb(value)
        pending = self.store.write(
            path.key, packed, wall_ms=None, relaxed=False, done=lambda _: None
        )
        for done in self.store.confirm(written_to=pending.number, synced_to=pending.number):
            self.watchers.notify(done.key, done.packed)
        self.tree[path] = value

    def fill(self, *paths: str, value: object = 1) -> None:
        for path in paths:
            self.set(P(path), value)

    def watch(self, reader: HandReader, path: str = ":", window: int = 0, **fields: Any) -> Watch:
        request = WatchRequest(path=P(path).key, **fields)
        made = Watch(self.store, reader, 7, request, window=window)
        self.watchers.add(made)
        made.pump()
        return made

    def walk(
        self, reader: HandReader, path: str = ":", window: int = 0, **fields: Any
    ) -> TreeStream:
        made = TreeStream(self.store, reader, 7, GetTree(path=P(path).key, **fields), window=window)
        made.pump()
        return made


@pytest.fixture
def world() -> World:
    """An empty tree."""
    return World()


@pytest.fixture
def reader() -> HandReader:
    """A reader that is never slow."""
    return HandReader()


def brief(items: Iterable[dict[str, Any]]) -> list[str]:
    """Return "a=1", "-a" (deleted), "~a=1" (conflated), "[start]"."""
    told = []
    for item in items:
        if "state" in item:
            told.append(f"[{item['state']}]")
        else:
            mark = "~" if item.get("conflated") else ""
            told.append(mark + (f"{item['path']}={item['value']}" if "value" in item
                                else f"-{item['path']}"))  # fmt: skip
    return told


# --- walks ------------------------------------------------------------------------------------


def test_a_walk_sends_all_in_order_and_ends(world: World, reader: HandReader) -> None:
    world.fill("b.x", "a", "b", "c")
    world.walk(reader)
    assert brief(reader.read()) == ["[start]", "a=1", "b=1", "b.x=1", "c=1", "[end]"]
    assert reader.ended == [7]


def test_paths_of_a_walk_are_relative_and_the_place_itself_comes_first(
    world: World, reader: HandReader
) -> None:
    world.fill("a", "b.x", "b", "bb")
    world.walk(reader, "b")
    assert brief(reader.read()) == ["[start]", ":=1", "x=1", "[end]"]


def test_a_walk_leaves_out_what_is_deleted_unless_asked(world: World, reader: HandReader) -> None:
    world.fill("a", "b")
    world.set(P("a"), MISSING)
    world.walk(reader)
    world.walk(reader, empty=True)
    assert brief(reader.read()) == ["[start]", "b=1", "[end]", "[start]", "-a", "b=1", "[end]"]


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0, DEPTH_UNBOUNDED, [":", "a", "a.b", "a.b.c"]),
        (1, 2, ["a", "a.b"]),
        (0, 0, [":"]),
        (3, DEPTH_UNBOUNDED, ["a.b.c"]),
        (2, 1, []),
    ],
)
def test_depths(world: World, low: int, high: int, found: list[str]) -> None:
    expected = [f"{path}=1" for path in found]
    world.fill("r", "r.a", "r.a.b", "r.a.b.c", "s")
    fetched, changed = HandReader(), HandReader()
    world.walk(fetched, "r", min_depth=low, max_depth=high)
    world.watch(changed, "r", min_depth=low, max_depth=high)
    world.fill("r", "r.a", "r.a.b", "r.a.b.c", "s")
    assert brief(fetched.read()) == ["[start]", *expected, "[end]"]
    assert brief(changed.read()) == ["[start]", *expected]


def test_a_long_walk_gives_others_their_turn(world: World, reader: HandReader) -> None:
    world.fill(*(f"x.{i:04}" for i in range(2 * streams.CHUNK + 1)))
    world.walk(reader)
    assert len(reader.read()) == 1 + streams.CHUNK
    assert len(reader.due) == 1
    reader.run_due()
    assert len(reader.items) + len(reader.read()) == 2 + 2 * streams.CHUNK + 1
    assert brief(reader.items)[-1] == "[end]"


def test_a_walk_holds_back_what_a_slow_reader_cannot_take(world: World) -> None:
    world.fill(*(f"x.{i:04}" for i in range(3 * streams.CHUNK)))
    reader = HandReader(buffer_max=2)
    walk = world.walk(reader)
    reader.run_due()
    assert len(reader.unread) == 2
    while not reader.ended:
        reader.read()
        walk.pump()
        reader.run_due()
    reader.read()
    assert len(reader.items) == 3 * streams.CHUNK + 2


def test_a_chunk_of_large_values_is_bounded_in_bytes(world: World, reader: HandReader) -> None:
    """256 of the largest values would be 64 MB in one piece."""
    world.fill(*(f"x.{i}" for i in range(20)), value=b"v" * (limits.VALUE_MAX_BYTES - 10))
    world.walk(reader)
    assert max(map(len, reader.unread)) <= limits.SEND_BUFFER_MAX_BYTES + limits.VALUE_MAX_BYTES
    reader.run_due()
    reader.read()
    assert len(reader.items) == 22


def test_a_walk_can_be_stopped_once(world: World) -> None:
    world.fill(*(f"x.{i}" for i in range(3)))
    reader = HandReader(buffer_max=1)
    walk = world.walk(reader)
    walk.stop()
    walk.stop()
    reader.read()
    walk.pump()
    reader.run_due()
    assert brief([*reader.items, *reader.read()]) == ["[start]", "[end]"]


def test_chains_come_when_asked_for(world: World, reader: HandReader) -> None:
    world.fill("a", "a")
    world.walk(reader, nchain=1)
    world.walk(reader)
    items = [item for item in reader.read() if "path" in item]
    assert items[0]["chain"] == {"node": "me", "tick": 2, "prev": None}
    assert "chain" not in items[1]


def test_a_window_is_kept(world: World, reader: HandReader) -> None:
    world.fill(*(f"x.{i:02}" for i in range(10)))
    walk = world.walk(reader, window=4)
    assert [item["wseq"] for item in reader.read()[1:]] == [1, 2, 3, 4]
    walk.pump()
    reader.run_due()
    assert reader.read() == []
    walk.flow.ack(2)
    walk.pump()
    reader.run_due()
    assert [item["wseq"] for item in reader.read()] == [5, 6]
    walk.flow.ack(1)  # an old one
    walk.pump()
    assert reader.read() == []
    walk.flow.ack(1000)  # one that was never sent
    walk.pump()
    reader.run_due()
    assert [item["wseq"] for item in reader.read()] == [7, 8, 9, 10]
    walk.flow.ack(10)
    walk.pump()
    assert brief(reader.read()) == ["[end]"]


# --- watches ----------------------------------------------------------------------------------


def test_a_watch_sends_changes_as_they_come(world: World, reader: HandReader) -> None:
    world.fill("a.x")
    world.watch(reader, "a")
    world.fill("a.x", "b", "a", value=2)
    world.set(P("a.x"), MISSING)
    assert brief(reader.read()) == ["[start]", "x=2", ":=2", "-x"]


def test_a_watch_with_fetch_sends_what_is_there_then_a_mark(
    world: World, reader: HandReader
) -> None:
    world.fill("a", "b")
    world.watch(reader, fetch=True)
    world.fill("a", value=2)
    assert brief(reader.read()) == ["[start]", "a=1", "b=1", "[uptodate]", "a=2"]


def test_a_watch_of_the_root_is_not_told_of_system_data(world: World) -> None:
    root, system, below = HandReader(), HandReader(), HandReader()
    world.fill(":n.x")
    world.watch(root, ":", fetch=True)
    world.watch(system, ":n", fetch=True)
    world.watch(below, ":n.x")
    world.fill(":n.x", "a.:n", value=2)
    assert brief(root.read()) == ["[start]", "[uptodate]", "a.:n=2"]
    assert brief(system.read()) == ["[start]", "x=1", "[uptodate]", "x=2"]
    assert brief(below.read()) == ["[start]", ":=2"]


@pytest.mark.parametrize("other", ["aa", "a:_", "A", ":xff", "a::"])
def test_a_watch_is_not_told_of_places_with_a_similar_name(world: World, other: str) -> None:
    reader = HandReader()
    world.watch(reader, "a")
    world.fill(other, f"{other}.x")
    assert brief(reader.read()) == ["[start]"]


def test_elements_that_python_calls_equal_are_kept_apart(world: World, reader: HandReader) -> None:
    world.watch(reader)
    world.fill("x.:1", "x.:t", "x.:1:.0", value=2)
    items = reader.read()[1:]
    assert [str(item["path"]) for item in items] == ["x.:1", "x.:t", "x.:1:.0"]


def test_for_a_slow_reader_changes_are_conflated_and_marked(world: World) -> None:
    reader = HandReader(buffer_max=1)
    watch = world.watch(reader)
    for value in range(100):
        world.fill("a", "b", value=value)
    world.set(P("b"), MISSING)
    assert len(reader.unread) == 1
    reader.buffer_max = 9
    reader.read()
    watch.pump()
    assert brief(reader.read()) == ["~a=99", "~-b"]
    world.fill("a", value=100)
    assert brief(reader.read()) == ["a=100"]


def test_a_change_does_not_overtake_one_that_waits(world: World) -> None:
    reader = HandReader(buffer_max=1)
    watch = world.watch(reader)
    world.fill("a", value=1)
    reader.read()  # there is room again, but nobody has said so
    world.fill("a", "b", value=2)
    watch.pump()
    while reader.unread:
        reader.read()
        watch.pump()
    assert brief(reader.items) == ["[start]", "~a=2", "~b=2"]


def test_too_many_changes_for_a_slow_reader_start_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WATCH_PENDING_MAX", 5)
    world.fill("gone", "kept")
    reader = HandReader(buffer_max=1)
    watch = world.watch(reader)
    world.set(P("gone"), MISSING)
    world.fill(*(f"x.{i}" for i in range(20)), value=3)
    assert len(watch._changed) <= 5
    reader.buffer_max = 99
    reader.read()
    watch.pump()
    reader.run_due()
    told = brief(reader.read())
    assert told == ["~-gone", "~kept=1", *(f"~x.{i}=3" for i in sorted(range(20), key=str))]
    world.fill("x.1", value=4)
    assert brief(reader.read()) == ["x.1=4"]


def test_starting_over_during_the_fetch_goes_on_by_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that is not slow will never say that it can take more."""
    monkeypatch.setattr(limits, "WATCH_PENDING_MAX", 5)
    world.fill(*(f"x.{i:04}" for i in range(2 * streams.CHUNK)))
    reader = HandReader(buffer_max=2)
    world.watch(reader, fetch=True)  # start and a chunk: slow now
    world.fill(*(f"x.{i:04}" for i in range(10)), value=2)
    reader.read()
    reader.buffer_max = 1000
    reader.run_due()
    told = brief(reader.read())
    assert told[-1] == "[uptodate]"
    assert brief(reader.items).count("[uptodate]") == 1
    assert {f"~x.{i:04}=2" for i in range(10)} <= set(told)


def test_a_quick_reader_gets_each_change_during_the_fetch(
    world: World, reader: HandReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WATCH_PENDING_MAX", 5)
    world.fill(*(f"x.{i:04}" for i in range(2 * streams.CHUNK)))
    world.watch(reader, fetch=True)
    for value in range(20):
        world.fill(*(f"x.{i:04}" for i in range(10)), value=value)
    reader.run_due()
    told = brief(reader.read())
    assert told[-1] == "[uptodate]"
    assert [text for text in told if text.startswith("~")] == []
    assert [text for text in told if text.startswith("x.0003=")] == [
        "x.0003=1", *(f"x.0003={value}" for value in range(20))
    ]  # fmt: skip


@pytest.mark.parametrize("at", [0, streams.CHUNK - 1, streams.CHUNK])
def test_a_change_at_the_edge_of_what_was_fetched(
    world: World, reader: HandReader, at: int
) -> None:
    world.fill(*(f"x.{i:04}" for i in range(2 * streams.CHUNK)))
    world.watch(reader, fetch=True)
    world.fill(f"x.{at:04}", value="new")
    reader.run_due()
    assert [text for text in brief(reader.read()) if text.startswith(f"x.{at:04}=")][-1:] == [
        f"x.{at:04}=new"
    ]


def test_a_stopped_watch_is_silent(world: World) -> None:
    reader = HandReader()
    watch = world.watch(reader)
    watch.stop()
    watch.stop()
    world.watchers.remove(watch)
    world.fill("a")
    watch.pump()
    assert brief(reader.read()) == ["[start]", "[end]"]
    assert reader.ended == [7]


def test_a_watch_stopped_during_its_fetch(world: World) -> None:
    world.fill(*(f"x.{i:04}" for i in range(2 * streams.CHUNK)))
    reader = HandReader()
    watch = world.watch(reader, fetch=True)
    watch.stop()
    reader.run_due()
    assert brief(reader.read())[-1] == "[end]"


# --- deletions that have to be told -----------------------------------------------------------


def reap(world: World, path: Path) -> bool:
    """Let a tombstone go as the upkeep does, unless somebody waits for it; tell whether."""
    if world.watchers.is_awaited(path.key):
        return False
    return world.store.reap(path.key, world.store.seen)


def test_without_watches_nothing_is_awaited(world: World) -> None:
    world.set(P("a"), MISSING)
    assert not world.watchers.is_awaited(P("a").key)


@pytest.mark.parametrize("path", [":", "a", "a.b"])
def test_a_deletion_is_awaited_until_a_slow_reader_has_it(world: World, path: str) -> None:
    world.fill("a.b", "a.c", "b")
    reader = HandReader(buffer_max=1)
    watch = world.watch(reader, path)
    world.set(P("a.b"), MISSING)
    assert world.watchers.is_awaited(P("a.b").key)
    assert not world.watchers.is_awaited(P("a.c").key)
    assert not world.watchers.is_awaited(P("b").key)
    reader.read()
    watch.pump()
    assert not world.watchers.is_awaited(P("a.b").key)
    rest = P("a.b").elements[len(P(path)) :]
    assert brief(reader.read()) == [f"~-{Path(*rest)}"]


def test_what_is_told_at_once_is_not_awaited(world: World, reader: HandReader) -> None:
    world.fill("a")
    world.watch(reader)
    world.set(P("a"), MISSING)
    assert not world.watchers.is_awaited(P("a").key)


@pytest.mark.parametrize("path", ["b", "a.b", "aa"])
def test_watches_elsewhere_wait_for_nothing(world: World, path: str) -> None:
    watch = world.watch(HandReader(buffer_max=0), path)
    world.set(P("a"), MISSING)
    assert not world.watchers.is_awaited(P("a").key)
    watch.stop()


def test_one_that_waits_is_enough(world: World, reader: HandReader) -> None:
    world.watch(reader)
    slow = world.watch(HandReader(buffer_max=0), "a")
    world.watch(reader, "a")
    world.set(P("a"), MISSING)
    assert world.watchers.is_awaited(P("a").key)
    slow.stop()
    assert not world.watchers.is_awaited(P("a").key)


def test_a_first_fetch_waits_for_nothing_ahead_of_it(world: World) -> None:
    """The client has never heard of what was deleted before it came there."""
    world.fill(*(f"x.{i:04}" for i in range(2 * streams.CHUNK)))
    reader = HandReader(buffer_max=1)
    world.watch(reader, fetch=True)
    last = P(f"x.{2 * streams.CHUNK - 1:04}")
    world.set(last, MISSING)
    assert reap(world, last)
    reader.buffer_max = 99
    reader.read()
    reader.run_due()
    assert not any(str(last) in text for text in brief(reader.items))


def test_one_that_starts_over_waits_for_all_that_is_ahead_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WATCH_PENDING_MAX", 5)
    monkeypatch.setattr(streams, "CHUNK", 2)
    world.fill("a", "y")
    reader = HandReader(buffer_max=1)
    world.watch(reader)
    world.fill(*(f"x.{i}" for i in range(9)))
    for path in ("a", "y"):
        world.set(P(path), MISSING)
        assert not reap(world, P(path))
    reader.buffer_max = 3
    reader.read()
    reader.due.popleft()()
    assert "~-a" in brief(reader.read())
    assert reap(world, P("a"))
    assert not reap(world, P("y"))
    while reader.due:
        reader.due.popleft()()
        reader.read()
    assert "~-y" in brief(reader.items)
    assert reap(world, P("y"))


def test_one_that_starts_over_in_its_first_fetch_tells_what_it_had_sent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WATCH_PENDING_MAX", 2)
    monkeypatch.setattr(streams, "CHUNK", 2)
    world.fill("a", *(f"x.{i}" for i in range(20)))
    reader = HandReader(buffer_max=3)
    watch = world.watch(reader, fetch=True)
    reader.run_due()
    assert "a=1" in brief(reader.read())  # the client has it
    reader.buffer_max = 0
    world.set(P("a"), MISSING)
    for value in range(2, 9):
        world.fill(*(f"x.{i}" for i in range(20)), value=value)
    reap(world, P("a"))
    reader.buffer_max = 99
    watch.pump()
    reader.run_due()
    reader.read()
    assert "~-a" in brief(reader.items)


PATHS = [EMPTY, P("a"), P("a.b"), P("a.b.c"), P("a.c"), P("b"), P("c.:1"), P("c.:t")]
VALUES = st.integers(0, 5) | st.just(MISSING)


class Watching(RuleBasedStateMachine):
    """Writes, reads, pumps and slowness in any order: the watcher ends with what the tree holds."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(limits, "WATCH_PENDING_MAX", 3)
        self.patch.setattr(streams, "CHUNK", 2)
        self.world = World()
        self.held: dict[Path, object] = {}
        self.tocks: dict[Path, int] = {}
        self.is_uptodate = False
        self.newest = 0

    def teardown(self) -> None:
        self.patch.undo()

    @initialize(
        there=st.lists(st.tuples(st.sampled_from(PATHS), VALUES), max_size=12),
        base=st.sampled_from([":", "a", "c"]),
        window=st.sampled_from([0, 1, 4]),
        buffer_max=st.sampled_from([1, 2, 5, 1000]),
        high=st.sampled_from([0, 1, DEPTH_UNBOUNDED]),
    )
    def start(
        self, there: list[tuple[Path, object]], base: str, window: int, buffer_max: int, high: int
    ) -> None:
        for path, value in there:
            self.world.set(path, value)
        self.base, self.high = P(base), high
        self.reader = HandReader(buffer_max=buffer_max)
        self.watch = self.world.watch(self.reader, base, window=window, fetch=True, max_depth=high)

    @rule(path=st.sampled_from(PATHS), value=VALUES)
    def write(self, path: Path, value: object) -> None:
        self.world.set(path, value)

    @rule(path=st.sampled_from(PATHS))
    def let_a_tombstone_go(self, path: Path) -> None:
        reap(self.world, path)

    @rule()
    def turn_of_the_loop(self) -> None:
        if self.reader.due:
            self.reader.due.popleft()()

    @rule(acked=st.booleans())
    def read(self, acked: bool) -> None:
        was_slow = self.reader.is_slow()
        numbers = []
        for item in self.reader.read():
            numbers.append(item.get("wseq", 0))
            self.take(item)
        self.newest = max([self.newest, *numbers])
        if acked:
            self.watch.flow.ack(self.newest)
            self.watch.pump()
        if was_slow:  # the socket says that it has room again
            self.watch.pump()

    def take(self, item: dict[str, Any]) -> None:
        if "state" in item:
            assert not (self.is_uptodate and item["state"] == "uptodate"), "twice"
            self.is_uptodate = self.is_uptodate or item["state"] == "uptodate"
            return
        path, tock = item["path"], item["tock"]
        known = self.tocks.get(path, 0)
        assert tock > known or (tock == known and item.get("conflated")), "per path in order"
        self.tocks[path] = tock
        self.held[path] = item.get("value", MISSING)

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.watch._changed) <= limits.WATCH_PENDING_MAX
        assert len(self.reader.unread) <= self.reader.buffer_max + 3  # start, mark and one item
        assert len(self.reader.due) <= 64

    @rule()
    def all_is_read_in_the_end(self) -> None:
        for _ in range(200):
            self.read(acked=True)
            self.reader.run_due()
        size = len(self.base)
        wanted = {
            Path(*path.elements[size:]): value
            for path, value in self.world.tree.items()
            if path.elements[:size] == self.base.elements and len(path) - size <= self.high
        }
        held = {path: value for path, value in self.held.items() if value is not MISSING}
        assert held == {path: value for path, value in wanted.items() if value is not MISSING}
        assert self.is_uptodate


Watching.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestWatching = Watching.TestCase
