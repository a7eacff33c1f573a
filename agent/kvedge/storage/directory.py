"""The claim of one process on the directory of a store."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from kvedge.errors import NameTaken, StorageError, StoreLocked, WriteRefused, WrongStore

LOCK_NAME = "lock"
TAKEN_NAME = "name-taken"
"""Marks a directory whose node's name another server has taken over."""

_DIRECTORY_MODE = 0o700
_LOCK_MODE = 0o600
_PID_MAX_BYTES = 32
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC}


class DirectoryLock:
    """Holds a directory until it is released, or the process ends however it may.

    It is a flock(2) on the file `lock`, in which the pid stands for whoever comes second.  The
    claim belongs to the open file, which a forked child shares: call `drop_in_child` there, or
    the directory stays claimed as long as the child lives.

    Args:
        directory: Is made where it does not exist, for its owner alone.

    Raises:
        StoreLocked: Another process has it.
        WriteRefused: The directory cannot be made or written to.
        WrongStore: It is something else than a directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
            self._descriptor = os.open(
                directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _LOCK_MODE
            )
        except OSError as error:
            raise _translated(directory, error) from error
        try:
            self._claim()
        except BaseException:
            self.release()
            raise

    def _claim(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreLocked(str(self.directory), self._pid_found()) from None
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise _translated(self.directory, error) from error

    def _pid_found(self) -> int:
        """Return the holder's pid; 0 in the moment before it is written."""
        text = os.pread(self._descriptor, _PID_MAX_BYTES, 0)
        return int(text) if text.strip().isdigit() else 0

    def release(self) -> None:
        """Let another process have the directory; also in children that share the claim."""
        if self._descriptor >= 0:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self.drop_in_child()

    def drop_in_child(self) -> None:
        """Give up this process's part in the claim, not the claim itself."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _translated(directory: Path, error: OSError) -> StorageError:
    if error.errno in _NOT_WRITABLE:
        return WriteRefused(f"{directory}: {error.strerror}")
    return WrongStore(str(directory), str(error.strerror))


def mark_taken(directory: str) -> None:
    """Mark a directory, so that no server starts from it unasked.

    Raises:
        OSError: The disk refuses.
    """
    Path(directory, TAKEN_NAME).touch()


def check_name(directory: str, node: str, *, take: bool) -> None:
    """See that no other server has taken over the name of a directory's node.

    Args:
        directory: Of the store.
        node: The name.
        take: Whether to take it back: the mark is removed.

    Raises:
        NameTaken: One has.
        StorageError: The mark cannot be removed, or not be looked for.
    """
    mark = Path(directory, TAKEN_NAME)
    try:
        if take:
            mark.unlink(missing_ok=True)
        is_taken = mark.exists()
    except OSError as error:
        raise _translated(Path(directory), error) from error
    if is_taken:
        raise NameTaken(node, directory)
