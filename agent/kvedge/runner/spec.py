"""What shall run (JobSpec), what happened (JobStatus), and when a job starts next: pure data.

A run ends for one `Reason`, and the reason says what follows: see `next_start`.  Three things are
worth knowing before one reads it.

A target is a time, or 0 for "now".  Boards start in 1970, so "now" must not be compared with a
clock: a target 0 is fresh whenever the entry of the job was written after the last start, which
its tock tells.  Any other target is fresh while it differs from the one that was used last.

A job whose runner died, or whose board lost power, has not failed by itself: the first time it
starts again at once.  If it takes the runner down over and over, it is held back like a failure.

The wall clock may step.  So no pause is ever longer than it was meant to be, whatever `stopped`
says.

Words for a time ("12 hr") are counted `since` a moment: when the runner first saw them with a clock
that is right, or the last start or end of the job.  It is stored, so that a start which the board
slept through is found to be missed.  While the clock is not to be trusted, words wait.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import Any

from kvedge.errors import BadPath, BadSetting, JobFailed
from kvedge.model.path import P, Path
from kvedge.model.when import When

PAUSE_MAX_S = 86400.0
"""A failing job is tried once a day at least, unless its delay itself is longer."""


PAUSE_MIN_S = 1.0
"""A failing job is not tried more often: each try is stored three times, which wears the card."""


LATE_MAX_S = 60.0
"""A start that is later than this was missed: boards are busy, and clocks are corrected."""

STEP_BACK_MAX_S = 3600.0
"""A clock that is put back by less does not bring the same time of day again."""

CLOCK_WAIT = "the clock is not synchronised"
"""Why a job waits whose start is said in words."""


class Missed(StrEnum):
    """What becomes of a start whose time went by while no runner worked or the clock was wrong."""

    RUN = "run"
    SKIP = "skip"


class Reason(StrEnum):
    """Why a run ended."""

    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    BLOCKED = "blocked the loop"
    MISSING = "no code"
    INTERRUPTED = "interrupted"
    SHUTDOWN = "runner stopped"
    CHANGED = "changed"
    CANCELLED = "cancelled"


_Reader = Callable[[Any], Any]
"""Checks a field and returns it; raises ValueError, which says what it must be."""


# --- reading fields ---------------------------------------------------------------------------


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError("it must be a number")
    return value


def _seconds(value: object) -> float:
    number = _number(value)
    if number < 0:
        raise ValueError("it must be a number of seconds, 0 or more")
    return number


def _maybe(read: _Reader) -> _Reader:
    return lambda value: None if value is None else read(value)


def _factor(value: object) -> float:
    number = _number(value)
    if number < 1:
        raise ValueError("it must be a number, 1 or more")
    return number


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("it must be a whole number, 0 or more")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("it must be a text")
    return value


def _seconds_or_words(value: object) -> float | str:
    if not isinstance(value, str):
        return _seconds(value)
    try:
        When.parse(value)
    except BadSetting as error:
        raise ValueError(error.why) from error
    return value


def _missed(value: object) -> Missed:
    for policy in Missed:
        if policy == value:
            return policy
    raise ValueError(f"it must be one of {', '.join(Missed)}")


def _code(value: object) -> Path | str:
    if isinstance(value, str) and value.startswith("@"):
        path: object = value[1:]  # an empty name is refused below
    else:
        path = _path(value)
    if not isinstance(path, (Path, str)) or not path:
        raise ValueError("it must be the path of a procedure, or @ and the name of one")
    return path if isinstance(path, Path) else f"@{path}"


def _path(value: object) -> object:
    try:
        path = P(value) if isinstance(value, str) else value
        return Path(*path) if isinstance(path, (tuple, list)) else path
    except BadPath as error:
        raise ValueError(str(error)) from error


def _data(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError("it must be a map from names to values")
    return value


def _read(path: Path, value: object, readers: Mapping[str, _Reader]) -> dict[str, Any]:
    """Return the known fields of a map; those of later versions are passed over."""
    if not isinstance(value, Mapping):
        raise JobFailed(str(path), f"a map is wanted there, not {type(value).__name__}")
    found = {}
    for name, read in readers.items():
        if name not in value:
            continue
        try:
            found[name] = read(value[name])
        except ValueError as error:
            raise JobFailed(str(path), f"{name} is {reprlib.repr(value[name])}: {error}") from error
    return found


# --- the two entries --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What shall run, as the entry of the job says.

    Attributes:
        code: Path of a stored procedure, or "@name" of an installed one; None: not yet told.
        data: Variables for the code.
        target: Unix seconds of the start, or words for it; 0 starts it at once; None leaves it
            alone.
        repeat: Seconds from the end of a run to the next start, or words for it; 0 for none.
        delay: Seconds to wait after an error, to be multiplied by `backoff` once per error.
        backoff: That factor.
        ok_after: Seconds of running after which a job counts as working; 0: only its end does,
            or that it says so itself.
        timeout: Seconds after which a run is ended, as a failure; 0 for none.
        missed: What becomes of a start whose time went by.
        zone: Name of the time zone of the words; None: that of the node.
    """

    code: Path | str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    target: float | str | None = None
    repeat: float | str = 0
    delay: float = 100
    backoff: float = 1.1
    ok_after: float = 0
    timeout: float = 0
    missed: Missed = Missed.RUN
    zone: str | None = None

    @classmethod
    def from_value(cls, path: Path, value: object) -> JobSpec:
        """Read the entry of a job.

        Args:
            path: Where it stands, for the message.
            value: What stands there.

        Raises:
            JobFailed: A field is wrong; names it.
        """
        return cls(**_read(path, value, _SPEC_READERS))

    def to_value(self) -> dict[str, Any]:
        """Return what to store."""
        value = {item.name: getattr(self, item.name) for item in fields(self)}
        return value | {"missed": str(self.missed)}

    @property
    def has_words(self) -> bool:
        """Whether a start of it is said in words."""
        return isinstance(self.target, str) or isinstance(self.repeat, str)


