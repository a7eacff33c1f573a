"""Waiting: for a time of the injected clock, for an event, for a group of tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import anyio

from kvedge.clock import Clock
from kvedge.errors import AgentError

SleepUntil = Callable[[float], Awaitable[None]]
"""Waits until the clock's `boottime_s` is this much."""

_SLICE_MAX_S = 10.0
"""Event loops count CLOCK_MONOTONIC, which stands still in suspend: look at the clock now and
then."""


def sleeper(clock: Clock) -> SleepUntil:
    """Return a function that waits on a real clock."""

    async def sleep_until(until_s: float) -> None:
        while (rest_s := until_s - clock.boottime_s()) > 0:  # noqa: ASYNC110 -- a clock has no event
            await anyio.sleep(min(rest_s, _SLICE_MAX_S))

    return sleep_until


async def wait_for(event: anyio.Event, sleep_until: SleepUntil, until_s: float) -> bool:
    """Wait for an event, but not beyond a time; tell whether it came."""
    async with anyio.create_task_group() as tasks:

        async def give_up() -> None:
            await sleep_until(until_s)
            tasks.cancel_scope.cancel()

        tasks.start_soon(give_up)
        await event.wait()
        tasks.cancel_scope.cancel()
    return event.is_set()


@contextmanager
def one_error() -> Iterator[None]:
    """Raise the one error of a group of errors by itself."""
    try:
        yield
    except BaseExceptionGroup as error:
        first: BaseException = error
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        if error.split(AgentError)[1] is not None:
            raise  # something else is in it, which must not get lost
        raise first from error
