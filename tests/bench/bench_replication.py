"""Replication: how soon a change is elsewhere, how many per second, how long to become equal.

All servers and the broker run on this machine, so they share its cores.  A bare MQTT hop, by the
library that the server uses, is measured in the same run: publish, broker, receive.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import aiomqtt
import measure
from measure import RawClient, ratio, row

from kvedge.model.stamp import Rid
from kvedge.protocol.replication import Copied
from kvedge.server.fences import Fences
from kvedge.server.network import Network
from kvedge.server.records import Loaded
from kvedge.server.recovery import Saved
from kvedge.server.remote import Deputy, Write
from kvedge.server.store import Store
from kvedge.testing.mosquitto import Mosquitto, mosquitto
from kvedge.transport.loopback import Loopback, LoopbackBroadcast

ENTRIES = 100_000
SAMPLES = 500
LANES = 64
RECORDS = 30_000
PATIENCE_S = 60.0
IDLE_SERVERS = 50
IDLE_S = 3600.0


class Board:
    """A server of the network, as a process."""

    def __init__(self, here: Path, name: str, broker: Mosquitto) -> None:
        self.name = name
        self.socket = here / f"{name}.sock"
        self.directory = here / name
        self._broker = broker
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Board:
        words = ["-C", "log.level='error'", "server", "--dir", str(self.directory)]
        words += ["--listen", f"unix:{self.socket}", "--mqtt", self._broker.uri, self.name]
        self._process = subprocess.Popen(
            [str(measure.KV), *words], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "Running.\n"
        return self

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            assert self._process.stdout is not None
            self._process.send_signal(number)
            self._process.wait(10)
            self._process.stdout.close()
            self._process = None


@contextlib.contextmanager
def network(here: Path, *names: str) -> Iterator[list[Board]]:
    """Run a broker and a server per name."""
    with mosquitto(here / "broker", lines=["log_type error", "log_type information"]) as broker:
        boards = [Board(here, name, broker).start() for name in names]
        try:
            yield boards
        finally:
            for board in boards:
                board.end()


class Watcher(RawClient):
    """Counts different values, and tells one who waits when there are enough."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[object] = set()
        self._wanted = 0
        self._enough = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self._unpacker.feed(data)
        for message in self._unpacker:
            if "value" in message:
                self.seen.add(message["value"]["v"])
        if self.count >= self._wanted:
            self._enough.set()

    @property
    def count(self) -> int:
        """How many there were."""
        return len(self.seen)

    async def wait_for(self, count: int) -> None:
        """Return when there were so many."""
        self._wanted = count
        self._enough.clear()
        if self.count < count:
            await asyncio.wait_for(self._enough.wait(), PATIENCE_S)


async def watching(board: Board, *path: str) -> Watcher:
    """Return who watches a subtree."""
    loop = asyncio.get_running_loop()
    _, watcher = await loop.create_unix_connection(Watcher, str(board.socket))
    watcher.send("watch", path=path, nchain=0, fetch=False)
    await asyncio.sleep(0.1)
    watcher.seen.clear()
    return watcher


# --- one change -------------------------------------------------------------------------------


async def until_together(first: Board, second: Board) -> None:
    """Wait until a change passes."""
    client, watcher = await measure.connected(first.socket), await watching(second, "hello")
    end_s = time.monotonic() + PATIENCE_S
    while not watcher.count:
        assert time.monotonic() < end_s, "the servers do not meet"
        await client.ask("set_value", path=("hello",), value={"v": time.monotonic()}, nchain=0)
        await asyncio.sleep(0.05)
    client.close()
    watcher.close()


async def change_elsewhere(first: Board, second: Board, *, relaxed: bool) -> list[float]:
    """Return how many milliseconds each change took, from the request to the notice."""
    await until_together(first, second)
    client, watcher = await measure.connected(first.socket), await watching(second, "lat")
    extra = {"relaxed": True} if relaxed else {}
    times = []
    for number in range(SAMPLES):
        began = time.perf_counter()
        client.send("set_value", path=("lat",), value={"v": number}, nchain=0, **extra)
        await watcher.wait_for(number + 1)
        times.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.002)
    client.close()
    watcher.close()
    return times


