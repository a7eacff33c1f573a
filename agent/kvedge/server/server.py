"""The server: wires store, log, watchers and sockets together, and runs until it is told to end.

The order of a start is the order of trust: lock the directory, read the journal, take a new
incarnation, open a segment, and only then listen.  The end is the reverse.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

from kvedge import limits
from kvedge.clock import Clock
from kvedge.errors import AgentError, BadSetting, NameTaken, ServerFailure, StorageError
from kvedge.model.entry import has_fence
from kvedge.model.path import KEY_FIRST
from kvedge.model.path import Path as TreePath
from kvedge.model.stamp import RANDOM_BITS, Rid, new_incarnation
from kvedge.model.value import MISSING, pack
from kvedge.protocol.replication import Copied
from kvedge.server.commands import carry_out
from kvedge.server.connections import Connection
from kvedge.server.dumps import NewEntry, apply_kept, load_dump, opened_dumps
from kvedge.server.fences import Fences
from kvedge.server.homes import HOMES, Homes
from kvedge.server.logs import DiskLog, Log, MemoryLog
from kvedge.server.network import Network
from kvedge.server.records import Loaded, seen_payloads, snapshot_payloads
from kvedge.server.recovery import Saved, save
from kvedge.server.remote import Deputy, Write, away
from kvedge.server.settings import ServerSettings
from kvedge.server.store import Pending, Store
from kvedge.server.streams import Watchers
from kvedge.server.upkeep import Upkeep
from kvedge.storage.directory import check_name, mark_taken
from kvedge.storage.dumps import DumpFile
from kvedge.transport import aio
from kvedge.transport.systemd import ServiceManager

log = logging.getLogger(__name__)

_STUCK_AFTER_S = 2.5
"""An idle journal beats once a second."""

_TIDY_INTERVAL_S = 1.0
"""How often a server that works alone looks for tombstones."""

_BASE_GAP = 1 << 14
"""What a power cut may take of shown ticks: relaxed writes of a second, or there were more."""

_BASE_BITS = 20  # a first base below a million: short to read, unlikely to be met twice


class Server:
    """A running server.

    Attributes:
        store: The tree.
        watchers: Who is told of changes.
        addresses: Where it listens.
        network: The server's part among its peers; None where it works alone.
        homes: Which node writes what.
        fences: The highest fence of each job.
        ended: Is set when this server has to end by itself, for the reason `why`.
    """

    def __init__(self, store: Store, log_: Log, clock: Clock, directory: str | None = None) -> None:
        self.store = store
        self.watchers = Watchers()
        self.addresses: list[str] = []
        self.network: Network | None = None
        self.homes = Homes(store)
        self.fences = Fences(store)
        self.ended = asyncio.Event()
        self.why: AgentError | None = None
        self._log = log_
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._connections: set[Connection] = set()
        self._held: set[Connection] = set()
        self._synchronised = clock.wall_is_synchronised()
        self._directory = directory
        self._renewing: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[Any] | None = None

    # --- for connections ----------------------------------------------------------------------

    def admit(self, connection: Connection) -> bool:
        """Take up a connection; False for one too many."""
        if len(self._connections) >= limits.CONNECTIONS_MAX:
            log.warning("refused a connection: there are %d already", limits.CONNECTIONS_MAX)
            return False
        self._connections.add(connection)
        return True

    def dismiss(self, connection: Connection) -> None:
        """Forget a connection that is gone."""
        self._connections.discard(connection)
        self._held.discard(connection)

    def hold(self, connection: Connection) -> None:
        """Let a connection proceed when fewer writes are under way."""
        self._held.add(connection)

    def _release(self) -> None:
        held, self._held = self._held, set()
        for connection in held:
            connection.proceed()

    def later(self, call: Callable[[], None]) -> None:
        """Call back when others have had their turn."""
        self._loop.call_soon(call)

    def wall_ms(self) -> int | None:
        """Return unix milliseconds, None while the clock is not synchronised."""
        synchronised = self._clock.wall_is_synchronised()
        if synchronised != self._synchronised:
            self._synchronised = synchronised
            log.info("the clock is %s", "synchronised" if synchronised else "not synchronised")
        return int(self._clock.wall_s() * 1000) if synchronised else None

    # --- for the log --------------------------------------------------------------------------

    def preamble(self) -> list[bytes]:
        """Return what a new file begins with; may be called from another thread."""
        return self.store.preamble()

    def snapshot(self) -> Iterable[bytes]:
        """Return what a snapshot holds."""
        store = self.store
        told = seen_payloads(store.seen, store.rids)
        if self.network is not None:
            told += self.network.told()
        return snapshot_payloads(store.tree.items(), told)

    def confirm(self, written_to: int, synced_to: int) -> None:
        """Make writes visible, tell watchers, answer."""
        for pending in self.store.confirm(written_to=written_to, synced_to=synced_to):
            if pending.has_won:
                self._note(pending)
            if self.network is not None:
                self.network.settled(pending)
            if pending.has_won:
                self.watchers.notify(pending.key, pending.packed)
            pending.done(None)
        self._release()

    def _note(self, write: Pending) -> None:
        """Take note of who may write what."""
        if write.key[:1] == KEY_FIRST and write.key.startswith(HOMES):
            self.homes.note(write.key, write.packed)
        if write.key[:1] == KEY_FIRST or has_fence(write.packed):
            self.fences.settled(write.key, write.packed)

    def refuse(self, first: int, error: AgentError) -> None:
        """Fail writes that surely did not happen."""
        for pending in self.store.refuse(first):
            pending.done(error)
        self._release()

    def doubt(self, up_to: int, error: AgentError) -> None:
        """Answer writes that may have happened; they become visible once the disk has them."""
        for done in self.store.doubtful(up_to):
            done(error)
        self._release()

    # --- for the network ----------------------------------------------------------------------

    def is_awaited(self, key: bytes) -> bool:
        """Tell whether a watcher still has to be told of the deletion at a key."""
        return self.watchers.is_awaited(key)

    def joined(self) -> None:
        """Write what this board had before it joined, where the network has nothing."""
        if self._directory is not None:
            self._keeping = self._loop.create_task(apply_kept(self, self._directory))
            self._keeping.add_done_callback(_report_kept)

    def give_way(self) -> None:
        """End: another server runs under our name, and is the younger one."""
        if self._directory is not None:
            with suppress(OSError):  # it is refused at the next start all the same, on the network
                mark_taken(self._directory)
        self._end(NameTaken(self.store.rid.node, self._directory or "memory"))

    def _end(self, why: AgentError) -> None:
        self.why = self.why or why
        self.ended.set()

    def begin_anew(self, rid: Rid, copied: Copied, saved: list[Saved]) -> None:
        """Set the tree aside and begin a new life with an empty one, then take the copy."""
        self._renewing = self._loop.create_task(self._renew(rid, copied, saved))
        self._renewing.add_done_callback(self._renewed)

    def _renewed(self, task: asyncio.Task[None]) -> None:
        """End where the next life could not begin for a reason that nobody thought of."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.critical("the store could not be set aside", exc_info=error)
            self._end(ServerFailure(f"{type(error).__name__}: {error}"))

    async def _renew(self, rid: Rid, copied: Copied, saved: list[Saved]) -> None:
        """Close the log, set it aside, and begin another; nobody may write meanwhile."""
        store, network = self.store, self.network
        assert network is not None
        if saved and self._directory is not None:
            name = str(Path(self._directory, f"unsynced-{rid.incarnation:x}.dump"))
            try:
                await asyncio.to_thread(save, name, store, network.name, saved)
            except StorageError as error:
                log.error("the tree stays as it is until its own changes can be saved: %s", error)
                store.is_frozen = False
                network.stay()
                return
        base = store.base + store.seen.last(store.rid) + _BASE_GAP
        try:
            self._log = await self._log.emptied(rid, base, store.ceiling)
        except OSError as error:  # StorageError is one
            self._end(StorageError(f"the store cannot be set aside: {error}; start again"))
            return
        self.close_connections()  # what they were shown may be gone: they read anew
        store.begin(rid, base, self._log.loaded, self._log)
        self._log.start(self, rid, base, self._clock)
        self.homes = Homes(store)
        self.fences = Fences(store)
        network.begin(copied, saved)

    def carry_out(self, request: Write, deputy: Deputy) -> None:
        """Make a write that another server asks for, if its home is here, as far as we know."""
        home = self.homes.of(request.path)
        if home in (None, self.store.rid.node):
            carry_out(request, deputy)
        else:
            assert home is not None
            deputy.fail(0, away(home, str(TreePath.from_key(request.path))))

    def close_log(self) -> None:
        """Write out what is left; blocks."""
        self._log.close()

    # --- life -----------------------------------------------------------------------------------

    @property
    def beats(self) -> int:
        """A number that rises while the journal moves."""
        return self._log.beats

    async def write_all(self, writes: Sequence[NewEntry]) -> None:
        """Write entries; return when all are durable, and visible where they win.

        Raises:
            StorageError: One of them surely or perhaps did not happen; the others may have.
        """
        left = len(writes)
        finished: asyncio.Future[None] = self._loop.create_future()

        def done(error: AgentError | None) -> None:
            nonlocal left
            left -= 1
            if finished.done():
                return
            if error is not None:
                finished.set_exception(error)
            elif not left:
                finished.set_result(None)

        if not writes:
            return
        wall_ms = self.wall_ms()
        for new in writes:
            self.store.write(
                new.key, new.value, wall_ms=wall_ms, relaxed=False, done=done, tock=new.tock
            )
        await finished

    async def write_initial(self, packed: bytes) -> None:
        """Set the root's value."""
        done: asyncio.Future[AgentError | None] = self._loop.create_future()
        self.store.write(b"", packed, wall_ms=self.wall_ms(), relaxed=False, done=done.set_result)
        error = await done
        if error is not None:
            raise error

    def close_connections(self) -> None:
        """End all connections after what was written is out."""
        for connection in list(self._connections):
            connection.close()


