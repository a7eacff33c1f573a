"""What `kv run set` changes: parts of a job, written back under the chain that was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvedge.cli.literals import literal
from kvedge.client.sync import SyncClient
from kvedge.errors import BadSetting, BadValue, ChainMismatch, JobFailed
from kvedge.model.path import P, Path
from kvedge.model.value import MISSING, updated
from kvedge.runner.spec import JobSpec

_ATTEMPTS_MAX = 5  # of a read-change-write, as in `kv data set`

Variables = Sequence[tuple[Path, object]]
"""Parts of a job's data and what they shall be, MISSING for nothing; outer parts first."""


def variables_given(
    texts: Sequence[tuple[str, str]], literals: Sequence[tuple[str, str]], unset: Sequence[str]
) -> Variables:
    """Return what the options -v, -e and --unset say.

    Raises:
        BadSetting: A literal is none, or a name is given twice.
        BadPath: A name is no path.
    """
    changes: list[tuple[Path, object]] = [(P(name), text) for name, text in texts]
    changes += [(P(name), literal(text)) for name, text in literals]
    changes += [(P(name), MISSING) for name in unset]
    names = [name for name, _ in changes]
    for name in names:
        if names.count(name) > 1:
            raise BadSetting(f"variable {name}", "it is given twice; see `kv run set --help`")
    return sorted(changes, key=lambda change: len(change[0]))


def change_job(
    client: SyncClient,
    place: Path,
    *,
    name: str,
    fields: Mapping[str, object],
    variables: Variables,
) -> tuple[JobSpec, int]:
    """Read, change and write back a job; again where somebody else was faster.

    Args:
        client: The connection.
        place: Where the job is stored.
        name: What to call it in messages.
        fields: What shall be new; the other fields stay.
        variables: The parts of its data that shall be new.

    Returns:
        The job as it is now, and the tock of its entry.

    Raises:
        BadValue: A field cannot be so.
        BadSetting: There is no such job yet, and no code is given.
    """
    for attempts_left in reversed(range(_ATTEMPTS_MAX)):
        old = client.get(place, nchain=1)
        value = old.value if "value" in old and isinstance(old.value, dict) else {}
        spec = _changed(value, fields, variables, place=place, name=name)
        chain = old.chain if "value" in old else None
        try:
            return spec, client.set(place, {**value, **spec.to_value()}, chain=chain).tock
        except ChainMismatch:
            if not attempts_left:
                raise
    raise AssertionError  # the last attempt returns or raises


def _changed(
    value: Mapping[str, object],
    fields: Mapping[str, object],
    variables: Variables,
    *,
    place: Path,
    name: str,
) -> JobSpec:
    data: object = value.get("data") or {}
    for part, new in variables:
        data = updated(data, part, new)
    try:
        spec = JobSpec.from_value(place, {**value, **fields, "data": data})
    except JobFailed as error:
        raise BadValue(name, error.cause) from error
    if spec.code is None:
        raise BadSetting(name, "there is no such job yet; give its code with -c CODE")
    return spec