async def bare_hop(broker: Mosquitto) -> list[float]:
    """Return how many milliseconds a message takes between two bare clients."""
    times = []
    options = [(6, 1, 1)]  # TCP_NODELAY
    async with (
        aiomqtt.Client(broker.host, broker.port, socket_options=options) as sender,
        aiomqtt.Client(broker.host, broker.port, socket_options=options) as receiver,
    ):
        await receiver.subscribe("t", 0)
        messages = aiter(receiver.messages)
        for _ in range(SAMPLES):
            began = time.perf_counter()
            await sender.publish("t", bytes(150), 0)
            await anext(messages)
            times.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.002)
    return times


def p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


def show_latency(here: Path) -> None:
    """Measure one change."""
    with network(here, "one", "two") as (first, second):
        rounds = []
        for _ in range(measure.RUNS):
            hop = asyncio.run(bare_hop(first._broker))
            durable = asyncio.run(change_elsewhere(first, second, relaxed=False))
            quick = asyncio.run(change_elsewhere(first, second, relaxed=True))
            rounds.append([f(t) for t in (hop, durable, quick) for f in (statistics.median, p99)])
        hop50, hop99, safe50, safe99, quick50, quick99 = (
            statistics.median(column) for column in zip(*rounds, strict=True)
        )
        row("bare MQTT hop, p50", hop50, "ms")
        row("bare MQTT hop, p99", hop99, "ms")
        row("durable set to notice elsewhere, p50", safe50, "ms", ratio=ratio(safe50, hop50, "hop"))
        row("durable set to notice elsewhere, p99", safe99, "ms", ratio=ratio(safe99, hop99, "hop"))
        row("relaxed set to notice elsewhere, p50", quick50, "ms")
        row("relaxed set to notice elsewhere, p99", quick99, "ms")


# --- many changes -----------------------------------------------------------------------------


async def write_many(
    boards: list[Board], target: Board, run: int, *, relaxed: bool
) -> tuple[float, float]:
    """Write on some servers; return records per second as answered, and as held elsewhere."""
    watcher = await watching(target, f"many{run}")
    extra = {"relaxed": True} if relaxed else {}

    async def lane(board: Board, number: int) -> None:
        client = await measure.connected(board.socket)
        for at in range(number, RECORDS, LANES):
            path = (f"many{run}", f"box{at % 100}", at)
            await client.ask("set_value", path=path, value={"v": at}, nchain=0, **extra)
        client.close()

    began = time.perf_counter()
    await asyncio.gather(*(lane(boards[n % len(boards)], n) for n in range(LANES)))
    answered = time.perf_counter() - began
    await watcher.wait_for(RECORDS)
    took = time.perf_counter() - began
    watcher.close()
    return RECORDS / answered, RECORDS / took


def show_rates(here: Path) -> None:
    """Measure many changes."""
    with network(here, "one", "two", "three") as boards:
        asyncio.run(until_together(boards[0], boards[2]))
        run = 0
        for writers in (boards[:1], boards[:2]):
            for relaxed in (False, True):
                rates = []
                for _ in range(3):
                    run += 1
                    rates.append(asyncio.run(write_many(writers, boards[2], run, relaxed=relaxed)))
                answered, held = (statistics.median(c) for c in zip(*rates, strict=True))
                mode = "relaxed" if relaxed else "durable"
                row(f"{mode} sets on {len(writers)}, answered", answered, "/s")
                row(f"{mode} sets on {len(writers)}, held by the third", held, "/s")


# --- all that is there ------------------------------------------------------------------------


async def fill(board: Board) -> None:
    """Store small entries below paths of four elements."""

    async def lane(number: int) -> None:
        client = await measure.connected(board.socket)
        for at in range(number, ENTRIES, LANES):
            path = ("sensor", f"box{at % 100}", "channel", at)
            await client.ask("set_value", path=path, value={"v": at, "u": "C"}, nchain=0)
        client.close()

    await asyncio.gather(*map(lane, range(LANES)))


async def until_equal(first: Board, second: Board) -> None:
    """Wait until two servers have seen the same changes, hence hold the same."""
    clients = [await measure.connected(board.socket) for board in (first, second)]
    end_s = time.monotonic() + PATIENCE_S
    while True:
        one, other = [await client.ask("get_state", known=True) for client in clients]
        if one["known"] == other["known"]:
            break
        assert time.monotonic() < end_s, "they do not become equal"
        await asyncio.sleep(0.02)
    for client in clients:
        client.close()


async def change_some(board: Board, number: int) -> None:
    """Change 1000 of the entries."""
    client = await measure.connected(board.socket)
    for at in range(1000):
        path = ("sensor", f"box{at % 100}", "channel", at)
        await client.ask("set_value", path=path, value={"v": number, "u": "F"}, nchain=0)
    client.close()


