"""What a running job may do: the Protocols of its context, and the messages it is sent.

The runner implements these; drivers and installed procedures import nothing else of it.  An
installed procedure (entry point group `kvedge.procedures`) is a function of two arguments, the
context and its data: `async def run(job: JobContext, data: Mapping[str, object]) -> object`.
Stored code sees the same context as `_self` and the messages of `_info`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from logging import Logger
from typing import Any, Protocol

from kvedge.clock import Clock
from kvedge.model.path import Path
from kvedge.model.value import MISSING, Missing


@dataclass(frozen=True, slots=True)
class Message:
    """The base of everything that arrives in a job's queue."""


@dataclass(frozen=True)
class ChangeMsg(Message):
    """An entry that the job watches has changed.

    `value` is MISSING where the entry was deleted.  Subclass it and name the subclass in
    `watch(cls=...)` to tell sources apart.
    """

    path: Path
    value: Any
    msg: Any = None


@dataclass(frozen=True)
class TimerMsg(Message):
    """A timer went off; `msg` is the timer."""

    msg: Any


@dataclass(frozen=True, slots=True)
class ReadyMsg(Message):
    """All watches have sent their first values; `msg` is the number of watches."""

    msg: int


@dataclass(frozen=True, slots=True)
class GroupState(Message):
    """The base of the four states of a group; `reason` says why, in words."""

    reason: str = ""


class CompleteState(GroupState):
    """As many members are seen as the group wants."""


class PartialState(GroupState):
    """Others are seen, but fewer than the group wants."""


class DetachedState(GroupState):
    """Nobody else is seen."""


class BrokenState(GroupState):
    """The node's own server or a configured broker is gone."""


class Handle(Protocol):
    """Something that runs on behalf of the job until it is cancelled."""

    async def cancel(self) -> None:
        """End it; does nothing where it has ended."""
        ...


class Timer(Handle, Protocol):
    """A timer of the job."""

    async def run(self, delay_s: float) -> None:
        """Start it again, from now."""
        ...


class JobContext(Protocol):
    """What a job sees of the system (`_self` in stored code).

    Everything started through it ends with the job.

    Attributes:
        path: The job's own path, without the prefix of the runner.
        node: Name of the node the job runs on.
        group: Name of the runner's group.
        clock: The clock of the node; in tests a virtual one.
        info: The job's messages.  Bounded: a job that does not read gets None and should end.
        log: Where to report; shown by `kv run log`.
    """

    path: Path
    node: str
    group: str
    clock: Clock
    info: AsyncIterator[Message | None]
    log: Logger

    async def get(self, path: Path) -> Any:
        """Return the value at a path, MISSING where there is none."""
        ...

    async def set(self, path: Path, value: Any, *, relaxed: bool = False) -> None:
        """Store a value; `relaxed` for readings, which may be lost for a second."""
        ...

    async def delete(self, path: Path) -> None:
        """Delete the value at a path; does nothing where there is none."""
        ...

    async def tree(self, path: Path) -> dict[Path, Any]:
        """Return all values below a path, by their paths relative to it."""
        ...

    async def watch(
        self,
        path: Path,
        *,
        cls: type[ChangeMsg] = ChangeMsg,
        fetch: bool = True,
        min_depth: int = 0,
        max_depth: int | None = 0,
    ) -> Handle:
        """Send changes at a path (and below, for a larger or no `max_depth`) to `info`."""
        ...

    async def timer(self, delay_s: float, *, cls: type[TimerMsg] = TimerMsg) -> Timer:
        """Send a message to `info` after a delay."""
        ...

    async def spawn(self, function: Callable[..., Awaitable[object]], *args: object) -> Handle:
        """Run an async function beside the job; its error ends the job."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Wait, on the clock of the job."""
        ...

    async def wait(
        self, *words: str, current: bool | None = None, now: float | None = None
    ) -> None:
        """Wait for a time told in words, as "12 hr"; first for a clock that is right."""
        ...

    def time_at(self, *words: str, current: bool | None = None, now: float | None = None) -> float:
        """Return the unix time that words stand for."""
        ...

    async def run_at(
        self,
        *words: str,
        fn: Callable[[], Awaitable[object]],
        current: bool | None = None,
        now: float | None = None,
    ) -> Handle:
        """Call an async function once, at a time told in words."""
        ...

    async def in_thread(self, function: Callable[..., Any], *args: object) -> Any:
        """Run a blocking function in a thread and return its result."""
        ...

    async def setup_done(self) -> None:
        """Say that the job's start is over and it works."""
        ...

    async def set_error(self, name: str, text: str) -> None:
        """Record that something is wrong; the same name twice is one error."""
        ...

    async def clear_error(self, name: str) -> None:
        """Record that it is right again, or never was wrong."""
        ...


class CommandContext(Protocol):
    """What a command of `kv` that a package offers finds in click's `ctx.obj`.

    Attributes:
        json: Whether output is JSON.
    """

    json: bool

    def connect(self) -> Any:
        """Return a connected `kvedge.client.sync.SyncClient`.

        Raises:
            LinkError: No server answers.
            AccessError: It refuses the login.
        """
        ...

    def print(self, value: object) -> None:
        """Print one value, as JSON or YAML."""
        ...


Procedure = Callable[[JobContext, Mapping[str, Any]], Awaitable[object]]

__all__ = [
    "MISSING",
    "BrokenState",
    "ChangeMsg",
    "CommandContext",
    "CompleteState",
    "DetachedState",
    "GroupState",
    "Handle",
    "JobContext",
    "Message",
    "Missing",
    "PartialState",
    "Procedure",
    "ReadyMsg",
    "Timer",
    "TimerMsg",
]
