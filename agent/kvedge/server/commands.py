"""What each request does: one function a request class, found by a table.

A function answers now, later (a write, when it is durable), or by a stream.  What it raises of
`AgentError` is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from kvedge import limits
from kvedge.errors import (
    AgentError,
    BadRequest,
    ChainMismatch,
    EntryAbsent,
    LimitExceeded,
    NotConnected,
    WriteUncertain,
)
from kvedge.model import entry as entries
from kvedge.model import path as paths
from kvedge.model.path import Path
from kvedge.model.value import MISSING, Missing, packb, same, unpack
from kvedge.protocol import messages as asked
from kvedge.protocol.codec import PathShortener, packed_map, shown_chain, value_reply
from kvedge.server.fences import register_key
from kvedge.server.standing import alone
from kvedge.server.state import StateReport
from kvedge.server.store import Pending, Store
from kvedge.server.streams import CHUNK, TreeStream, Watch
from kvedge.server.traffic import Traffic

if TYPE_CHECKING:
    from kvedge.server.fences import Fences
    from kvedge.server.homes import Homes
    from kvedge.server.network import Network

Done = Callable[[AgentError | None], None]


class Caller(Protocol):
    """The connection a request came from."""

    @property
    def store(self) -> Store:
        """The server's store."""

    @property
    def network(self) -> Network | None:
        """The server's part among its peers; None where it works alone."""

    @property
    def window(self) -> int:
        """How many items of a stream the client takes without acknowledging; 0 for any."""

    @property
    def fences(self) -> Fences:
        """The highest fence of each job."""

    @property
    def homes(self) -> Homes | None:
        """Which node writes what; None where that does not matter."""

    def wall_ms(self) -> int | None:
        """Return unix milliseconds, None while the clock is not synchronised."""

    def knows(self, feature: str) -> bool:
        """Tell whether the client said that it knows a feature."""

    def send(self, data: bytes) -> None:
        """Send bytes."""

    def is_slow(self) -> bool:
        """Tell whether the other side should be given no more for now."""

    def later(self, call: Callable[[], None]) -> None:
        """Call back when others have had their turn."""

    def finished(self, seq: int) -> None:
        """Forget a stream."""

    def answer(self, seq: int, fields: dict[str, Any]) -> None:
        """Answer a request."""

    def answer_packed(self, data: bytes) -> None:
        """Answer a request with a message that is ready."""

    def fail(self, seq: int, error: AgentError) -> None:
        """Answer a request with an error."""

    def open(self, seq: int, stream: TreeStream | Watch | Traffic) -> None:
        """Take up a stream and start it."""

    def stop(self, seq: int) -> bool:
        """End a stream; False where there is none."""


# --- reading ----------------------------------------------------------------------------------


def get_value(caller: Caller, seq: int, request: asked.GetValue) -> None:
    """Answer with value, tock and, if wanted, chain; without value where there is none."""
    store = caller.store
    if request.path is MISSING:
        _answer_entry(caller, seq, _entry_of_dot(store, request), request.nchain)
    else:
        _answer_entry(caller, seq, store.get(request.path), request.nchain)


def _answer_entry(caller: Caller, seq: int, packed: bytes | None, nchain: int) -> None:
    value = MISSING if packed is None else entries.value_of(packed)
    if packed is None or value is MISSING:
        absent: dict[str, Any] = {"tock": caller.store.tock}
        caller.answer(seq, absent | ({"chain": None} if nchain else {}))
    elif not nchain:
        caller.answer_packed(value_reply(seq, value, entries.tock_of(packed)))
    else:
        chain = shown_chain(caller.store.shown_links(packed), nchain)
        fields = {"seq": seq, "chain": chain, "tock": entries.tock_of(packed)}
        caller.answer_packed(packed_map(fields, [("value", value)]))


def _entry_of_dot(store: Store, request: asked.GetValue) -> bytes:
    """Return the entry that a node changed at a tick: a search, as nothing indexes it."""
    wanted = (request.node, request.tick)
    for _, packed in store.tree.items():
        if store.shown_links(packed)[0] == wanted:
            return packed
    raise EntryAbsent(f"tick {request.tick} of {request.node}")


