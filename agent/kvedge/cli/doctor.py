"""`kv doctor`: what may be wrong with this installation, and the line that mends it.

Each check looks at one thing and returns `CheckResult`s.  It is handed the paths, numbers and
functions it looks with, so that tests hand it others.  Packages add checks by the entry point
group `kvedge.checks`.
"""

from __future__ import annotations

import grp
import importlib.util
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol

import click

from kvedge import limits
from kvedge.cli.config import given_sources
from kvedge.cli.connection import Session, endpoints
from kvedge.client import sync
from kvedge.clock import Clock, SystemClock
from kvedge.config.places import (
    SOCKET_GROUP,
    SYSTEM_STATE,
    default_places,
    user_name,
)
from kvedge.config.settings import build, gather
from kvedge.errors import AccessError, AgentError, NotConnected, UsageError
from kvedge.model.check import CheckResult, Level
from kvedge.transport.address import is_unix

OK, WARN, FAIL = Level.OK, Level.WARN, Level.FAIL

CONNECT_TIMEOUT_S = 3.0
"""A server on this board greets within 10 ms; one that needs longer is in trouble."""

FREE_FAIL_BYTES = 4 * limits.SEGMENT_MAX_BYTES
"""A snapshot and its journal segments no longer fit below this."""

FREE_WARN_BYTES = 64 * limits.SEGMENT_MAX_BYTES
"""Time enough to do something about it."""

INODES_FAIL, INODES_WARN = 16, 1000
"""Files that can still be made; a store has about ten."""

YEARS_SANE = range(2024, 2099)
"""Boards without a clock chip start in 1970, and worn-out chips say 2099 or later."""


# --- configuration ---------------------------------------------------------------------------


def check_configuration(files: Sequence[str], problems: Sequence[UsageError]) -> list[CheckResult]:
    """Tell which files were read, and each thing that is wrong with them."""
    name = "configuration"
    if problems:
        remedy = "edit it, then: kv config check"
        return [CheckResult(name, FAIL, str(problem), remedy) for problem in problems]
    return [CheckResult(name, OK, ", ".join(files) or "no file; the defaults hold")]


# --- server ----------------------------------------------------------------------------------


class Connection(Protocol):
    """What is asked of a connection."""

    @property
    def greeting(self) -> Mapping[str, Any]:
        """The first message of the server."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


Connect = Callable[[str], Connection]
"""Connects to one address or raises an AgentError."""


def check_server(endpoints: Iterable[str], connect: Connect) -> list[CheckResult]:
    """Tell which server answers, or why none does."""
    reasons = []
    for endpoint in endpoints:
        try:
            connection = connect(endpoint)
        except AccessError as error:
            text = f"at {endpoint}: {error}"
            return [CheckResult("server", WARN, text, "log in: kv -a 'METHOD name=NAME' doctor")]
        except NotConnected as error:
            reasons.append(f"{endpoint}: {error.why}")
        except AgentError as error:
            reasons.append(f"{endpoint}: {error}")
        else:
            text = f"{_greeting_text(connection.greeting)}, at {endpoint}"
            connection.close()
            return [CheckResult("server", OK, text)]
    text = "none answers; " + "; ".join(reasons)
    return [CheckResult("server", FAIL, text, "sudo systemctl start kvedge, or by hand: kv agent")]


def _greeting_text(greeting: Mapping[str, object]) -> str:
    version = greeting.get("version")
    if isinstance(version, list | tuple):
        version = ".".join(str(part) for part in version)
    return f"node {greeting.get('node')}, version {version}"


# --- socket ----------------------------------------------------------------------------------


def group_members(group: str) -> list[str]:
    """Return the users that a group has been given."""
    try:
        return grp.getgrnam(group).gr_mem
    except KeyError:
        return []


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at the sockets.

    Attributes:
        name: Of the user.
        access: Tells whether this process may do something with a file.
        members: Returns the users that a group has been given, this login or later.
    """

    name: str
    access: Callable[[str, int], bool] = os.access
    members: Callable[[str], Sequence[str]] = group_members


def check_sockets(endpoints: Iterable[str], visitor: Visitor) -> list[CheckResult]:
    """Tell for each Unix socket that exists whether this user may use it."""
    paths = [each.removeprefix("unix:") for each in endpoints if is_unix(each)]
    if not paths:
        return []
    results = [result for path in paths for result in _check_socket(path, visitor)]
    return results or [CheckResult("socket", OK, f"none at {' or '.join(paths)}")]


def _check_socket(path: str, visitor: Visitor) -> Iterator[CheckResult]:
    try:
        found = os.stat(path)  # noqa: PTH116 - a path of an address is text
    except PermissionError:
        yield _denied(path, SOCKET_GROUP, visitor)
    except OSError:
        return
    else:
        group = _group_name(found.st_gid)
        if not stat.S_ISSOCK(found.st_mode):
            yield CheckResult("socket", FAIL, f"{path} is not a socket", f"rm {path}")
        elif not visitor.access(path, os.R_OK | os.W_OK):
            yield _denied(path, group, visitor)
        else:
            owner = user_name(found.st_uid)
            mode = stat.S_IMODE(found.st_mode)
            yield CheckResult("socket", OK, f"{path}, {owner}:{group}, mode {mode:04o}")


