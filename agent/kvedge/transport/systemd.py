"""The service manager: tell it that we are ready, alive, or stopping (sd_notify(3)).

The protocol is one datagram of text to the socket that $NOTIFY_SOCKET names; without that every
call does nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping


class ServiceManager:
    """The process that started us and may watch over us."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        usec = environ.get("WATCHDOG_USEC", "")
        self._watchdog_s = int(usec) / 1e6 if usec.isdigit() else 0.0

    @property
    def watchdog_interval_s(self) -> float | None:
        """How often to call `alive`: a third of the time-out; None where nobody watches."""
        return self._watchdog_s / 3 if self._watchdog_s and self._address else None

    def ready(self, status: str) -> None:
        """Say that clients may connect."""
        self._send(f"READY=1\nSTATUS={status}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that we end on purpose."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]  # an abstract socket
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(1.0)
            try:
                sock.sendto(text.encode(), address)
            except OSError:
                return  # a manager that does not listen cannot be told so