def enumerate_children(caller: Caller, seq: int, request: asked.Enumerate) -> None:
    """Answer with the names of the children, or with names and values."""
    found: list[tuple[Any, Any]] = []
    size = 0
    for child, value in _children(caller.store, request):
        name = child[len(request.path) :]
        size += len(name) + (len(value) if request.with_data and value is not MISSING else 0)
        found.append((paths.elements_of(name)[0], value))
        _check_list(len(found), size)
    if not request.with_data:
        caller.answer(seq, {"result": [name for name, _ in found]})
        return
    pairs = [(name, None if value is MISSING else unpack(value)) for name, value in found]
    caller.answer(seq, {"result": pairs if caller.knows("pairs") else dict(pairs)})


def _children(store: Store, request: asked.Enumerate) -> Iterator[tuple[bytes, bytes | Missing]]:
    """Yield the children that were asked for: key and packed value."""
    after = None
    children = [b""]
    while children:
        children = store.tree.children(request.path, after=after, count=CHUNK)
        for child in children:
            packed = store.get(child)
            value = MISSING if packed is None else entries.value_of(packed)
            if value is not MISSING or (request.empty and _leads_somewhere(store, child)):
                yield child, value
            after = child


def _check_list(count: int, size: int) -> None:
    what = "the list of children"
    if count > limits.ELEMENTS_MAX:
        raise LimitExceeded(what, actual=count, limit=limits.ELEMENTS_MAX, unit="names")
    if size > limits.MESSAGE_MAX_BYTES:
        raise LimitExceeded(what, actual=size, limit=limits.MESSAGE_MAX_BYTES, unit="bytes")


def _leads_somewhere(store: Store, key: bytes) -> bool:
    """Tell whether there is a value below a key."""
    after: bytes | None = key
    while keys := store.tree.walk(key, after=after, count=CHUNK):
        if any(entries.is_live(store.get(found) or b"\0" * 9) for found in keys):
            return True
        after = keys[-1]
    return False


def get_tree(caller: Caller, seq: int, request: asked.GetTree) -> None:
    """Answer with a stream of entries."""
    caller.open(seq, TreeStream(caller.store, caller, seq, request, window=caller.window))


def watch(caller: Caller, seq: int, request: asked.Watch) -> None:
    """Answer with a stream that does not end."""
    caller.open(seq, Watch(caller.store, caller, seq, request, window=caller.window))


def set_root(caller: Caller, seq: int, request: asked.SetRoot) -> None:
    """Answer with the entry of the new root; the session has taken note of it."""
    _answer_entry(caller, seq, caller.store.get(request.path), request.nchain)


def get_tock(caller: Caller, seq: int, _: asked.GetTock) -> None:
    """Answer with the present tock."""
    caller.answer(seq, {"tock": caller.store.tock})


def get_state(caller: Caller, seq: int, request: asked.GetState) -> None:
    """Answer with what has been seen of whom, in the terms of the peer systems."""
    store, network = caller.store, caller.network

    def done(fields: dict[str, Any]) -> None:
        caller.answer(seq, fields | {"node": store.rid.node, "tock": store.tock})

    peers = {} if network is None else network.peer_vectors()
    StateReport(store, request, peers, later=caller.later, done=done).go_on()


def net_status(caller: Caller, seq: int, _: asked.NetStatus) -> None:
    """Answer with how the server stands among its peers."""
    network = caller.network
    caller.answer(seq, alone(caller.store) if network is None else network.status())


def traffic(caller: Caller, seq: int, _: asked.Traffic) -> None:
    """Answer with a stream of the messages between servers."""
    network = caller.network
    if network is None:
        raise BadRequest("traffic", "this server works alone: it has no broker")
    caller.open(seq, Traffic(network.taps, caller, seq, window=caller.window))


def stop(caller: Caller, seq: int, request: asked.Stop) -> None:
    """End a stream of the same connection."""
    caller.answer(seq, {"result": caller.stop(request.task)})


# --- writing ----------------------------------------------------------------------------------


def set_value(caller: Caller, seq: int, request: asked.SetValue) -> None:
    """Store a value if the conditions hold; answer when it is as durable as wanted."""
    store = caller.store
    if _goes_elsewhere(caller, seq, request):
        return
    old = store.newest(request.path)
    value = _check_conditions(store, old, request)
    is_same = request.idem and value is not MISSING and same(value, request.value)
    if is_same and _is_settled(store, request.path):
        _answer_unchanged(caller, seq, old, request.nchain)
        return
    with_prev = request.chain is MISSING and request.prev is MISSING
    _write(caller, seq, request, request.value, relaxed=request.relaxed, with_prev=with_prev)