def _denied(path: str, group: str, visitor: Visitor) -> CheckResult:
    """Tell a user who must join the group from one who has joined since logging in."""
    text = f"{path} may be used by the group {group} only, and {visitor.name} "
    if visitor.name in visitor.members(group):
        return CheckResult("socket", FAIL, f"{text}joined it after logging in", "log in again")
    remedy = f"sudo usermod -aG {group} {visitor.name}, then log in again"
    return CheckResult("socket", FAIL, f"{text}is not in it", remedy)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


# --- directory and disk ----------------------------------------------------------------------


def check_directory(
    directory: Path, *, user: str, locks: Path = Path("/proc/locks")
) -> list[CheckResult]:
    """Tell whether the store's directory is there, whose it is, and who works on it.

    Args:
        directory: The directory of the store.
        user: Name of this user.
        locks: The kernel's list of file locks.
    """
    what = "directory"
    try:
        found = directory.stat()
        files = _files(directory)
    except FileNotFoundError:
        return [_missing_directory(directory, user)]
    except NotADirectoryError:
        text = f"{directory} is not a directory"
        return [CheckResult(what, FAIL, text, "move it away, or set [server] dir")]
    except OSError:
        owner = _owner(directory)
        return [CheckResult(what, WARN, f"{directory} belongs to {owner}", "sudo kv doctor")]
    owner = user_name(found.st_uid)
    foreign = [name for name, file in files.items() if file.st_uid != found.st_uid]
    if foreign:
        text = f"{directory} belongs to {owner}, but {foreign[0]} in it does not"
        return [CheckResult(what, FAIL, text, f"sudo chown -R {owner}: {directory}")]
    if not found.st_mode & stat.S_IWUSR:
        text = f"{directory} may not be written by its owner {owner}"
        return [CheckResult(what, FAIL, text, f"sudo chmod u+rwx {directory}")]
    holder = lock_holder(files.values(), locks)
    use = f"in use by process {holder}" if holder else "not in use"
    return [CheckResult(what, OK, f"{directory}, owner {owner}, {use}")]


def _files(directory: Path) -> dict[str, os.stat_result]:
    """Return the files by name; a running server may remove one while we look."""
    found = {}
    for file in directory.iterdir():
        with suppress(FileNotFoundError):
            found[file.name] = file.lstat()
    return found


def _owner(path: Path) -> str:
    try:
        return user_name(path.stat().st_uid)
    except OSError:
        return "somebody else"


def _missing_directory(directory: Path, user: str) -> CheckResult:
    parent = _nearest(directory)
    if os.access(parent, os.W_OK | os.X_OK):
        return CheckResult("directory", OK, f"{directory} is not there yet; a start makes it")
    text = f"{directory} is not there, and {user} may not make it in {parent}"
    return CheckResult("directory", FAIL, text, f"sudo install -d -o {user} {directory}")


def _nearest(path: Path) -> Path:
    """Return the path, or the nearest directory above it that exists."""
    return next(each for each in (path, *path.parents) if os.access(each, os.F_OK))


def lock_holder(files: Iterable[os.stat_result], locks: Path) -> int | None:
    """Return the number of the process that holds a lock on one of the files.

    The kernel's list is read, since trying a lock would disturb a server that just starts.
    """
    wanted = set()
    for file in files:
        device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}"
        wanted.add(f"{device}:{file.st_ino}")
    try:
        lines = locks.read_text("ascii").splitlines()
    except OSError:
        return None
    # 1: FLOCK  ADVISORY  WRITE 1234 08:01:131 0 EOF
    # One that waits has `->` behind the first number, and so its place in another column.
    held = (words for words in map(str.split, lines) if len(words) >= 6)
    return next((int(words[4]) for words in held if words[5] in wanted), None)


def check_disk(
    directory: Path, *, statvfs: Callable[[Path], os.statvfs_result] = os.statvfs
) -> list[CheckResult]:
    """Tell how much fits on the disk of the store."""
    place = _nearest(directory)
    found = statvfs(place)
    if found.f_flag & os.ST_RDONLY:
        mount = next(each for each in (place, *place.parents) if each.is_mount())
        text = f"{mount} is read-only; the kernel does that after an error of the card"
        return [CheckResult("disk", FAIL, text, f"dmesg, then: sudo mount -o remount,rw {mount}")]
    free = found.f_bavail * found.f_frsize
    text = f"{free // 2**20} MiB free for {directory}"
    level = _grade(free, fail=FREE_FAIL_BYTES, warn=FREE_WARN_BYTES)
    if found.f_files:  # some file systems have no fixed number of inodes and say 0
        text += f", {found.f_favail} inodes"
        inodes = _grade(found.f_favail, fail=INODES_FAIL, warn=INODES_WARN)
        level = max(level, inodes, key=list(Level).index)
    remedy = "" if level is OK else "make room; what takes it: du -xh / | sort -h | tail"
    return [CheckResult("disk", level, text, remedy)]


