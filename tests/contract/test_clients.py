"""One contract of the blocking and the async client, under asyncio and trio, on a real server."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, closing
from functools import partial
from pathlib import Path as FilePath
from typing import Any, Protocol

import anyio
import msgpack
import pytest
from anyio import lowlevel, to_thread

from kvedge import limits
from kvedge.client.client import WINDOW, open_client
from kvedge.client.result import Result
from kvedge.client.sync import SyncClient, connect
from kvedge.errors import (
    AgentError,
    BadPath,
    BadRequest,
    BadValue,
    ChainMismatch,
    Disconnected,
    FencedOff,
    LimitExceeded,
    NotConnected,
    TimedOut,
)
from kvedge.model.path import P, Path
from kvedge.model.value import packb

PATIENCE_S = 10.0
MANY = 2 * WINDOW + 50  # more than a window and more than a chunk


class Watching(Protocol):
    """A watch that is being read."""

    async def next(self) -> Result:
        """Return its next item."""


class Kv(Protocol):
    """What both clients can do, as the tests of both say it."""

    async def call(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method that answers once."""

    def watch(self, path: Path, **kwargs: Any) -> AbstractAsyncContextManager[Watching]:
        """Watch while the block runs."""

    def traffic(self) -> AbstractAsyncContextManager[Watching]:
        """Read the traffic while the block runs."""

    def tree(self, path: Path, **kwargs: Any) -> AsyncIterator[Result]:
        """Read a tree."""


class AsyncWatching:
    """A watch of the async client."""

    def __init__(self, items: AsyncIterator[Result]) -> None:
        self._items = items

    async def next(self) -> Result:
        with anyio.fail_after(PATIENCE_S):
            return await anext(self._items)


class AsyncKv:
    """The async client."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def call(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        return await getattr(self.client, verb)(*args, **kwargs)

    @asynccontextmanager
    async def watch(self, path: Path, **kwargs: Any) -> AsyncIterator[Watching]:
        async with self.client.watch(path, **kwargs) as items:
            yield AsyncWatching(items)

    @asynccontextmanager
    async def traffic(self) -> AsyncIterator[Watching]:
        async with self.client.traffic() as items:
            yield AsyncWatching(items)

    async def tree(self, path: Path, **kwargs: Any) -> AsyncIterator[Result]:
        async for item in self.client.get_tree(path, **kwargs):
            yield item


class BlockingWatching:
    """A watch of the blocking client; its caller waits in a thread."""

    def __init__(self, client: SyncClient, items: Iterator[Result]) -> None:
        self._items = items
        self._socket: Any = client._link._socket

    async def next(self) -> Result:
        give_up = threading.Timer(PATIENCE_S, self._socket.shutdown, [socket.SHUT_RDWR])
        give_up.start()
        try:
            return await to_thread.run_sync(next, self._items)
        finally:
            give_up.cancel()


class BlockingKv:
    """The blocking client, in a thread."""

    def __init__(self, client: SyncClient) -> None:
        self.client = client

    async def call(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        return await to_thread.run_sync(partial(getattr(self.client, verb), *args, **kwargs))

    @asynccontextmanager
    async def watch(self, path: Path, **kwargs: Any) -> AsyncIterator[Watching]:
        items: Any = self.client.watch(path, **kwargs)
        try:
            yield BlockingWatching(self.client, items)
        finally:
            await to_thread.run_sync(items.close)

    @asynccontextmanager
    async def traffic(self) -> AsyncIterator[Watching]:
        items: Any = self.client.traffic()
        try:
            yield BlockingWatching(self.client, items)
        finally:
            await to_thread.run_sync(items.close)

    async def tree(self, path: Path, **kwargs: Any) -> AsyncIterator[Result]:
        items = self.client.get_tree(path, **kwargs)
        while (item := await to_thread.run_sync(partial(next, items, None))) is not None:
            yield item


@pytest.fixture(params=["blocking", "asyncio", "trio"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which client."""
    return str(request.param)


@pytest.fixture
def anyio_backend(kind: str) -> str:
    """The event loop; the blocking client is indifferent."""
    return "trio" if kind == "trio" else "asyncio"