def delete_value(caller: Caller, seq: int, request: asked.DeleteValue) -> None:
    """Delete a value if the conditions hold; nothing is written where there is none."""
    store = caller.store
    if _goes_elsewhere(caller, seq, request):
        return
    old = store.newest(request.path)
    is_same = _check_conditions(store, old, request) is MISSING
    if is_same and _is_settled(store, request.path):
        _answer_unchanged(caller, seq, old, request.nchain)
        return
    with_prev = request.chain is MISSING and request.prev is MISSING
    _write(caller, seq, request, MISSING, relaxed=False, with_prev=with_prev)


def _goes_elsewhere(caller: Caller, seq: int, request: asked.SetValue | asked.DeleteValue) -> bool:
    """Pass a write on to the node that is the home of its place, if another one is."""
    home = None if caller.homes is None else caller.homes.of(request.path)
    if home is None or home == caller.store.rid.node:
        return False
    path = str(Path.from_key(request.path))
    if caller.network is None:
        raise NotConnected(f"node {home}", f"it is the home of {path}, and this board works alone")

    def done(result: dict[str, Any] | AgentError) -> None:
        if isinstance(result, AgentError):
            caller.fail(seq, result)
        else:
            caller.answer(seq, result)

    caller.network.write_at(home, path, request, done)
    return True


def _check_conditions(
    store: Store, old: bytes | None, request: asked.SetValue | asked.DeleteValue
) -> bytes | Missing:
    """Return the present packed value; raise where it is not the one that was expected."""
    value = MISSING if old is None else entries.value_of(old)
    if request.chain is not MISSING:
        found = None if value is MISSING or old is None else store.shown_links(old)[0]
        if found != request.chain:
            raise ChainMismatch(
                str(Path.from_key(request.path)),
                expected=_link_text(request.chain),
                found=_link_text(found),
            )
    if request.prev is not MISSING and (value is MISSING or not same(value, request.prev)):
        raise ChainMismatch(
            str(Path.from_key(request.path)),
            expected=f"the value {unpack(request.prev)!r:.60}",
            found="none" if value is MISSING else f"{unpack(value)!r:.60}",
        )
    return value


def _is_settled(store: Store, key: bytes) -> bool:
    """Tell whether nothing is under way at a key, which the disk might still refuse."""
    return store.newest(key) is store.get(key)


def _link_text(link: tuple[str, int] | None) -> str:
    return "no entry" if link is None else f"change {link[1]} of {link[0]}"


def _answer_unchanged(caller: Caller, seq: int, old: bytes | None, nchain: int) -> None:
    tock = caller.store.tock if old is None else entries.tock_of(old)
    fields: dict[str, Any] = {"changed": False, "tock": tock}
    if nchain:
        live = old is not None and entries.is_live(old)
        links = caller.store.shown_links(old) if live and old is not None else []
        fields["chain"] = shown_chain(links, nchain)
    caller.answer(seq, fields)


def _write(
    caller: Caller,
    seq: int,
    request: asked.SetValue | asked.DeleteValue,
    value: bytes | Missing,
    *,
    relaxed: bool,
    with_prev: bool,
) -> None:
    store, nchain, is_deletion = caller.store, request.nchain, value is MISSING
    pending: Pending

    def done(error: AgentError | None) -> None:  # lives long, so it holds no value
        if error is not None:
            caller.fail(seq, error)
            return
        was_absent = pending.old is None or not entries.is_live(pending.old)
        fields: dict[str, Any] = {"seq": seq, "changed": not (is_deletion and was_absent)}
        if nchain:
            links = [] if is_deletion else store.shown_links(pending.packed)
            fields["chain"] = shown_chain(links, nchain)
        fields["tock"] = entries.tock_of(pending.packed)
        raw = []
        if with_prev and pending.old is not None:
            previous = entries.value_of(pending.old)
            raw = [] if previous is MISSING else [("prev", previous)]
        caller.answer_packed(packed_map(fields, raw))

    wall_ms, fence = caller.wall_ms(), request.fence
    if fence is not None and caller.fences.check(fence):
        number = packb(fence.number)
        store.write(register_key(fence.job), number, wall_ms=wall_ms, relaxed=False, done=_ignore)
    pending = store.write(
        request.path, value, wall_ms=wall_ms, relaxed=relaxed, done=done, fence=fence
    )


