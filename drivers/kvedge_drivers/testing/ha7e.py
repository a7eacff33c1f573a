"""A simulated HA7E / HA7S adapter: ASCII commands on a serial line, a 1-Wire bus behind it.

`Ha7eAdapter` is the protocol alone: bytes in, bytes out.  `Ha7ePty` serves it on a pseudo
terminal, so that a real owserver can be put in front of a simulated bus (`owserver --ha7e=PATH`).

Commands, each answered by a line that ends in CR:

    R           reset the bus                       empty line
    S  s        first, next of a search             the ROM, last byte first, or an empty line
    C  c        the same among those with an alarm
    A<16 hex>CR select a device                     the ROM as given
    M           select that, or the last found, again   the ROM
    W<nn><hex>  write nn bytes and read as many     the bytes read

Source: HA7S data sheet (Embedded Data Systems), sections on the ASCII command set.
"""

from __future__ import annotations

import os
import select
import tempfile
import threading
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from kvedge_drivers.testing.onewire import RomCommand, SimulatedBus

_SEARCHES = {"S": RomCommand.SEARCH, "C": RomCommand.ALARM_SEARCH}
_SELECT_CHARS = 1 + 16 + 1
_WRITE_HEAD_CHARS = 3
_READ_SIZE_BYTES = 4096
_END_SEEN_AFTER_S = 0.05


class Ha7eAdapter:
    """The protocol of the adapter."""

    def __init__(self, bus: SimulatedBus) -> None:
        self._bus = bus
        self._pending = ""
        self._selected = b""
        self._found: Iterator[bytes] = iter(())

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the line and return what the adapter sends."""
        self._pending += data.decode("latin-1")
        answer = ""
        while 0 < (size := self._command_chars()) <= len(self._pending):
            command, self._pending = self._pending[:size], self._pending[size:]
            answer += self._execute(command)
        return answer.encode()

    def _command_chars(self) -> int:
        """Return the length of the command at hand; 0 where there is none yet."""
        match self._pending[:1]:
            case "A":
                return _SELECT_CHARS
            case "W":
                head = self._pending[1:_WRITE_HEAD_CHARS]
                return _WRITE_HEAD_CHARS + 2 * (_hex(head) or b"\0")[0]
            case letter:
                return len(letter)

    def _execute(self, command: str) -> str:
        match command[0]:
            case "R":
                self._bus.reset()
                return "\r"
            case "A" | "M":
                return self._select(command)
            case "W":
                return _line(self._bus.exchange(_hex(command[_WRITE_HEAD_CHARS:])))
            case "S" | "s" | "C" | "c" as letter:
                return self._find(letter)
        return ""  # noise, or the end of a line

    def _find(self, letter: str) -> str:
        """Search on; `M` selects what was found last, and owserver relies on that."""
        if letter in _SEARCHES:
            self._found = self._bus.search(_SEARCHES[letter])
        found = next(self._found, b"")
        self._selected = found or self._selected
        return _line(found[::-1])

    def _select(self, command: str) -> str:
        if command != "M":
            self._selected = _hex(command[1:17])[::-1]
        self._bus.reset()
        self._bus.exchange(bytes([RomCommand.MATCH]) + self._selected)
        return _line(self._selected[::-1])


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""  # the adapter says nothing about a bad command either


def _line(data: bytes) -> str:
    return data.hex().upper() + "\r"


class Ha7ePty:
    """Serves an adapter on a pseudo terminal, in a thread, while the `with` block lasts.

    Attributes:
        path: Where the terminal is found; stays the same when it is unplugged and comes back.
        is_hung: While set, nothing is answered and what arrives is lost.
    """

    def __init__(self, bus: SimulatedBus) -> None:
        self.is_hung = False
        self._bus = bus
        self._directory = tempfile.TemporaryDirectory(prefix="kvedge-ha7e-")
        self.path = Path(self._directory.name) / "adapter"
        self._thread: threading.Thread | None = None
        self._end = threading.Event()

    def __enter__(self) -> Self:
        self.plug()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.unplug()
        self._directory.cleanup()

    def plug(self) -> None:
        """Make the terminal appear, with a fresh adapter behind it; once only until `unplug`."""
        assert self._thread is None, "it is plugged in already"
        master, slave = os.openpty()
        tty.setraw(slave)
        self.path.symlink_to(os.ttyname(slave))
        self._end.clear()
        self._thread = threading.Thread(target=self._serve, args=(master, slave))
        self._thread.start()

    def unplug(self) -> None:
        """Make the terminal vanish; does nothing where it has."""
        if self._thread:
            self._end.set()
            self._thread.join()
            self._thread = None
            self.path.unlink()

    def _serve(self, master: int, slave: int) -> None:
        """Answer until the end; holds the slave as well, so that owserver may come and go."""
        adapter = Ha7eAdapter(self._bus)
        while not self._end.is_set():
            if select.select([master], [], [], _END_SEEN_AFTER_S)[0]:
                data = os.read(master, _READ_SIZE_BYTES)
                if not self.is_hung:
                    os.write(master, adapter.receive(data))
        os.close(slave)
        os.close(master)
