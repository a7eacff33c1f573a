"""The settings of each floor, frozen, and how files, environment and flags become them.

From weak to strong: default, files in the order of `places.config_files`, environment, `-C`,
flags.  The stronger one wins key by key; `[[runner]]` is one value.  A host takes the place of
a socket from a weaker source, and the other way round, so that `-h` is not outdone by a file.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from kvedge.config.connect import ENVIRONMENT, ConnectSettings
from kvedge.config.files import Given, from_file, from_override
from kvedge.config.keys import KEYS, SECTIONS
from kvedge.config.places import (
    SYSTEM_CONFIG,
    Places,
    config_files,
    default_places,
    user_name,
)
from kvedge.errors import BadSetting
from kvedge.transport.address import PORT


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Who this node is; no name means: derive it (`own_node_name`)."""

    name: str | None = None


@dataclass(frozen=True, slots=True)
class NetSettings:
    """Which network this node is part of."""

    name: str = "kvedge"
    key_file: str | None = None


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where the server keeps its data, where it listens, and which broker it uses."""

    dir: str
    listen: tuple[str, ...]
    mqtt_uri: str | None = None
    mqtt_password_file: str | None = None
    mqtt_ca_file: str | None = None
    mqtt_certificate_file: str | None = None
    mqtt_key_file: str | None = None
    mqtt_qos: int = 1
    root: str | None = None


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """One runner; no node means: this one."""

    placement: str = "single"
    group: str = "default"
    node: str | None = None
    clock: str = "synchronised"
    block_max_s: float = 10


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How much is told."""

    level: str = "info"


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, and where each came from.

    Attributes:
        origins: By full name, for each setting that somebody gave; the others are defaults.
        files: The configuration files that were read, the strongest last.
    """

    node: NodeSettings
    net: NetSettings
    server: ServerSettings
    connect: ConnectSettings
    log: LogSettings
    runners: tuple[RunnerSettings, ...] = (RunnerSettings(),)
    origins: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()


_RIVALS = {"connect.host": "connect.socket", "connect.socket": "connect.host"}


@dataclass(slots=True)
class Gathered:
    """What all sources gave, checked; and what was wrong with the rest.

    Attributes:
        values: By full name; `runner` is a tuple of tables.
        origins: By full name, where each value stood.
        files: The files that were read.
        problems: What could not be used.
    """

    values: dict[str, object] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    problems: list[BadSetting] = field(default_factory=list)

    def take(self, source: Iterable[Given]) -> None:
        """Take all that a source gives, in the place of what weaker ones gave."""
        names: set[str] = set()
        try:
            for given in source:
                self._keep(given, names)
        except BadSetting as error:
            self.problems.append(error)

    def _keep(self, given: Given, names: set[str]) -> None:
        """Keep a value, or what is wrong with it; `names` are those of the same source."""
        try:
            value = checked(given)
        except BadSetting as error:
            self.problems.append(error)
            return
        names.add(given.name)
        rival = _RIVALS.get(given.name)
        if rival in self.values and rival not in names:
            del self.values[rival], self.origins[rival]
        self.values[given.name] = value
        self.origins[given.name] = given.origin


def gather(
    *,
    config_file: str | None = None,
    overrides: Iterable[str] = (),
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, object] | None = None,
    system: str = SYSTEM_CONFIG,
) -> Gathered:
    """Read all sources and return what they say, problems included.

    The arguments are those of `load`.
    """
    gathered = Gathered()
    try:
        gathered.files += config_files(environ, config_file=config_file, system=system)
    except BadSetting as error:
        gathered.problems.append(error)
    for name in gathered.files:
        gathered.take(from_file(name))
    gathered.take(_from_environment(environ))
    for text in overrides:
        gathered.take(from_override(text))
    gathered.take(Given(name, value, "command line") for name, value in (flags or {}).items())
    return gathered


def load(
    *,
    config_file: str | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, object] | None = None,
    loopback: bool = False,
    system: str = SYSTEM_CONFIG,
) -> Settings:
    """Return the settings of this process.

    Args:
        config_file: Read this file instead of the usual ones (`-c`).
        overrides: Texts `section.key=LITERAL` (`-C`).
        environ: The environment.
        flags: Values of command-line flags by full name, e.g. `server.dir`.
        loopback: Whether the default of `server.listen` includes 127.0.0.1, as `kv server` has it.
        system: The directory of the machine's own files.

    Raises:
        BadSetting: The first thing that is wrong, with file, line and name.
    """
    gathered = gather(
        config_file=config_file,
        overrides=overrides,
        environ=environ,
        flags=flags,
        system=system,
    )
    if gathered.problems:
        raise gathered.problems[0]
    uid = os.geteuid()
    places = default_places(environ, uid=uid, user=user_name(uid))
    return build(gathered, places=places, loopback=loopback)


def build(gathered: Gathered, *, places: Places, loopback: bool = False) -> Settings:
    """Return settings from checked values, with the defaults where nobody gave one."""
    values = gathered.values

    def section(name: str) -> dict[str, Any]:
        start = f"{name}."
        given = {key: value for key, value in values.items() if key.startswith(start)}
        return {key[len(start) :].replace(".", "_"): value for key, value in given.items()}

    listen = (f"unix:{places.socket}", f"127.0.0.1:{PORT}")
    server = {"dir": places.directory, "listen": listen if loopback else listen[:1]}
    runners = cast("Sequence[dict[str, Any]]", values.get("runner", ({},)))
    return Settings(
        node=NodeSettings(**section("node")),
        net=NetSettings(**section("net")),
        server=ServerSettings(**{**server, **section("server")}),
        connect=ConnectSettings(**section("connect")),
        log=LogSettings(**section("log")),
        runners=tuple(RunnerSettings(**table) for table in runners),
        origins=dict(gathered.origins),
        files=tuple(gathered.files),
    )


def _from_environment(environ: Mapping[str, str]) -> Iterator[Given]:
    for variable, name in ENVIRONMENT.items():
        text = environ.get(variable)
        if text:
            yield Given(name, number_or_text(name, text), variable)


def number_or_text(name: str, text: str) -> object:
    """Return what a word stands for where there are no quotes to tell numbers from texts."""
    return int(text) if name == "connect.port" and text.isdecimal() else text


# --- checking one value ------------------------------------------------------------------------


def checked(given: Given) -> object:
    """Return the value to keep.

    Raises:
        BadSetting: There is no such setting, or it cannot have this value.
    """
    if given.name == "runner":
        return _checked_runners(given)
    key = KEYS.get(given.name)
    if key is None or key.section == "runner":
        raise BadSetting(given.origin, _unknown(given.name))
    try:
        return key.kind.check(given.value)
    except ValueError as error:
        shown = key.shown(given.value)
        raise BadSetting(given.origin, f"{given.name} {error}, not {shown!r}") from error


def _checked_runners(given: Given) -> tuple[dict[str, object], ...]:
    if not isinstance(given.value, list) or not all(isinstance(t, dict) for t in given.value):
        raise BadSetting(given.origin, "runner must be a list of tables; write [[runner]]")
    return tuple(_checked_runner(table, given.origin) for table in given.value)


def _checked_runner(table: Mapping[str, object], origin: str) -> dict[str, object]:
    result: dict[str, object] = {}
    for name, value in table.items():
        full = f"runner.{name}"
        if full not in KEYS:
            raise BadSetting(origin, _unknown(full))
        try:
            result[name] = KEYS[full].kind.check(value)
        except ValueError as error:
            raise BadSetting(origin, f"{full} {error}, not {value!r}") from error
    return result


def _unknown(name: str) -> str:
    """Say that there is no such setting, and which one may have been meant."""
    if name in SECTIONS:
        return f"{name} is a section, not a value; write [{name}] and its keys below"
    if name.startswith("runner.") and name in KEYS:
        return "runner is a list of tables; write [[runner]]"
    namesakes = [known for known in KEYS if known.split(".")[-1] == name.split(".")[-1]]
    near = difflib.get_close_matches(name, namesakes, n=1, cutoff=0.0)
    near = near or difflib.get_close_matches(name, [*KEYS, *SECTIONS], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "`kv config show` lists all settings"
    return f"{name} is not a setting; {hint}"
