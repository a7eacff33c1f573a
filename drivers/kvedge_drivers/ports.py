"""The buses as verbs: what a driver may ask of one, whoever serves it.

A port raises the driver errors of `kvedge.errors` and no others:

    PortUnavailable     the bus cannot be reached; try again later, all its devices are missing
    PortBusy            too much waits for it; nothing was done
    DeviceAbsent        this device does not answer, the bus works
    BadReading          it answers, with something unusable, or refuses a write

Every call ends within the time-out of its port.  A port may be used by many tasks; it serves them
one by one.
"""

from __future__ import annotations

from typing import Protocol


class OneWirePort(Protocol):
    """A 1-Wire bus.

    A device's address is its family and its serial number, in the order of the wire and without
    CRC: "28.0000000000A1".  Attributes have the names that owserver gives them.

    Attributes:
        name: The bus in messages and paths, such as "onewire:0".
    """

    name: str

    async def devices(self) -> list[str]:
        """Search the bus and return the addresses of all that answer, in no special order."""
        ...

    async def read(self, address: str, attribute: str) -> bytes:
        """Read an attribute from the device itself, never from a cache.

        Returns:
            The bytes of `scratchpad`; for numbers a decimal text, perhaps with blanks around it.
        """
        ...

    async def write(self, address: str, attribute: str, data: bytes) -> None:
        """Write an attribute.  After a PortUnavailable it may have happened."""
        ...

    async def convert_all(self) -> None:
        """Make all thermometers measure together; return when `scratchpad` has the results."""
        ...

    async def close(self) -> None:
        """Give back what the port holds."""
        ...
