"""A live local copy of a subtree."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio

from kvedge.client.result import Result
from kvedge.model.path import P, Path
from kvedge.model.value import MISSING


class Mirror:
    """The values of a subtree by their paths relative to it; made by `Client.mirror`."""

    def __init__(self) -> None:
        self._values: dict[Path, Any] = {}
        self._changed = anyio.Event()

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Path]:
        return iter(sorted(self._values))

    def __contains__(self, path: Path | str) -> bool:
        return (P(path) if isinstance(path, str) else path) in self._values

    def __getitem__(self, path: Path | str) -> Any:
        return self._values[P(path) if isinstance(path, str) else path]

    def get(self, path: Path | str, default: Any = MISSING) -> Any:
        """Return the value at a path, the default where there is none."""
        return self._values.get(P(path) if isinstance(path, str) else path, default)

    async def changed(self) -> None:
        """Wait for the next change."""
        await self._changed.wait()

    async def fill(self, items: AsyncIterator[Result]) -> None:
        """Take a watch's items up to its mark: the copy is complete then."""
        async for item in items:
            if item.get("state") == "uptodate":
                return
            self._take(item)

    async def follow(self, items: AsyncIterator[Result]) -> None:
        """Take a watch's items until it ends."""
        async for item in items:
            self._take(item)

    def _take(self, item: Result) -> None:
        if "path" not in item:
            return
        if "value" in item:
            self._values[item.path] = item.value
        else:
            self._values.pop(item.path, None)
        self._changed.set()
        self._changed = anyio.Event()
