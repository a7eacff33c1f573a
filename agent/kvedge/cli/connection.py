"""Which server a command talks to, and what all commands share.

The order: `-s` or `-h` and `-p`; the environment (KV_SOCKET, KV_HOST, KV_PORT, KV_AUTH); the
`[connect]` table of the configuration; then the usual places, the first that answers.  What is
named is used alone: a script must not write to another server because the right one is down.

This module is on the path of every short command: it imports no more than it must.
"""

from __future__ import annotations

import os
import sys

from kvedge import limits
from kvedge.cli.output import to_json, to_yaml, yaml_item
from kvedge.client.endpoints import usual_endpoints
from kvedge.config.connect import connect_settings
from kvedge.errors import BadSetting
from kvedge.transport.address import PORT as PORT_DEFAULT

_LOOPBACK = "127.0.0.1"
_OVERRIDES = ("connect.socket", "connect.host")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, Protocol, Self

    from kvedge.cli.options import Given
    from kvedge.config.connect import ConnectSettings
    from kvedge.model.path import Path

    class Result(Protocol):
        """An answer: its fields are attributes, and `in` tells whether one is there."""

        def __contains__(self, name: str) -> bool: ...
        def __getattr__(self, name: str) -> Any: ...

    class Client(Protocol):
        """What the data commands ask of `kvedge.client.sync.SyncClient`."""

        def __enter__(self) -> Self: ...
        def __exit__(self, *error: object) -> None: ...
        def get(self, path: Path, *, nchain: int = ...) -> Result:
            """Return an entry."""
            ...

        def set(
            self, path: Path, value: object, *, chain: object = ..., nchain: int = ...
        ) -> Result:
            """Store a value."""
            ...

        def delete(self, path: Path, *, chain: object = ...) -> Result:
            """Delete a value."""
            ...

        def delete_tree(self, path: Path) -> Result:
            """Delete many."""
            ...

        def list(self, path: Path, *, with_data: bool = ..., empty: bool = ...) -> Iterable[Any]:
            """Return the children."""
            ...

        def get_tree(
            self,
            path: Path,
            *,
            min_depth: int = ...,
            max_depth: int | None = ...,
            nchain: int = ...,
            empty: bool = ...,
        ) -> Iterator[Result]:
            """Yield entries."""
            ...

        def watch(
            self,
            path: Path,
            *,
            fetch: bool = ...,
            min_depth: int = ...,
            max_depth: int | None = ...,
            nchain: int = ...,
        ) -> Iterator[Result]:
            """Yield entries, then changes."""
            ...


class Session:
    """What the global options of a command line mean; click commands find it in `ctx.obj`.

    Attributes:
        given: The global options.
        environ: The environment variables.
        json: Whether output is JSON.
        verbose: How often `-v` was given.
    """

    __slots__ = ("environ", "given", "json", "verbose")

    def __init__(self, given: Given, environ: Mapping[str, str]) -> None:
        self.given = given
        self.environ = environ
        self.json = bool(given.count("json"))
        self.verbose = given.count("verbose")

    def connect(self) -> Client:
        """Return a connected client.

        Raises:
            BadSetting: A setting, a file or a variable cannot be used.
            LinkError: No server answers.
            AccessError: It refuses the login.
        """
        from kvedge.client import sync

        settings = _settings(self.given, self.environ)
        client: Client = sync.connect(
            _addresses(self.given, self.environ, settings),
            auth=self.given.text("auth") or settings.auth,
            timeout_s=limits.REQUEST_TIMEOUT_S,
        )
        return client

    def print(self, value: object) -> None:
        """Print one value."""
        sys.stdout.write(to_json(value) + "\n" if self.json else to_yaml(value))

    def print_item(self, value: object) -> None:
        """Print one of many values at once: a line of JSON, or an item of a YAML list."""
        sys.stdout.write(to_json(value) + "\n" if self.json else yaml_item(value))
        sys.stdout.flush()

    def tock(self, tock: int) -> int | str:
        """Return a tock as it is printed; JSON readers would round the number."""
        return str(tock) if self.json else tock

    def note(self, text: str) -> None:
        """Say something to a person who wants to hear more."""
        if self.verbose:
            sys.stderr.write(f"kv: {text}\n")


def endpoints(given: Given, environ: Mapping[str, str]) -> list[str]:
    """Return where a server may be, in the order of trying: `unix:PATH` or `HOST:PORT`.

    Args:
        given: The global options.
        environ: The environment variables.

    Raises:
        BadSetting: An option, a setting, a file or a variable cannot be used.
    """
    return _addresses(given, environ, _settings(given, environ))


def _settings(given: Given, environ: Mapping[str, str]) -> ConnectSettings:
    return connect_settings(given.text("config"), given.texts("set"), environ)


def _addresses(given: Given, environ: Mapping[str, str], settings: ConnectSettings) -> list[str]:
    given.refuse_together("socket", "host")
    given.refuse_together("socket", "port")
    port_given = given.text("port")
    port = _port(port_given) if port_given else settings.port or PORT_DEFAULT
    named = (
        (given.text("socket"), given.text("host") or (port_given and _LOOPBACK)),
        (settings.socket, settings.host),
    )
    for socket, host in named:
        if socket:
            return [f"unix:{socket}"]
        if host:
            return [_tcp(host, port)]
    return usual_endpoints(environ, os.geteuid(), port)


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    raise BadSetting(f"-p {text}", "a port is a number from 1 to 65535")


def _tcp(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and host[0] != "[" else f"{host}:{port}"