_SPEC_READERS: dict[str, _Reader] = {
    "code": _maybe(_code),
    "data": _data,
    "target": _maybe(_seconds_or_words),
    "repeat": _seconds_or_words,
    "delay": _seconds,
    "backoff": _factor,
    "ok_after": _seconds,
    "timeout": _seconds,
    "missed": _missed,
    "zone": _maybe(_text),
}


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What happened, as the runner tells it.

    Attributes:
        started: Unix seconds of the last start.
        stopped: Unix seconds of the last end.
        pinged: Unix seconds when it was last seen running.
        result: What the last run returned.
        node: Where it runs; None while it does not.
        backoff: How many runs in a row did not work.
        computed: Unix seconds of the next start, as far as it is known.
        reason: Why the last run ended.
        target: The target that the last start used up.
        tock: The tock of the job's entry at the last start.
        since: Unix seconds from which words for the next start are counted; None: not known yet.
        since_tock: The tock of the entry with those words.
        waits: Why the next start is not known though there will be one.
    """

    started: float | None = None
    stopped: float | None = None
    pinged: float | None = None
    result: Any = None
    node: str | None = None
    backoff: int = 0
    computed: float | None = None
    reason: Reason | None = None
    target: float | str | None = None
    tock: int = 0
    since: float | None = None
    since_tock: int = 0
    waits: str | None = None

    @classmethod
    def from_value(cls, path: Path, value: object) -> JobStatus:
        """Read the entry of a state; raises JobFailed with the field that is wrong."""
        return cls(**_read(path, value, _STATUS_READERS))

    def to_value(self) -> dict[str, Any]:
        """Return what to store."""
        value = {item.name: getattr(self, item.name) for item in fields(self)}
        return value | {"reason": None if self.reason is None else str(self.reason)}


_STATUS_READERS: dict[str, _Reader] = {
    "started": _maybe(_seconds),
    "stopped": _maybe(_seconds),
    "pinged": _maybe(_seconds),
    "result": lambda value: value,
    "node": _maybe(_text),
    "backoff": _count,
    "computed": _maybe(_seconds),
    "reason": _maybe(Reason),
    "target": _maybe(lambda value: value if isinstance(value, str) else _seconds(value)),
    "tock": _count,
    "since": _maybe(_seconds),
    "since_tock": _count,
    "waits": _maybe(_text),
}


# --- what follows -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wall:
    """What the wall clock says, and how far it is to be trusted.

    Attributes:
        now: Unix seconds, right or wrong.
        is_right: Words for a time may be counted by it.
        zone: Whose calendar counts.
    """

    now: float
    is_right: bool = True
    zone: tzinfo = UTC


@dataclass(frozen=True, slots=True)
class Start:
    """The next start.

    Attributes:
        wait_s: Seconds from now; 0 for at once; infinite where it is not known.
        by_wall: It is a time of day: when the wall clock steps, or becomes right, ask again.
        waits: Why it is not known.
    """

    wait_s: float
    by_wall: bool = False
    waits: str | None = None


_NOW = Start(0)
_WHEN_CLOCK_IS_RIGHT = Start(math.inf, by_wall=True, waits=CLOCK_WAIT)


def pause_s(spec: JobSpec, errors: int) -> float:
    """Return how long to wait after so many errors in a row."""
    longest = max(PAUSE_MAX_S, spec.delay)
    if spec.delay < PAUSE_MIN_S:
        return PAUSE_MIN_S
    if errors * math.log(spec.backoff) > math.log(longest / spec.delay):
        return longest
    return spec.delay * spec.backoff**errors


def _after_success(spec: JobSpec, _: JobStatus) -> float | str | None:
    return spec.repeat or None


def _after_error(spec: JobSpec, status: JobStatus) -> float | None:
    return pause_s(spec, status.backoff)


def _after_interruption(spec: JobSpec, status: JobStatus) -> float | None:
    return 0 if status.backoff <= 1 else pause_s(spec, status.backoff)


def _at_once(_: JobSpec, __: JobStatus) -> float | None:
    return 0


def _never(_: JobSpec, __: JobStatus) -> float | None:
    return None


_AFTER: dict[Reason | None, Callable[[JobSpec, JobStatus], float | str | None]] = {
    None: _never,
    Reason.DONE: _after_success,
    Reason.FAILED: _after_error,
    Reason.TIMED_OUT: _after_error,
    Reason.BLOCKED: _after_error,
    Reason.MISSING: _after_error,
    Reason.INTERRUPTED: _after_interruption,
    Reason.SHUTDOWN: _at_once,
    Reason.CHANGED: _at_once,
    Reason.CANCELLED: _never,
}
_ERRORS = (Reason.FAILED, Reason.TIMED_OUT, Reason.BLOCKED, Reason.MISSING)
_MENDABLE = (*_ERRORS, Reason.INTERRUPTED)


def is_fresh(spec: JobSpec, status: JobStatus, *, tock: int) -> bool:
    """Tell whether the target has not been used for a start yet."""
    if spec.target is None:
        return False
    if isinstance(spec.target, str) or spec.target == 0:
        return tock != status.tock
    return spec.target != status.target


def next_start(
    spec: JobSpec, status: JobStatus, *, wall: Wall, tock: int, is_mended: bool = False
) -> Start | None:
    """Return when a job starts next; None for not at all, as things are.

    Args:
        spec: What shall run.
        status: What happened.
        wall: What time it is.
        tock: The tock of the job's entry.
        is_mended: Its code has changed since the last run.
    """
    if spec.code is None or spec.target is None or status.node is not None:
        return None
    if is_fresh(spec, status, tock=tock):
        return _at_target(spec, status, wall, tock)
    pause = _AFTER[status.reason](spec, status)
    if pause is None:
        return None
    if isinstance(pause, str):
        return _by_words(pause, spec, status, wall, tock)
    if status.reason in _MENDABLE and (is_mended or tock != status.tock):
        return _NOW
    stopped = wall.now if status.stopped is None else min(status.stopped, wall.now)
    return Start(max(0.0, stopped + pause - wall.now))


def _at_target(spec: JobSpec, status: JobStatus, wall: Wall, tock: int) -> Start | None:
    assert spec.target is not None
    if isinstance(spec.target, str):
        return _by_words(spec.target, spec, status, wall, tock)
    if spec.target and spec.missed is Missed.SKIP and wall.now - spec.target > LATE_MAX_S:
        return None
    return Start(max(0.0, spec.target - wall.now), by_wall=spec.target > wall.now)


def _by_words(words: str, spec: JobSpec, status: JobStatus, wall: Wall, tock: int) -> Start | None:
    if not wall.is_right:
        return _WHEN_CLOCK_IS_RIGHT
    pattern = When.parse(words)
    since = counted_since(status, wall.now, tock=tock)
    due = _due(pattern, since, wall.zone)
    if due is not None and wall.now - due > LATE_MAX_S and spec.missed is Missed.SKIP:
        due = _due(pattern, wall.now, wall.zone)
    return None if due is None else Start(max(0.0, due - wall.now), by_wall=due > wall.now)


def _due(pattern: When, since: float, zone: tzinfo) -> float | None:
    found = pattern.next_after(datetime.fromtimestamp(since, zone))
    return None if found is None else found.timestamp()


def counted_since(status: JobStatus, now: float, *, tock: int) -> float:
    """Return from when on words for the next start are counted.

    A small step back of the clock does not bring a time of day again; a large one means that the
    clock was wrong.
    """
    if status.since is None or status.since_tock != tock:
        return now
    return status.since if status.since - now <= STEP_BACK_MAX_S else now


def must_stop(old: JobSpec, new: JobSpec, status: JobStatus, *, tock: int) -> Reason | None:
    """Return why a running job must end when its entry has changed; None lets it go on.

    A target in words is for the next run.
    """
    if new.code is None or new.target is None:
        return Reason.CANCELLED
    is_now = not isinstance(new.target, str) and is_fresh(new, status, tock=tock)
    if new.code != old.code or new.data != old.data or is_now:
        return Reason.CHANGED
    return None


def begun(
    spec: JobSpec,
    status: JobStatus,
    *,
    wall: Wall,
    node: str,
    tock: int,
    due: float | None = None,
) -> JobStatus:
    """Return the status of a job that starts.

    Args:
        spec: What it starts with.
        status: What happened before.
        wall: What time it is.
        node: Where it runs.
        tock: The tock of the entry that it starts with.
        due: The unix time that was waited for, where it was one: timers may be early.
    """
    return replace(
        status,
        started=wall.now,
        pinged=wall.now,
        node=node,
        computed=None,
        reason=None,
        target=spec.target,
        tock=tock,
        since=_later(wall, due),
        since_tock=tock,
        waits=None,
    )


def ended(status: JobStatus, reason: Reason, *, wall: Wall, result: Any = None) -> JobStatus:
    """Return the status of a job that has ended."""
    backoff = 0 if reason is Reason.DONE else status.backoff + (reason in _ERRORS)
    return replace(
        status,
        stopped=wall.now,
        node=None,
        reason=reason,
        result=result,
        backoff=backoff,
        since=_later(wall, status.since),
        since_tock=status.tock,
    )


def _later(wall: Wall, other: float | None) -> float | None:
    """Return the later one of now and another time that is near; None while the clock is wrong."""
    if not wall.is_right:
        return None
    is_near = other is not None and 0 < other - wall.now <= STEP_BACK_MAX_S
    return other if is_near else wall.now


def interrupted(spec: JobSpec | None, status: JobStatus) -> JobStatus:
    """Return the status of a job that ran when its runner died.

    A run that had lasted longer than `delay` has shown that it works: counting begins anew.
    """
    seen = status.started if status.pinged is None else status.pinged
    ran_s = (seen or 0) - (status.started or 0)
    backoff = 1 if spec is not None and ran_s >= spec.delay else status.backoff + 1
    return replace(
        status, stopped=seen, node=None, reason=Reason.INTERRUPTED, result=None, backoff=backoff
    )
