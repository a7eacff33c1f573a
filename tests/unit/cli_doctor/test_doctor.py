"""Each check of `kv doctor`, shown a sound thing and each way it can be wrong."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kvedge.cli import doctor as doctor_module
from kvedge.cli.connection import Session
from kvedge.cli.doctor import (
    FREE_FAIL_BYTES,
    FREE_WARN_BYTES,
    Visitor,
    check_clock,
    check_configuration,
    check_directory,
    check_disk,
    check_python,
    check_server,
    check_sockets,
    doctor,
    lock_holder,
    offered_checks,
    result_line,
    store_directory,
)
from kvedge.errors import AuthRequired, BadSetting, NotConnected, TimedOut
from kvedge.model.check import CheckResult, Level

OK, WARN, FAIL = Level.OK, Level.WARN, Level.FAIL
Sessions = Callable[..., Session]


def _only(results: list[CheckResult]) -> CheckResult:
    (result,) = results
    return result


# --- configuration ---------------------------------------------------------------------------


def test_configuration_names_its_files() -> None:
    assert _only(check_configuration(["/a", "/b"], [])).text == "/a, /b"
    assert _only(check_configuration([], [])).text == "no file; the defaults hold"


def test_each_problem_of_the_configuration_is_a_line() -> None:
    results = check_configuration(["/a"], [BadSetting("/a:1", "bad"), BadSetting("-C", "worse")])
    assert [(result.level, result.text) for result in results] == [
        (FAIL, "/a:1: bad"),
        (FAIL, "-C: worse"),
    ]


# --- server ----------------------------------------------------------------------------------


class Answering:
    """A connection to a server."""

    def __init__(self, greeting: Mapping[str, Any]) -> None:
        self.greeting = greeting
        self.closed = False

    def close(self) -> None:
        self.closed = True


def test_the_server_that_answers_is_named() -> None:
    connection = Answering({"node": "alpha", "version": (0, 1, 0)})

    def connect(endpoint: str) -> Answering:
        if endpoint == "unix:/a":
            raise NotConnected(endpoint, "No such file")
        return connection

    result = _only(check_server(["unix:/a", "h:1", "h:2"], connect))
    assert (result.level, result.text) == (OK, "node alpha, version 0.1.0, at h:1")
    assert connection.closed


def test_when_none_answers_each_reason_is_told() -> None:
    def connect(endpoint: str) -> Answering:
        if endpoint == "h:1":
            raise TimedOut("the greeting", 3)
        raise NotConnected(endpoint, "No such file")

    result = _only(check_server(["unix:/a", "h:1"], connect))
    assert result.level is FAIL
    assert "unix:/a: No such file; h:1: the greeting: no answer after 3 s" in result.text
    assert "kv agent" in result.remedy


def test_a_server_that_wants_a_login_is_a_warning() -> None:
    def connect(endpoint: str) -> Answering:
        raise AuthRequired("password")

    result = _only(check_server(["h:1"], connect))
    assert result.level is WARN
    assert "password" in result.text
    assert "kv -a" in result.remedy


# --- socket ----------------------------------------------------------------------------------


@pytest.fixture
def listening(tmp_path: Path) -> Path:
    """A Unix socket."""
    path = tmp_path / "kv.sock"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
    path.chmod(0o660)
    return path


def _visitor(*, allowed: bool, members: tuple[str, ...] = ()) -> Visitor:
    return Visitor("joe", access=lambda path, mode: allowed, members=lambda group: members)


def test_a_socket_that_may_be_used(listening: Path) -> None:
    result = _only(check_sockets([f"unix:{listening}", "h:1"], _visitor(allowed=True)))
    assert result.level is OK
    assert result.text.endswith("mode 0660")


def test_who_is_not_in_the_group_is_told_how_to_join(listening: Path) -> None:
    result = _only(check_sockets([f"unix:{listening}"], _visitor(allowed=False)))
    assert result.level is FAIL
    assert "joe is not in it" in result.text
    assert result.remedy.startswith("sudo usermod -aG ")
    assert result.remedy.endswith(" joe, then log in again")


def test_who_joined_since_is_told_to_log_in_again(listening: Path) -> None:
    visitor = _visitor(allowed=False, members=("ann", "joe"))
    assert _only(check_sockets([f"unix:{listening}"], visitor)).remedy == "log in again"


def test_a_file_in_the_place_of_a_socket(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = _only(check_sockets([f"unix:{tmp_path}/file"], _visitor(allowed=True)))
    assert (result.level, result.remedy) == (FAIL, f"rm {tmp_path}/file")


def test_a_socket_that_is_not_there_is_no_fault_of_its_own(tmp_path: Path) -> None:
    result = _only(check_sockets([f"unix:{tmp_path}/none"], _visitor(allowed=True)))
    assert (result.level, result.text) == (OK, f"none at {tmp_path}/none")


def test_without_socket_addresses_there_is_nothing_to_check() -> None:
    assert check_sockets(["h:1"], _visitor(allowed=True)) == []


# --- directory -------------------------------------------------------------------------------


@pytest.fixture
def no_locks(tmp_path: Path) -> Path:
    """A list of locks that is empty."""
    locks = tmp_path / "locks"
    locks.touch()
    return locks


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A directory with a file in it."""
    directory = tmp_path / "store"
    directory.mkdir()
    (directory / "lock").touch()
    return directory


