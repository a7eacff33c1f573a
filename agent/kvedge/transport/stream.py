"""TCP and Unix sockets as anyio streams, for clients under asyncio and trio."""

from __future__ import annotations

import os

import anyio
from anyio.abc import ByteStream

from kvedge.errors import NotConnected
from kvedge.transport.address import is_unix, parse_address


async def connect(endpoint: str, timeout_s: float) -> ByteStream:
    """Return a connection to an address.

    Raises:
        BadSetting: The address is none.
        NotConnected: Nobody answers there in time, or we may not.
    """
    host, port = parse_address(endpoint)
    try:
        with anyio.fail_after(timeout_s):
            if is_unix(endpoint):
                return await anyio.connect_unix(host)
            return await anyio.connect_tcp(host, port)
    except OSError as error:  # time-outs are OSErrors too
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        why = cause.strerror or (os.strerror(cause.errno) if cause.errno else str(cause))
        raise NotConnected(endpoint, why or "no answer") from cause
