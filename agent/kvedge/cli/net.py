"""`kv net`: the network of this board, made and joined.

What the files say stands in `config.joinfile`, where they are in `config.netfiles`.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kvedge.cli.commands import Group
from kvedge.cli.config import given_sources
from kvedge.cli.either_order import json_option, say, the_session
from kvedge.cli.net_status import status
from kvedge.clock import SystemClock
from kvedge.config.joinfile import (
    Invitation,
    fingerprint,
    invitation_text,
    read_invitation_file,
)
from kvedge.config.keys import KEYS
from kvedge.config.netfiles import (
    NetFiles,
    drop_in_text,
    net_files,
    new_key,
    remove_net_files,
    set_aside,
    write_drop_in,
    write_secret,
    write_secrets,
)
from kvedge.config.settings import load
from kvedge.errors import AgentError, BadSetting, StorageError, StoreLocked
from kvedge.server.dumps import KEPT_NAME, kept_in
from kvedge.server.logs import header_in
from kvedge.server.offline import StoredTree, read_store
from kvedge.storage.directory import DirectoryLock
from kvedge.storage.dumps import sync_directory, write_dump
from kvedge.transport.mqtt_settings import MqttSettings, with_password, without_password

if TYPE_CHECKING:
    from kvedge.config import Settings

_RESTART = "restart the service: sudo systemctl restart kvedge, or start `kv server` anew"


@click.group(cls=Group)
def net() -> None:
    """The network of this board: make one, join one.

    The boards of a network share its name, its key and a broker.  On the first board `create`,
    then `join-file`; that file goes to each further board, and there into `join`.
    """


net.add_command(status)


def _settings() -> Settings:
    return load(**given_sources(the_session()))


def _files() -> NetFiles:
    session = the_session()
    return net_files(session.environ, config_file=session.given.text("config"))


def _checked(name: str, value: str | None, word: str) -> str | None:
    """Return a word of the command line that is to be the value of a setting."""
    if value is None:
        return None
    try:
        KEYS[name].kind.check(value)
        if name == "server.mqtt.uri":
            MqttSettings.from_uri(value)
    except ValueError as error:
        why = error.why if isinstance(error, BadSetting) else str(error)
        raise BadSetting(word, why) from error
    return value


# --- create --------------------------------------------------------------------------------------


@net.command()
@click.argument("name", required=False)
@click.option("--mqtt", metavar="URI", help="The broker, as mqtt://USER:PASSWORD@HOST:1883.")
def create(name: str | None, mqtt: str | None) -> None:
    """Make a network: a random key, and the settings that name it.

    NAME is the network's; without it, the one that this board has already.  Run it as the user
    whose server it is for: as root, for the service.
    """
    settings, files = _settings(), _files()
    _checked("net.name", name, "NAME")
    _checked("server.mqtt.uri", mqtt, "--mqtt")
    if settings.net.key_file:
        why = f"this board has a key already: {settings.net.key_file}; see `kv net show`"
        raise StorageError(why)
    header = header_in(settings.server.dir)
    own = header.network if header else settings.net.name
    if name and header and name != own:
        why = f"the data in {settings.server.dir} are of the network {own}; leave NAME out"
        raise BadSetting(name, why)
    invitation = Invitation(name or own, new_key(), mqtt, None)
    if files.present:
        raise StorageError(f"{files.present[0]} is there already; nothing was changed")
    with ExitStack() as undo:
        undo.callback(remove_net_files, files)
        write_drop_in(invitation, files)
        _check_effect(invitation, files)
        write_secrets(invitation, files)
        undo.pop_all()
    say(f"the network {invitation.name} has a key now: {fingerprint(invitation.key)}")
    say(f"written: {files.key}, {files.drop_in}")
    if not (mqtt or settings.server.mqtt_uri):
        say("no broker is named yet: set [server] mqtt.uri, or other boards are not found")
    say(f"next: {_RESTART}; then `kv net join-file FILE` for the other boards")


def _check_effect(invitation: Invitation, files: NetFiles) -> None:
    """Raise BadSetting where something stronger goes before the settings that were written."""
    settings = _settings()
    wanted = {
        "net.name": (settings.net.name, invitation.name),
        "net.key_file": (settings.net.key_file, str(files.key)),
    }
    if invitation.mqtt:
        uri = without_password(invitation.mqtt)
        wanted["server.mqtt.uri"] = (settings.server.mqtt_uri, uri)
    if invitation.root:
        wanted["server.root"] = (settings.server.root, invitation.root)
    for name, (found, want) in wanted.items():
        if found != want:
            why = f"it sets {name}, which goes before {files.drop_in}; remove it there first"
            raise BadSetting(settings.origins.get(name, name), why)


# --- show ----------------------------------------------------------------------------------------


@net.command()
@json_option
def show() -> None:
    """Print the network of this board, as the configuration has it; never its key."""
    settings = _settings()
    key = _key_of(settings)
    uri = settings.server.mqtt_uri
    the_session().print(
        {
            "name": settings.net.name,
            "key_file": settings.net.key_file,
            "fingerprint": fingerprint(key) if key else None,
            "mqtt": without_password(uri) if uri else None,
            "root": settings.server.root or settings.net.name,
        }
    )


def _key_of(settings: Settings) -> bytes | None:
    file = settings.net.key_file
    try:
        return Path(file).read_bytes().strip() if file else None
    except OSError as error:
        raise StorageError(f"the key {file} cannot be read: {error.strerror}") from error


# --- join-file -----------------------------------------------------------------------------------


@net.command("join-file")
@click.argument("file", required=False)
@click.option("--mqtt", metavar="URI", help="Name this broker to the other boards.")
def join_file(file: str | None, mqtt: str | None) -> None:
    """Write what another board needs to join: name, key, broker.

    To FILE, which must not exist, or to standard output where that is no terminal.  Whoever has
    it is in: hand it over as you would a key, and remove it afterwards.
    """
    settings = _settings()
    _checked("server.mqtt.uri", mqtt, "--mqtt")
    key = _key_of(settings)
    if not key:
        why = "this network has no key to be handed on; `kv net create` makes one"
        raise BadSetting("net.key_file", why)
    invitation = Invitation(settings.net.name, key, mqtt or _full_uri(settings), _root(settings))
    text = invitation_text(invitation)
    if file and file != "-":
        write_secret(Path(file), text.encode())
    elif sys.stdout.isatty():
        raise BadSetting("FILE", "a key is not shown on a terminal; name a file")
    else:
        sys.stdout.write(text)
    if invitation.mqtt is None:
        say("no broker is named: the other board must have [server] mqtt.uri")
    elif invitation.mqtt.startswith("mqtts:") and settings.server.mqtt_ca_file:
        say("certificates are not in it: set [server] mqtt.ca_file on the other board by hand")
    say("whoever has this file is in the network: hand it over safely, then remove it")
    say("next, on the other board: kv net join FILE")


def _full_uri(settings: Settings) -> str | None:
    """Return the broker's URI with the password, which may stand in a file of its own."""
    uri, file = settings.server.mqtt_uri, settings.server.mqtt_password_file
    if not uri or not file:
        return uri
    password = MqttSettings.from_uri(uri, password_file=file).password
    return with_password(uri, password) if password else uri


