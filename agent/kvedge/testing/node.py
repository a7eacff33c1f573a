"""A server in a thread of this process, for tests that need a real one at once."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kvedge.clock import Clock, SystemClock
from kvedge.model.value import MISSING
from kvedge.server.server import run_server
from kvedge.server.settings import ServerSettings


class UnsetClock(SystemClock):
    """A clock that nobody has set, so that tocks count from 1."""

    def wall_is_synchronised(self) -> bool:
        """Say no."""
        return False


@contextmanager
def server_in_thread(
    node: str = "test", *, initial: object = MISSING, clock: Clock | None = None
) -> Iterator[str]:
    """Run a server that keeps nothing on disk; yield its address.

    Args:
        node: The name of its node.
        initial: The root's first value; MISSING for none.
        clock: Another clock than one that nobody has set.
    """
    with tempfile.TemporaryDirectory(prefix="kv") as directory:  # short enough for a socket
        address = f"unix:{directory}/kv.sock"
        settings = ServerSettings(node, listen=(address,), initial=initial)
        end: list[Callable[[], object]] = []
        ready = threading.Event()

        async def serve() -> None:
            ended = asyncio.Event()
            loop = asyncio.get_running_loop()
            async with run_server(settings, clock=clock or UnsetClock()):
                end.append(lambda: loop.call_soon_threadsafe(ended.set))
                ready.set()
                await ended.wait()

        thread = threading.Thread(target=asyncio.run, args=[serve()])
        thread.start()
        try:
            assert ready.wait(5), "the server did not start"
            yield address
        finally:
            if end:
                end[0]()
            thread.join()
