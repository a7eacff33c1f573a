"""The async client: requests and streams over one connection, under asyncio and trio.

    async with open_client() as client:
        await client.set(P("one.two"), 12)
        async with client.watch(P("one")) as changes:
            async for res in changes:
                ...

A reader task hands each message to whoever waits for its seq.  Streams are held to a window: the
server sends no more than `WINDOW` items that were not taken, so that a stream nobody reads costs
a bounded amount of memory and never holds up another request.  When the connection ends, all
that is under way fails with `Disconnected`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from anyio.abc import ByteStream

from kvedge import limits
from kvedge.client.endpoints import default_endpoints, first_told
from kvedge.client.mirror import Mirror
from kvedge.client.requests import as_path, is_end, pairs, tree_fields, write_fields
from kvedge.client.result import Result
from kvedge.client.sync import check_login
from kvedge.errors import AgentError, Disconnected, LinkError, NotConnected, TimedOut, from_wire
from kvedge.model.path import Path
from kvedge.model.value import MISSING
from kvedge.protocol.client_session import ClientSession
from kvedge.protocol.codec import PathLengthener
from kvedge.transport import stream

WINDOW = 256
"""Items of a stream that may wait for their reader."""


class _Waiting:
    """A request whose answer has not come."""

    def __init__(self) -> None:
        self.seq = 0
        self.event = anyio.Event()
        self.answer: Mapping[str, Any] | AgentError | None = None

    def take(self, answer: Mapping[str, Any] | AgentError) -> None:
        self.answer = answer
        self.event.set()


class Stream:
    """The items of one stream, in order.  Ends when the server ends it; raises where it fails."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.seq = 0
        self._paths = PathLengthener()
        # The window bounds this; start, mark and end come on top, and must never find it full.
        self._send, self._receive = anyio.create_memory_object_stream[
            Mapping[str, Any] | AgentError
        ](WINDOW + 16)
        self._taken = 0
        self._acked = 0
        self.is_over = False

    def take(self, message: Mapping[str, Any] | AgentError) -> None:
        """Queue a message; called by the client's reader."""
        if isinstance(message, AgentError) or "error" in message or is_end(message):
            self.is_over = True
        self._send.send_nowait(message)
        if self.is_over:
            self._send.close()

    def close(self) -> None:
        """Drop what has not been read."""
        self._send.close()
        self._receive.close()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Result:  # a generator that is left half-way would be a nuisance
        await self._make_room()
        async for message in self._receive:
            if isinstance(message, AgentError):
                raise message
            if "error" in message:
                raise from_wire(message)
            if is_end(message):
                break
            if message.get("state") != "start":
                return self._item(message)
        raise StopAsyncIteration

    async def _make_room(self) -> None:
        """Let the server send more; before an item is taken, so that a cancel costs none."""
        if self._taken >= self._acked + WINDOW // 2 and not self.is_over:
            await self._client.acknowledge(self.seq, self._taken)
            self._acked = self._taken

    def _item(self, message: Mapping[str, Any]) -> Result:
        fields = dict(message)
        if "path" in fields:
            fields["path"] = self._paths.lengthen(fields["depth"], fields["path"])
        self._taken = fields.pop("wseq", self._taken)
        return Result(fields)


