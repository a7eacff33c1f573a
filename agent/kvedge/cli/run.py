"""`kv run`: set jobs up, look at them, and run them in the foreground."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kvedge.cli.either_order import (
    PATH,
    EitherOrderGroup,
    NotFound,
    connect,
    json_option,
    say,
    the_session,
    with_tock,
)
from kvedge.cli.job_changes import Variables, change_job, variables_given
from kvedge.cli.job_output import LinePrinter, outputs, stored
from kvedge.cli.jobs import GROUP, HEADER, Row, Runner, rows
from kvedge.cli.tables import table
from kvedge.cli.times import seconds, seconds_or_words, start_time
from kvedge.clock import SystemClock
from kvedge.config.node import node_name
from kvedge.errors import BadSetting, JobError
from kvedge.model.path import EMPTY, KV, P, Path
from kvedge.runner.code import installed_names
from kvedge.runner.places import procedure_at
from kvedge.runner.spec import JobSpec, Missed
from kvedge.runner.zones import zone_named

if TYPE_CHECKING:
    from kvedge.client.sync import SyncClient

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


def _kept(name: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    """Return a callback that keeps an option for all commands of the line."""

    def keep(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.meta[f"{__name__}.{name}"] = value

    return keep


def _whose(command: _Decorated) -> _Decorated:
    """Give a command the options that say whose jobs are meant, before and behind its name."""
    node = click.option(
        "-n",
        "--node",
        metavar="NODE|-",
        expose_value=False,
        callback=_kept("node"),
        help="The node that runs the job; - for all of the group; without -n any of them.",
    )
    group = click.option(
        "-g",
        "--group",
        metavar="GROUP",
        expose_value=False,
        callback=_kept("group"),
        help=f"The group of nodes.  [default: {GROUP}]",
    )
    return node(group(command))


def _given(name: str) -> str | None:
    value: str | None = click.get_current_context().meta.get(f"{__name__}.{name}")
    return value


def _runner() -> Runner:
    """Return whose jobs -n and -g mean.

    Raises:
        BadSetting: One of them is no name.
    """
    group = _given("group") or GROUP
    node = _given("node")
    if node is None:
        return Runner("any", group)
    if node == "-":
        return Runner("all", group)
    try:
        name, note = node_name(node, "", None, None)
    except BadSetting as error:
        why = "the name of a node has 1 to 63 letters, digits, '_' or '-'"
        raise BadSetting(f"-n {node}", why) from error
    if note:
        say(f"note: {note}")
    return Runner("single", group, name)


@click.group(cls=EitherOrderGroup)
@_whose
@json_option
def run() -> None:
    """Jobs: set them up, look at them, run them.

    A job names its code and says when to run it.  With -n NODE it runs on that node; with `-n -`
    on every node of the group; without -n on any one of them.  PATH and verb may stand in either
    order, and `kv job` is the same command.

    $ kv run -n board1 set -c the.answer -t now a.question
    $ kv run -n board1 all
    $ kv run -n board1 state a.question
    """


# --- set -------------------------------------------------------------------------------------


@run.command("set")
@click.argument("path", type=PATH)
@click.option("-c", "--code", metavar="CODE", help="A procedure's name, or @NAME if installed.")
@click.option(
    "-t",
    "--time",
    "start",
    metavar="TIME",
    help="When to start: now (or 0), seconds from now, 07:30, a date, words; - for never.",
)
@click.option(
    "-r",
    "--repeat",
    metavar="SEC|WORDS",
    help="Run again this long after the end, or when the words say; 0: once.",
)
@click.option("-d", "--delay", metavar="SEC", help="Wait this long after an error.")
@click.option("-b", "--backoff", metavar="N", help="Factor of the delay for each further error.")
@click.option("-k", "--ok-after", metavar="SEC", help="It counts as working after this long.")
@click.option("--timeout", metavar="SEC", help="End it, as failed, after this long; 0: never.")
@click.option(
    "--missed",
    type=click.Choice([str(each) for each in Missed]),
    help="What to do with a start gone by.",
)
@click.option("--zone", metavar="ZONE|-", help="The time zone of the words; -: the node's own.")
@click.option(
    "-v",
    "--value",
    "values",
    nargs=2,
    multiple=True,
    metavar="NAME TEXT",
    help="A variable of the code, a text.",
)
@click.option(
    "-e",
    "--eval",
    "literals",
    nargs=2,
    multiple=True,
    metavar="NAME LITERAL",
    help="A variable of the code, a Python literal.",
)
@click.option("--unset", multiple=True, metavar="NAME", help="Take a variable away.")
@_whose
@json_option
def set_job(
    path: Path,
    code: str | None,
    start: str | None,
    repeat: str | None,
    delay: str | None,
    backoff: str | None,
    ok_after: str | None,
    timeout: str | None,
    missed: str | None,
    zone: str | None,
    values: tuple[tuple[str, str], ...],
    literals: tuple[tuple[str, str], ...],
    unset: tuple[str, ...],
) -> None:
    """Set up the job PATH, or change what is given of it.

    It runs when a runner of its node and group is at work: `kv agent`, or `kv run all`.

    $ kv run -n board1 set -c the.answer -t now a.question
    $ kv run -n board1 set -c @onewire -t now -e interval_s 10 sensors
    $ kv run -n board1 set -r 1h30m a.question
    $ kv run -n board1 set -c the.report -t 'mon 7 hr' -r 'mon 7 hr' a.report
    """
    changes: dict[str, object] = {} if code is None else {"code": _code(code)}
    now = datetime.fromtimestamp(SystemClock().wall_s(), UTC).astimezone()
    if start is not None:
        changes["target"] = start_time(start, now, "-t")
    if repeat is not None:
        changes["repeat"] = seconds_or_words(repeat, now, "-r")
    if missed is not None:
        changes["missed"] = missed
    if zone is not None:
        changes["zone"] = None if zone == "-" else zone
    spans = {
        "delay": ("-d", delay),
        "ok_after": ("-k", ok_after),
        "timeout": ("--timeout", timeout),
    }
    changes |= {
        name: seconds(text, option) for name, (option, text) in spans.items() if text is not None
    }
    if backoff is not None:
        changes["backoff"] = _number(backoff)
    variables = variables_given(values, literals, unset)
    if not changes and not variables:
        raise BadSetting(
            str(path), "say what to set, as -c CODE or -t now; see `kv run set --help`"
        )
    _set(_runner(), path, changes, variables)


def _code(text: str) -> Path | str:
    if text == "@":
        raise BadSetting("-c @", "the name of an installed procedure is missing behind the @")
    return text if text.startswith("@") else P(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise BadSetting(f"-b {text}", "a number from 1 on is needed") from error


def _set(runner: Runner, path: Path, changes: Mapping[str, object], variables: Variables) -> None:
    if not path:
        raise BadSetting("PATH", "':' is the root; a job needs a name; see `kv run set --help`")
    session = the_session()
    with connect() as client:
        spec, tock = change_job(
            client, runner.job(path), name=str(path), fields=changes, variables=variables
        )
        _tell_what_lacks(client, runner, path, spec)
    session.note(f"job {path} stored")
    if session.json:
        session.print({"tock": session.tock(tock)})


def _tell_what_lacks(client: SyncClient, runner: Runner, path: Path, spec: JobSpec) -> None:
    """Say why a job that is stored will not run yet."""
    code = spec.code
    if isinstance(code, Path) and "value" not in client.get(procedure_at(code)):
        say(f"note: there is no procedure {code} yet; store it with `kv code set {code}`")
    if isinstance(code, str) and code[1:] not in installed_names():
        say(f"note: {code} is not installed on this machine; see `kv code list --installed`")
    if spec.target is None:
        command = " ".join(f"kv run {runner} set -t now {path}".split())
        say(f"note: {path} has no start; give it one with `{command}`")
    if spec.zone is not None:
        try:
            zone_named(spec.zone)
        except BadSetting as error:
            say(f"note: {error}")
    if runner.placement == "any":
        say(f"note: {_NOT_ANY}; the job is stored, and waits")


_NOT_ANY = "this version does not run jobs of any node; give -n NODE, or -n - for all nodes"


# --- get, state, list, info, delete ----------------------------------------------------------


@run.command("get")
@click.argument("path", type=PATH)
@_whose
@json_option
def get_job(path: Path) -> None:
    """Print what the job PATH shall do.

    $ kv run -n board1 get a.question
    """
    runner = _runner()
    with connect() as client:
        result = client.get(runner.job(path))
        if "value" not in result:
            raise _no_job(client, runner, path)
    the_session().print(result.value)


@run.command("state")
@click.argument("path", type=PATH)
@_whose
@json_option
def state_of_job(path: Path) -> None:
    """Print what the job PATH did; with `-n -` by node.

    $ kv run -n board1 state a.question
    """
    runner = _runner()
    with connect() as client:
        states = stored(client, "state", runner, path)
        found = {node: with_tock(value) for node, value in states}
        if not found:
            raise _no_job(client, runner, path, has_run=False)
    the_session().print(found if runner.placement == "all" else found[runner.node])


@run.command("list")
@click.argument("prefix", type=PATH, required=False)
@_whose
@json_option
def list_jobs(prefix: Path | None) -> None:
    """Print a table of jobs.

    All, or those of -n and -g, and of these those at PREFIX and below.

    $ kv run list
    $ kv run -n board1 list
    """
    session = the_session()
    now = SystemClock().wall_s()
    is_wanted = _wanted(prefix or EMPTY)
    with connect() as client:
        found = [*filter(is_wanted, rows(client))]
    if session.json:
        session.print([row.fields(now) for row in found])
        return
    click.echo(table(HEADER, [row.cells(now) for row in found]), nl=False)
    if not found:
        say("there are no such jobs")
    if any(row.runner.placement == "any" for row in found):
        say(f"note: {_NOT_ANY}")


def _wanted(prefix: Path) -> Callable[[Row], bool]:
    """Return whether a job is among those of -n, -g and PREFIX, as a function."""
    group = _given("group")
    runner = None if _given("node") is None else _runner()

    def is_wanted(row: Row) -> bool:
        if group is not None and row.runner.group != group:
            return False
        if runner and (row.runner.placement, row.runner.node) != (runner.placement, runner.node):
            return False
        return row.tail.is_below(prefix)

    return is_wanted


@run.command()
@_whose
@json_option
def info() -> None:
    """Print who has jobs, and which runners are at work.

    $ kv run info
    """
    session = the_session()
    counts: dict[tuple[str, str, str], dict[str, Any]] = {}
    is_wanted = _wanted(EMPTY)
    with connect() as client:
        for row in filter(is_wanted, rows(client)):
            _count(counts, row.runner.placement, row.node, row.runner.group, row.state)
        for result in client.get_tree(KV / "runner"):
            if len(result.path) == 3 and isinstance(result.value, dict):
                placement, node, group = map(str, result.path)
                _count(counts, placement, node, group)["runner"] = result.value.get("name")
    found = [
        {"placement": placement, "node": node or None, "group": group, **numbers}
        for (placement, node, group), numbers in sorted(counts.items())
    ]
    if session.json:
        session.print(found)
        return
    header = ("placement", "node", "group", "jobs", "running", "runner")
    cells = [["-" if row[name] is None else str(row[name]) for name in header] for row in found]
    click.echo(table(header, cells), nl=False)
    if not found:
        say("there are no jobs and no runners")


def _count(
    counts: dict[tuple[str, str, str], dict[str, Any]],
    placement: str,
    node: str,
    group: str,
    state: str = "",
) -> dict[str, Any]:
    """Count a job of a runner, where there is one, and return the numbers of the runner."""
    numbers = counts.setdefault((placement, node, group), {"jobs": 0, "running": 0, "runner": None})
    numbers["jobs"] += bool(state)
    numbers["running"] += state == "running"
    return numbers


@run.command("delete")
@click.argument("path", type=PATH)
@_whose
@json_option
def delete_job(path: Path) -> None:
    """Delete the job PATH; if it runs, it is stopped.

    $ kv run -n board1 delete a.question
    """
    runner = _runner()
    session = the_session()
    with connect() as client:
        if not client.delete(runner.job(path)).changed:
            raise _no_job(client, runner, path)
    say(f"job {path} deleted")
    if session.json:
        session.print({"deleted": str(path)})


def _no_job(client: SyncClient, runner: Runner, path: Path, *, has_run: bool = True) -> NotFound:
    """Return the error that a job, or its state, is not there; tells where there is one."""
    same = [row.runner for row in rows(client) if row.tail == path]
    if not has_run and runner in same:
        ask = "is its runner at work?  See `kv run info`"
        return NotFound(
            str(path), f"the job has not run yet; {_NOT_ANY if runner.placement == 'any' else ask}"
        )
    if same:
        where = " or ".join(f"`{other}`" if str(other) else "no -n" for other in same)
        return NotFound(str(path), f"there is no such job with these options, but one with {where}")
    return NotFound(str(path), "there is no such job; `kv run list` shows what there is")


# --- log -------------------------------------------------------------------------------------


@run.command("log")
@click.argument("path", type=PATH)
@click.option("-f", "--follow", is_flag=True, help="Go on with what it prints, until ^C.")
@_whose
@json_option
def log_of_job(path: Path, follow: bool) -> None:  # noqa: FBT001 -- click passes by name
    """Print the last lines that the job PATH printed.

    $ kv run -n board1 log a.question
    $ kv run -n board1 log -f a.question
    """
    runner = _runner()
    printer = LinePrinter(the_session())
    with connect() as client:
        found = [*stored(client, "output", runner, path)]
        if not found and not (follow and "value" in client.get(runner.job(path))):
            raise _no_job(client, runner, path, has_run=False)
        for node, value in found:
            printer.show(node, value)
        for node, value in outputs(client, runner, path) if follow else ():
            printer.show(node, value)


# --- all -------------------------------------------------------------------------------------


@run.command("all")
@click.option("--size", type=click.IntRange(1), metavar="N", help="Wanted number of nodes.")
@click.option("--any-clock", is_flag=True, help="Trust the clock though nothing has set it.")
@_whose
def run_all(size: int | None, any_clock: bool) -> None:  # noqa: FBT001 -- click passes by name
    """Run jobs in the foreground, until ^C.

    What they print is printed.  One runner at a time serves the jobs of a node and group: beside a
    running agent this is refused.

    $ kv run -n board1 all
    """
    runner = _runner()
    if runner.placement == "any":
        raise JobError(f"run all: {_NOT_ANY}")
    if size is not None and size > 1:
        raise JobError(f"run all: --size {size}: this version does not watch a group's size")
    from kvedge.cli.foreground import run_in_foreground

    run_in_foreground(the_session(), runner, trusts_clock=any_clock)
