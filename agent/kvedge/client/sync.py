"""The blocking client, for commands, scripts and notebooks: no event loop.

    with connect(["unix:/run/kvedge/kv.sock"]) as kv:
        kv.set("one.two", 12)
        print(kv.get("one.two").value)

One thing at a time: a stream (`watch`, `get_tree`) that is read only in part is stopped when its
iterator is closed.  This module is on the path of every short command.
"""

from __future__ import annotations

from collections import deque

from kvedge import limits
from kvedge.client.endpoints import first_told
from kvedge.client.requests import as_path, is_end, pairs, tree_fields, write_fields
from kvedge.client.result import Result
from kvedge.errors import (
    AgentError,
    AuthFailed,
    AuthRequired,
    Disconnected,
    NotConnected,
    from_wire,
)
from kvedge.model.value import MISSING
from kvedge.protocol.client_session import ClientSession
from kvedge.protocol.codec import PathLengthener
from kvedge.transport import blocking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from kvedge.model.path import Path


class SyncClient:
    """A connection to a server.  Not for use by several threads at once."""

    def __init__(self, link: blocking.BlockingLink, timeout_s: float) -> None:
        self._link = link
        self._timeout_s = timeout_s
        self._session = ClientSession()
        self._arrived: dict[int, deque[dict[str, Any]]] = {}

    @property
    def endpoint(self) -> str:
        """The address that answered."""
        return self._link.endpoint

    @property
    def greeting(self) -> Mapping[str, Any]:
        """What the server said first: node, version, tick, tock."""
        assert self._session.greeting is not None
        return self._session.greeting

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; may be called twice."""
        self._link.close()

    def get(self, path: Path | str, *, nchain: int = 0) -> Result:
        """Return the entry at a path; without `value` in it where there is none."""
        return self.request("get_value", {"path": as_path(path).elements, "nchain": nchain})

    def set(
        self,
        path: Path | str,
        value: Any,
        *,
        chain: Any = MISSING,
        prev: Any = MISSING,
        nchain: int = 0,
        idem: bool = False,
        relaxed: bool = False,
        fence: tuple[str, int] | None = None,
    ) -> Result:
        """Store a value.

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
        return self.request("set_value", fields)

    def delete(
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
        return self.request("delete_value", fields)

    def delete_tree(self, path: Path | str) -> Result:
        """Delete all values at and below a path; `changed` tells how many."""
        return self.request("delete_tree", {"path": as_path(path).elements})

    def list(self, path: Path | str, *, with_data: bool = False, empty: bool = False) -> list[Any]:
        """Return the names of the children of a path, or (name, value) of each.

        Args:
            path: The parent.
            with_data: Return pairs, with None as the value of a child that has none.
            empty: Include children that have no value but lead to some.
        """
        fields = {"path": as_path(path).elements, "with_data": with_data, "empty": empty}
        listed = self.request("enum", fields)["result"]
        return pairs(listed) if with_data else [*listed]

    def get_tree(
        self,
        path: Path | str,
        *,
        min_depth: int = 0,
        max_depth: int | None = None,
        nchain: int = 0,
        empty: bool = False,
    ) -> Iterator[Result]:
        """Yield the entries at and below a path, in order, their paths relative to it."""
        fields = tree_fields(
            path, min_depth=min_depth, max_depth=max_depth, nchain=nchain, empty=empty
        )
        return self.stream("get_tree", fields, timeout_s=self._timeout_s)

    def watch(
        self,
        path: Path | str,
        *,
        fetch: bool = True,
        min_depth: int = 0,
        max_depth: int | None = None,
        nchain: int = 0,
    ) -> Iterator[Result]:
        """Yield what is there, one with `state` "uptodate", and then changes for ever.

        A deletion has no `value`.
        """
        fields = tree_fields(
            path, min_depth=min_depth, max_depth=max_depth, nchain=nchain, fetch=fetch
        )
        return self.stream("watch", fields, timeout_s=None)

    def net_status(self) -> Result:
        """Return how the server stands in its network; `name` is None where it works alone."""
        return self.request("net_status", {})

    def traffic(self) -> Iterator[Result]:
        """Yield the messages between servers as they pass this one, for ever.

        A reader that is too slow gets an item with `dropped`, a number, for those it missed.

        Raises:
            BadRequest: The server works alone.
        """
        return self.stream("traffic", {}, timeout_s=None)

    # --- below the verbs ------------------------------------------------------------------

    def request(self, action: str, fields: Mapping[str, Any]) -> Result:
        """Send a request and return its answer.

        Raises:
            AgentError: The server refused; the class says why.
            LinkError: The connection broke or the answer did not come.
        """
        seq, data = self._session.request(action, fields)
        self._link.send(data)
        message = self._next(seq, self._timeout_s)
        _raise_error(message)
        return Result(message)

    def stream(
        self, action: str, fields: Mapping[str, Any], *, timeout_s: float | None
    ) -> Iterator[Result]:
        """Send a request and yield the items of its stream."""
        seq, data = self._session.request(action, fields)
        self._link.send(data)
        paths = PathLengthener()
        ended = False
        try:
            while True:
                message = self._next(seq, timeout_s)
                ended = "error" in message or is_end(message)
                _raise_error(message)
                if ended:
                    return
                if "path" in message:
                    message["path"] = paths.lengthen(message["depth"], message["path"])
                if message.get("state") != "start":
                    yield Result(message)
        finally:
            if not ended:
                self._stop(seq)

    def _stop(self, seq: int) -> None:
        try:
            self.request("stop", {"task": seq})
        except AgentError:
            self.close()
        self._arrived.pop(seq, None)

    def start(self, timeout_s: float) -> None:
        """Wait for the greeting and answer it."""
        while self._session.greeting is None:
            self._receive(timeout_s)
        self._link.send(self._session.hello())

    def _next(self, seq: int, timeout_s: float | None) -> dict[str, Any]:
        while not self._arrived.get(seq):
            self._receive(timeout_s)
        queue = self._arrived[seq]
        message = queue.popleft()
        if not queue:
            del self._arrived[seq]
        return message

    def _receive(self, timeout_s: float | None) -> None:
        data = self._link.receive(timeout_s)
        if not data:
            raise Disconnected(f"the server at {self.endpoint} closed it")
        for seq, message in self._session.receive(data):
            self._arrived.setdefault(seq, deque()).append(message)


def _raise_error(message: Mapping[str, Any]) -> None:
    if "error" in message:
        raise from_wire(message)


def check_login(greeting: Mapping[str, Any], auth: str | None) -> None:
    """Raise where the server wants a login; one that wants none takes everybody."""
    methods = [str(method) for method in greeting.get("auth") or () if method]
    if methods and auth is None:
        raise AuthRequired(", ".join(methods))
    if methods:
        raise AuthFailed(str(auth).partition(" ")[0])


def connect(
    endpoints: Sequence[str],
    *,
    auth: str | None = None,
    timeout_s: float = limits.REQUEST_TIMEOUT_S,
) -> SyncClient:
    """Return a client of the first address that answers.

    Args:
        endpoints: `unix:PATH` or `HOST:PORT`, in the order to try.
        auth: How to log in; None where no login is needed.
        timeout_s: How long an answer may take.

    Raises:
        NotConnected: None answers; tells of the first that may exist.
    """
    failed: list[NotConnected] = []
    for endpoint in endpoints:
        try:
            client = SyncClient(blocking.connect(endpoint, timeout_s), timeout_s)
        except NotConnected as error:
            failed.append(error)
            continue
        client.start(min(timeout_s, limits.GREETING_TIMEOUT_S))
        check_login(client.greeting, auth)
        return client
    raise first_told(failed)
