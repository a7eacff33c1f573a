"""Where the state and the output of a job are, and the printing of its lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from kvedge.cli.connection import Session
from kvedge.cli.either_order import say
from kvedge.cli.jobs import Runner
from kvedge.cli.tables import local_time
from kvedge.client.result import Result
from kvedge.client.sync import SyncClient
from kvedge.model.path import KV, Path


def stored(client: SyncClient, kind: str, runner: Runner, path: Path) -> Iterator[tuple[str, Any]]:
    """Yield node and value of the states or outputs of a job.

    Args:
        client: The connection.
        kind: "state" or "output".
        runner: Whose job it is.
        path: The job.
    """
    base, depth = _subtree(kind, runner, path)
    for result in client.get_tree(base, max_depth=depth):
        if (node := _node_of(result, runner, path)) is not None:
            yield node, result.value


def outputs(client: SyncClient, runner: Runner, path: Path) -> Iterator[tuple[str, Any]]:
    """Yield node and value of the outputs of a job, now and whenever one changes.

    The value is None where it was deleted.
    """
    base, depth = _subtree("output", runner, path)
    for result in client.watch(base, max_depth=depth):
        if "path" in result and (node := _node_of(result, runner, path)) is not None:
            yield node, result.get("value")


def _subtree(kind: str, runner: Runner, path: Path) -> tuple[Path, int | None]:
    """Return where the states or outputs of a job are, and how deep to look."""
    if runner.placement == "all":
        return KV + (kind, "all"), None
    return (runner.state if kind == "state" else runner.output)(path), 0


def _node_of(result: Result, runner: Runner, path: Path) -> str | None:
    """Return the node of a state or output; None where it is of another job."""
    if runner.placement != "all":
        return runner.node
    place: Path = result.path
    return str(place[0]) if place[1:] == Path(runner.group) + path else None


class LinePrinter:
    """Prints each line of output once, though every change brings all that are kept."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._printed: dict[str, int] = {}

    def show(self, node: str, value: object) -> None:
        """Print the lines of an output entry that are new."""
        if not isinstance(value, dict):
            return
        lines, dropped = value.get("lines") or (), value.get("dropped") or 0
        printed = self._printed.get(node, 0)
        if printed > dropped + len(lines):
            printed = 0  # it was deleted and began anew
        if dropped > printed:
            say(f"note: {dropped - printed} earlier lines are not kept")
        for at, (unix_s, text) in enumerate(lines, dropped):
            if at >= printed:
                self._print(node, unix_s, text)
        self._printed[node] = dropped + len(lines)

    def _print(self, node: str, unix_s: float, text: str) -> None:
        if self._session.json:
            self._session.print_item({"time": unix_s, "node": node or None, "text": text})
        else:
            sys.stdout.write(f"{local_time(unix_s)} {text}\n")
            sys.stdout.flush()
