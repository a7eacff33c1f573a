"""What a server does that has to give way to a younger one of its name: it hands over its writes.

The others may have closed the life that it is, and take nothing of it any more.  So what it wrote
itself in this life, and is the newest still, it has written anew by the younger one, a few at a
time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from kvedge.errors import AgentError
from kvedge.model import entry as entries
from kvedge.model.path import Path
from kvedge.protocol.forwarding import Result
from kvedge.protocol.messages import DeleteValue, SetValue
from kvedge.server.remote import Told, Write
from kvedge.server.store import Store

WINDOW = 64
"""Writes under way at once."""

Ask = Callable[[str, Write, Told], None]


class HandOver:
    """Hands the writes of a life over.

    Attributes:
        failed: How many could not be.

    Args:
        store: The tree.
        ask: Has a write made by the younger server.
    """

    def __init__(self, store: Store, ask: Ask) -> None:
        self._ask = ask
        self._under_way = 0
        self.failed = 0
        self._left = deque(
            (key, packed)
            for key, packed in store.tree.items()
            if store.dot_of(packed).rid == store.rid
        )
        self._go_on()

    @property
    def is_done(self) -> bool:
        """Whether there is an answer to each."""
        return not self._left and not self._under_way

    def _go_on(self) -> None:
        while self._left and self._under_way < WINDOW:
            key, packed = self._left.popleft()
            value = entries.value_of(packed)
            request: Write = DeleteValue(key)
            if isinstance(value, bytes):
                request = SetValue(key, value, idem=True)
            self._under_way += 1
            self._ask(str(Path.from_key(key)), request, self._answered)

    def _answered(self, result: Result) -> None:
        self._under_way -= 1
        self.failed += isinstance(result, AgentError)
        self._go_on()
