"""`kv server`: run a server alone, in the foreground."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kvedge.cli.commands import Command
from kvedge.cli.literals import literal
from kvedge.cli.logs import set_up_logging
from kvedge.client.endpoints import user_runtime_directory
from kvedge.errors import BadSetting, WrongStore
from kvedge.model.value import MISSING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvedge.cli.connection import Session
    from kvedge.config import Settings


@click.command(cls=Command)
@click.argument("name", required=False)
@click.option("-i", "--init", metavar="VALUE", help="Make a new network; VALUE is its root's.")
@click.option("-e", "--eval", "is_literal", is_flag=True, help="VALUE is a Python literal.")
@click.option("-l", "--load", "dumps", multiple=True, metavar="FILE", help="Fill a new store.")
@click.option("--dir", "directory", metavar="DIR", help="Keep the data here.")
@click.option("--listen", multiple=True, metavar="ADDR", help="unix:PATH or HOST:PORT; repeatable.")
@click.option("--mqtt", metavar="URI", help="The broker, as mqtt://HOST; of a cluster: URI,URI,…")
@click.option("--net", metavar="NAME", help="Name of the network.")
@click.option("--take-name", is_flag=True, help="Start although another one has taken the name.")
def server(
    name: str | None,
    init: str | None,
    is_literal: bool,  # noqa: FBT001 -- click passes by name
    dumps: tuple[str, ...],
    directory: str | None,
    listen: tuple[str, ...],
    mqtt: str | None,
    net: str | None,
    take_name: bool,  # noqa: FBT001
) -> None:
    """Run a server alone, in the foreground; jobs need `kv agent`, or `kv run all` beside it.

    NAME is the name of this node; without it, what the configuration says, else the first label
    of the host name.  Prints `Running.` when clients may connect.  Without a directory (--dir,
    or `[server] dir` in the configuration) nothing is kept on disk.

    A FILE is what `kv dump save` wrote; -l may be repeated.  Each entry keeps its age, so a later
    change that the network knows of goes before it.  With -i as well the root gets VALUE.
    """
    from kvedge.agent import serve
    from kvedge.server.settings import ServerSettings

    session: Session = click.get_current_context().obj
    wanted = {
        "server.dir": directory and os.path.abspath(directory),  # noqa: PTH100 -- of text, as all settings
        "server.listen": list(listen),
        "server.mqtt.uri": mqtt,
        "net.name": net,
    }
    settings = start(session, wanted, loopback=True)
    kept = settings.server.dir if "server.dir" in settings.origins else None
    node = name_of_node(name or settings.node.name, kept)
    initial = MISSING if init is None else literal(init) if is_literal else init
    serve(
        ServerSettings(
            node=node,
            network=settings.net.name,
            directory=kept,
            listen=settings.server.listen,
            initial=initial,
            take_name=take_name,
            dumps=dumps,
            **network_settings(settings),
        ),
        ready=lambda _: click.echo("Running."),
        reload=lambda: read_log_level(session),
    )


def start(session: Session, wanted: Mapping[str, object], *, loopback: bool) -> Settings:
    """Read the configuration, set up logging, make sure of the socket's directory.

    Args:
        session: The global options.
        wanted: Settings of this command line by full name; empty ones count as not given.
        loopback: Whether to listen on the loopback too, unless told otherwise.
    """
    from kvedge.config import load, private_directory

    settings = load(
        config_file=session.given.text("config"),
        overrides=session.given.texts("set"),
        environ=session.environ,
        flags={key: value for key, value in wanted.items() if value},
        loopback=loopback,
    )
    set_up_logging(level=settings.log.level, verbose=session.verbose, environ=session.environ)
    own = user_runtime_directory(session.environ, os.geteuid())
    if f"unix:{own}/kv.sock" in settings.server.listen:
        private_directory(own, uid=os.geteuid())
    return settings


def name_of_node(wanted: str | None, directory: str | None) -> str:
    """Return the name of this node, which is fixed once there is a store.

    Args:
        wanted: What the command line or the configuration says; None where neither does.
        directory: Of the store; None for none.

    Raises:
        WrongStore: The store is another node's.
    """
    from kvedge.config import own_node_name
    from kvedge.server.logs import node_in

    stored = node_in(directory) if directory else None
    if stored and wanted is None:
        return stored
    node, note = own_node_name(wanted)
    if note:
        sys.stderr.write(f"kv: {note}\n")
    if stored and node != stored:
        why = f"it is the store of the node {stored}; start it under that name, or name another"
        raise WrongStore(str(directory), f"{why} directory for {node}")
    return node


def read_log_level(session: Session) -> None:
    """Take the log's level from the configuration again; a broken one changes nothing."""
    from kvedge.config import load

    try:
        settings = load(
            config_file=session.given.text("config"),
            overrides=session.given.texts("set"),
            environ=session.environ,
        )
    except BadSetting as error:
        logging.getLogger(__name__).error("the configuration is not read again: %s", error)
        return
    set_up_logging(level=settings.log.level, verbose=session.verbose, environ=session.environ)
    logging.getLogger(__name__).info("the configuration was read again")


def network_settings(settings: Settings) -> dict[str, Any]:
    """Return what a server is told of its network: broker, topics, key."""
    from kvedge.transport.mqtt_settings import MqttSettings

    told, file = settings.server, settings.net.key_file
    try:
        key = Path(file).read_bytes().strip() if file else None
    except OSError as error:
        raise BadSetting("net.key_file", f"{file}: {error.strerror}") from error
    return {
        "mqtt": told.mqtt_uri
        and MqttSettings.from_uri(
            told.mqtt_uri,
            password_file=told.mqtt_password_file,
            ca_file=told.mqtt_ca_file,
            certificate_file=told.mqtt_certificate_file,
            key_file=told.mqtt_key_file,
            qos=told.mqtt_qos,
        ),
        "root": told.root or "",
        "key": key,
    }
