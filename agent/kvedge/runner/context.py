"""What a running job sees of the system: `_self`, and for code in threads its blocking twin.

Whatever a job starts through its context runs in the task group of that run and ends with it.
`ReadyMsg` comes when the last watch that was asked for has sent what is there; a watch that is
added later leads to another one, with a higher count.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import tzinfo
from logging import Logger
from typing import Any, Protocol

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.abc import TaskGroup, TaskStatus

from kvedge.client.client import Client
from kvedge.client.result import Result
from kvedge.clock import Clock
from kvedge.errors import JobFailed
from kvedge.job import ChangeMsg, Message, ReadyMsg, TimerMsg
from kvedge.model.path import P, Path
from kvedge.model.value import MISSING
from kvedge.runner.inbox import Inbox
from kvedge.runner.waiting import SleepUntil
from kvedge.runner.wall import WallTime

THREADS_MAX = 4
"""Blocking calls of one job at a time: one that hangs must not use up those of others."""


class Owner(Protocol):
    """What a context needs of the supervisor."""

    async def works(self) -> None:
        """Note that the job works."""
        ...

    async def set_error(self, name: str, text: str) -> None:
        """Record a fault of the job."""
        ...

    async def clear_error(self, name: str) -> None:
        """Resolve it."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job runs.

    Attributes:
        path: The job's own path, without the prefix of the runner.
        node: Name of the node.
        group: Name of the runner's group.
        clock: The clock of the node.
        sleep_until: Waits on that clock.
        zone: The time zone of words for times.
        clock_is_right: Tells whether the wall clock can be trusted.
    """

    path: Path
    node: str
    group: str
    clock: Clock
    sleep_until: SleepUntil
    zone: tzinfo
    clock_is_right: Callable[[], bool]


async def without_exit(
    path: Path, function: Callable[..., Awaitable[object]], *args: object
) -> object:
    """Call user code; `sys.exit()` in it is an error of the job, not the end of the runner."""
    try:
        return await function(*args)
    except (SystemExit, KeyboardInterrupt) as error:
        raise tried_to_end(path, error) from error


def tried_to_end(path: Path, error: BaseException) -> JobFailed:
    """Return the failure of a job that raised what would end the whole process."""
    if isinstance(error, SystemExit):
        return JobFailed(str(path), f"it called exit with {error.code!r}")
    return JobFailed(str(path), f"it raised {type(error).__name__}")


class _Task:
    """A task of the job, as the job holds it."""

    def __init__(self) -> None:
        self._scope = anyio.CancelScope()

    async def cancel(self) -> None:
        """End it; does nothing where it has ended."""
        self._scope.cancel()

    async def run_in(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        with self._scope:
            await function(*args)


class JobTimer:
    """A timer; its message's `msg` is this object."""

    def __init__(self, context: Context, cls: type[TimerMsg]) -> None:
        self._context = context
        self._cls = cls
        self._task: _Task | None = None

    async def cancel(self) -> None:
        """Stop it; does nothing where it is over."""
        if self._task is not None:
            await self._task.cancel()

    async def run(self, delay_s: float) -> None:
        """Start it again, from now."""
        await self.cancel()
        self._task = self._context.start(self._ring, delay_s)

    async def _ring(self, delay_s: float) -> None:
        await self._context.sleep(delay_s)
        await self._context.inbox.send(self._cls(msg=self))


class _Watch(_Task):
    """One watch of a job."""

    is_ready = False


