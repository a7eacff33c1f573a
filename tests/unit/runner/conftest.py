"""The surroundings of a runner."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path as File

import pytest

from kvedge.testing.runner import RunnerBench, runner_bench


@pytest.fixture
async def bench(tmp_path: File) -> AsyncIterator[RunnerBench]:
    """A server, a client and a clock that stands still."""
    async with runner_bench(tmp_path) as made:
        yield made
