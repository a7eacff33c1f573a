"""The one directory that a store lives in, as the few operations that the store needs.

`OsDisk` is the real one; `kvedge.testing.disk.MemoryDisk` fails and loses power on request.
Both raise OSError as the operating system does; the journal's callers translate it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

_FILE_MODE = 0o600  # values may be secrets


class DiskFile(Protocol):
    """A file that is open for appending."""

    def append(self, data: bytes) -> None:
        """Write all the bytes at the end; on an error some of them may be there."""
        ...

    def size_bytes(self) -> int:
        """Return how long the file is now."""
        ...

    def truncate(self, size_bytes: int) -> None:
        """Cut the file."""
        ...

    def sync(self) -> None:
        """Return when content and length are on the disk; its name is not."""
        ...

    def close(self) -> None:
        """Let go of the file, without any promise."""
        ...


class Disk(Protocol):
    """A flat directory of files."""

    @property
    def directory(self) -> str:
        """What errors call it."""
        ...

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """Return a whole file."""
        ...

    def create(self, name: str) -> DiskFile:
        """Return a new, empty file; fail where there is one already."""
        ...

    def replace(self, old: str, new: str) -> None:
        """Give a file another name, in one step; what had that name is gone."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file."""
        ...

    def sync_directory(self) -> None:
        """Return when all names are on the disk as they are now."""
        ...

    def free_bytes(self) -> int:
        """Return how much may still be written."""
        ...


class OsFile:
    """A file of the operating system."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def append(self, data: bytes) -> None:
        """Write all the bytes; a full disk takes a part of them before it fails."""
        written = os.write(self._descriptor, data)
        while written < len(data):
            written += os.write(self._descriptor, memoryview(data)[written:])

    def size_bytes(self) -> int:
        """Return the length."""
        return os.fstat(self._descriptor).st_size

    def truncate(self, size_bytes: int) -> None:
        """Cut the file."""
        os.ftruncate(self._descriptor, size_bytes)

    def sync(self) -> None:
        """Call fdatasync(2): it includes the length, and spares the time stamps."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)


class OsDisk:
    """A directory of the operating system, which exists."""

    def __init__(self, directory: Path) -> None:
        self._path = directory

    @property
    def directory(self) -> str:
        """The path."""
        return str(self._path)

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return sorted(child.name for child in self._path.iterdir() if child.is_file())

    def read(self, name: str) -> bytes:
        """Return a whole file."""
        return (self._path / name).read_bytes()

    def create(self, name: str) -> OsFile:
        """Return a new file that only its owner may read."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return OsFile(os.open(self._path / name, flags, _FILE_MODE))

    def replace(self, old: str, new: str) -> None:
        """Call rename(2)."""
        (self._path / old).replace(self._path / new)

    def remove(self, name: str) -> None:
        """Call unlink(2)."""
        (self._path / name).unlink()

    def sync_directory(self) -> None:
        """Call fsync(2) on the directory."""
        descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free_bytes(self) -> int:
        """Return what the file system leaves to ordinary users."""
        found = os.statvfs(self._path)
        return found.f_bavail * found.f_frsize