def _root(settings: Settings) -> str | None:
    return settings.server.root if settings.server.root != settings.net.name else None


# --- join ----------------------------------------------------------------------------------------


@net.command()
@click.argument("file")
@click.option("--keep-mine", is_flag=True, help="Add this board's data where the network has none.")
@click.option("--drop-mine", is_flag=True, help="Begin with the network's data alone.")
@click.option("--mqtt", metavar="URI", help="Reach the broker by this URI instead.")
def join(file: str, keep_mine: bool, drop_mine: bool, mqtt: str | None) -> None:  # noqa: FBT001 -- click's
    """Make this board part of the network that FILE is of.

    Its server must not run.  Data of its own is saved to a file, and set aside; then say whether
    it is wanted in the network: --keep-mine adds what the network has nothing for, once this
    board has the network's data.
    """
    if keep_mine and drop_mine:
        raise BadSetting("--keep-mine --drop-mine", "they exclude each other")
    invitation = read_invitation_file(file)
    if _checked("server.mqtt.uri", mqtt, "--mqtt"):
        invitation = replace(invitation, mqtt=mqtt)
    drop_in_text(invitation, files := _files())  # raises where the broker's URI is none
    settings = _settings()
    if _is_in(invitation, settings):
        say(f"this board is in the network {invitation.name} already; nothing was changed")
        return
    suffix = f".before-join-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    directory = Path(settings.server.dir)
    with ExitStack() as held, ExitStack() as undo:
        tree = None
        if directory.exists():
            held.enter_context(_locked(directory))
            tree = read_store(str(directory))
            _require_choice(tree, directory, is_made=keep_mine or drop_mine)
        for old in files.present:
            moved = set_aside(old, suffix)
            undo.callback(moved.rename, old)
            say(f"set aside: {moved}")
        undo.callback(remove_net_files, files)
        # Without its key no server starts, so what is done so far is harmless after a power cut.
        write_drop_in(invitation, files)
        _check_effect(invitation, files)
        if tree is not None:
            _set_store_aside(tree, directory, suffix, is_kept=keep_mine, is_dropped=drop_mine)
        elif drop_mine and (waiting := kept_in(str(directory))):
            set_aside(waiting, suffix)
        undo.pop_all()
        write_secrets(invitation, files)
    say(f"this board is of the network {invitation.name}, key {fingerprint(invitation.key)}")
    if not _settings().server.mqtt_uri:
        say("no broker is named: set [server] mqtt.uri")
    say(f"next: {_RESTART}; then remove {file}")


