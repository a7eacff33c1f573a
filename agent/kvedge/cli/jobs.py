"""What `kv run` reads of the tree: jobs with their states, as rows for people and programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kvedge.cli.output import to_json
from kvedge.cli.tables import clipped, local_time
from kvedge.client.sync import SyncClient
from kvedge.errors import JobFailed
from kvedge.model.path import EMPTY, KV, Path
from kvedge.runner import places
from kvedge.runner.spec import JobSpec, JobStatus, Reason, Wall, is_fresh, next_start

GROUP = "default"
"""The group of jobs and runners that name none."""

_RESULT_MAX_CHARS = 40


@dataclass(frozen=True, slots=True)
class Runner:
    """Whose jobs: those of a group, on one node, any of its nodes, or all.

    Attributes:
        placement: "single", "any" or "all".
        group: Name of the group.
        node: Name of the node; empty where the placement names none.
    """

    placement: str
    group: str
    node: str = ""

    def job(self, tail: Path) -> Path:
        """Return where a job is stored."""
        return places.jobs_at(self.placement, node=self.node, group=self.group) + tail

    def state(self, tail: Path) -> Path:
        """Return where its state is stored, of `all` on this node."""
        return places.states_at(self.placement, node=self.node, group=self.group) + tail

    def output(self, tail: Path) -> Path:
        """Return where its output is stored, of `all` on this node."""
        return places.outputs_at(self.placement, node=self.node, group=self.group) + tail

    def __str__(self) -> str:
        """Return it as the options that name it."""
        node = {"single": f"-n {self.node}", "all": "-n -", "any": ""}[self.placement]
        group = "" if self.group == GROUP else f"-g {self.group}"
        return " ".join(filter(None, (node, group)))


@dataclass(frozen=True, slots=True)
class Row:
    """A job, and its state on one node.

    Attributes:
        runner: Whose job it is.
        tail: Its path there.
        node: The node of the state; empty where there is none.
        spec: What it shall do; None where the entry is wrong.
        status: What it did.
        tock: The tock of its entry.
        problem: What is wrong with the entry.
    """

    runner: Runner
    tail: Path
    node: str
    spec: JobSpec | None
    status: JobStatus
    tock: int
    problem: str = ""

    @property
    def state(self) -> str:
        """One or two words for what it does."""
        spec, status = self.spec, self.status
        if spec is None:
            return "invalid"
        if status.node is not None:
            return "running"
        if spec.code is None or spec.target is None:
            return "off"
        if status.waits is not None:
            return f"waiting: {status.waits}"
        if status.reason is None or is_fresh(spec, status, tock=self.tock):
            return "waiting"
        return str(status.reason)

    def next_s(self, now: float) -> float | None:
        """Return the unix time of the next start; None where none is known."""
        if self.spec is None or self.runner.placement == "any":
            return None
        if self.spec.has_words and self.status.node is None:
            return self.status.computed  # the runner knows the zone
        start = next_start(self.spec, self.status, wall=Wall(now), tock=self.tock)
        return None if start is None else now + start.wait_s

    def cells(self, now: float) -> list[str]:
        """Return it as a row of the table with the header `HEADER`."""
        next_s = self.next_s(now)
        due = "now" if next_s is not None and next_s <= now else local_time(next_s)
        result = to_json(self.status.result) if self.status.reason is Reason.DONE else "-"
        return [
            str(self.tail),
            self.node or {"any": "(any)", "all": "(all)"}[self.runner.placement],
            self.runner.group,
            code_text(self.spec),
            self.state,
            due,
            self.problem or clipped(result, _RESULT_MAX_CHARS),
        ]

    def fields(self, now: float) -> dict[str, Any]:
        """Return it for a program."""
        shown = self.status.to_value()
        return {
            "placement": self.runner.placement,
            "node": self.node or None,
            "group": self.runner.group,
            "path": str(self.tail),
            "code": code_text(self.spec) if self.spec else None,
            "state": self.state,
            "next": self.next_s(now),
            **{name: shown[name] for name in ("started", "stopped", "backoff", "reason", "result")},
            **({"problem": self.problem} if self.problem else {}),
        }


HEADER = ("path", "node", "group", "code", "state", "next start", "last result")


def code_text(spec: JobSpec | None) -> str:
    """Return the code of a job as `-c` takes it; `-` for none."""
    return "-" if spec is None or spec.code is None else str(spec.code)


def rows(client: SyncClient) -> Iterator[Row]:
    """Yield all jobs, those for all nodes once per node that has a state of it."""
    states = _states(client)
    for result in client.get_tree(KV / "run"):
        runner, tail = split(result.path)
        if runner is None or not tail:
            continue
        nodes = [runner.node]
        if runner.placement == "all":
            nodes = [known for known, path in states if path == result.path] or [""]
        for node in nodes:
            yield _row(runner, tail, node, result, states.get((node, result.path), {}))


def _states(client: SyncClient) -> dict[tuple[str, Path], Any]:
    """Return all states by node (empty for any) and the path of the job below `run`."""
    found = {}
    for result in client.get_tree(KV / "state"):
        path: Path = result.path
        placement = path[0] if path else None
        if placement == "all" and len(path) > 2:
            found[str(path[1]), Path("all") + path[2:]] = result.value
        elif len(path) > 2:
            found[str(path[1]) if placement == "single" else "", path] = result.value
    return found


def _row(runner: Runner, tail: Path, node: str, result: Any, state: object) -> Row:
    path = runner.job(tail)
    spec, status, problem = None, JobStatus(), ""
    try:
        spec = JobSpec.from_value(path, result.value)
        status = JobStatus.from_value(path, state)
    except JobFailed as error:
        problem = error.cause
    return Row(runner, tail, node, spec, status, result.tock, problem)


def split(path: Path) -> tuple[Runner | None, Path]:
    """Return runner and job of a path below `run`; no runner for what is no job's."""
    size = 3 if path[:1] == Path("single") else 2
    names = path[:size].elements
    if len(names) < size or names[0] not in places.PLACEMENTS:
        return None, EMPTY
    if not all(isinstance(name, str) for name in names):
        return None, EMPTY
    return Runner(str(names[0]), str(names[-1]), str(names[1]) if size == 3 else ""), path[size:]