class Client:
    """A connection to a server.  Made by `open_client`; may be used by several tasks at once."""

    def __init__(self, link: ByteStream, endpoint: str, timeout_s: float) -> None:
        self.link = link
        self._timeout_s = timeout_s
        self._session = ClientSession()
        self._waiting: dict[int, _Waiting | Stream] = {}
        self._sending = anyio.Lock()
        self._lost: AgentError | None = None
        self.endpoint = endpoint

    @property
    def greeting(self) -> Mapping[str, Any]:
        """What the server said first: node, version, tick, tock."""
        assert self._session.greeting is not None
        return self._session.greeting

    # --- verbs ------------------------------------------------------------------------------

    async def get(self, path: Path | str, *, nchain: int = 0) -> Result:
        """Return the entry at a path; without `value` in it where there is none."""
        return await self.request("get_value", {"path": as_path(path).elements, "nchain": nchain})

    async def set(
        self,
        path: Path | str,
        value: Any,
        *,
        chain: Any = MISSING,
        prev: Any = MISSING,
        nchain: int = 1,
        idem: bool = False,
        relaxed: bool = False,
        fence: tuple[str, int] | None = None,
    ) -> Result:
        """Store a value.

        A cancel or time-out leaves open whether it happened.

        Args:
            path: Where.
            value: What.
            chain: Only if the entry still has this chain; None: only if there is none.
            prev: Only if the entry still has this value.
            nchain: How many links of the new chain to return.
            idem: Do nothing where the value is there already.
            relaxed: Answer before the record is safe on disk.
            fence: The right of a job, as (job, number); refused where a higher one is known.

        Raises:
            ChainMismatch: The entry has changed.
            BadValue, LimitExceeded: The value cannot be stored.
            StorageError: The server's disk refuses.
        """
        fields = write_fields(
            path,
            value=value,
            chain=chain,
            prev=prev,
            nchain=nchain,
            idem=idem,
            relaxed=relaxed,
            fence=fence,
        )
        return await self.request("set_value", fields)

    async def delete(
        self,
        path: Path | str,
        *,
        chain: Any = MISSING,
        prev: Any = MISSING,
        nchain: int = 0,
        fence: tuple[str, int] | None = None,
    ) -> Result:
        """Delete the value at a path, under the same conditions as `set`."""
        fields = write_fields(path, chain=chain, prev=prev, nchain=nchain, fence=fence)
        return await self.request("delete_value", fields)

    async def delete_tree(self, path: Path | str) -> Result:
        """Delete all values at and below a path; `changed` tells how many."""
        return await self.request("delete_tree", {"path": as_path(path).elements})

    async def list(
        self, path: Path | str, *, with_data: bool = False, empty: bool = False
    ) -> list[Any]:
        """Return the names of the children of a path, or (name, value) of each.

        Args:
            path: The parent.
            with_data: Return pairs, with None as the value of a child that has none.
            empty: Include children that have no value but lead to some.
        """
        fields = {"path": as_path(path).elements, "with_data": with_data, "empty": empty}
        listed = (await self.request("enum", fields))["result"]
        return pairs(listed) if with_data else [*listed]

    async def get_tree(
        self,
        path: Path | str,
        *,
        min_depth: int = 0,
        max_depth: int | None = None,
        nchain: int = 0,
    ) -> AsyncGenerator[Result, None]:
        """Yield the entries at and below a path, in order, their paths relative to it.

        Whoever may leave the loop early does so inside of `contextlib.aclosing`.
        """
        fields = tree_fields(path, min_depth=min_depth, max_depth=max_depth, nchain=nchain)
        async with self._stream("get_tree", fields) as items:
            async for item in items:
                yield item

    @asynccontextmanager
    async def watch(
        self,
        path: Path | str,
        *,
        fetch: bool = False,
        min_depth: int = 0,
        max_depth: int | None = None,
        nchain: int = 0,
    ) -> AsyncIterator[AsyncIterator[Result]]:
        """Watch a subtree while the block runs.

        The items have `path` and, unless it is a deletion, `value`; with `fetch` what is there
        comes first, then one with `state` "uptodate" and no path.  Per path they are in order.
        A slow reader is spared intermediate values: what it gets then has `conflated`.
        """
        fields = tree_fields(
            path, min_depth=min_depth, max_depth=max_depth, nchain=nchain, fetch=fetch
        )
        async with self._stream("watch", fields) as items:
            yield items

    @asynccontextmanager
    async def mirror(
        self, path: Path | str, *, max_depth: int | None = None
    ) -> AsyncIterator[Mirror]:
        """Keep a live local copy of a subtree while the block runs; it is complete at once.

        After the block the copy is still there but is not updated.
        """
        mirror = Mirror()
        async with self.watch(path, fetch=True, max_depth=max_depth) as items:
            await mirror.fill(items)
            async with _beside(mirror.follow, items):
                yield mirror

    async def net_status(self) -> Result:
        """Return how the server stands in its network; `name` is None where it works alone."""
        return await self.request("net_status", {})

    @asynccontextmanager
    async def traffic(self) -> AsyncIterator[AsyncIterator[Result]]:
        """Read the messages between servers as they pass this one, while the block runs.

        A reader that is too slow gets an item with `dropped`, a number, for those it missed.

        Raises:
            BadRequest: The server works alone; raised where the first item is read.
        """
        async with self._stream("traffic", {}) as items:
            yield items

    # --- below the verbs ----------------------------------------------------------------------

    async def request(self, action: str, fields: Mapping[str, Any]) -> Result:
        """Send a request and return its answer.

        Raises:
            AgentError: The server refused; the class says why.
            LinkError: The connection broke or the answer did not come.
        """
        waiting = _Waiting()
        with anyio.move_on_after(self._timeout_s):
            await self._send(action, fields, waiting)
            try:
                await waiting.event.wait()
            finally:
                self._waiting.pop(waiting.seq, None)
        if waiting.answer is None:
            raise TimedOut(f"{action} at {self.endpoint}", self._timeout_s)
        if isinstance(waiting.answer, AgentError):
            raise waiting.answer
        if "error" in waiting.answer:
            raise from_wire(waiting.answer)
        return Result(waiting.answer)

    async def acknowledge(self, seq: int, number: int) -> None:
        """Say that the items of a stream up to a number were taken."""
        async with self._sending:
            await self._write(self._session.ack(seq, number))

    @asynccontextmanager
    async def _stream(self, action: str, fields: Mapping[str, Any]) -> AsyncIterator[Stream]:
        items = Stream(self)
        await self._send(action, fields, items)
        try:
            yield items
        finally:
            self._waiting.pop(items.seq, None)
            items.close()
            if not items.is_over and self._lost is None:
                # A server that is gone has stopped it as well.
                with suppress(LinkError), anyio.move_on_after(self._timeout_s, shield=True):
                    await self.request("stop", {"task": items.seq})

    async def _send(
        self, action: str, fields: Mapping[str, Any], waiting: _Waiting | Stream
    ) -> None:
        async with self._sending:  # seq must rise in the order of sending
            if self._lost is not None:
                raise self._lost
            waiting.seq, data = self._session.request(action, fields)
            self._waiting[waiting.seq] = waiting
            await self._write(data)

    async def _write(self, data: bytes) -> None:
        # Shielded: behind half a message nothing could follow, and whoever gives up one request
        # wants to go on with the next.
        is_whole = False
        try:
            with anyio.fail_after(self._timeout_s, shield=True):
                await self.link.send(data)
            is_whole = True
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
            is_slow = isinstance(error, TimeoutError)
            why = f"the server at {self.endpoint} {'does not read' if is_slow else 'is gone'}"
            lost = Disconnected(why)
            self._lose(lost)
            raise lost from error
        finally:
            if not is_whole:  # asyncio's own cancel heeds no shield
                self._lose(Disconnected("a request was broken off while it was sent"))

    async def start(self) -> None:
        """Wait for the greeting and answer it.

        Raises:
            NotConnected: It did not come in time.
        """
        with anyio.move_on_after(limits.GREETING_TIMEOUT_S):
            while self._session.greeting is None:
                self._session.receive(await self._receive())
        if self._session.greeting is None:
            raise NotConnected(self.endpoint, "it does not greet")
        await self._write(self._session.hello(WINDOW))

    async def read(self) -> None:
        """Hand out what comes, until the connection ends."""
        try:
            while True:
                for seq, message in self._session.receive(await self._receive()):
                    self._take(seq, message)
        except AgentError as error:
            self._lose(error)
        finally:
            # Whoever cleans up after a cancel must not wait for answers that nobody reads.
            self._lose(Disconnected("it was closed on this side"))

    async def _receive(self) -> bytes:
        try:
            return await self.link.receive(_RECEIVE_BYTES)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise Disconnected(f"the server at {self.endpoint} closed it") from error

    def _take(self, seq: int, message: Mapping[str, Any]) -> None:
        waiting = self._waiting.get(seq)
        if waiting is None:
            return  # the answer to something that was given up
        waiting.take(message)
        if isinstance(waiting, Stream) and waiting.is_over:
            del self._waiting[seq]

    def _lose(self, error: AgentError) -> None:
        """Fail all that is under way; nothing can be asked any more."""
        if self._lost is None:
            self._lost = error
        for waiting in self._waiting.values():
            waiting.take(error)
        self._waiting.clear()