def _ignore(_: AgentError | None) -> None:
    """Stand for nobody who waits."""


def delete_tree(caller: Caller, seq: int, request: asked.DeleteTree) -> None:
    """Delete everything at and below a place, a chunk at a time."""
    homes = [] if caller.homes is None else caller.homes.within(request.path)
    elsewhere = [node for node in homes if node != caller.store.rid.node]
    if elsewhere:
        path = str(Path.from_key(request.path))
        why = f"some of it is written at {', '.join(elsewhere)} alone"
        raise BadRequest("delete_tree", f"{path}: {why}; delete there, or entry by entry")
    TreeDeletion(caller, seq, request).go_on()


class TreeDeletion:
    """Deletes a subtree; each chunk waits until the one before it is durable."""

    def __init__(self, caller: Caller, seq: int, request: asked.DeleteTree) -> None:
        self._caller = caller
        self._seq = seq
        self._request = request
        self._after: bytes | None = None
        self._open = 0
        self._count = 0
        self._failed: AgentError | None = None
        self._paths = PathShortener()
        if request.nchain:
            caller.send(packb({"seq": seq, "state": "start"}))

    def go_on(self) -> None:
        """Delete the next chunk, or tell how it went."""
        store = self._caller.store
        while not self._failed and not self._open:
            keys = store.tree.walk(self._request.path, after=self._after, count=CHUNK)
            if not keys:
                break
            self._after = keys[-1]
            self._delete([key for key in keys if entries.is_live(store.newest(key) or b"\0" * 9)])
        if not self._open:
            self._end()

    def _delete(self, keys: list[bytes]) -> None:
        wall_ms = self._caller.wall_ms()
        store = self._caller.store
        for key in keys:
            old = store.newest(key)
            done = partial(self._deleted, key, old)
            try:
                store.write(key, MISSING, wall_ms=wall_ms, relaxed=False, done=done)
            except AgentError as error:  # the server is about to end
                self._failed = error
                break
            self._open += 1

    def _deleted(self, key: bytes, old: bytes | None, error: AgentError | None) -> None:
        if self._request.nchain and old is not None and error is None:
            self._tell(key, old)
        self._failed = self._failed or error
        self._count += error is None
        self._open -= 1
        if not self._open:
            self.go_on()

    def _tell(self, key: bytes, old: bytes) -> None:
        """Send which entry went, without its value."""
        elements = paths.elements_of(key, len(self._request.path))
        depth, tail = self._paths.shorten(elements)
        chain = shown_chain(self._caller.store.shown_links(old), self._request.nchain)
        fields = {"path": tail, "depth": depth, "tock": entries.tock_of(old), "chain": chain}
        self._caller.send(packb({"seq": self._seq, **fields}))

    def _end(self) -> None:
        if self._failed and self._count:
            why = f"{self._count} entries are deleted, then {getattr(self._failed, 'why', '')}"
            self._caller.fail(self._seq, WriteUncertain(why))
        elif self._failed:
            self._caller.fail(self._seq, self._failed)
        elif self._request.nchain:
            self._caller.answer(self._seq, {"state": "end", "changed": self._count})
        else:
            self._caller.answer(
                self._seq, {"changed": self._count, "tock": self._caller.store.tock}
            )


COMMANDS: dict[type[Any], Callable[[Caller, int, Any], None]] = {
    asked.GetValue: get_value,
    asked.SetValue: set_value,
    asked.DeleteValue: delete_value,
    asked.DeleteTree: delete_tree,
    asked.Enumerate: enumerate_children,
    asked.GetTree: get_tree,
    asked.Watch: watch,
    asked.SetRoot: set_root,
    asked.GetTock: get_tock,
    asked.GetState: get_state,
    asked.NetStatus: net_status,
    asked.Traffic: traffic,
    asked.Stop: stop,
}


def carry_out(request: asked.SetValue | asked.DeleteValue, caller: Any) -> None:
    """Run a write for somebody who is no connection; errors are its answer."""
    try:
        COMMANDS[type(request)](caller, 0, request)
    except AgentError as error:
        caller.fail(0, error)