class Context:
    """See `kvedge.job.JobContext`, which this implements."""

    def __init__(
        self, client: Client, place: Place, log: Logger, owner: Owner, tasks: TaskGroup
    ) -> None:
        self.path = place.path
        self.node = place.node
        self.group = place.group
        self.clock = place.clock
        self.log = log
        self.inbox = Inbox(place.clock, place.sleep_until)
        self.info: AsyncIterator[Message | None] = self.inbox
        self._client = client
        self._owner = owner
        self._tasks = tasks
        self._sleep_until = place.sleep_until
        self._wall = WallTime(place.clock, place.sleep_until, place.zone, place.clock_is_right)
        self._watches: list[_Watch] = []
        self._threads = anyio.CapacityLimiter(THREADS_MAX)

    # --- the tree -------------------------------------------------------------------------------

    async def get(self, path: Path | str) -> Any:
        """Return the value at a path, MISSING where there is none."""
        return (await self._client.get(path)).get("value", MISSING)

    async def set(self, path: Path | str, value: Any, *, relaxed: bool = False) -> None:
        """Store a value; `relaxed` for readings, which may be lost for a second."""
        await self._client.set(path, value, relaxed=relaxed)

    async def delete(self, path: Path | str) -> None:
        """Delete the value at a path; does nothing where there is none."""
        await self._client.delete(path)

    async def tree(self, path: Path | str) -> dict[Path, Any]:
        """Return all values at and below a path, by their paths relative to it."""
        return {item.path: item.value async for item in self._client.get_tree(path)}

    async def watch(
        self,
        path: Path | str,
        *,
        cls: type[ChangeMsg] = ChangeMsg,
        fetch: bool = True,
        min_depth: int = 0,
        max_depth: int | None = 0,
    ) -> _Watch:
        """Send changes at a path (and below, for a larger or no `max_depth`) to `info`.

        Returns when the watch is in place: what is set from now on is told.  A `max_depth` of -1
        means no limit, too.  The message's `path` is the whole path; in `msg` it is relative.
        """
        base = P(path) if isinstance(path, str) else path
        depth = None if max_depth is None or max_depth < 0 else max_depth
        watch = _Watch()
        self._watches.append(watch)
        follow = functools.partial(
            self._follow, watch, base, cls, fetch=fetch, min_depth=min_depth, max_depth=depth
        )
        await self._tasks.start(follow)
        return watch

    async def _follow(
        self,
        watch: _Watch,
        base: Path,
        cls: type[ChangeMsg],
        *,
        fetch: bool,
        min_depth: int,
        max_depth: int | None,
        task_status: TaskStatus[None],
    ) -> None:
        async def send() -> None:
            async with self._client.watch(
                base, fetch=fetch, min_depth=min_depth, max_depth=max_depth
            ) as items:
                task_status.started()
                if not fetch:
                    await self._ready(watch)
                async for item in items:
                    await self._changed(watch, base, cls, item)

        try:
            await watch.run_in(send)
        finally:
            self._watches.remove(watch)

    async def _changed(self, watch: _Watch, base: Path, cls: type[ChangeMsg], item: Result) -> None:
        if "path" in item:
            path = base + item.path
            await self.inbox.send(cls(path=path, value=item.get("value", MISSING), msg=item))
        elif item.get("state") == "uptodate":
            await self._ready(watch)

    async def _ready(self, watch: _Watch) -> None:
        watch.is_ready = True
        if all(other.is_ready for other in self._watches):
            await self.inbox.send(ReadyMsg(len(self._watches)))

    # --- time and tasks -------------------------------------------------------------------------

    def start(self, function: Callable[..., Awaitable[object]], *args: object) -> _Task:
        """Run an async function beside the job."""
        task = _Task()
        self._tasks.start_soon(task.run_in, function, *args)
        return task

    async def timer(self, delay_s: float, *, cls: type[TimerMsg] = TimerMsg) -> JobTimer:
        """Send a message to `info` after a delay."""
        timer = JobTimer(self, cls)
        await timer.run(delay_s)
        return timer

    async def spawn(self, function: Callable[..., Awaitable[object]], *args: object) -> _Task:
        """Run an async function beside the job; its error ends the job."""
        return self.start(without_exit, self.path, function, *args)

    async def sleep(self, delay_s: float) -> None:
        """Wait, on the clock of the job."""
        await self._sleep_until(self.clock.boottime_s() + delay_s)

    async def wait(
        self, *words: str, current: bool | None = None, now: float | None = None
    ) -> None:
        """Wait for a time told in words, as "12 hr"; see `time_at`.

        While nothing has set the clock, it waits for that first.
        """
        await self._wall.wait(*words, current=current, now=now)

    def time_at(self, *words: str, current: bool | None = None, now: float | None = None) -> float:
        """Return the unix time that words stand for.

        Args:
            words: As "12 hr", or the same in parts; none: `now` itself is meant.
            current: None: when they begin to match; True: the same, but now where they match
                now; False: when they do not match.
            now: Unix seconds from which to look; None: the present.

        Raises:
            BadSetting: They are no words for a time, or it does not come.
            JobFailed: The clock is not right, and no `now` is given.
        """
        return self._wall.time_at(*words, current=current, now=now)

    async def run_at(
        self,
        *words: str,
        fn: Callable[[], Awaitable[object]],
        current: bool | None = None,
        now: float | None = None,
    ) -> _Task:
        """Call an async function once, at a time told in words; its error ends the job."""

        async def wait_and_call() -> None:
            await self.wait(*words, current=current, now=now)
            await fn()

        return await self.spawn(wait_and_call)

    async def in_thread(self, function: Callable[..., Any], *args: object) -> Any:
        """Run a blocking function in a thread and return its result.

        When the job is cancelled the function goes on, with nobody waiting for it.
        """
        return await anyio.to_thread.run_sync(
            function, *args, abandon_on_cancel=True, limiter=self._threads
        )

    # --- how it goes ----------------------------------------------------------------------------

    async def setup_done(self) -> None:
        """Say that the job's start is over and it works."""
        await self._owner.works()

    async def set_error(self, name: str, text: str) -> None:
        """Record that something is wrong; the same name twice is one error."""
        await self._owner.set_error(name, text)

    async def clear_error(self, name: str) -> None:
        """Record that it is right again, or never was wrong."""
        await self._owner.clear_error(name)


