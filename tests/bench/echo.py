"""The limit that rates are compared with: msgpack maps in, small msgpack maps out."""

from __future__ import annotations

import asyncio
import signal
import sys

import msgpack


class Echo(asyncio.Protocol):
    """Answers each map with its seq and a number."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._unpacker = msgpack.Unpacker(use_list=False)

    def data_received(self, data: bytes) -> None:
        self._unpacker.feed(data)
        for message in self._unpacker:
            answer = {"seq": message["seq"], "value": 1, "tock": 12345678}
            self._transport.write(msgpack.packb(answer))


async def main(path: str) -> None:
    """Serve a Unix socket until SIGTERM."""
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, end.set)
    server = await loop.create_unix_server(Echo, path)
    print("Running.", flush=True)
    await end.wait()
    server.close()


asyncio.run(main(sys.argv[1]))
