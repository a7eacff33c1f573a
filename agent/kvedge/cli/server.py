"""`kv server`: run a server alone, in the foreground."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kvedge.cli.commands import Command
from kvedge.cli.literals import literal
from kvedge.cli.logs import set_up_logging
from kvedge.client.endpoints import user_runtime_directory
from kvedge.errors import BadSetting
from kvedge.model.value import MISSING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvedge.cli.connection import Session
    from kvedge.config import Settings


@click.command(cls=Command)
@click.argument("name", required=False)
@click.option("-i", "--init", metavar="VALUE", help="Make a new network; VALUE is its root's.")
@click.option("-e", "--eval", "is_literal", is_flag=True, help="VALUE is a Python literal.")
@click.option("--dir", "directory", metavar="DIR", help="Keep the data here.")
@click.option("--listen", multiple=True, metavar="ADDR", help="unix:PATH or HOST:PORT; repeatable.")
@click.option("--mqtt", metavar="URI", help="The broker, as mqtt://USER@HOST:1883.")
@click.option("--net", metavar="NAME", help="Name of the network.")
def server(
    name: str | None,
    init: str | None,
    is_literal: bool,  # noqa: FBT001 -- click passes by name
    directory: str | None,
    listen: tuple[str, ...],
    mqtt: str | None,
    net: str | None,
) -> None:
    """Run a server alone, in the foreground; jobs need `kv agent`, or `kv run all` beside it.

    NAME is the name of this node; without it, what the configuration says, else the first label
    of the host name.  Prints `Running.` when clients may connect.  Without a directory (--dir,
    or `[server] dir` in the configuration) nothing is kept on disk.
    """
    from kvedge.agent import serve
    from kvedge.server.settings import ServerSettings

    session: Session = click.get_current_context().obj
    wanted = {
        "server.dir": directory,
        "server.listen": list(listen),
        "server.mqtt.uri": mqtt,
        "net.name": net,
    }
    settings, node = start(session, wanted, name=name, loopback=True)
    initial = MISSING if init is None else literal(init) if is_literal else init
    serve(
        ServerSettings(
            node=node,
            network=settings.net.name,
            directory=settings.server.dir if "server.dir" in settings.origins else None,
            listen=settings.server.listen,
            initial=initial,
            **network_settings(settings),
        ),
        ready=lambda _: click.echo("Running."),
    )


def start(
    session: Session, wanted: Mapping[str, object], *, name: str | None, loopback: bool
) -> tuple[Settings, str]:
    """Read the configuration, set up logging, make sure of the socket's directory.

    Args:
        session: The global options.
        wanted: Settings of this command line by full name; empty ones count as not given.
        name: The node's name on the command line.
        loopback: Whether to listen on the loopback too, unless told otherwise.

    Returns:
        The settings, and the name of this node.
    """
    from kvedge.config import load, own_node_name, private_directory

    settings = load(
        config_file=session.given.text("config"),
        overrides=session.given.texts("set"),
        environ=session.environ,
        flags={key: value for key, value in wanted.items() if value},
        loopback=loopback,
    )
    set_up_logging(level=settings.log.level, verbose=session.verbose, environ=session.environ)
    node, note = own_node_name(name or settings.node.name)
    if note:
        sys.stderr.write(f"kv: {note}\n")
    own = user_runtime_directory(session.environ, os.geteuid())
    if f"unix:{own}/kv.sock" in settings.server.listen:
        private_directory(own, uid=os.geteuid())
    return settings, node


def network_settings(settings: Settings) -> dict[str, Any]:
    """Return what a server is told of its network: broker, topics, key."""
    from kvedge.transport.mqtt_settings import MqttSettings

    uri, file = settings.server.mqtt_uri, settings.net.key_file
    try:
        key = Path(file).read_bytes().strip() if file else None
    except OSError as error:
        raise BadSetting("net.key_file", f"{file}: {error.strerror}") from error
    return {
        "mqtt": MqttSettings.from_uri(uri) if uri else None,
        "root": settings.server.root or "",
        "key": key,
    }