def _check(settings: ServerSettings, loaded: Loaded) -> None:
    if settings.dumps and loaded.entries:
        raise BadSetting(
            "-l",
            f"it fills a new store, but {settings.directory} holds {len(loaded.entries)} entries;"
            " leave it out, and write the file into the running server with `kv dump load`",
        )
    if settings.initial is not MISSING and loaded.entries:
        raise BadSetting(
            "-i",
            f"it makes a new network, but {settings.directory} holds {len(loaded.entries)}"
            " entries; leave it out, or name another directory",
        )


def _base(loaded: Loaded, node: str) -> int:
    """Return what to add to the ticks of a new incarnation, so that shown ticks go on rising."""
    known = [
        loaded.rids.base(loaded.rids.number(rid)) + loaded.seen.last(rid)
        for rid, _ in loaded.seen
        if rid.node == node
    ]
    return max(known) + _BASE_GAP if known else secrets.randbits(_BASE_BITS)


@asynccontextmanager
async def run_server(settings: ServerSettings, *, clock: Clock) -> AsyncIterator[Server]:
    """Run a server while the block runs; clients may connect from its start on.

    Raises:
        StorageError: The directory cannot be used; the class says why.
        BadSetting: It cannot listen where it should, or `initial` or `dumps` are set on old data.
        BadDump: One of the dumps is damaged; nothing was written then.
    """
    started_s = clock.boottime_s()
    with opened_dumps(settings.dumps) as dumps:
        async with _run_checked(settings, dumps, clock, started_s) as server:
            yield server


