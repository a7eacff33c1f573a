"""A disk in memory that loses power, fills up and fails on request.

It keeps apart what was written and what was synced, names as well as contents.  After `crash`
only the synced part is there, and of what was written since then as much as the test says: any
length can be what a real disk has got to.  Bytes that were written and cut off again count as
written until the cut is synced.

A failed sync behaves as on Linux: the bytes are marked clean although they never reached the
disk, so a second sync of the same file succeeds and saves nothing.
"""

from __future__ import annotations

import errno
import os


class PowerCut(Exception):
    """The power went at this operation; `crash` comes next."""


class _Inode:
    def __init__(self) -> None:
        self.data = b""
        self.synced = b""
        self.longest = b""  # the longest the file has been since the last sync
        self.is_lost = False  # a sync has failed: nothing more will reach the disk


class MemoryFile:
    """A file that is open for appending."""

    def __init__(self, disk: MemoryDisk, inode: _Inode) -> None:
        self._disk = disk
        self._inode = inode

    def append(self, data: bytes) -> None:
        """Write at the end; a disk that is full takes a part, and fails."""
        room = self._disk.begin_change()
        self._set(self._inode.data + data[:room])
        if len(data) > room:
            raise _os_error(errno.ENOSPC)

    def _set(self, data: bytes) -> None:
        inode = self._inode
        inode.data = data
        if len(data) > len(inode.longest):
            inode.longest = data

    def size_bytes(self) -> int:
        """Return the length."""
        return len(self._inode.data)

    def truncate(self, size_bytes: int) -> None:
        """Cut the file."""
        self._disk.begin_change()
        self._inode.data = self._inode.data[:size_bytes]

    def sync(self) -> None:
        """Make the content safe."""
        self._disk.begin_operation()
        inode = self._inode
        if self._disk.sync_failures:
            self._disk.sync_failures -= 1
            inode.is_lost = True
            raise _os_error(errno.EIO)
        if not inode.is_lost:
            inode.synced = inode.longest = inode.data

    def close(self) -> None:
        """Let go of the file."""


class MemoryDisk:
    """A directory in memory.

    Attributes:
        capacity_bytes: What all files together may have; None for no limit.
        is_read_only: Whether changes fail.
        sync_failures: How many of the next syncs fail, of files and of the directory.
        power_left: How many operations are carried out before the power goes; None for all.
        operations: How many were carried out.
    """

    def __init__(self) -> None:
        self.capacity_bytes: int | None = None
        self.is_read_only = False
        self.sync_failures = 0
        self.power_left: int | None = None
        self.operations = 0
        self._files: dict[str, _Inode] = {}
        self._synced_files: dict[str, _Inode] = {}

    # --- faults ------------------------------------------------------------------------------

    def crash(
        self, *, torn_bytes: int = 0, created_kept: bool = False, removed_kept: bool = False
    ) -> None:
        """Lose power and come back.

        Args:
            torn_bytes: How much of each file's unsynced end reached the disk.
            created_kept: Whether names that were made since the directory was synced did.
            removed_kept: Whether the removal of names did.
        """
        before, after = self._synced_files, self._files
        if created_kept:
            self._files = before | after
        else:
            self._files = after | before
            for name in after.keys() - before.keys():
                del self._files[name]
        if removed_kept:
            for name in before.keys() - after.keys():
                del self._files[name]
        self._synced_files = dict(self._files)
        for inode in self._files.values():
            kept = len(inode.synced) if inode.is_lost else len(inode.synced) + torn_bytes
            inode.data = inode.synced + inode.longest[len(inode.synced) : kept]
            inode.synced = inode.longest = inode.data
            inode.is_lost = False
        self.power_left = None

    def flip(self, name: str, bit: int) -> None:
        """Change one bit of a file, also of its synced content."""
        inode = self._files[name]
        changed = bytearray(inode.data)
        changed[bit >> 3] ^= 1 << (bit & 7)
        inode.data = inode.synced = inode.longest = bytes(changed)

    def begin_operation(self) -> None:
        """Count an operation; fail where the power goes."""
        if self.power_left is not None:
            if not self.power_left:
                raise PowerCut
            self.power_left -= 1
        self.operations += 1

    def begin_change(self) -> int:
        """Count an operation that changes something; return how many bytes it may write."""
        self.begin_operation()
        if self.is_read_only:
            raise _os_error(errno.EROFS)
        return self.free_bytes()

    # --- the disk ----------------------------------------------------------------------------

    @property
    def directory(self) -> str:
        """What errors call it."""
        return "memory"

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return sorted(self._files)

    def read(self, name: str) -> bytes:
        """Return a whole file."""
        return self._find(name).data

    def create(self, name: str) -> MemoryFile:
        """Return a new, empty file; fail where there is one already, or no room at all."""
        room = self.begin_change()
        if name in self._files:
            raise _os_error(errno.EEXIST)
        if not room:
            raise _os_error(errno.ENOSPC)
        self._files[name] = _Inode()
        return MemoryFile(self, self._files[name])

    def replace(self, old: str, new: str) -> None:
        """Give a file another name, in one step."""
        self.begin_change()
        self._files[new] = self._find(old)
        del self._files[old]

    def remove(self, name: str) -> None:
        """Remove a file."""
        self.begin_change()
        self._find(name)
        del self._files[name]

    def sync_directory(self) -> None:
        """Make the names safe."""
        self.begin_operation()
        if self.sync_failures:
            self.sync_failures -= 1
            raise _os_error(errno.EIO)
        self._synced_files = dict(self._files)

    def free_bytes(self) -> int:
        """Return how much may still be written."""
        if self.capacity_bytes is None:
            return 1 << 40
        used = sum(len(inode.data) for inode in self._files.values())
        return max(0, self.capacity_bytes - used)

    def _find(self, name: str) -> _Inode:
        if name not in self._files:
            raise _os_error(errno.ENOENT)
        return self._files[name]


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
