"""Streams of entries: a walk through a subtree, and a watch that goes on with its changes.

Nothing here is ever queued without bound, and nothing stops silently.  A walk hands out a bounded
chunk whenever its reader can take more, going on behind the last key.  A watch sends each change
as it comes while its reader keeps up (the socket takes it, and the stream's window has room,
where the client set one); for a slow one it notes only which paths changed
(*conflation*) and sends what they hold, marked, when the reader is back; when too many are noted
it walks the subtree again.  Per path, what is sent is strictly increasing.

No waiting here: `send` takes bytes, `Flow.room` tells whether to hold back, `later` calls again.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from kvedge import limits
from kvedge.model import entry as entries
from kvedge.model import path as paths
from kvedge.model.value import MISSING, packb
from kvedge.protocol.codec import PathShortener, packed_map, shown_chain
from kvedge.protocol.messages import DEPTH_UNBOUNDED, GetTree
from kvedge.protocol.messages import Watch as WatchRequest
from kvedge.server.store import Store

CHUNK = 256
"""Entries sent before others get their turn: about a millisecond."""


class Reader(Protocol):
    """The connection that a stream belongs to."""

    def send(self, data: bytes) -> None:
        """Send bytes."""

    def is_slow(self) -> bool:
        """Tell whether the other side should be given no more for now."""

    def later(self, call: Callable[[], None]) -> None:
        """Call back when others have had their turn."""

    def finished(self, seq: int) -> None:
        """Forget a stream that has ended."""


class Flow:
    """How much one stream may send: what the socket takes, within the client's window."""

    def __init__(self, reader: Reader, window: int) -> None:
        self._reader = reader
        self._window = window
        self._sent = 0
        self._acked = 0

    def room(self) -> int:
        """Return how many items may be sent now, at most a chunk; 0 to hold back."""
        if self._reader.is_slow():
            return 0
        if not self._window:
            return CHUNK
        return min(CHUNK, max(0, self._window - (self._sent - self._acked)))

    def number(self) -> int | None:
        """Return the number of an item that is sent now; None without a window."""
        self._sent += 1
        return self._sent if self._window else None

    def ack(self, number: int) -> None:
        """Note that the client has taken all items up to a number."""
        self._acked = max(self._acked, min(number, self._sent))


class Items:
    """Writes entries as the items of one stream.

    Attributes:
        base: The key that paths are relative to.
    """

    def __init__(self, store: Store, flow: Flow, seq: int, *, base: bytes, nchain: int) -> None:
        self._store = store
        self._flow = flow
        self._seq = packb(seq)
        self._nchain = nchain
        self._paths = PathShortener()
        self.base = base

    def depth(self, key: bytes) -> int:
        """Return how many elements a key has below the base."""
        return len(paths.elements_of(key, len(self.base)))

    def item(self, key: bytes, packed: bytes, *, conflated: bool = False) -> bytes:
        """Return the message for an entry; without `value` where it is a tombstone."""
        depth, tail = self._paths.shorten(paths.elements_of(key, len(self.base)))
        raw = [("seq", self._seq)]
        value = entries.value_of(packed)
        fields: dict[str, Any] = {"path": tail, "depth": depth, "tock": entries.tock_of(packed)}
        if value is not MISSING:
            raw.append(("value", value))
        if self._nchain:
            links = [] if value is MISSING else self._store.shown_links(packed)
            fields["chain"] = shown_chain(links, self._nchain)
        number = self._flow.number()
        if number is not None:
            fields["wseq"] = number
        if conflated:
            fields["conflated"] = True
        return packed_map(fields, raw)


class Walk:
    """Sends a subtree, a chunk at a time, then an end or whatever `finish` does."""

    def __init__(
        self,
        store: Store,
        reader: Reader,
        flow: Flow,
        items: Items,
        *,
        depths: tuple[int, int],
        with_tombstones: bool,
        finish: Callable[[], None],
        conflated: bool = False,
    ) -> None:
        self._store = store
        self._reader = reader
        self._flow = flow
        self._items = items
        self._depths = depths
        self._with_tombstones = with_tombstones
        self._finish = finish
        self.is_conflated = conflated
        self._any_depth = depths == (0, DEPTH_UNBOUNDED)
        self.after: bytes | None = None
        self.is_over = False

    def pump(self) -> None:
        """Send the next chunk, unless the reader is slow; it calls again when it is not."""
        room = self._flow.room()
        if self.is_over or not room:
            return
        keys = self._store.tree.walk(self._items.base, after=self.after, count=room)
        count = self._send_chunk(keys)
        if count == len(keys) < room:
            self.is_over = True
            self._finish()
        else:
            self.after = keys[count - 1]
            self._reader.later(self.pump)

    def _send_chunk(self, keys: list[bytes]) -> int:
        """Send the entries at keys until they are a buffer full; return how far it went."""
        count = size = 0
        chunk = []
        for key in keys:
            chunk.append(self._item(key))
            count += 1
            size += len(chunk[-1])
            if size > limits.SEND_BUFFER_MAX_BYTES:
                break
        self._reader.send(b"".join(chunk))
        return count

    def _item(self, key: bytes) -> bytes:
        """Return what is sent for a key, nothing where it was not asked for."""
        packed = self._store.get(key)
        if packed is None or not (self._with_tombstones or entries.is_live(packed)):
            return b""
        if not self.is_wanted(key):
            return b""
        return self._items.item(key, packed, conflated=self.is_conflated)

    def is_wanted(self, key: bytes) -> bool:
        """Tell whether a key is at a depth that was asked for."""
        return self._any_depth or self._depths[0] <= self._items.depth(key) <= self._depths[1]

    def is_past(self, key: bytes) -> bool:
        """Tell whether the walk has passed a key and will not come to it."""
        return self.is_over or (self.after is not None and key <= self.after)


