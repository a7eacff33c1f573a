"""Durable sets beside Redis (fsync always) and etcd, where Debian's packages of them are installed.

`apt-get install redis-server etcd-server` and `pip install grpcio` bring both; what is missing is
left out with a word.  Redis is spoken to by the same bare client as the server; etcd, which speaks
gRPC only, by grpcio without generated code.
"""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import measure
from measure import RawClient, ratio, row

Measure = Callable[[int, int], float]
"""(clients, requests) to requests per second."""


class RedisClient(asyncio.Protocol):
    """Sends one command, waits for its one-line answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert data == b"+OK\r\n", data
        self._answer.set_result(None)

    async def set(self, key: str, value: str) -> None:
        """Store a value."""
        self._answer = asyncio.get_running_loop().create_future()
        words = ["SET", key, value]
        lines = [f"*{len(words)}", *(part for word in words for part in (f"${len(word)}", word))]
        self._transport.write(("\r\n".join(lines) + "\r\n").encode())
        await self._answer


async def _timed(work: list[Awaitable[None]], requests: int) -> float:
    start = time.perf_counter()
    await asyncio.gather(*work)
    return requests / (time.perf_counter() - start)


@contextmanager
def redis(here: Path) -> Iterator[Measure]:
    """Run Redis with an fsync before each answer."""
    socket = here / "redis.sock"
    words = [
        "redis-server", "--port", "0", "--unixsocket", str(socket), "--dir", str(here),
        "--appendonly", "yes", "--appendfsync", "always", "--save", "",
    ]  # fmt: skip

    async def run(clients: int, requests: int) -> float:
        loop = asyncio.get_running_loop()

        async def one() -> None:
            _, client = await loop.create_unix_connection(RedisClient, str(socket))
            for number in range(requests // clients):
                await client.set("sensor.box.attic.temperature", str(number))

        return await _timed([one() for _ in range(clients)], requests)

    with measure.process(*words, says=""):
        _wait_for(socket)
        yield lambda clients, requests: asyncio.run(run(clients, requests))


@contextmanager
def etcd(here: Path) -> Iterator[Measure]:
    """Run etcd, which syncs before each answer."""
    from grpc import aio

    port, peer = 42379, 42380
    words = [
        "etcd", "--data-dir", str(here / "etcd"), "--log-level", "error",
        "--listen-client-urls", f"http://127.0.0.1:{port}",
        "--advertise-client-urls", f"http://127.0.0.1:{port}",
        "--listen-peer-urls", f"http://127.0.0.1:{peer}",
    ]  # fmt: skip
    key, value = b"sensor.box.attic.temperature", b'{"value": 21.5}'
    put = bytes((0x0A, len(key))) + key + bytes((0x12, len(value))) + value  # PutRequest

    async def run(clients: int, requests: int) -> float:
        async def one() -> None:
            async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                call = channel.unary_unary("/etcdserverpb.KV/Put")
                await call(put, wait_for_ready=True)
                for _ in range(requests // clients):
                    await call(put)

        return await _timed([one() for _ in range(clients)], requests)

    with measure.process(*words, says=""):
        yield lambda clients, requests: asyncio.run(run(clients, requests))


@contextmanager
def ours(here: Path) -> Iterator[Measure]:
    """Run our server."""

    async def set_durable(client: RawClient, number: int) -> object:
        path = ("sensor", "box", "attic", id(client))
        return await client.ask("set_value", path=path, value=number, nchain=0)

    with measure.kv_server(here / "data", here / "kv.sock"):
        yield lambda clients, requests: measure.rate(
            here / "kv.sock", set_durable, clients=clients, requests=requests
        )


def _wait_for(socket: Path) -> None:
    until = time.monotonic() + 10
    while not socket.exists() and time.monotonic() < until:
        time.sleep(0.02)


def main() -> None:
    """Measure and print."""
    measure.heading("Durable sets beside others")
    peers = {"etcd": etcd, "redis-server": redis}
    if importlib.util.find_spec("grpc") is None:
        peers.pop("etcd")
        print("etcd is left out: grpcio is not installed")
    with measure.scratch() as here, ours(here) as kvedge:
        for name, peer in peers.items():
            if shutil.which(name) is None:
                print(f"{name} is left out: it is not installed")
                continue
            with peer(here) as other:
                other(1, 10)
                for clients, requests in ((1, 500), (64, 6400)):
                    rounds = [
                        (kvedge(clients, requests), other(clients, requests)) for _ in "12345"
                    ]
                    mine, theirs = (statistics.median(c) for c in zip(*rounds, strict=True))
                    row(f"{name}, {clients} clients", theirs, "/s")
                    row(f"kvedge, {clients} clients", mine, "/s", ratio=ratio(mine, theirs, name))


if __name__ == "__main__":
    main()
