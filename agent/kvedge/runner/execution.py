"""One run of a job: read its code, call it, and say how it ended.

This is where user code is called, so it is the one place that takes any exception for an answer.
"""

from __future__ import annotations

import functools
import inspect
import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from kvedge import job as messages
from kvedge.client.client import Client
from kvedge.client.faults import Detail
from kvedge.errors import LimitExceeded, UsageError
from kvedge.limits import VALUE_MAX_BYTES
from kvedge.model.path import P, Path
from kvedge.model.value import pack
from kvedge.runner import places
from kvedge.runner.code import (
    CodeMissing,
    Kind,
    StoredCode,
    dotted,
    load_installed,
    make_function,
    missing_modules,
)
from kvedge.runner.context import BlockingContext, Context, Owner, Place, tried_to_end, without_exit
from kvedge.runner.output import Output, current, job_logger
from kvedge.runner.spec import JobSpec, JobStatus, Reason

RESULT_MAX_BYTES = VALUE_MAX_BYTES - 4096
"""A result is a part of the state, which must be storable with it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        reason: Why.
        result: What the code returned.
        detail: The error, where it was one.
    """

    reason: Reason
    result: Any = None
    detail: Detail | None = None


@dataclass(slots=True)
class Crew:
    """What all runs of a runner share.

    Attributes:
        client: The connection to the node's own server.
        tasks: Where threads are waited for that outlive their run.
        cfg: The settings that jobs may see.
        ending: Set when the runner ends: threads are left behind then.
    """

    client: Client
    tasks: TaskGroup
    cfg: Mapping[str, Any]
    ending: anyio.Event = field(default_factory=anyio.Event)