@asynccontextmanager
async def opened(kind: str, address: str, timeout_s: float = PATIENCE_S) -> AsyncIterator[Kv]:
    if kind == "blocking":
        client = await to_thread.run_sync(partial(connect, [address], timeout_s=timeout_s))
        with client:
            yield BlockingKv(client)
    else:
        async with open_client(address, timeout_s=timeout_s) as async_client:
            yield AsyncKv(async_client)


@pytest.fixture
async def kv_client(kind: str, server_address: str) -> AsyncIterator[Kv]:
    """A client of the shared server."""
    async with opened(kind, server_address) as client:
        yield client


@pytest.fixture
async def other(server_address: str) -> AsyncIterator[Kv]:
    """Somebody else."""
    async with opened("blocking", server_address) as client:
        yield client


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Path:
    """A place that no other test uses."""
    return Path(request.node.name)


# --- one answer -------------------------------------------------------------------------------


async def test_set_get_delete(kv_client: Kv, place: Path) -> None:
    assert "value" not in await kv_client.call("get", place)
    first = await kv_client.call("set", place, {"a": (1, None, b"x")})
    assert first.changed is True
    assert "prev" not in first
    got = await kv_client.call("get", place)
    assert got.value == {"a": (1, None, b"x")}
    assert got.tock == first.tock
    second = await kv_client.call("set", place, 2)
    assert second.prev == {"a": (1, None, b"x")}
    assert second.tock > first.tock
    assert (await kv_client.call("delete", place)).prev == 2
    assert "value" not in await kv_client.call("get", place)
    assert (await kv_client.call("delete", place)).changed is False


async def test_over_tcp(kind: str, server_address: str, tcp_address: str, place: Path) -> None:
    async with opened(kind, tcp_address) as client:
        await client.call("set", place, 1)
        assert (await client.call("get", place)).value == 1


async def test_a_path_may_be_text(kv_client: Kv) -> None:
    await kv_client.call("set", "as.text.:1", 5)
    assert (await kv_client.call("get", Path("as", "text", 1))).value == 5
    with pytest.raises(BadPath):
        await kv_client.call("get", "a..b")


@pytest.mark.parametrize(
    "value",
    [None, False, 0, 0.0, "", b"", (), {}, 1 << 200, P("a.:1"), "ü\0", (((),),), {"": {1: b"\n"}}],
    ids=repr,
)  # fmt: skip
async def test_values_come_back_as_they_went(kv_client: Kv, place: Path, value: Any) -> None:
    await kv_client.call("set", place, value)
    got = (await kv_client.call("get", place)).value
    assert got == value
    assert type(got) is type(value)


async def test_the_largest_values(kv_client: Kv, place: Path) -> None:
    for value in (b"v" * (limits.VALUE_MAX_BYTES - 5), (0,) * (limits.ELEMENTS_MAX - 20)):
        await kv_client.call("set", place, value)
        assert (await kv_client.call("get", place)).value == value


async def test_elements_that_python_calls_equal(kv_client: Kv, place: Path) -> None:
    elements = [None, False, 0, 0.0, True, 1, 1.0, "1", b"1", (1,), (True,)]
    for element in elements:
        await kv_client.call("set", place / element, repr(element))
    for element in elements:
        assert (await kv_client.call("get", place / element)).value == repr(element)
    pairs = await kv_client.call("list", place, with_data=True)
    assert sorted(repr(name) for name, _ in pairs) == sorted(map(repr, elements))
    assert all(repr(name) == value for name, value in pairs)
    found = [item async for item in kv_client.tree(place, min_depth=1)]
    assert all(repr(item.path[0]) == item.value for item in found)
    assert len(found) == len(elements)


async def test_writes_under_a_fence(kv_client: Kv, other: Kv, place: Path) -> None:
    job = str(place)
    register = Path(None, "fence", job)
    await kv_client.call("set", place, "first", fence=(job, 5))
    assert (await kv_client.call("get", register)).value == 5
    await other.call("set", place, "second", fence=(job, 7))
    for verb, *value in (("set", "late"), ("delete",)):
        with pytest.raises(FencedOff) as caught:
            await kv_client.call(verb, place, *value, fence=(job, 6))
        assert (caught.value.job, caught.value.fence, caught.value.known) == (job, 6, 7)
        assert caught.value.certain
    assert (await kv_client.call("get", place)).value == "second"
    assert (await kv_client.call("delete", place, fence=(job, 8))).prev == "second"
    assert (await kv_client.call("get", register)).value == 8
    await kv_client.call("set", place, "of anybody")  # who has no fence is not asked for one


