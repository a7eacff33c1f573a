"""A 1-Wire bus behind an owserver, spoken to with pyownet in threads.

Each request has a connection of its own.  A kept one would save 0.1 ms of 0.7, and cost: it goes
stale with every restart of the server, and an owserver does not stop while a client holds one.

pyownet cannot be cancelled.  So a request runs in a thread that is left behind when its time is
over; the caller goes on at once, and the connection is cut, which ends the thread.

owserver 3.2 reports a missing device, a missing attribute and a missing adapter with the same
numbers, 1 and 2.  Which one it was is found out by a search of the bus.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from pyownet import protocol

from kvedge.errors import BadReading, DeviceAbsent, DriverError, PortBusy, PortUnavailable

_T = TypeVar("_T")

DEFAULT_PORT = 4304
"""Registered for owserver."""

DEFAULT_TIMEOUT_S = 10.0
"""A `temperature` that fails takes owserver 4.6 s, its repetitions included."""

DEFAULT_CONVERSION_S = 0.8
"""Twelve bits take 750 ms by the data sheet; the rest is for clones."""

_ADDRESS = re.compile(r"[0-9A-F]{2}\.[0-9A-F]{12}")
_ATTRIBUTE = re.compile(r"\w[\w.]*(/\w[\w.]*)*", re.ASCII)

# seen: wrong CRC or unusable data; attribute that cannot be written.  The device answered, so a
# noisy bus is not burdened with a search as well.
_ANSWERED = (22, 95)
_NOT_FOUND = (1, 2)  # seen: attribute unknown; but also device gone, adapter gone

# pyownet checks what it receives with assertions, and by decoding it as ASCII.
_LINK_FAILED = (protocol.Error, OSError, AssertionError, ValueError)


class PyownetPort:
    """A `kvedge_drivers.ports.OneWirePort`; recovers by itself when the owserver comes back.

    Attributes:
        name: The bus in messages and paths.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        name: str = "onewire:0",
        timeout_s: float = DEFAULT_TIMEOUT_S,
        conversion_s: float = DEFAULT_CONVERSION_S,
    ) -> None:
        """Name the server; nothing is opened yet.

        Args:
            host: Name or address of the owserver.
            port: Its TCP port.
            name: The bus in messages and paths.
            timeout_s: After this time a call ends, with its wait for earlier calls.
            conversion_s: How long `convert_all` waits for the thermometers.
        """
        self.name = name
        self._server = _Server(host, port, name=name, timeout_s=timeout_s)
        self._timeout_s = timeout_s
        self._conversion_s = conversion_s
        self._limiter = anyio.CapacityLimiter(1)

    async def devices(self) -> list[str]:
        """Search the bus and return the addresses of all that answer."""
        return await self._ask(_Request.search)

    async def read(self, address: str, attribute: str) -> bytes:
        """Read an attribute, past owserver's cache."""
        return await self._ask(partial(_Request.read, address=address, attribute=attribute))

    async def write(self, address: str, attribute: str, data: bytes) -> None:
        """Write an attribute.  After a PortUnavailable it may have happened."""
        await self._ask(partial(_Request.write, address=address, attribute=attribute, data=data))

    async def convert_all(self) -> None:
        """Make all thermometers measure together and wait for them."""
        await self._ask(_Request.convert_all)
        await anyio.sleep(self._conversion_s)

    async def close(self) -> None:
        """Do nothing: between calls nothing is held."""

    async def _ask(self, question: Callable[[_Request], _T]) -> _T:
        """Run a request in a thread, one at a time, and leave it behind after the time-out."""
        request = _Request(self._server)
        try:
            with anyio.fail_after(self._timeout_s):
                return await anyio.to_thread.run_sync(
                    request.run, question, abandon_on_cancel=True, limiter=self._limiter
                )
        except TimeoutError as error:
            why = f"no answer after {self._timeout_s:g} s"
            if not request.has_started:
                raise PortBusy(self.name, f"{why} for earlier calls") from error
            raise PortUnavailable(self.name, why) from error
        finally:
            request.cut()


class _Server:
    """Where the owserver is; the name is looked up with the first request that gets through."""

    def __init__(self, host: str, port: int, *, name: str, timeout_s: float) -> None:
        self.name = name
        self.timeout_s = timeout_s
        self._host = host
        self._port = port
        self._proxy: Any = None

    def connect(self) -> Any:
        """Return a new connection, as a proxy of pyownet."""
        proxy = self._proxy or protocol.proxy(self._host, self._port)
        self._proxy = proxy  # a thread left behind may set it to None at any time
        return protocol.clone(proxy, persistent=True)

    def failed(self, error: Exception) -> PortUnavailable:
        """Return what to raise when the connection does not work; look the name up again."""
        self._proxy = None
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return PortUnavailable(self.name, f"owserver at {self._host}:{self._port}: {why}")


class _Request:
    """One call in its thread.  `cut` alone is called by another."""

    def __init__(self, server: _Server) -> None:
        self.has_started = False
        self._server = server
        self._connection: Any = None
        self._is_cut = False

    def run(self, question: Callable[[_Request], _T]) -> _T:
        self.has_started = True
        try:
            return question(self)
        except _LINK_FAILED as error:
            raise self._server.failed(error) from error

    def cut(self) -> None:
        """End the connection, so that a thread that waits for an answer ends as well."""
        self._is_cut = True
        if connection := self._connection:
            connection.shutdown()

    def search(self) -> list[str]:
        try:
            with self._link() as link:
                paths = link.dir("/uncached/", slash=False, timeout=self._server.timeout_s)
        except protocol.OwnetError as error:
            raise self._server.failed(error) from error
        names = [path.rpartition("/")[2] for path in paths]
        return [name for name in names if _ADDRESS.fullmatch(name)]

    def read(self, address: str, attribute: str) -> bytes:
        path = _path(address, attribute)
        try:
            with self._link() as link:
                data: bytes = link.read(path, timeout=self._server.timeout_s)
        except protocol.OwnetError as error:
            raise self._refused(error, address, attribute) from error
        return data

    def write(self, address: str, attribute: str, data: bytes) -> None:
        path = _path(address, attribute)
        try:
            with self._link() as link:
                link.write(path, data, timeout=self._server.timeout_s)
        except protocol.OwnetError as error:
            raise self._refused(error, address, attribute) from error

    def convert_all(self) -> None:
        with self._link() as link:
            link.write("/simultaneous/temperature", b"1", timeout=self._server.timeout_s)

    @contextmanager
    def _link(self) -> Iterator[Any]:
        with self._server.connect() as link:
            self._connection = link.conn
            if self._is_cut:
                raise protocol.ConnError("nobody waits for the answer any more")
            yield link

    def _refused(self, error: Any, address: str, attribute: str) -> DriverError:
        """Return what an error number of owserver means."""
        if error.errno not in _ANSWERED and address not in self.search():
            return DeviceAbsent(address)
        why = f"owserver reports {error.errno}, {error.strerror}"
        if error.errno in _NOT_FOUND:
            why = "there is no such attribute"
        return BadReading(f"{address}/{attribute}", why)


def _path(address: str, attribute: str) -> str:
    """Return the path of an attribute, and nothing but an attribute."""
    if not _ADDRESS.fullmatch(address):
        raise DeviceAbsent(address)
    if not _ATTRIBUTE.fullmatch(attribute):
        raise BadReading(f"{address}/{attribute}", "there is no such attribute")
    return f"/uncached/{address}/{attribute}"