def _grade(amount: int, *, fail: int, warn: int) -> Level:
    if amount < fail:
        return FAIL
    return WARN if amount < warn else OK


# --- clock and interpreter -------------------------------------------------------------------


def check_clock(clock: Clock) -> list[CheckResult]:
    """Tell whether the wall clock can be trusted."""
    now = datetime.fromtimestamp(clock.wall_s(), UTC)
    text = f"{now:%Y-%m-%d %H:%M} UTC"
    remedy = "sudo timedatectl set-ntp true"
    if clock.wall_is_synchronised():
        return [CheckResult("clock", OK, f"synchronised, {text}")]
    if now.year in YEARS_SANE:
        return [CheckResult("clock", WARN, f"not synchronised, it says {text}", remedy)]
    return [CheckResult("clock", FAIL, f"not synchronised and wrong, it says {text}", remedy)]


def check_python(
    version: tuple[int, ...] = sys.version_info[:3],
    find: Callable[[str], object] = importlib.util.find_spec,
) -> list[CheckResult]:
    """Tell which interpreter runs, and whether msgpack has its compiled part."""
    text = "Python " + ".".join(map(str, version))
    if find("msgpack._cmsgpack") is None:
        text += "; msgpack lacks its compiled part, so all is slow"
        remedy = "sudo apt install python3-msgpack, or: pip install --force-reinstall msgpack"
        return [CheckResult("python", WARN, text, remedy)]
    return [CheckResult("python", OK, f"{text}, msgpack compiled")]


# --- checks of other packages ----------------------------------------------------------------


def offered_checks(offers: Iterable[EntryPoint]) -> Iterator[CheckResult]:
    """Run the checks that installed packages offer; a broken one is a result, not a crash."""
    for offer in offers:
        try:
            results = list(offer.load()())
            if not all(isinstance(result, CheckResult) for result in results):
                raise TypeError("it did not return CheckResults")
        except Exception as error:  # noqa: BLE001 - code of others, supervised here
            text = f"the check {offer.value} failed: {type(error).__name__}: {error}"
            yield CheckResult(offer.name, FAIL, text, "reinstall or upgrade the package it is of")
        else:
            yield from results


# --- the command -----------------------------------------------------------------------------


def examine(session: Session) -> Iterator[CheckResult]:
    """Run all checks on this machine."""
    gathered = gather(**given_sources(session))
    yield from check_configuration(gathered.files, gathered.problems)
    uid = os.geteuid()
    user = user_name(uid)
    settings = build(gathered, places=default_places(session.environ, uid=uid, user=user))
    directory = store_directory(settings.server.dir, chosen="server.dir" in settings.origins)
    try:
        addresses = endpoints(session.given, session.environ)
    except UsageError as error:
        yield CheckResult("server", FAIL, str(error), "mend the configuration first")
    else:
        yield from check_server(addresses, lambda e: _connect(e, settings.connect.auth))
        yield from check_sockets(addresses, Visitor(user))
    yield from check_directory(directory, user=user)
    yield from check_disk(directory)
    yield from check_clock(SystemClock())
    yield from check_python()
    yield from offered_checks(sorted(entry_points(group="kvedge.checks")))


def store_directory(own: str, *, chosen: bool, system: str = SYSTEM_STATE) -> Path:
    """Return the store to look at: the service's, where the user has none of its own.

    Args:
        own: The directory that a server of this user would have.
        chosen: Whether somebody set it.
        system: The directory of the service.
    """
    directory = Path(own)
    if chosen or directory.exists() or not os.access(system, os.F_OK):
        return directory
    return Path(system)


def _connect(endpoint: str, auth: str | None) -> Connection:
    return sync.connect([endpoint], auth=auth, timeout_s=CONNECT_TIMEOUT_S)


def result_line(result: CheckResult) -> str:
    """Return a result for people, the remedy on a line of its own."""
    line = f"{result.level.value:<5} {result.name:<14} {result.text}"
    return f"{line}\n      -> {result.remedy}" if result.remedy else line


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:  # noqa: FBT001 - click calls it by name
    """Look for what is wrong with this installation, and say what mends it.

    The exit code is 1 where something is wrong; warnings alone leave it 0.
    """
    session: Session = ctx.obj
    results = list(examine(session))
    if as_json or session.json:
        rows = [{**asdict(result), "level": result.level.value} for result in results]
        click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        click.echo("\n".join(result_line(result) for result in results))
    if any(result.level is FAIL for result in results):
        ctx.exit(1)