class _FromThread:
    """Calls into the event loop from the thread of a job, until the job is told to end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._scopes: set[anyio.CancelScope] = set()
        self._is_over = False

    def __call__(self, function: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        return anyio.from_thread.run(
            self._until_over, functools.partial(function, *args, **options)
        )

    async def _until_over(self, function: Callable[[], Awaitable[Any]]) -> Any:
        if not self._is_over:
            with anyio.CancelScope() as scope:
                self._scopes.add(scope)
                try:
                    return await function()
                finally:
                    self._scopes.discard(scope)
        raise JobFailed(str(self._path), "it was told to stop")

    def end(self) -> None:
        """Break off the calls under way and let no further one through."""
        self._is_over = True
        for scope in list(self._scopes):
            scope.cancel()


class BlockingClient:
    """The client as code in a thread sees it: `_client`."""

    def __init__(self, client: Client, call: _FromThread) -> None:
        self._client = client
        self._call = call

    def get(self, path: Path | str, *, nchain: int = 0) -> Result:
        """Return the entry at a path."""
        found: Result = self._call(self._client.get, path, nchain=nchain)
        return found

    def set(self, path: Path | str, value: Any, **options: Any) -> Result:
        """Store a value; the options are those of `Client.set`."""
        answer: Result = self._call(self._client.set, path, value, **options)
        return answer

    def delete(self, path: Path | str, **options: Any) -> Result:
        """Delete the value at a path; the options are those of `Client.delete`."""
        answer: Result = self._call(self._client.delete, path, **options)
        return answer

    def get_tree(self, path: Path | str, **options: Any) -> list[Result]:
        """Return the entries at and below a path; the options are those of `Client.get_tree`."""

        async def read() -> list[Result]:
            return [item async for item in self._client.get_tree(path, **options)]

        found: list[Result] = self._call(read)
        return found


class BlockingContext:
    """The context as code in a thread sees it: without messages, and each call blocks.

    After the job was told to end every call raises JobFailed: a thread cannot be stopped from
    outside, but it is stopped from doing more harm.
    """

    def __init__(self, context: Context, client: Client) -> None:
        self.path = context.path
        self.node = context.node
        self.group = context.group
        self.clock = context.clock
        self.log = context.log
        self._context = context
        self._call = _FromThread(context.path)
        self.client = BlockingClient(client, self._call)

    def end(self) -> None:
        """Break off the calls under way and let no further one through."""
        self._call.end()

    def get(self, path: Path | str) -> Any:
        """Return the value at a path, MISSING where there is none."""
        return self._call(self._context.get, path)

    def set(self, path: Path | str, value: Any, *, relaxed: bool = False) -> None:
        """Store a value."""
        self._call(self._context.set, path, value, relaxed=relaxed)

    def delete(self, path: Path | str) -> None:
        """Delete the value at a path."""
        self._call(self._context.delete, path)

    def tree(self, path: Path | str) -> dict[Path, Any]:
        """Return all values at and below a path, by their paths relative to it."""
        values: dict[Path, Any] = self._call(self._context.tree, path)
        return values

    def sleep(self, delay_s: float) -> None:
        """Wait, on the clock of the job."""
        self._call(self._context.sleep, delay_s)

    def wait(self, *words: str, current: bool | None = None, now: float | None = None) -> None:
        """Wait for a time told in words."""
        self._call(self._context.wait, *words, current=current, now=now)

    def time_at(self, *words: str, current: bool | None = None, now: float | None = None) -> float:
        """Return the unix time that words stand for."""
        return self._context.time_at(*words, current=current, now=now)

    def setup_done(self) -> None:
        """Say that the job's start is over and it works."""
        self._call(self._context.setup_done)

    def set_error(self, name: str, text: str) -> None:
        """Record that something is wrong."""
        self._call(self._context.set_error, name, text)

    def clear_error(self, name: str) -> None:
        """Record that it is right again."""
        self._call(self._context.clear_error, name)