_RECEIVE_BYTES = 256 * 1024


@asynccontextmanager
async def open_client(
    *endpoints: str,
    auth: str | None = None,
    timeout_s: float = limits.REQUEST_TIMEOUT_S,
) -> AsyncIterator[Client]:
    """Connect to a server for as long as the block runs.

    Args:
        endpoints: `unix:PATH` or `HOST:PORT`, in the order to try; where none is given, what
            the environment says, then the usual places.
        auth: How to log in; None where no login is needed.
        timeout_s: How long an answer may take.

    Raises:
        NotConnected: No server answers.
        AccessError: The login is refused.
    """
    client = await _connect(endpoints or default_endpoints(os.environ, os.geteuid()), timeout_s)
    async with client.link:
        await client.start()
        check_login(client.greeting, auth)
        async with _beside(client.read):
            yield client


@asynccontextmanager
async def _beside(
    function: Callable[..., Coroutine[Any, Any, None]], *args: object
) -> AsyncIterator[None]:
    """Run a task while the block runs, and end the block where the task fails.

    What either of them raises is not wrapped in a group.
    """
    failed: list[AgentError] = []

    async def run() -> None:
        try:
            await function(*args)
        except AgentError as error:
            failed.append(error)
            tasks.cancel_scope.cancel()

    tasks = anyio.create_task_group()
    await tasks.__aenter__()
    try:
        tasks.start_soon(run)
        yield
    finally:
        tasks.cancel_scope.cancel()
        raised = sys.exc_info()
        is_cancel = isinstance(raised[1], anyio.get_cancelled_exc_class())
        await tasks.__aexit__(*raised if is_cancel else (None, None, None))
        if failed and (is_cancel or raised[1] is None):
            raise failed[0]


async def _connect(endpoints: Sequence[str], timeout_s: float) -> Client:
    failed: list[NotConnected] = []
    for endpoint in endpoints:
        try:
            link = await stream.connect(endpoint, timeout_s)
        except NotConnected as error:
            failed.append(error)
        else:
            return Client(link, endpoint, timeout_s)
    raise first_told(failed)