@asynccontextmanager
async def _run_checked(
    settings: ServerSettings, dumps: Sequence[DumpFile], clock: Clock, started_s: float
) -> AsyncIterator[Server]:
    if settings.directory is None:
        log_: Log = MemoryLog()
        loaded, generation = Loaded(), 1
        log.info("nothing is kept on disk: no directory was given")
    else:
        check_name(settings.directory, settings.node, take=settings.take_name)
        disk = DiskLog(settings.directory, network=settings.network)
        log_, loaded, generation = disk, disk.loaded, disk.generation
    server: Server | None = None
    try:
        _check(settings, loaded)
        count = len(loaded.entries)
        rid = Rid(settings.node, new_incarnation(generation, secrets.randbits(RANDOM_BITS)))
        store = Store(rid, _base(loaded, settings.node), loaded, log_)
        server = Server(store, log_, clock, settings.directory)
        log_.start(server, rid, server.store.base, clock)
        for dump in dumps:
            await load_dump(server, dump)
        if settings.initial is not MISSING:
            await server.write_initial(pack(settings.initial))
        gc.collect()
        gc.freeze()  # what was loaded stays: the collector need not look at it again
        took_s = clock.boottime_s() - started_s
        log.info("node %s has %d entries, read in %.2f s", settings.node, count, took_s)
        listeners: list[aio.Listener] = []
        try:
            for address in settings.listen:
                listeners.append(await aio.listen(address, lambda: Connection(server)))
            server.addresses = [listener.address for listener in listeners]
            log.info("listening on %s", ", ".join(server.addresses))
            async with _among_peers(server, settings, clock, loaded):
                yield server
        finally:
            for listener in listeners:
                listener.close()
            server.close_connections()
    finally:
        await asyncio.to_thread(server.close_log if server else log_.close)
        log.info("stopped")


