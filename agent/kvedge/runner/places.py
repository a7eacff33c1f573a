"""Where jobs, their state, their code and what goes wrong with them live in the tree.

Commands read these as well, so this module imports no event loop.  A job is named by its tail:
the path below the prefix of its placement, node and group.  The state of an `all` job stands once
per node, which is why its tail is longer than the job's.
"""

from __future__ import annotations

from kvedge.model.path import KV, Path

PLACEMENTS = ("single", "any", "all")

CODE = KV / "code"
PROCEDURES = CODE / "proc"
MODULES = CODE / "module"
ERRORS = KV / "error"

_WITH_NODE = {"run": ("single",), "state": ("single", "all"), "output": ("single", "all")}


def _place(kind: str, placement: str, node: str, group: str) -> Path:
    nodes = (node,) if placement in _WITH_NODE[kind] else ()
    return Path(*KV, kind, placement, *nodes, group)


def jobs_at(placement: str, *, node: str, group: str) -> Path:
    """Return the prefix of the jobs of a runner; `node` matters to `single` alone."""
    return _place("run", placement, node, group)


def states_at(placement: str, *, node: str, group: str) -> Path:
    """Return the prefix of the states, which only the runner writes."""
    return _place("state", placement, node, group)


def outputs_at(placement: str, *, node: str, group: str) -> Path:
    """Return the prefix of the last lines that jobs printed."""
    return _place("output", placement, node, group)


def runner_at(placement: str, *, node: str, group: str) -> Path:
    """Return where a runner says that it is at work."""
    return Path(*KV, "runner", placement, node, group)


def procedure_at(name: Path) -> Path:
    """Return where the text of a procedure is stored."""
    return PROCEDURES + name


def module_at(name: Path) -> Path:
    """Return where the text of a module is stored."""
    return MODULES + name
