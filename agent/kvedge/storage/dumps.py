"""Dumps as files: read from anything that can be opened, written so that a half one is never seen.

The format stands in `protocol.dumpfile`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from kvedge.errors import AgentError, StorageError
from kvedge.protocol.dumpfile import DumpEntry, DumpHeader, DumpReader, DumpWriter

_CHUNK_BYTES = 64 * 1024
_FILE_MODE = 0o600  # values may be secrets


class DumpFile:
    """A dump to be read, more than once: what comes through a pipe is kept in a temporary file.

    Args:
        name: A file, or a pipe as shells make it by `<(cat FILE...)`.

    Raises:
        StorageError: It cannot be opened.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            self._file: BinaryIO = Path(name).open("rb")  # noqa: SIM115 -- closed by `close`
        except OSError as error:
            raise _unreadable(name, error) from error
        self._is_spooled = self._file.seekable()  # can be read again

    def check(self) -> int:
        """Read all of it and return how many entries it has.

        Raises:
            BadDump: It is damaged; the error names the byte.
            StorageError: It cannot be read.
        """
        count = 0
        for item in self.items():
            count += isinstance(item, DumpEntry)
        return count

    def entries(self) -> Iterator[DumpEntry]:
        """Yield the entries from the first one on; raises as `check` does."""
        for item in self.items():
            if isinstance(item, DumpEntry):
                yield item

    def items(self) -> Iterator[DumpEntry | DumpHeader]:
        """Yield headers and entries from the first one on; raises as `check` does."""
        reader = DumpReader(self.name)
        try:
            for data in self._chunks():
                yield from reader.feed(data)
        except StorageError:
            raise
        except OSError as error:
            raise _unreadable(self.name, error) from error
        reader.finish()

    def _chunks(self) -> Iterator[bytes]:
        if self._is_spooled:
            self._file.seek(0)
            while data := self._file.read(_CHUNK_BYTES):
                yield data
            return
        with ExitStack() as stack:
            spool = stack.enter_context(tempfile.TemporaryFile())
            while data := self._file.read(_CHUNK_BYTES):
                spool.write(data)
                yield data
            self._file.close()
            self._file, self._is_spooled = spool, True
            stack.pop_all()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def write_dump(name: str, header: DumpHeader, entries: Iterable[DumpEntry]) -> int:
    """Write a dump and return how many entries it has; it is on the disk then.

    A file gets its name when it is complete, in the place of an older one; what is no file, such
    as a pipe, is written to as it is.  Only its owner may read it.

    Raises:
        StorageError: It cannot be written; the older file is untouched.
    """
    given = Path(name)
    is_special = given.exists() and not given.is_file()
    target = given if is_special else given.resolve()  # a link stays one
    path = target if is_special else target.with_name(f".{target.name}.{os.getpid()}.tmp")
    writer = DumpWriter()
    try:
        with open(path, "wb", opener=_private) as file:
            file.write(writer.start(header))
            for entry in entries:
                file.write(writer.entry(entry))
            file.write(writer.end())
            if not is_special:
                file.flush()
                os.fsync(file.fileno())
        if not is_special:
            path.replace(target)
            sync_directory(target.parent)
    except AgentError:
        raise
    except OSError as error:
        raise StorageError(f"{name} cannot be written: {error.strerror}") from error
    finally:
        if not is_special:
            with suppress(OSError):
                path.unlink(missing_ok=True)
    return writer.count


def sync_directory(directory: Path) -> None:
    """Return when the names in a directory are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, _FILE_MODE)


def _unreadable(name: str, error: OSError) -> StorageError:
    return StorageError(f"{name} cannot be read: {error.strerror}")
