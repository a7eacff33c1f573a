"""A command line's options, without a command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvedge.cli.connection import Session
from kvedge.cli.options import GLOBAL, Given

Sessions = Callable[..., Session]


@pytest.fixture
def session() -> Sessions:
    """Makes the session of given options: `session(environ, host="h", set=["a.b=1"])`."""

    def make(environ: dict[str, str], **options: str | list[str]) -> Session:
        raw = {
            name: [(text,) for text in ([words] if isinstance(words, str) else words)]
            for name, words in options.items()
        }
        return Session(Given(GLOBAL, raw, "kv"), environ)

    return make