def show_joining(here: Path) -> None:
    """Measure how long it takes to get everything, and to come back."""
    with network(here, "one") as boards:
        first = boards[0]
        asyncio.run(fill(first))
        times = []
        for number in range(3):
            newcomer = Board(here, f"new{number}", first._broker)
            boards.append(newcomer)
            began = time.perf_counter()
            newcomer.start()
            asyncio.run(until_equal(first, newcomer))
            times.append(time.perf_counter() - began)
            if number < 2:
                newcomer.end()
        row("100,000 entries to an empty server", statistics.median(times), "s")
        starts, equals = [], []
        for number in range(3):
            newcomer.end(signal.SIGKILL)
            asyncio.run(change_some(first, number))
            began = time.perf_counter()
            newcomer.start()
            starts.append(time.perf_counter() - began)
            asyncio.run(until_equal(first, newcomer))
            equals.append(time.perf_counter() - began)
        row("start after kill -9, 100,000 entries", statistics.median(starts), "s")
        row("the same until equal, 1,000 changed", statistics.median(equals), "s")


# --- nothing to say ---------------------------------------------------------------------------


class IdleBoard:
    """A server of the simulation's kind on a broker without faults; implements `Host`, `Clock`.

    Its log tells at once that all is on the disk, when the others have had their turn.
    """

    def __init__(self, net: Loopback, name: str, random: Random) -> None:
        self._net = net
        self._number = 0
        self._is_due = False
        self._store = Store(Rid(name, 1 << 40), 0, Loaded(), self)
        self.fences = Fences(self._store)
        self.network = Network(
            self._store,
            self,
            name="idle",
            key=b"a key that is long enough",
            root="idle",
            clock=self,
            random=random,
            loaded=Loaded(),
        )
        self.broadcast: LoopbackBroadcast = net.join(name, self.network.participant())
        self.network.join(self.broadcast)
        self._tick()

    def _tick(self) -> None:
        self._net.schedule(self._net.now_s + self.network.tick(), self._tick)

    # --- for the store ----------------------------------------------------------------------

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        self._number += 1
        if not self._is_due:
            self._is_due = True
            self.later(self._confirm)
        return self._number

    def _confirm(self) -> None:
        self._is_due = False
        for write in self._store.confirm(written_to=self._number, synced_to=self._number):
            self.network.settled(write)
            write.done(None)

    # --- for the network --------------------------------------------------------------------

    def later(self, call: Callable[[], None]) -> None:
        self._net.schedule(self._net.now_s, call)

    def wall_ms(self) -> int:
        return int(self.wall_s() * 1000)

    def is_awaited(self, key: bytes) -> bool:
        return False

    def carry_out(self, request: Write, deputy: Deputy) -> None:
        raise AssertionError("nobody writes")

    def joined(self) -> None:
        pass

    def give_way(self) -> None:
        raise AssertionError("nobody has this name")

    def begin_anew(self, rid: Rid, copied: Copied, saved: list[Saved]) -> None:
        raise AssertionError("nobody was away")

    # --- the clock --------------------------------------------------------------------------

    def wall_s(self) -> float:
        return 1.7e9 + self._net.now_s

    def wall_is_synchronised(self) -> bool:
        return True

    def boottime_s(self) -> float:
        return self._net.now_s


def show_idle() -> None:
    """Count what many servers say that have nothing to say."""
    random = Random(1)
    net = Loopback(random)
    boards = [IdleBoard(net, f"n{number}", random) for number in range(IDLE_SERVERS)]
    net.advance(300.0)  # they have met, and all are members
    roots = {board.network.root() for board in boards}
    assert len(roots) == 1, "they are not equal"
    before = sum(board.broadcast.counts.published for board in boards)
    net.advance(300.0 + IDLE_S)
    said = sum(board.broadcast.counts.published for board in boards) - before
    row(f"{IDLE_SERVERS} idle servers, messages each", said / IDLE_SERVERS / IDLE_S, "/s")


PARTS: dict[str, Callable[[Path], None]] = {
    "latency": show_latency,
    "rates": show_rates,
    "joining": show_joining,
    "idle": lambda _: show_idle(),
}


def main(names: list[str]) -> None:
    """Measure and print; all parts, or those named."""
    measure.heading("Replication")
    for name in names or PARTS:
        print(f"({name}; load before: {os.getloadavg()[0]:.1f})")
        with measure.scratch() as here:
            PARTS[name](here)


if __name__ == "__main__":
    main(sys.argv[1:])