@asynccontextmanager
async def _among_peers(
    server: Server, settings: ServerSettings, clock: Clock, loaded: Loaded
) -> AsyncIterator[None]:
    """Take part in the network while the block runs, if there is a broker."""
    if settings.mqtt is None:
        upkeep = Upkeep(server.store, None, None, server.is_awaited, clock.boottime_s())
        tidying = asyncio.create_task(_tidy(upkeep, clock))
        try:
            yield
        finally:
            tidying.cancel()
            await asyncio.wait({tidying})
        return
    from kvedge.transport.mqtt import MqttBroadcast  # 8 MB that a board alone does not need

    random = Random(secrets.randbits(64))
    server.network = network = Network(
        server.store,
        server,
        name=settings.network,
        key=settings.key,
        root=settings.root or settings.network,
        clock=clock,
        random=random,
        loaded=loaded,
    )
    broadcast = MqttBroadcast(settings.mqtt, network.participant(), random)
    network.join(broadcast)
    timers = asyncio.create_task(_keep_time(network))
    running = asyncio.create_task(broadcast.run())
    try:
        yield
    finally:
        timers.cancel()
        network.leave()
        broadcast.close()
        await asyncio.wait({timers, running})


async def _tidy(upkeep: Upkeep, clock: Clock) -> None:
    while True:
        await asyncio.sleep(_TIDY_INTERVAL_S)
        upkeep.tick(clock.boottime_s())


def _report_kept(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("what this board had before it joined was not written: %s", task.exception())


async def _keep_time(network: Network) -> None:
    while True:  # noqa: ASYNC110 -- it is time that is waited for
        await asyncio.sleep(network.tick())


async def feed_watchdog(
    server: Server, manager: ServiceManager, *, stuck_after_s: float = _STUCK_AFTER_S
) -> None:
    """Feed the service manager's watchdog while loop and journal move; runs for ever."""
    interval_s = manager.watchdog_interval_s
    if interval_s is None:
        return
    seen, moved_s = -1, 0.0
    loop = asyncio.get_running_loop()
    while True:
        if server.beats != seen:
            seen, moved_s = server.beats, loop.time()
        if loop.time() - moved_s < max(interval_s, stuck_after_s):
            manager.alive()
        else:
            log.error("the journal does not move: the watchdog is not fed")
        await asyncio.sleep(interval_s)
