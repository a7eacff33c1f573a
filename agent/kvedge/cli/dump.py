"""`kv dump`: the tree as a file."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, Iterable, Iterator
from typing import Any

import anyio
import click

from kvedge.cli.connection import endpoints
from kvedge.cli.either_order import PATH, EitherOrderGroup, connect, json_option, say, the_session
from kvedge.cli.output import Pairs
from kvedge.client.client import Client, open_client
from kvedge.client.sync import SyncClient
from kvedge.clock import SystemClock
from kvedge.config.connect import connect_settings
from kvedge.errors import AgentError
from kvedge.limits import CHAIN_LINKS_MAX
from kvedge.model.path import EMPTY, SYSTEM, Path
from kvedge.model.value import pack, unpack
from kvedge.protocol.dumpfile import DumpEntry, DumpHeader
from kvedge.storage.dumps import DumpFile, write_dump

_AT_ONCE = 64  # writes under way: the server syncs them together
_PROGRESS_EVERY = 1000


@click.group(cls=EitherOrderGroup)
def dump() -> None:
    """The tree as a file: save it, show it, load it.

    $ kv dump save garden.dump
    $ kv dump show garden.dump
    $ kv dump load garden.dump
    """


@dump.command()
@click.argument("file")
@click.option("-p", "--path", type=PATH, metavar="PATH", help="Only what is there and below.")
def save(file: str, path: Path | None) -> None:
    """Write the tree to FILE, system data included.

    Entries that change meanwhile are in it as they were before or after.  FILE gets its name when
    it is complete; an older one is replaced then.
    """
    clock = SystemClock()
    with connect() as client:
        header = DumpHeader(
            node=str(client.greeting["node"]),
            network=client.greeting.get("network"),
            time_s=int(clock.wall_s()) if clock.wall_is_synchronised() else None,
            tock=client.greeting["tock"],
        )
        # A walk from the root does not descend into system data.
        places = [EMPTY, SYSTEM] if path is None or not path else [path]
        found = (entry for place in places for entry in _entries(client, place))
        count = write_dump(file, header, _with_progress(found, "saved"))
    say(f"{file}: {_entries_text(count)}")


def _entries(client: SyncClient, place: Path) -> Iterator[DumpEntry]:
    for item in client.get_tree(place, nchain=CHAIN_LINKS_MAX):
        path = place + item.path
        yield DumpEntry(path.key, item.tock, tuple(_links(item.chain)), pack(item.value))


def _links(chain: Any) -> Iterator[tuple[str, int]]:
    while chain:
        yield chain["node"], chain["tick"]
        chain = chain["prev"]


@dump.command()
@click.argument("file")
@json_option
def show(file: str) -> None:
    """Print FILE: what it says about itself, then each entry.

    No server is needed.  FILE may be damaged: what is before the damage is printed.
    """
    session = the_session()
    with DumpFile(file) as opened:
        for item in opened.items():
            if isinstance(item, DumpHeader):
                rows: list[tuple[object, object]] = [
                    ("dump", item.node),
                    ("network", item.network),
                    ("time", item.time_s),
                    ("tock", session.tock(item.tock)),
                ]
            else:
                links = [{"node": node, "tick": tick} for node, tick in item.chain]
                rows = [
                    ("path", str(item.path)),
                    ("value", unpack(item.value)),
                    ("tock", session.tock(item.tock)),
                    ("chain", links),
                ]
            session.print_item(Pairs(rows))


@dump.command()
@click.argument("file")
@click.option("-p", "--path", type=PATH, metavar="PATH", help="Only what is there and below.")
def load(file: str, path: Path | None) -> None:
    """Write the values of FILE into the running server, where they differ.

    They are new writes: they go before later changes, unlike those of `kv server -l`.  What is in
    the tree and not in FILE stays.  FILE is checked from end to end first.
    """
    session = the_session()
    given = session.given
    settings = connect_settings(given.text("config"), given.texts("set"), session.environ)
    auth = given.text("auth") or settings.auth
    with DumpFile(file) as opened:
        opened.check()
        wanted = (e for e in opened.entries() if path is None or e.path.is_below(path))
        told = _with_progress(wanted, "loaded")
        changed, same = anyio.run(_load, endpoints(given, session.environ), auth, told)
    say(f"{file}: {_entries_text(changed)} written, {same} were there already")


async def _load(where: list[str], auth: str | None, found: Iterable[DumpEntry]) -> tuple[int, int]:
    """Write entries, many at a time; return how many were written, and how many were there."""
    counts = {True: 0, False: 0}
    failed: list[AgentError] = []

    async def write(client: Client, entries: AsyncIterable[DumpEntry]) -> None:
        try:
            async for entry in entries:
                done = await client.set(entry.path, unpack(entry.value), idem=True)
                counts[bool(done.changed)] += 1
        except AgentError as error:  # a task group would wrap it
            failed.append(error)
            tasks.cancel_scope.cancel()

    async with open_client(*where, auth=auth) as client:
        send, receive = anyio.create_memory_object_stream[DumpEntry](_AT_ONCE)
        with send, receive:
            async with anyio.create_task_group() as tasks:
                for _ in range(_AT_ONCE):
                    tasks.start_soon(write, client, receive)
                for entry in found:
                    await send.send(entry)
                send.close()
    if failed:
        say(f"{_entries_text(counts[True])} written before it failed")
        raise failed[0]
    return counts[True], counts[False]


def _with_progress(found: Iterable[DumpEntry], done: str) -> Iterator[DumpEntry]:
    """Pass entries on and tell a person at a terminal how many there were so far."""
    is_told = sys.stderr.isatty()
    count = 0
    for count, entry in enumerate(found, 1):
        if is_told and not count % _PROGRESS_EVERY:
            sys.stderr.write(f"\r{count} entries {done}")
            sys.stderr.flush()
        yield entry
    if is_told and count >= _PROGRESS_EVERY:
        sys.stderr.write("\r\033[K")


def _entries_text(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"
