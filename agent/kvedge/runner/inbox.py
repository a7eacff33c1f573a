"""The messages that wait for a job (`_info`)."""

from __future__ import annotations

from collections import deque

import anyio

from kvedge.clock import Clock
from kvedge.job import Message
from kvedge.limits import JOB_QUEUE_MAX
from kvedge.runner.waiting import SleepUntil, wait_for

STALLED_AFTER_S = 5.0
"""A job that has a full queue and took nothing for so long does not read it."""


class Inbox:
    """A bounded queue with one reader, the job.

    Who sends waits while it is full.  A watch is then held back as far as the server, which spares
    it intermediate values; so a burst of changes costs a busy job nothing but time.  A job that
    takes nothing for `STALLED_AFTER_S` gets one None after what is waiting, and then the end:
    messages after that would find gaps before them.
    """

    def __init__(
        self, clock: Clock, sleep_until: SleepUntil, *, size_max: int = JOB_QUEUE_MAX
    ) -> None:
        self._clock = clock
        self._sleep_until = sleep_until
        self._size_max = size_max
        self._waiting: deque[Message | None] = deque()
        self._arrived = anyio.Event()
        self._taken = anyio.Event()
        self._is_stalled = False

    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> Message | None:
        while not self._waiting:
            if self._is_stalled:
                raise StopAsyncIteration
            self._arrived = anyio.Event()
            await self._arrived.wait()
        self._taken.set()
        return self._waiting.popleft()

    async def send(self, message: Message) -> None:
        """Queue a message when there is room; drop it once the queue is stalled."""
        while not self._is_stalled and len(self._waiting) >= self._size_max:
            if self._taken.is_set():
                self._taken = anyio.Event()
            until_s = self._clock.boottime_s() + STALLED_AFTER_S
            if not await wait_for(self._taken, self._sleep_until, until_s):
                self._stall()
        if not self._is_stalled:
            self._put(message)

    def _stall(self) -> None:
        if not self._is_stalled:
            self._is_stalled = True
            self._put(None)

    def _put(self, message: Message | None) -> None:
        self._waiting.append(message)
        self._arrived.set()