class TreeStream:
    """The answer to get_tree."""

    def __init__(
        self, store: Store, reader: Reader, seq: int, request: GetTree, *, window: int
    ) -> None:
        self.flow = Flow(reader, window)
        items = Items(store, self.flow, seq, base=request.path, nchain=request.nchain)
        self._reader = reader
        self._seq = seq
        self._walk = Walk(
            store,
            reader,
            self.flow,
            items,
            depths=(request.min_depth, request.max_depth),
            with_tombstones=request.empty,
            finish=self._end,
        )
        reader.send(packb({"seq": seq, "state": "start"}))

    def pump(self) -> None:
        """Go on, when the reader can take more."""
        self._walk.pump()

    def stop(self) -> None:
        """End early."""
        if not self._walk.is_over:
            self._walk.is_over = True
            self._end()

    def _end(self) -> None:
        self._reader.send(packb({"seq": self._seq, "state": "end"}))
        self._reader.finished(self._seq)


class Phase(Enum):
    """What a watch is doing."""

    FETCHING = "fetching"
    LIVE = "live"
    STOPPED = "stopped"


class Watch:
    """The answer to watch."""

    def __init__(
        self, store: Store, reader: Reader, seq: int, request: WatchRequest, *, window: int
    ) -> None:
        self._store = store
        self._reader = reader
        self._seq = seq
        self._request = request
        self.flow = Flow(reader, window)
        self._items = Items(store, self.flow, seq, base=request.path, nchain=request.nchain)
        self._changed: dict[bytes, None] = {}
        self._walk = self._new_walk(with_tombstones=request.empty)
        self._phase = Phase.FETCHING if request.fetch else Phase.LIVE
        self._was_uptodate = not request.fetch
        reader.send(packb({"seq": seq, "state": "start"}))

    @property
    def key(self) -> bytes:
        """Where the watched subtree begins."""
        return self._items.base

    def _new_walk(self, *, with_tombstones: bool, conflated: bool = False) -> Walk:
        return Walk(
            self._store,
            self._reader,
            self.flow,
            self._items,
            depths=(self._request.min_depth, self._request.max_depth),
            with_tombstones=with_tombstones,
            finish=self._fetched,
            conflated=conflated,
        )

    def notify(self, key: bytes, packed: bytes) -> None:
        """Take a change at or below the watched place."""
        if not self._walk.is_wanted(key):
            return
        if self._phase is Phase.FETCHING and not self._walk.is_past(key):
            return  # the walk will come to it
        if not self._changed and self.flow.room():
            self._reader.send(self._items.item(key, packed))
            return
        self._changed[key] = None
        if len(self._changed) > limits.WATCH_PENDING_MAX:
            self._start_over()

    def _start_over(self) -> None:
        """Forget what changed and send everything there is, deletions included, as conflated."""
        self._changed.clear()
        self._walk.is_over = True
        self._walk = self._new_walk(with_tombstones=True, conflated=True)
        self._phase = Phase.FETCHING
        self._reader.later(self.pump)  # one that is not slow any more will not say so again

    def is_awaiting(self, key: bytes) -> bool:
        """Tell whether a deletion at a key has still to be sent."""
        is_ahead = self._phase is Phase.FETCHING and not self._walk.is_past(key)
        return key in self._changed or (is_ahead and self._walk.is_conflated)

    def pump(self) -> None:
        """Go on, when the reader can take more."""
        self._send_changed()
        if self._phase is Phase.FETCHING:
            self._walk.pump()

    def _send_changed(self) -> None:
        while self._changed and self.flow.room():
            key = next(iter(self._changed))
            del self._changed[key]
            packed = self._store.get(key)
            if packed is not None:
                self._reader.send(self._items.item(key, packed, conflated=True))

    def _fetched(self) -> None:
        if self._phase is Phase.STOPPED:
            return
        self._phase = Phase.LIVE
        self._send_changed()
        if not self._was_uptodate:
            self._was_uptodate = True
            self._reader.send(packb({"seq": self._seq, "state": "uptodate"}))

    def stop(self) -> None:
        """End it."""
        if self._phase is not Phase.STOPPED:
            self._phase = Phase.STOPPED
            self._walk.is_over = True
            self._changed.clear()
            self._reader.send(packb({"seq": self._seq, "state": "end"}))
            self._reader.finished(self._seq)


class Watchers:
    """Who wants to know of changes, by the key of the watched place."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, list[Watch]] = {}

    def add(self, watch: Watch) -> None:
        """Tell a watch of changes from now on."""
        self._by_key.setdefault(watch.key, []).append(watch)

    def remove(self, watch: Watch) -> None:
        """Tell it no more."""
        watches = self._by_key[watch.key]
        watches.remove(watch)
        if not watches:
            del self._by_key[watch.key]

    def is_awaited(self, key: bytes) -> bool:
        """Tell whether a watch still has to send the deletion at a key."""
        if not self._by_key:
            return False
        ends = (0, *paths.boundaries(key))
        return any(
            watch.is_awaiting(key) for end in ends for watch in self._by_key.get(key[:end], ())
        )

    def notify(self, key: bytes, packed: bytes) -> None:
        """Tell all watches at and above a key of its new entry.

        A watch of the root is not told of system data.
        """
        if not self._by_key:
            return
        is_system = key[:1] == paths.KEY_FIRST
        for end in (0, *paths.boundaries(key)):
            if is_system and not end:
                continue
            for watch in self._by_key.get(key[:end], ()):
                watch.notify(key, packed)
