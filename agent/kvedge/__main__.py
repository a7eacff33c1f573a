"""`python -m kvedge` is `kv`."""

from __future__ import annotations

from kvedge.cli.main import main

main()
