"""`kv agent`: run the server and the jobs of this board, as the configuration says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kvedge.cli.commands import Command
from kvedge.cli.server import name_of_node, network_settings, read_log_level, start
from kvedge.errors import BadSetting

if TYPE_CHECKING:
    from kvedge.cli.connection import Session
    from kvedge.config import RunnerSettings


@click.command(cls=Command)
@click.argument("name", required=False)
@click.option("--take-name", is_flag=True, help="Start although another one has taken the name.")
def agent(
    name: str | None,
    take_name: bool,  # noqa: FBT001 -- click passes by name
) -> None:
    """Run the server and the jobs of this board, in the foreground.

    NAME is the name of this node; without it, what the configuration says, else the first label
    of the host name.  Data live in `[server] dir`, by default below ~/.local/state/kvedge (as
    root, in /var/lib/kvedge).  Prints `Running.` when clients may connect.
    """
    from kvedge.agent import run_agent
    from kvedge.runner.main import RunnerSettings as Told
    from kvedge.server.settings import ServerSettings

    session: Session = click.get_current_context().obj
    settings = start(session, {}, loopback=False)
    node = name_of_node(name or settings.node.name, settings.server.dir)
    where = settings.server.listen[:1]
    runners = [
        Told(
            node=_checked(runner).node or node,
            group=runner.group,
            placement=runner.placement,
            endpoints=where,
            auth=settings.connect.auth,
            clock=runner.clock,
            block_max_s=runner.block_max_s,
        )
        for runner in settings.runners
    ]
    run_agent(
        ServerSettings(
            node=node,
            network=settings.net.name,
            directory=settings.server.dir,
            listen=settings.server.listen,
            take_name=take_name,
            **network_settings(settings),
        ),
        runners,
        ready=lambda _: click.echo("Running."),
        reload=lambda: read_log_level(session),
    )


def _checked(runner: RunnerSettings) -> RunnerSettings:
    """Return a runner that this version can be; raise BadSetting for another."""
    if runner.placement != "single":
        raise BadSetting(
            "[[runner]] placement",
            f"this version runs the jobs of one node alone ('single'), not {runner.placement!r}",
        )
    return runner
