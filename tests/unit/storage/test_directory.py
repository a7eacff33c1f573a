"""The claim on a directory: one process has it, the other is told which."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvedge.errors import NameTaken, StoreLocked, WriteRefused, WrongStore
from kvedge.storage.directory import (
    LOCK_NAME,
    TAKEN_NAME,
    DirectoryLock,
    check_name,
    mark_taken,
)

HOLDER = """
import pathlib, sys
sys.path.insert(0, sys.argv[2])
from kvedge.storage.directory import DirectoryLock
with DirectoryLock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path, project_root: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has claimed `tmp_path`; it lets go at the end of its input."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), str(project_root / "agent")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "var" / "lib"
    with DirectoryLock(directory):
        assert directory.stat().st_mode & 0o777 == 0o700
        assert (directory / LOCK_NAME).read_text() == f"{os.getpid()}\n"


def test_second_claim_names_the_process(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path), pytest.raises(StoreLocked) as caught:
        DirectoryLock(tmp_path)
    assert caught.value.pid == os.getpid()
    assert str(tmp_path) in str(caught.value)


def test_released_directory_can_be_claimed_again(tmp_path: Path) -> None:
    first = DirectoryLock(tmp_path)
    first.release()
    first.release()
    with DirectoryLock(tmp_path):
        pass


@pytest.mark.system
def test_other_process_is_named(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(StoreLocked) as caught:
        DirectoryLock(tmp_path)
    assert caught.value.pid == holder.pid


@pytest.mark.system
def test_killed_process_leaves_no_claim(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    with DirectoryLock(tmp_path):
        assert (tmp_path / LOCK_NAME).read_text() == f"{os.getpid()}\n"


@pytest.mark.system
def test_child_that_drops_the_claim_does_not_keep_it(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    may_end, end = os.pipe()
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        lock.drop_in_child()
        os.write(told, b"x")
        os.close(end)
        os.read(may_end, 1)
        os._exit(0)
    os.read(ready, 1)
    with pytest.raises(StoreLocked):
        DirectoryLock(tmp_path)
    lock.drop_in_child()  # as the end of this process would
    DirectoryLock(tmp_path).release()
    os.close(end)
    assert os.waitpid(child, 0)[1] == 0
    for descriptor in (may_end, ready, told):
        os.close(descriptor)


def test_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WrongStore, match="file"):
        DirectoryLock(tmp_path / "file")


def test_directory_that_cannot_be_made_is_told() -> None:
    # The kernel lets nobody make a directory here, not even root.
    with pytest.raises(WriteRefused, match="/sys/kvedge"):
        DirectoryLock(Path("/sys/kvedge"))


# --- a name that another server has taken -----------------------------------------------------


@pytest.mark.parametrize("take", [False, True])
def test_a_directory_that_was_not_marked_may_be_used(tmp_path: Path, *, take: bool) -> None:
    check_name(str(tmp_path), "me", take=take)
    check_name(str(tmp_path / "is made later"), "me", take=take)


def test_a_marked_directory_is_refused_until_the_name_is_taken_back(tmp_path: Path) -> None:
    mark_taken(str(tmp_path))
    mark_taken(str(tmp_path))
    for _ in range(2):
        with pytest.raises(NameTaken) as caught:
            check_name(str(tmp_path), "me", take=False)
    assert (caught.value.node, caught.value.directory) == ("me", str(tmp_path))
    check_name(str(tmp_path), "me", take=True)
    assert not (tmp_path / TAKEN_NAME).exists()
    check_name(str(tmp_path), "me", take=False)


def test_a_mark_that_cannot_be_removed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark_taken(str(tmp_path))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(WriteRefused, match="Read-only file system"):
        check_name(str(tmp_path), "me", take=True)


def test_a_file_in_the_place_of_the_directory_has_no_mark(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WrongStore, match="file"):
        check_name(str(tmp_path / "file"), "me", take=True)