class Names(dict[str, Any]):
    """A map whose items are attributes as well: `_cls`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


_CLASSES = Names(
    {name: kind for name, kind in vars(messages).items() if inspect.isclass(kind)}
    | {"MISSING": messages.MISSING}
)


def digits(number: float, count: int = 6) -> float:
    """Round a number to so many significant digits.

    >>> digits(1234.5678, 6)
    1234.57
    """
    if not number or not math.isfinite(number):
        return number
    return round(number, count - 1 - math.floor(math.log10(abs(number))))


class Execution:
    """One run.

    Attributes:
        uses: The code that was read, with the tocks of its entries; 0 where there was none.
    """

    def __init__(self, crew: Crew, place: Place, owner: Owner, output: Output) -> None:
        self._crew = crew
        self._place = place
        self._owner = owner
        self._output = output
        self.uses: dict[Path, int] = {}

    async def run(self, spec: JobSpec) -> Outcome:
        """Run the job once.

        A cancel ends what the job has started.  A thread cannot be ended: it is waited for,
        unless the runner ends.
        """
        current.set(self._output)
        try:
            result = await self._call(spec)
        except Exception as error:  # noqa: BLE001 -- user code: whatever it raises is its result
            cause = _cause(error)
            reason = Reason.MISSING if isinstance(cause, CodeMissing) else Reason.FAILED
            return Outcome(reason, detail=_detail(cause, spec))
        try:
            _check_result(result)
        except UsageError as error:
            return Outcome(Reason.FAILED, detail=Detail(f"its result: {error}", data=spec.data))
        return Outcome(Reason.DONE, result=result)

    async def _call(self, spec: JobSpec) -> Any:
        log = job_logger(self._output)
        async with anyio.create_task_group() as tasks:
            context = Context(self._crew.client, self._place, log, self._owner, tasks)
            if isinstance(spec.code, str):
                result = await self._call_installed(context, spec.code[1:], spec.data)
            else:
                assert spec.code is not None
                result = await self._call_stored(context, spec.code, spec.data)
            tasks.cancel_scope.cancel()
        return result

    async def _call_installed(self, context: Context, name: str, data: Mapping[str, Any]) -> Any:
        # An import may take a second and read the disk, which is not the loop's business.
        function = await anyio.to_thread.run_sync(load_installed, name)
        if inspect.iscoroutinefunction(function):
            return await without_exit(context.path, function, context, data)
        blocking = BlockingContext(context, self._crew.client)
        return await self._in_thread(functools.partial(function, blocking, data), blocking)

    async def _call_stored(self, context: Context, name: Path, data: Mapping[str, Any]) -> Any:
        stored = await self._read(places.procedure_at(name))
        modules = await self._read_modules(stored)
        variables = {
            **data,
            "_cfg": self._crew.cfg,
            "_cls": _CLASSES,
            "_digits": digits,
            "_log": context.log,
            "_P": P,
            "_Path": Path,
        }
        if stored.kind is Kind.ASYNC:
            variables |= {"_client": self._crew.client, "_self": context, "_info": context.info}
            return await without_exit(context.path, make_function(stored, variables, modules))
        blocking = BlockingContext(context, self._crew.client)
        variables |= {"_client": blocking.client, "_self": blocking}
        return await self._in_thread(make_function(stored, variables, modules), blocking)

    # --- threads --------------------------------------------------------------------------------

    async def _in_thread(self, function: Callable[[], Any], blocking: BlockingContext) -> Any:
        """Call a function in a thread of its own and wait for it."""
        done = anyio.Event()
        results: list[Any] = []
        errors: list[BaseException] = []

        def call() -> None:
            try:
                results.append(function())
            except BaseException as error:  # noqa: BLE001 -- a thread has no cancel; raised again below
                errors.append(error)

        async def wait() -> None:
            try:
                await anyio.to_thread.run_sync(
                    call, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
                )
            finally:
                done.set()

        self._crew.tasks.start_soon(wait)
        try:
            await done.wait()
        finally:
            blocking.end()
            await self._outlast(done)
        for error in errors:
            if isinstance(error, Exception):
                raise error
            raise tried_to_end(self._place.path, error) from error
        return results[0]

    async def _outlast(self, done: anyio.Event) -> None:
        """Wait for a thread to end, or for the runner to."""
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:

                async def give_up() -> None:
                    await self._crew.ending.wait()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(give_up)
                await done.wait()
                tasks.cancel_scope.cancel()

    # --- reading code ---------------------------------------------------------------------------

    async def _read(self, place: Path) -> StoredCode:
        found = await self._crew.client.get(place)
        if "value" not in found:
            self.uses[place] = 0
            raise CodeMissing(str(place), "there is no code")
        self.uses[place] = found.tock
        return StoredCode.from_value(place, found.value, tock=found.tock)

    async def _read_modules(self, stored: StoredCode) -> dict[str, StoredCode]:
        known: dict[Path, StoredCode] = {}
        while missing := missing_modules(stored, known):
            for name in missing:
                known[name] = await self._read(places.module_at(name))
        return {dotted(name): module for name, module in known.items()}


def _check_result(result: Any) -> None:
    """Raise where a result cannot be stored in the state of its job."""
    size = len(pack(JobStatus(result=result).to_value()))
    if size > RESULT_MAX_BYTES:
        raise LimitExceeded("it", actual=size, limit=RESULT_MAX_BYTES, unit="bytes")


# --- telling of errors ------------------------------------------------------------------------

OURS = ("kvedge.runner.", "anyio.", "contextlib", "concurrent.")
"""Modules that stand before those of the job in a traceback."""


def _cause(error: Exception) -> Exception:
    """Return the one error of a group, which the task group made of it; else what it is."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _detail(error: Exception, spec: JobSpec) -> Detail:
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith(OURS):
        frames = frames.tb_next
    if frames is None:
        return Detail(str(error) or type(error).__name__, data=spec.data)
    trace = "".join(traceback.format_exception(type(error), error, frames))
    return Detail(f"{type(error).__name__}: {error}", trace, data=spec.data)
