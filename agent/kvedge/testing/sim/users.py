"""The users of a simulated board: one who asks for changes, and one who watches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from kvedge.errors import AgentError, ChainMismatch, WriteRefused
from kvedge.model import entry as entries
from kvedge.model.path import Path
from kvedge.model.value import MISSING, Missing, pack, unpack
from kvedge.protocol import messages as asked
from kvedge.protocol.codec import PathLengthener
from kvedge.protocol.framing import Framer
from kvedge.server.commands import COMMANDS
from kvedge.server.fences import Fences
from kvedge.server.network import Network
from kvedge.server.store import Store
from kvedge.server.streams import TreeStream, Watch
from kvedge.server.traffic import Traffic
from kvedge.testing.sim.oracle import Broken, Check, Link

if TYPE_CHECKING:
    from kvedge.testing.sim.node import Node

BELOW = Path("k")
"""Where users write, and watch."""

WINDOW = 8
"""Items that a watcher with a window takes without acknowledging."""


class Writer:
    """Asks for compare-and-set as a connection does; implements `commands.Caller`.

    Args:
        node: Whom.
        key: Where.
        expected: The chain value that the change is bound to; None where nothing may be there.
    """

    window = 0
    homes = None

    def __init__(self, node: Node, key: bytes, expected: Link | None) -> None:
        self._node = node
        self._key = key
        self._expected = expected

    @property
    def store(self) -> Store:
        """The server's store."""
        return self._node.store

    @property
    def network(self) -> Network:
        """The server's part among its peers."""
        return self._node.network

    @property
    def fences(self) -> Fences:
        """The highest fence of each job."""
        return self._node.fences

    def ask(self, value: bytes | Missing) -> None:
        """Ask for it."""
        request: asked.SetValue | asked.DeleteValue
        if isinstance(value, Missing):
            request = asked.DeleteValue(self._key, chain=self._expected)
        else:
            request = asked.SetValue(self._key, value, chain=self._expected)
        try:
            COMMANDS[type(request)](self, 1, request)
        except (ChainMismatch, WriteRefused):
            return
        self._node.disk_soon()

    def answer_packed(self, data: bytes) -> None:
        """Note that it was done."""
        node, key, tock = self._node, self._key, unpack(data)["tock"]
        made = node.oracle.made_at(node, tock)
        node.oracle.acknowledged(node, key, (tock, *made), relaxed=False)
        node.oracle.won(node, key, self._expected, made)

    def wall_ms(self) -> int | None:
        """Return unix milliseconds, None while the clock is not synchronised."""
        return self._node.wall_ms()

    def fail(self, seq: int, error: AgentError) -> None:
        """Do nothing: it has failed."""

    def answer(self, seq: int, fields: dict[str, Any]) -> None:
        """Do nothing: nothing has changed."""

    def knows(self, feature: str) -> bool:
        """Know nothing beyond the oldest clients."""
        return False

    def is_slow(self) -> bool:
        """Be quick."""
        return False

    def send(self, data: bytes) -> NoReturn:
        """Fail: nothing is streamed."""
        raise AssertionError("a compare-and-set is not answered by a stream")

    def later(self, call: Callable[[], None]) -> None:
        """Call back when others have had their turn."""
        self._node.later(call)

    def finished(self, seq: int) -> None:
        """Do nothing: nothing is streamed."""

    def open(self, seq: int, stream: TreeStream | Watch | Traffic) -> NoReturn:
        """Fail: nothing is streamed."""
        raise AssertionError("a compare-and-set opens no stream")

    def stop(self, seq: int) -> bool:
        """Do nothing: nothing is streamed."""
        return False


class Watcher:
    """Watches what users write, sometimes slowly; implements `streams.Reader`.

    Attributes:
        view: What it has been told, by key: tock and value of what is there.
        is_quick: Whether it takes what comes.
    """

    key = BELOW.key

    def __init__(self, node: Node, *, window: int) -> None:
        self.view: dict[bytes, tuple[int, bytes | Missing]] = {}
        self.is_quick = True
        self._node = node
        self._window = window
        self._last: dict[bytes, tuple[int, object, object]] = {}
        self._paths = PathLengthener()
        self._framer = Framer()
        request = asked.Watch(self.key, fetch=True, nchain=1)
        self.watch = Watch(node.store, self, 1, request, window=window)
        node.watchers.add(self.watch)
        self.watch.pump()

    def hurry(self, *, is_quick: bool) -> None:
        """Be quick or slow from now on."""
        self.is_quick = is_quick
        if is_quick:
            self.watch.pump()

    def send(self, data: bytes) -> None:
        """Take what the watch sends."""
        for message in self._framer.feed(data):
            if "path" in message:
                self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        path = self._paths.lengthen(message["depth"], message["path"])
        key = Path(*BELOW, *path).key
        tock, chain = message["tock"], message["chain"]
        link = chain and (chain["node"], chain["tick"])
        value = pack(message["value"]) if "value" in message else MISSING
        last = self._last.get(key)
        new = (tock, link, value)
        # Two nodes may have deleted it in the same moment: nothing tells these apart.
        is_again = new == last and link is not None
        is_back = last is not None and tock < last[0]
        oracle = self._node.oracle
        has_forgotten = oracle.diaries[self._node.name].is_cheated
        if has_forgotten or oracle.is_stranger(key, link and link[0]):
            is_back = False  # older than what nobody remembers
        if is_again or is_back:
            raise Broken(Check.WATCH, f"{path} on {self._node.name}: {new} after {last}")
        self._last[key] = new
        if isinstance(value, Missing):
            self.view.pop(key, None)
        else:
            self.view[key] = tock, value
        if self._window:
            number = message["wseq"]
            self._node.after(self._node.random.uniform(0.001, 0.3), lambda: self._ack(number))

    def _ack(self, number: int) -> None:
        if self._node.watcher is self:
            self.watch.flow.ack(number)
            self.watch.pump()

    def is_slow(self) -> bool:
        """Tell whether it should be given no more for now."""
        return not self.is_quick

    def later(self, call: Callable[[], None]) -> None:
        """Call back when others have had their turn."""
        self._node.later(call)

    def finished(self, seq: int) -> None:
        """Do nothing: it does not end by itself."""


def chain_value(node: Node, key: bytes) -> Link | None:
    """Return what a compare-and-set of an entry is bound to."""
    packed = node.store.get(key)
    if packed is None or not entries.is_live(packed):
        return None
    return node.store.shown_links(packed)[0]