@pytest.mark.parametrize("fence", [("", 1), ("j" * 256, 1), ("job", -1), ("job", 1.0), ("job",)])
async def test_a_fence_that_is_none(kv_client: Kv, place: Path, fence: Any) -> None:
    with pytest.raises(BadRequest, match="'fence' is a pair"):
        await kv_client.call("set", place, 1, fence=fence)
    assert "value" not in await kv_client.call("get", place)


async def test_compare_and_set_by_chain(kv_client: Kv, place: Path) -> None:
    first = await kv_client.call("set", place, 1, chain=None, nchain=1)
    with pytest.raises(ChainMismatch, match="expected no entry"):
        await kv_client.call("set", place, 2, chain=None)
    second = await kv_client.call("set", place, 2, chain=first.chain, nchain=1)
    assert second.chain["tick"] > first.chain["tick"]
    with pytest.raises(ChainMismatch) as caught:
        await kv_client.call("delete", place, chain=first.chain)
    assert caught.value.certain
    assert caught.value.path == str(place)
    got = await kv_client.call("get", place, nchain=3)
    assert got.chain == second.chain
    await kv_client.call("delete", place, chain=got.chain)
    await kv_client.call("set", place, 3, chain=None)


async def test_compare_and_set_by_value(kv_client: Kv, place: Path) -> None:
    await kv_client.call("set", place, {"x": 1, "y": 2})
    with pytest.raises(ChainMismatch, match="expected the value"):
        await kv_client.call("set", place, 0, prev={"x": 1})
    await kv_client.call("set", place, True, prev={"y": 2, "x": 1})
    with pytest.raises(ChainMismatch):
        await kv_client.call("delete", place, prev=1)
    assert (await kv_client.call("delete", place, prev=True)).changed


async def test_a_counter_shared_by_two_loses_nothing(
    kind: str, server_address: str, place: Path
) -> None:
    async def count(client: Kv, times: int) -> None:
        while times:
            got = await client.call("get", place, nchain=1)
            try:
                await client.call("set", place, got.value + 1, chain=got.chain)
            except ChainMismatch:
                continue
            times -= 1

    async with opened(kind, server_address) as one, opened(kind, server_address) as two:
        await one.call("set", place, 0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count, one, 20)
            tasks.start_soon(count, two, 20)
        assert (await one.call("get", place)).value == 40


async def test_idem_writes_only_what_is_new(kv_client: Kv, place: Path) -> None:
    first = await kv_client.call("set", place, (1, 2))
    assert (await kv_client.call("set", place, (1, 2), idem=True)).changed is False
    assert (await kv_client.call("get", place)).tock == first.tock
    assert (await kv_client.call("set", place, (1, 3), idem=True)).changed is True


async def test_relaxed_writes_are_seen(kv_client: Kv, place: Path) -> None:
    for value in range(20):
        await kv_client.call("set", place, value, relaxed=True)
        assert (await kv_client.call("get", place)).value == value


async def test_lists(kv_client: Kv, place: Path) -> None:
    for name in ("a", "b.x", "c.y.z"):
        await kv_client.call("set", place + P(name), name)
    await kv_client.call("set", place / "b", None)
    assert await kv_client.call("list", place) == ["a", "b"]
    assert await kv_client.call("list", place, empty=True) == ["a", "b", "c"]
    assert await kv_client.call("list", place, with_data=True) == [("a", "a"), ("b", None)]
    assert await kv_client.call("list", place / "nothing") == []