def _is_in(invitation: Invitation, settings: Settings) -> bool:
    with suppress(StorageError):  # an interrupted join has written no key
        return _key_of(settings) == invitation.key and settings.net.name == invitation.name
    return False


def _locked(directory: Path) -> DirectoryLock:
    try:
        return DirectoryLock(directory)
    except StoreLocked as error:
        say(f"stop the service first: sudo systemctl stop kvedge, or end process {error.pid}")
        raise


def _require_choice(tree: StoredTree | None, directory: Path, *, is_made: bool) -> None:
    if tree is None or not tree.count or is_made:
        return
    why = (
        f"this board has {tree.count} entries of its own in {directory}: --keep-mine adds them"
        " where the network has nothing, --drop-mine leaves them out; either way they are saved"
        " to a file first"
    )
    raise BadSetting("kv net join", why)


def _set_store_aside(
    tree: StoredTree, directory: Path, suffix: str, *, is_kept: bool, is_dropped: bool
) -> None:
    """Save what a store holds and put an empty directory in its place.

    The new directory is complete, kept data included, before it takes the place of the old one:
    after an interruption the same command goes on from there.
    """
    if tree.losses:
        say(f"{tree.losses} pieces of the store cannot be read, and are not in what is saved")
    clock = SystemClock()
    header = tree.header(int(clock.wall_s()) if clock.wall_is_synchronised() else None)
    old = directory.with_name(f"{directory.name}{suffix}")
    new = directory.with_name(f"{directory.name}.new")
    made = [new]
    try:
        found = directory.stat()
        if tree.count:
            made.append(directory.with_name(f"{directory.name}{suffix}.dump"))
            write_dump(str(made[-1]), header, tree.dumped())
            say(f"saved: {tree.count} entries of this board, in {made[-1]}")
        new.mkdir(exist_ok=True)
        new.chmod(found.st_mode & 0o777)
        kept = new / KEPT_NAME
        kept.unlink(missing_ok=True)
        if is_kept and tree.count:
            made.append(kept)
            write_dump(str(kept), header, tree.dumped())
        elif (waiting := kept_in(str(directory))) and not is_dropped:
            kept.hardlink_to(waiting)  # of an earlier join; it was not applied yet
        if os.geteuid() == 0:
            for path in made:
                os.chown(path, found.st_uid, found.st_gid)
        sync_directory(new)
        directory.rename(old)
        new.rename(directory)
    except AgentError:
        raise
    except OSError as error:
        why = f"{directory} cannot be set aside: {error.strerror}; run this as its owner, or root"
        raise StorageError(why) from error
    with suppress(OSError):
        sync_directory(directory.parent)
    say(f"set aside: {old}")
