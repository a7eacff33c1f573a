"""One job as its runner holds it: what it shall do, what it did, and how that is stored.

The entry of the state is written whole each time, from what the status is at that moment and one
write at a time, so an older status never comes after a newer one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import tzinfo

import anyio

from kvedge.client.client import Client
from kvedge.client.faults import Detail, Faults
from kvedge.client.result import Result
from kvedge.clock import Clock
from kvedge.errors import BadSetting, JobFailed, LinkError, StorageError
from kvedge.model.path import Path
from kvedge.runner import places
from kvedge.runner.execution import Outcome
from kvedge.runner.output import Echo, Output
from kvedge.runner.spec import JobSpec, JobStatus, Reason
from kvedge.runner.zones import zone_named

log = logging.getLogger(__name__)

FAULT = "job"
"""The subsystem of a run's own fault; those that a job sets by name are `job.NAME`."""

ENTRY_FAULT = "job-entry"
"""The subsystem of a job whose entry is wrong."""


class Job:
    """One job of a runner.

    Attributes:
        tail: Its path below the prefix of the runner.
        path: Its whole path.
        state_path: Where its state is stored.
        output_path: Where its output is stored.
        output: Its output.
        spec: What it shall do; None while its entry is absent or wrong.
        tock: The tock of that entry.
        status: What it did.
        uses: The code that the last run read, with the tocks.
        is_mended: That code has changed since.
        is_gone: Its entry was deleted.
        zone: The time zone of its words; None for that of the node.
        due: The unix time that it waits for; None where it is none.
        scope: The run that is under way.
        stop_reason: Why that run was told to end.
    """

    def __init__(
        self,
        client: Client,
        faults: Faults,
        clock: Clock,
        *,
        tail: Path,
        path: Path,
        state_path: Path,
        output_path: Path,
        echo: Echo,
    ) -> None:
        self.tail = tail
        self.path = path
        self.state_path = state_path
        self.output_path = output_path
        self.output = Output(str(tail), clock.wall_s, echo)
        self.spec: JobSpec | None = None
        self.tock = 0
        self.status = JobStatus()
        self.uses: dict[Path, int] = {}
        self.is_mended = False
        self.is_gone = False
        self.zone: tzinfo | None = None
        self.due: float | None = None
        self.scope: anyio.CancelScope | None = None
        self.stop_reason: Reason | None = None
        self._client = client
        self._faults = faults
        self._busy = anyio.Lock()

    @property
    def is_running(self) -> bool:
        """Whether a run is under way."""
        return self.scope is not None

    def take(self, item: Result) -> JobFailed | None:
        """Take up the job's entry, or that it was deleted; return what is wrong with it."""
        self.tock = item.tock
        self.is_gone = "value" not in item
        self.spec = None
        if self.is_gone:
            return None
        try:
            spec = JobSpec.from_value(self.path, item.value)
            self.zone = None if spec.zone is None else zone_named(spec.zone)
        except JobFailed as error:
            return error
        except BadSetting as error:
            return JobFailed(str(self.path), str(error))
        self.spec = spec
        if isinstance(self.spec.code, Path):  # so that a change of it is noticed
            self.uses.setdefault(places.procedure_at(self.spec.code), 0)
        return None

    def stop(self, reason: Reason) -> None:
        """Tell the run to end; the first reason counts."""
        if self.scope is not None and self.stop_reason is None:
            self.stop_reason = reason
            self.scope.cancel()

    # --- storing --------------------------------------------------------------------------------

    async def save(self, *, relaxed: bool = False) -> None:
        """Store the status."""
        async with self._busy:
            with _or_warn("the state", self.path):
                await self._client.set(self.state_path, self.status.to_value(), relaxed=relaxed)

    async def flush(self) -> None:
        """Store the output, where there is something new."""
        if self.output.is_dirty:
            self.output.is_dirty = False
            with _or_warn("the output", self.path):
                await self._client.set(self.output_path, self.output.to_value(), relaxed=True)

    async def remove(self) -> None:
        """Remove what was stored about a job that is no more."""
        self.status = JobStatus()
        with _or_warn("the removal", self.path):
            await self._client.delete(self.state_path)
            await self._client.delete(self.output_path)
            await self._faults.resolve_all(self.path)

    async def close(self, outcome: Outcome) -> None:
        """Store how a run ended; what cannot be stored because the server is gone is lost."""
        try:
            if outcome.detail is not None:
                await self._tell_end(outcome.reason, outcome.detail)
            elif outcome.reason is Reason.DONE:
                await self.clear_fault(FAULT)
            self.output.finish()
            await self.flush()
            await self.save()
        except LinkError as error:
            log.warning("the end of %s is not stored: %s", self.path, error)

    async def _tell_end(self, reason: Reason, detail: Detail) -> None:
        if reason is Reason.MISSING and self.status.backoff > 1:
            return  # it was told; that it is still so is no news
        await self.tell(detail)

    async def tell(self, detail: Detail) -> None:
        """Record that a run went wrong, as a fault and as a line of output."""
        self.output.finish()
        self.output.write(f"ERROR {detail.text}\n")
        await self.fault(FAULT, detail)

    async def fault(self, subsystem: str, detail: Detail) -> None:
        """Record a fault of the job."""
        with _or_warn("a fault", self.path):
            await self._faults.record(self.path, subsystem, detail)

    async def clear_fault(self, subsystem: str) -> None:
        """Resolve a fault of the job."""
        with _or_warn("the end of a fault", self.path):
            await self._faults.resolve(self.path, subsystem)

    # --- what a running job says ----------------------------------------------------------------

    async def works(self) -> None:
        """Note that the job works: its errors are over."""
        if self.status.backoff:
            self.status = replace(self.status, backoff=0)
            await self.save(relaxed=True)
        await self.clear_fault(FAULT)

    async def set_error(self, name: str, text: str) -> None:
        """Record a fault by name."""
        await self.fault(f"{FAULT}.{name}", Detail(text))

    async def clear_error(self, name: str) -> None:
        """Resolve it."""
        await self.clear_fault(f"{FAULT}.{name}")


@contextmanager
def _or_warn(what: str, path: Path) -> Iterator[None]:
    """Go on where the disk refuses: hardware wants to be looked after all the same."""
    try:
        yield
    except StorageError as error:
        log.warning("%s of %s is not stored: %s", what, path, error)