async def test_a_list_with_more_parts_than_a_request_may_have(kv_client: Kv, place: Path) -> None:
    value = (0,) * (limits.ELEMENTS_MAX // 100)
    for i in range(101):
        await kv_client.call("set", place / i, value, relaxed=True)
    assert await kv_client.call("list", place) == list(range(101))
    assert await kv_client.call("list", place, with_data=True) == [(i, value) for i in range(101)]


async def fill(kv_client: Kv, place: Path, count: int) -> None:
    for i in range(count):
        await kv_client.call("set", place / i, {"n": i}, relaxed=True)


async def test_delete_tree(kv_client: Kv, place: Path) -> None:
    await fill(kv_client, place, 300)
    await kv_client.call("set", place, 1)
    assert (await kv_client.call("delete_tree", place)).changed == 301
    assert [item async for item in kv_client.tree(place)] == []


async def test_other_requests(kv_client: Kv, place: Path) -> None:
    tock = (await kv_client.call("set", place / "x", 1)).tock
    assert (await kv_client.call("request", "get_tock", {})).tock >= tock
    state = await kv_client.call("request", "get_state", {"nodes": True})
    assert state.node == "contract"
    assert state.nodes["contract"] > 0
    await kv_client.call("request", "root", {"path": place.elements})
    assert (await kv_client.call("get", "x")).value == 1


async def test_state_of_a_server_alone(kv_client: Kv) -> None:
    status = await kv_client.call("net_status")
    assert (status.name, status.node, status.connected) == (None, "contract", False)
    assert [server["node"] for server in status.servers] == ["contract"]
    assert {"version", "lag", "seen_s", "is_seen", "state"} <= set(status.servers[0])
    with pytest.raises(BadRequest, match="works alone"):
        async with kv_client.traffic() as messages:
            await messages.next()
    assert (await kv_client.call("net_status")).node == "contract"  # the connection lives


@pytest.mark.parametrize(
    ("verb", "args", "error"),
    [
        ("set", (P("x"), object()), BadValue),
        ("set", (P("x"), b"v" * (limits.VALUE_MAX_BYTES + 1)), LimitExceeded),
        ("request", ("nonsense", {}), BadRequest),
        ("request", ("get_value", {"path": 5}), BadPath),
        ("request", ("set_value", {"path": ("x",), "value": b"v" * 300_000}), LimitExceeded),
    ],
)
async def test_errors_keep_their_class(
    kv_client: Kv, verb: str, args: tuple[Any, ...], error: type[AgentError]
) -> None:
    with pytest.raises(error) as caught:
        await kv_client.call(verb, *args)
    assert caught.value.certain
    assert (await kv_client.call("get", "as.before")).tock >= 0  # the connection lives


# --- streams ----------------------------------------------------------------------------------


async def test_a_tree_comes_in_order_with_relative_paths(kv_client: Kv, place: Path) -> None:
    for name in ("b", "a.x", "a", "c.d.e"):
        await kv_client.call("set", place + P(name), name)
    items = [item async for item in kv_client.tree(place)]
    assert [(str(item.path), item.value) for item in items] == [
        ("a", "a"), ("a.x", "a.x"), ("b", "b"), ("c.d.e", "c.d.e")
    ]  # fmt: skip
    shallow = [str(item.path) async for item in kv_client.tree(place, min_depth=2, max_depth=2)]
    assert shallow == ["a.x"]
    assert "chain" not in items[0]
    async for item in kv_client.tree(place, nchain=1, max_depth=1):
        assert item.chain["node"] == "contract"


async def test_requests_inside_the_loop_of_a_long_tree(kv_client: Kv, place: Path) -> None:
    await fill(kv_client, place, MANY)
    found: list[Any] = []
    async for item in kv_client.tree(place):
        if len(found) % 50 == 0:
            assert (await kv_client.call("get", place + item.path)).value == item.value
            await kv_client.call("set", place / "extra", len(found))
        found.append(item.path[0])
    assert [name for name in found if name != "extra"] == list(range(MANY))


async def test_two_trees_at_once(kv_client: Kv, place: Path) -> None:
    await fill(kv_client, place, MANY)
    one, two = kv_client.tree(place), kv_client.tree(place)
    for i in range(MANY):
        assert (await anext(one)).path == (await anext(two)).path == Path(i)
    for rest in (one, two):
        assert [item async for item in rest] == []


async def test_a_watch_gets_what_is_there_a_mark_and_changes(
    kv_client: Kv, other: Kv, place: Path
) -> None:
    await kv_client.call("set", place / "a", 1)
    async with kv_client.watch(place, fetch=True) as watching:
        first = await watching.next()
        assert (first.path, first.value) == (P("a"), 1)
        assert (await watching.next()).state == "uptodate"
        await other.call("set", place / "b" / True, 2)
        await other.call("delete", place / "a")
        assert (await watching.next()).path == Path("b", True)
        gone = await watching.next()
        assert gone.path == P("a")
        assert "value" not in gone
        assert gone.tock > first.tock
    assert (await kv_client.call("get", place / "b" / True)).value == 2


async def test_a_watch_without_fetch_and_with_depths(kv_client: Kv, other: Kv, place: Path) -> None:
    await kv_client.call("set", place / "a", 1)
    async with kv_client.watch(place, fetch=False, min_depth=2, max_depth=2) as watching:
        # A generator sends its request when it is first asked for an item.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_until_seen, other, place)
            seen = await watching.next()
            tasks.cancel_scope.cancel()
        assert str(seen.path) == "x.y"


async def write_until_seen(other: Kv, place: Path) -> None:
    while True:
        await other.call("set", place / "x", 1)
        await other.call("set", place / "x" / "y", 1)
        await other.call("set", place / "x" / "y" / "z", 1)


async def test_a_watch_that_is_left_costs_nothing_more(
    kv_client: Kv, other: Kv, place: Path
) -> None:
    await other.call("set", place / "a", 0)
    for _ in range(limits.STREAMS_MAX + 5):  # each is stopped, or there would be too many
        async with kv_client.watch(place, fetch=True) as watching:
            await watching.next()
    await fill(other, place, 20)
    assert (await kv_client.call("get", place / 19)).value is not None


async def test_a_slow_watcher_ends_with_the_newest(kv_client: Kv, other: Kv, place: Path) -> None:
    async with kv_client.watch(place, fetch=True) as watching:
        assert (await watching.next()).state == "uptodate"
        for value in range(40):
            for i in range(20):
                await other.call("set", place / i, value, relaxed=True)
        tocks: dict[Path, int] = {}
        latest: dict[Path, int] = {}
        while [*latest.values()] != [39] * 20:
            item = await watching.next()
            assert item.tock > tocks.get(item.path, 0)
            tocks[item.path], latest[item.path] = item.tock, item.value


# --- ends -------------------------------------------------------------------------------------


async def test_nobody_there(kind: str, tmp_path: FilePath, free_port: int) -> None:
    for address in (f"unix:{tmp_path}/none", f"127.0.0.1:{free_port}"):
        with pytest.raises(NotConnected) as caught:
            async with opened(kind, address):
                pass
        assert caught.value.certain
        assert caught.value.endpoint == address


class FakeServer:
    """Greets, then does what the test says: nothing, or go away."""

    def __init__(self, path: FilePath) -> None:
        self.address = f"unix:{path}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._connections: list[socket.socket] = []
        self.received = threading.Event()
        self.may_read = threading.Event()
        self.may_read.set()
        self.seqs: list[int] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        self._connections.append(connection)
        connection.sendall(packb({"seq": 0, "version": (0, 1, 0), "node": "fake", "kvedge": 1}))
        unpacker = msgpack.Unpacker()
        while self.may_read.wait() and (data := connection.recv(65536)):
            unpacker.feed(data)
            for message in unpacker:
                if message["seq"]:
                    self.seqs.append(message["seq"])
                    self.received.set()

    def say(self, message: dict[str, Any]) -> None:
        self._connections[0].sendall(packb(message))

    def go_away(self) -> None:
        for connection in self._connections:
            connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.go_away()
        self._thread.join()
        for opened in (self._listener, *self._connections):
            opened.close()


@pytest.fixture
def fake_server(tmp_path: FilePath) -> Iterator[FakeServer]:
    """A server that does not answer."""
    with closing(FakeServer(tmp_path / "fake.sock")) as server:
        yield server


async def test_a_request_without_answer_says_that_it_may_have_happened(
    kind: str, fake_server: FakeServer
) -> None:
    async with opened(kind, fake_server.address, timeout_s=0.1) as client:
        with pytest.raises(TimedOut, match="it may have happened") as caught:
            await client.call("set", "a", 1)
        assert not caught.value.certain


async def test_what_is_under_way_fails_when_the_server_goes(
    kind: str, fake_server: FakeServer
) -> None:
    async def go_away() -> None:
        await to_thread.run_sync(fake_server.received.wait)
        fake_server.go_away()

    async with opened(kind, fake_server.address) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(go_away)
        with pytest.raises(Disconnected) as caught:
            await client.call("set", "a", 1)
        assert not caught.value.certain
        with pytest.raises(Disconnected):
            await client.call("get", "a")


async def test_a_server_that_ends_with_words(kind: str, fake_server: FakeServer) -> None:
    async def end() -> None:
        await to_thread.run_sync(fake_server.received.wait)
        fake_server.say({"error": "enough is enough"})

    async with opened(kind, fake_server.address) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(end)
        with pytest.raises(AgentError, match="enough is enough"):
            await client.call("set", "a", 1)


async def test_a_watch_fails_when_the_server_goes(kind: str, fake_server: FakeServer) -> None:
    async def go_away() -> None:
        await to_thread.run_sync(fake_server.received.wait)
        fake_server.go_away()

    async with opened(kind, fake_server.address) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(go_away)
        with pytest.raises(Disconnected):
            async with client.watch(P("a")) as watching:
                await watching.next()


# --- the async client alone -------------------------------------------------------------------


@pytest.fixture(params=["asyncio", "trio"])
def loop(request: pytest.FixtureRequest) -> str:
    """An event loop."""
    return str(request.param)


class TestAsync:
    """What the blocking client has no counterpart of."""

    @pytest.fixture
    def anyio_backend(self, loop: str) -> str:
        return loop

    async def test_many_requests_at_once(self, server_address: str, place: Path) -> None:
        async with open_client(server_address) as client:

            async def one(i: int) -> None:
                await client.set(place / i, i)
                assert (await client.get(place / i)).value == i

            async with anyio.create_task_group() as tasks:
                for i in range(100):
                    tasks.start_soon(one, i)

    async def test_all_that_is_under_way_fails(self, fake_server: FakeServer) -> None:
        failed: list[AgentError] = []

        async def one(call: Callable[[], Any]) -> None:
            try:
                await call()
            except Disconnected as error:
                failed.append(error)

        async with open_client(fake_server.address) as client, anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(one, partial(client.get, "a"))
            await to_thread.run_sync(fake_server.received.wait)
            fake_server.go_away()
        assert len(failed) == 5

    async def test_a_mirror(self, server_address: str, place: Path) -> None:
        async with open_client(server_address) as client, open_client(server_address) as writer:
            await writer.set(place / "a", 1)
            async with client.mirror(place) as mirror:
                assert {str(path): mirror[path] for path in mirror} == {"a": 1}
                await writer.set(place / "b", 2)
                with anyio.fail_after(PATIENCE_S):
                    while "b" not in mirror:
                        await mirror.changed()
                    await writer.delete(place / "a")
                    while "a" in mirror:
                        await mirror.changed()
                assert mirror["b"] == 2
                assert len(mirror) == 1
            await writer.set(place / "c", 3)
            assert mirror.get("c", None) is None

    async def test_a_mirror_fails_when_the_server_goes(self, fake_server: FakeServer) -> None:
        """And with it the block, which may wait for something else."""
        is_entered = anyio.Event()

        async def end() -> None:
            await to_thread.run_sync(fake_server.received.wait)
            fake_server.say({"seq": 1, "state": "start"})
            fake_server.say({"seq": 1, "state": "uptodate"})
            await is_entered.wait()
            fake_server.go_away()

        async def mirror() -> None:
            async with client.mirror("a"):
                is_entered.set()
                await anyio.sleep(PATIENCE_S)

        async with open_client(fake_server.address) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(end)
            with pytest.raises(Disconnected) as caught:
                await mirror()
        assert caught.value  # the group would have swallowed a cancel that leaks

    async def test_a_stream_nobody_reads_holds_nobody_up(
        self, server_address: str, place: Path
    ) -> None:
        async with (
            open_client(server_address) as client,
            open_client(server_address) as writer,
            client.watch(place) as items,
        ):
            async with anyio.create_task_group() as tasks:
                for i in range(2 * WINDOW):
                    tasks.start_soon(partial(writer.set, place / i, i, relaxed=True))
            assert (await client.get(place / 1)).value == 1
            newest: dict[Path, int] = {}
            while len(newest) < 2 * WINDOW:
                with anyio.fail_after(PATIENCE_S):
                    item = await anext(items)
                newest[item.path] = item.value
            assert newest == {Path(i): i for i in range(2 * WINDOW)}

    async def test_a_tree_that_is_left_early(self, server_address: str, place: Path) -> None:
        async with open_client(server_address) as client:
            async with anyio.create_task_group() as tasks:
                for i in range(MANY):
                    tasks.start_soon(partial(client.set, place / i, i, relaxed=True))
            for _ in range(3):
                async with aclosing(client.get_tree(place)) as items:
                    assert (await anext(items)).path == Path(0)
            assert (await client.get(place / 1)).value == 1

    async def test_a_cancelled_request_leaves_the_client_usable(
        self, server_address: str, place: Path
    ) -> None:
        async with open_client(server_address) as client:
            for _ in range(20):
                with anyio.move_on_after(0):
                    await client.set(place, 1)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.set, place, 2)
                    await lowlevel.checkpoint()
                    tasks.cancel_scope.cancel()
            assert (await client.get(place)).tock

    async def test_a_request_cancelled_half_way_out_is_sent_whole(
        self, fake_server: FakeServer
    ) -> None:
        """Else whatever is asked next would be taken for the rest of it."""
        fake_server.may_read.clear()
        async with open_client(fake_server.address, timeout_s=PATIENCE_S) as client:

            async def cancel_and_read_on() -> None:
                await anyio.sleep(0.05)  # until the socket is full
                tasks.cancel_scope.cancel()
                fake_server.may_read.set()

            for _ in range(2):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(cancel_and_read_on)
                    for _ in range(3):
                        tasks.start_soon(client.set, "a", b"v" * 220_000)
            assert client._lost is None
        await to_thread.run_sync(fake_server._thread.join, PATIENCE_S)
        assert fake_server.seqs == sorted(fake_server.seqs)
        assert len(fake_server.seqs) >= 2

    async def test_what_the_block_raises_comes_as_it_is(self, server_address: str) -> None:
        async def fail() -> None:
            async with (
                open_client(server_address) as client,
                client.watch("a"),
                client.mirror("b"),
            ):
                raise KeyError("mine")

        with pytest.raises(KeyError):
            await fail()

    async def test_a_client_goes_in_the_middle_of_a_stream(
        self, server_address: str, place: Path
    ) -> None:
        async with open_client(server_address) as writer:
            async with anyio.create_task_group() as tasks:
                for i in range(MANY):
                    tasks.start_soon(partial(writer.set, place / i, b"v" * 2000, relaxed=True))
            for _ in range(5):
                async with (
                    open_client(server_address) as client,
                    aclosing(client.get_tree(place)) as items,
                ):
                    await anext(items)
                    await client.link.aclose()
            assert (await writer.get(place / 1)).value


