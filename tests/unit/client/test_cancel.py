"""What a cancel leaves behind: no wait, no lost item, no half message that others fall over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from anyio import lowlevel

from kvedge.client.client import WINDOW, Client, Stream, open_client
from kvedge.errors import Disconnected
from kvedge.model.path import P
from kvedge.testing.node import server_in_thread

both_loops = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


@pytest.fixture
def address() -> Iterator[str]:
    """The address of a server."""
    with server_in_thread() as address:
        yield address


@both_loops
async def test_cancel_of_the_whole_block_does_not_wait_for_the_end_of_streams(address: str) -> None:
    with anyio.fail_after(5), anyio.CancelScope() as scope:
        async with open_client(address) as client, client.watch(P("a"), fetch=True) as items:
            await anext(items)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught


class SlowClient:
    """Acknowledging is what the first caller is cancelled in."""

    def __init__(self, scope: anyio.CancelScope) -> None:
        self.scope = scope
        self.acked: list[int] = []

    async def acknowledge(self, seq: int, number: int) -> None:
        self.scope.cancel()
        await lowlevel.checkpoint()
        self.acked.append(number)


@both_loops
async def test_cancel_while_items_are_acknowledged_costs_none() -> None:
    scope = anyio.CancelScope()
    client: Any = SlowClient(scope)
    stream = Stream(client)
    for number in range(1, WINDOW + 1):
        stream.take({"wseq": number, "value": number})
    taken: list[int] = []
    with scope:
        async for item in stream:
            taken.append(item.value)
    assert scope.cancelled_caught
    client.scope = anyio.CancelScope()
    with anyio.fail_after(5):
        for _ in range(WINDOW - len(taken)):
            taken.append((await anext(stream)).value)
    assert taken == list(range(1, WINDOW + 1))
    assert client.acked == [WINDOW // 2]
    stream.close()


class HalfLink:
    """Takes half a message and then nothing more, like a socket whose buffer is full."""

    def __init__(self) -> None:
        self.taken = b""
        self.is_full = asyncio.Event()

    async def send(self, data: bytes) -> None:
        self.taken += data[: len(data) // 2]
        self.is_full.set()
        await asyncio.sleep(3600)


async def test_half_a_message_is_the_last_one() -> None:
    link: Any = HalfLink()
    client = Client(link, "here", 1)
    asking = asyncio.create_task(client.set(P("a"), "x" * 100))
    await link.is_full.wait()
    asking.cancel()  # asyncio's own cancel, which no scope holds up
    with pytest.raises(asyncio.CancelledError):
        await asking
    sent = link.taken
    with anyio.fail_after(5), pytest.raises(Disconnected):
        await client.get(P("a"))
    assert link.taken == sent