def test_a_sound_directory(store: Path, no_locks: Path) -> None:
    result = _only(check_directory(store, user="joe", locks=no_locks))
    assert result.level is OK
    assert result.text.endswith("not in use")


def test_who_works_on_the_directory_is_told(store: Path) -> None:
    with (store / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = _only(check_directory(store, user="joe"))
    assert result.text.endswith(f"in use by process {os.getpid()}")


def test_a_waiting_lock_and_another_file_do_not_count(store: Path, tmp_path: Path) -> None:
    found = (store / "lock").stat()
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    locks = tmp_path / "list"
    locks.write_text(
        f"1: FLOCK  ADVISORY  WRITE 11 {place}:{found.st_ino + 1} 0 EOF\n"
        f"2: -> FLOCK  ADVISORY  WRITE 22 {place}:{found.st_ino} 0 EOF\n"
        "3: short\n"
    )
    assert lock_holder([found], locks) is None
    with locks.open("a") as file:
        file.write(f"4: POSIX  ADVISORY  WRITE 33 {place}:{found.st_ino} 0 EOF\n")
    assert lock_holder([found], locks) == 33
    assert lock_holder([found], tmp_path / "absent") is None


def test_a_directory_that_a_start_will_make(tmp_path: Path) -> None:
    result = _only(check_directory(tmp_path / "a/b", user="joe"))
    assert result.level is OK
    assert "a start makes it" in result.text


def test_a_file_in_the_place_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = _only(check_directory(tmp_path / "file", user="joe"))
    assert result.level is FAIL
    assert "is not a directory" in result.text


def test_a_directory_its_owner_may_not_write(store: Path, no_locks: Path) -> None:
    store.chmod(0o555)
    result = _only(check_directory(store, user="joe", locks=no_locks))
    store.chmod(0o755)
    assert (result.level, result.remedy) == (FAIL, f"sudo chmod u+rwx {store}")


def test_a_file_of_another_user_in_the_directory(
    store: Path, no_locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `sudo kv server` in the service's directory."""
    fields = list((store / "lock").stat())
    fields[4] += 1
    foreign = {"lock": os.stat_result(fields)}
    monkeypatch.setattr(doctor_module, "_files", lambda directory: foreign)
    result = _only(check_directory(store, user="joe", locks=no_locks))
    assert result.level is FAIL
    assert "but lock in it does not" in result.text
    assert result.remedy.startswith("sudo chown -R ")


def test_a_directory_that_may_not_be_looked_into(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(directory: Path) -> dict[str, os.stat_result]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor_module, "_files", refuse)
    result = _only(check_directory(store, user="joe"))
    assert (result.level, result.remedy) == (WARN, "sudo kv doctor")


def test_the_store_of_the_service_is_looked_at_by_who_has_none(tmp_path: Path) -> None:
    own, system = tmp_path / "own", tmp_path / "system"
    assert store_directory(str(own), chosen=False, system=str(system)) == own
    system.mkdir()
    assert store_directory(str(own), chosen=False, system=str(system)) == system
    assert store_directory(str(own), chosen=True, system=str(system)) == own
    own.mkdir()
    assert store_directory(str(own), chosen=False, system=str(system)) == own


# --- disk ------------------------------------------------------------------------------------


def _disk(
    *, free: int = 2**33, inodes: int = 10**6, all_inodes: int = 10**7, flags: int = 0
) -> Any:
    block = 4096
    return lambda path: os.statvfs_result(
        (block, block, 0, 0, free // block, all_inodes, 0, inodes, flags, 255)
    )


@pytest.mark.parametrize(
    ("statvfs", "level"),
    [
        (_disk(), OK),
        (_disk(free=FREE_WARN_BYTES), OK),
        (_disk(free=FREE_WARN_BYTES - 4096), WARN),
        (_disk(free=FREE_FAIL_BYTES - 4096), FAIL),
        (_disk(inodes=999), WARN),
        (_disk(inodes=15), FAIL),
        (_disk(free=FREE_FAIL_BYTES - 4096, inodes=999), FAIL),
        (_disk(inodes=0, all_inodes=0), OK),
    ],
)
def test_free_space_and_inodes(tmp_path: Path, statvfs: Any, level: Level) -> None:
    result = _only(check_disk(tmp_path / "absent", statvfs=statvfs))
    assert result.level is level
    assert bool(result.remedy) is (level is not OK)


def test_a_read_only_disk_names_what_to_mount(tmp_path: Path) -> None:
    result = _only(check_disk(tmp_path, statvfs=_disk(flags=os.ST_RDONLY)))
    assert result.level is FAIL
    assert "remount,rw /" in result.remedy


def test_the_disk_of_this_machine_can_be_asked(tmp_path: Path) -> None:
    assert "MiB free" in _only(check_disk(tmp_path)).text


# --- clock and interpreter -------------------------------------------------------------------


class FixedClock:
    """A clock that stands still."""

    def __init__(self, wall_s: float, *, synchronised: bool) -> None:
        self._wall_s = wall_s
        self._synchronised = synchronised

    def wall_s(self) -> float:
        return self._wall_s

    def wall_is_synchronised(self) -> bool:
        return self._synchronised

    def boottime_s(self) -> float:
        return 0.0


@pytest.mark.parametrize(
    ("wall_s", "synchronised", "level", "year"),
    [
        (1.8e9, True, OK, "2027"),
        (1.8e9, False, WARN, "2027"),
        (100.0, False, FAIL, "1970"),
        (4.1e9, False, FAIL, "2099"),
        (4.2e9, False, FAIL, "2103"),
    ],
)
def test_the_clock(wall_s: float, synchronised: bool, level: Level, year: str) -> None:
    result = _only(check_clock(FixedClock(wall_s, synchronised=synchronised)))
    assert result.level is level
    assert f" {year}-" in result.text
    assert bool(result.remedy) is (level is not OK)


def test_python_and_the_compiled_part_of_msgpack() -> None:
    found = _only(check_python((3, 12, 1), find=lambda name: object()))
    assert (found.level, found.text) == (OK, "Python 3.12.1, msgpack compiled")
    missing = _only(check_python((3, 12, 1), find=lambda name: None))
    assert missing.level is WARN
    assert "msgpack" in missing.remedy


# --- checks of other packages ----------------------------------------------------------------


def sound() -> list[CheckResult]:
    """A check of another package."""
    return [CheckResult("bus", OK, "fine"), CheckResult("bus", WARN, "slow", "wait")]


def raising() -> list[CheckResult]:
    """A check with a defect."""
    raise RuntimeError("no bus")


def wrong_type() -> list[str]:
    """A check that returns something else."""
    return ["fine"]


class Offer(EntryPoint):
    """An entry point that needs no installed package."""

    def load(self) -> object:
        if self.value == "absent":
            raise ModuleNotFoundError("No module named 'absent'")
        return globals()[self.value]


def _offered(value: str) -> list[CheckResult]:
    return list(offered_checks([Offer("bus", value, "kvedge.checks")]))


def test_checks_of_packages_are_run() -> None:
    assert _offered("sound") == sound()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("raising", "RuntimeError: no bus"),
        ("wrong_type", "TypeError: it did not return CheckResults"),
        ("absent", "ModuleNotFoundError: No module named 'absent'"),
        ("OK", "TypeError: "),
    ],
)
def test_a_broken_check_is_a_line_and_not_a_crash(value: str, words: str) -> None:
    result = _only(_offered(value))
    assert (result.name, result.level) == ("bus", FAIL)
    assert words in result.text


# --- the command -----------------------------------------------------------------------------


def test_a_line_has_its_remedy_below() -> None:
    assert result_line(CheckResult("disk", OK, "fine")) == "OK    disk           fine"
    assert result_line(CheckResult("disk", FAIL, "full", "make room")) == (
        "FAIL  disk           full\n      -> make room"
    )


@pytest.mark.parametrize(("level", "code"), [(OK, 0), (WARN, 0), (FAIL, 1)])
def test_the_exit_code_is_one_for_a_problem(
    session: Sessions, monkeypatch: pytest.MonkeyPatch, level: Level, code: int
) -> None:
    found = [CheckResult("a", level, "b", "c"), CheckResult("d", OK, "e")]
    monkeypatch.setattr(doctor_module, "examine", lambda session: iter(found))
    done = CliRunner().invoke(doctor, ["--json"], obj=session({}))
    assert done.exit_code == code
    assert json.loads(done.stdout) == [
        {"name": "a", "level": level.value, "text": "b", "remedy": "c"},
        {"name": "d", "level": "OK", "text": "e", "remedy": ""},
    ]


def test_a_whole_run_without_a_server(session: Sessions, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'[server]\ndir = "{tmp_path}/data"\nlisten = 5\n')
    options = session({"KV_CONFIG": str(config)}, socket=f"{tmp_path}/kv.sock")
    done = CliRunner().invoke(doctor, [], obj=options)
    assert done.exit_code == 1
    assert f"FAIL  configuration  {config}:3: server.listen must be a list" in done.stdout
    assert f"unix:{tmp_path}/kv.sock: No such file" in done.stdout
    assert f"{tmp_path}/data is not there yet" in done.stdout
    for name in ("disk", "clock", "python"):
        assert f" {name} " in done.stdout


def test_a_run_with_options_that_cannot_be_used(session: Sessions, tmp_path: Path) -> None:
    options = session({"KV_CONFIG": str(tmp_path / "absent.toml")})
    done = CliRunner().invoke(doctor, [], obj=options)
    assert done.exit_code == 1
    assert "mend the configuration first" in done.stdout