# --- a client of other make -------------------------------------------------------------------


class Foreign:
    """Speaks plain maps, and knows nothing of greetings that are answered."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._socket.connect(address.removeprefix("unix:"))
        self._unpacker = msgpack.Unpacker(use_list=False, strict_map_key=False)
        self.seq = 0
        self.greeting = self.next()

    def send(self, message: dict[str, Any]) -> None:
        self._socket.sendall(msgpack.packb(message))

    def ask(self, action: str, **fields: Any) -> Any:
        self.seq += 1
        self.send({"seq": self.seq, "action": action, **fields})
        return self.next()

    def next(self) -> Any:
        while True:
            for message in self._unpacker:
                return message
            data = self._socket.recv(65536)
            assert data, "the server has closed it"
            self._unpacker.feed(data)

    def close(self) -> None:
        self._socket.close()


class TestForeign:
    """The wire as clients of the peer systems speak it."""

    @pytest.fixture
    def foreign(self, server_address: str) -> Iterator[Foreign]:
        with closing(Foreign(server_address)) as client:
            yield client

    @pytest.fixture
    def here(self, request: pytest.FixtureRequest) -> tuple[str]:
        return (request.node.name,)

    def test_it_is_greeted(self, foreign: Foreign) -> None:
        greeting = foreign.greeting
        assert greeting["seq"] == 0
        assert greeting["node"] == "contract"
        assert not greeting["qlen"]
        assert "auth" not in greeting
        assert type(greeting["tick"]) is type(greeting["tock"]) is int

    def test_the_watch_it_opens_first_is_answered(self, foreign: Foreign) -> None:
        path = (".moat", "kv", "config")
        told = foreign.ask("watch", path=path, fetch=True, nchain=3, max_depth=1)
        assert told["state"] == "start"
        assert foreign.next()["state"] == "uptodate"

    def test_a_life(self, foreign: Foreign, here: tuple[str]) -> None:
        assert "value" not in foreign.ask("get_value", path=here, nchain=1)
        told = foreign.ask("set_value", path=here, value=[1, {"a": None}], nchain=2)
        assert told["changed"] is True
        assert told["chain"]["prev"] is None
        got = foreign.ask("get_value", path=here, nchain=1)
        assert got["value"] == (1, {"a": None})
        assert got["chain"] == told["chain"]
        assert foreign.ask("enum", path=())["result"]
        assert foreign.ask("delete_value", path=here, chain=got["chain"])["changed"] is True

    def test_errors_are_plain_text(self, foreign: Foreign, here: tuple[str]) -> None:
        told = foreign.ask("set_value", path=here, value=1, chain={"node": "x", "tick": 3})
        assert set(told) == {"seq", "error"}
        assert told["error"].startswith("ChainMismatch: ")
        assert "error" in foreign.ask("dance")
        assert foreign.ask("get_tock")["tock"] > 0

    def test_a_path_may_be_an_extension(self, foreign: Foreign, here: tuple[str]) -> None:
        packed = b"".join(map(msgpack.packb, (*here, 1)))
        foreign.ask("set_value", path=msgpack.ExtType(3, packed), value=5)
        assert foreign.ask("get_value", path=(*here, 1))["value"] == 5

    def test_names_and_values_come_as_a_map(self, foreign: Foreign, here: tuple[str]) -> None:
        foreign.ask("set_value", path=(*here, "a"), value=5)
        assert foreign.ask("enum", path=here, with_data=True)["result"] == {"a": 5}

    def test_a_stream_with_a_window(self, foreign: Foreign, here: tuple[str]) -> None:
        for i in range(10):
            foreign.ask("set_value", path=(*here, i), value=i)
        with closing(Foreign(f"unix:{foreign._socket.getpeername()}")) as client:
            client.send({"seq": 0, "qlen": 4})
            client.ask("get_tree", path=here)
            seen = [client.next()["wseq"] for _ in range(4)]
            assert client.ask("get_tock").get("tock")  # and not the fifth item
            while len(seen) < 10:
                client.send({"seq": 1, "state": "ack", "ack": seen[-1]})
                seen.append(client.next()["wseq"])
            client.send({"seq": 1, "state": "ack", "ack": seen[-1]})
            assert client.next()["state"] == "end"
            assert seen == list(range(1, 11))

    def test_a_watch_is_stopped(self, foreign: Foreign, here: tuple[str]) -> None:
        foreign.ask("watch", path=here)
        assert foreign.ask("stop", task=foreign.seq) == {"seq": 1, "state": "end"}
        assert foreign.next()["result"] is True

    def test_internal_data(self, foreign: Foreign, here: tuple[str]) -> None:
        foreign.ask("set_internal", path=here, value=7)
        assert foreign.ask("get_value", path=(None, *here))["value"] == 7
        assert here[0] in foreign.ask("enum_internal", path=())["result"]
        assert foreign.ask("get_tree_internal", path=here)["state"] == "start"
        assert foreign.next()["value"] == 7
        assert foreign.next()["state"] == "end"
