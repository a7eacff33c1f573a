"""The import rules of the project, read from the sources; every rule is shown a planted breach.

A floor may import itself and the floors below it.  Imports inside functions, under TYPE_CHECKING
and by `import_module("literal")` count too: a cycle hidden in a function is still a cycle.

A rule is a function from one module's name and its parsed text to complaints, so that it can be
fed the real sources as well as a line that breaks it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = {"agent": "kvedge", "drivers": "kvedge_drivers"}

# Lowest first.  Names on one line are siblings and must not import each other.
FLOORS = [
    ["kvedge.errors"],
    ["kvedge.limits", "kvedge.clock"],
    ["kvedge.model"],
    ["kvedge.protocol"],
    ["kvedge.transport", "kvedge.storage"],
    ["kvedge.client", "kvedge.server", "kvedge.job"],
    ["kvedge.runner"],
    ["kvedge.config"],
    ["kvedge.agent", "kvedge.testing"],
    ["kvedge.cli"],
    ["kvedge.__main__"],
]
DRIVER_FLOORS = [
    ["kvedge_drivers.errors"],
    ["kvedge_drivers.quantity"],
    ["kvedge_drivers.ports"],
    ["kvedge_drivers.readings"],
    [
        "kvedge_drivers.gpio",
        "kvedge_drivers.host",
        "kvedge_drivers.i2c",
        "kvedge_drivers.kernel",
        "kvedge_drivers.onewire",
        "kvedge_drivers.radio",
    ],
    ["kvedge_drivers.registry"],
    ["kvedge_drivers.bridge"],
    ["kvedge_drivers.testing"],
    ["kvedge_drivers.cli"],  # the demo runs on the simulated buses of the testing kit
]
KNOWN = {name for floor in FLOORS + DRIVER_FLOORS for name in floor}

# What an application may see of the agent.  Drivers may use the public names beside it.
FOR_DRIVERS = ("kvedge.client", "kvedge.job", "kvedge.model", "kvedge.errors", "kvedge.clock")
FOR_RUNNER = (*FOR_DRIVERS, "kvedge.limits", "kvedge.runner")

TESTING = ("kvedge.testing", "kvedge_drivers.testing")

# A library or an I/O module, the only places that may name it, and why there.
DOORS: dict[str, tuple[tuple[str, ...], str]] = {
    "aiomqtt": (("kvedge.transport.mqtt",), "one broadcast among others"),
    "pyownet": (("kvedge_drivers.onewire.pyownet_port",), "an extra: the rest imports without it"),
    "smbus2": (("kvedge_drivers.i2c.smbus",), "an extra: the rest imports without it"),
    "msgpack": (
        (
            "kvedge.model.value",
            "kvedge.protocol.codec",
            "kvedge.protocol.dumpfile",
            "kvedge.protocol.framing",
            "kvedge.storage.frames",
        ),
        "the packed form of a value, of a message, of a stream, of a dump and of a file's header",
    ),
    "click": (("kvedge.cli", "kvedge_drivers.cli"), "short commands run without it"),
    "asyncio": (
        (
            "kvedge.transport.aio",
            "kvedge.transport.mqtt",
            "kvedge.server.server",
            "kvedge.server.logs",
            "kvedge.agent",
            "kvedge.testing",
        ),
        "the server's hot path and aiomqtt need it; applications choose their event loop",
    ),
    "random": (
        ("kvedge.server", "kvedge.runner", *TESTING),
        "incarnations and jitter; below, a Random is handed in",
    ),
    "time": (
        ("kvedge.clock", *TESTING, "kvedge_drivers.cli.demo"),
        "time is handed in as a Clock; simulators and the demo wait for real processes",
    ),
    "socket": (("kvedge.transport", *TESTING), "bytes over the world are the transport's"),
    "_socket": (("kvedge.transport",), "a short command spares the import of socket"),
    "threading": (
        ("kvedge.storage.commit", "kvedge.runner.watchdog", *TESTING),
        "the committer waits for the disk, the watchdog for a loop that stands still",
    ),
}

# On these floors nothing waits, asks the time, draws lots or touches the world.
PURE = ("kvedge.errors", "kvedge.limits", "kvedge.model", "kvedge.protocol")
PURE_MAY_IMPORT = (
    *("__future__", "abc", "ast", "base64", "binascii", "bisect", "calendar", "collections"),
    *(
        "contextlib",
        "dataclasses",
        "datetime",
        "enum",
        "functools",
        "hashlib",
        "heapq",
        "hmac",
        "itertools",
        "json",
    ),
    *("math", "msgpack", "operator", "re", "reprlib", "string", "struct", "types", "typing"),
    *("unicodedata", "zlib"),
    *("kvedge.errors", "kvedge.limits", "kvedge.model", "kvedge.protocol"),
    "random.Random",  # the type of the generator that is handed in
)
PURE_MAY_NOT_CALL = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}
PURE_MAY_NOT_ASK = {"now", "today", "utcnow"}  # of datetime and date, which may compute alone
NO_NAME = {"util", "utils", "helper", "helpers", "common", "misc"}

Complaints = Iterator[str]
Rule = Callable[[str, ast.Module], Complaints]


def _inside(module: str, prefixes: Iterable[str]) -> bool:
    return any(module == p or module.startswith(f"{p}.") for p in prefixes)


def _floor(module: str, floors: list[list[str]]) -> tuple[int, str] | None:
    """Return height and name of the floor a module is on."""
    for height, names in enumerate(floors):
        for name in names:
            if _inside(module, [name]):
                return height, name
    return None


def _imported_by(node: ast.AST, package: Sequence[str]) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=module, names=names, level=level):
            above = list(package[: len(package) - level + 1]) if level else []
            base = ".".join(above + ([module] if module else []))
            return [f"{base}.{alias.name}" for alias in names]
        case ast.Call(
            func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            return [name]
    return []


def _imports(module: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield every imported name in full, and where it stands."""
    package = module.split(".")[:-1]
    for node in ast.walk(tree):
        for name in _imported_by(node, package):
            yield name, f"{module}:{getattr(node, 'lineno', 0)}"


def imports_point_down(module: str, tree: ast.Module) -> Complaints:
    """Every import goes to the same floor or to a lower one."""
    for floors in (FLOORS, DRIVER_FLOORS):
        here = _floor(module, floors)
        for name, place in _imports(module, tree):
            there = _floor(name, floors)
            if here and there and here[1] != there[1] and there[0] >= here[0]:
                yield f"{place} imports {name}, which is not below {here[1]}"


def agent_knows_no_driver(module: str, tree: ast.Module) -> Complaints:
    """The agent finds drivers by entry point and never by name."""
    for name, place in _imports(module, tree):
        if _inside(module, ["kvedge"]) and _inside(name, ["kvedge_drivers"]):
            yield f"{place} imports the driver {name}"


def agent_goes_round_its_front_door(module: str, tree: ast.Module) -> Complaints:
    """Inside the agent nobody takes a name from the package root, which would load the client."""
    for name, place in _imports(module, tree):
        is_root = name == "kvedge" or (name.startswith("kvedge.") and not _inside(name, KNOWN))
        if _inside(module, ["kvedge"]) and is_root:
            yield f"{place} imports {name} from the package root"


def drivers_use_the_surface(module: str, tree: ast.Module) -> Complaints:
    """Drivers see the public names and the floor for applications; their kit also the agent's."""
    allowed = list(FOR_DRIVERS)
    if _inside(module, ["kvedge_drivers.testing"]):
        allowed.append("kvedge.testing")
    for name, place in _imports(module, tree):
        is_internal = _inside(name, KNOWN) and not _inside(name, allowed)
        if _inside(module, ["kvedge_drivers"]) and _inside(name, ["kvedge"]) and is_internal:
            yield f"{place} imports {name}, which is not for drivers"


def runner_is_an_application(module: str, tree: ast.Module) -> Complaints:
    """The runner reaches the cluster as a driver would: by client and job."""
    for name, place in _imports(module, tree):
        is_foreign = _inside(name, ["kvedge"]) and not _inside(name, FOR_RUNNER)
        if _inside(module, ["kvedge.runner"]) and is_foreign:
            yield f"{place} imports {name}, which is not for the runner"


def libraries_stay_at_their_door(module: str, tree: ast.Module) -> Complaints:
    """A library is named in its adapter alone."""
    for name, place in _imports(module, tree):
        library = name.split(".")[0]
        rooms, reason = DOORS.get(library, ((module,), ""))
        if name != "random.Random" and not _inside(module, rooms):
            yield f"{place} imports {library}, which is for {', '.join(rooms)} alone: {reason}"


def pure_floors_import_pure_things(module: str, tree: ast.Module) -> Complaints:
    """Model and protocol import nothing that acts; the list says what they may."""
    for name, place in _imports(module, tree):
        if _inside(module, PURE) and not _inside(name, PURE_MAY_IMPORT):
            yield f"{place} imports {name} on a pure floor"


def pure_floors_only_compute(module: str, tree: ast.Module) -> Complaints:
    """Model and protocol have no await, no async function and no call of open()."""
    for node in ast.walk(tree) if _inside(module, PURE) else ():
        match node:
            case ast.Await() | ast.AsyncFunctionDef():
                found = type(node).__name__
            case ast.comprehension(is_async=1):
                found = "async comprehension"
            case ast.Call(func=ast.Name(id=called)) if called in PURE_MAY_NOT_CALL:
                found = f"{called}()"
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="datetime" | "date"), attr=asked)
            ) if asked in PURE_MAY_NOT_ASK:
                found = f"{asked}()"
            case _:
                continue
        yield f"{module}:{getattr(node, 'lineno', 0)} has {found} on a pure floor"


def module_has_a_floor(module: str, tree: ast.Module) -> Complaints:
    """A new top-level module is given a floor in this file, and a name that says what it is."""
    if module not in SOURCE_ROOTS.values() and not _inside(module, KNOWN):
        yield f"{module} is on no floor"
    for word in NO_NAME & set(module.split(".")):
        yield f"{module}: {word!r} does not say what is in it"


RULES: list[Rule] = [
    imports_point_down,
    agent_knows_no_driver,
    agent_goes_round_its_front_door,
    drivers_use_the_surface,
    runner_is_an_application,
    libraries_stay_at_their_door,
    pure_floors_import_pure_things,
    pure_floors_only_compute,
    module_has_a_floor,
]


def _sources() -> Iterator[tuple[str, ast.Module]]:
    for root in SOURCE_ROOTS:
        for file in sorted((ROOT / root).rglob("*.py")):
            parts = file.relative_to(ROOT / root).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            yield module, ast.parse(file.read_text(encoding="utf-8"))


def _stray(children: Iterable[str], package: str) -> list[str]:
    """Return what lies in a source root beside its package."""
    return sorted(set(children) - {package, "__pycache__"})


@pytest.mark.parametrize("rule", RULES)
def test_sources_keep_the_rule(rule: Rule) -> None:
    sources = list(_sources())
    assert sources
    bad = [complaint for module, tree in sources for complaint in rule(module, tree)]
    assert not bad, f"{rule.__doc__}\n" + "\n".join(bad)


@pytest.mark.parametrize(("root", "package"), SOURCE_ROOTS.items())
def test_source_root_holds_one_package(root: str, package: str) -> None:
    children = [child.name for child in (ROOT / root).iterdir()]
    assert package in children
    assert not _stray(children, package)


def test_stray_beside_a_package_is_seen() -> None:
    assert _stray(["kvedge", "__pycache__", "tools.py"], "kvedge") == ["tools.py"]


BREACHES: list[tuple[Rule, str, str]] = [
    (imports_point_down, "kvedge.errors", "from kvedge import limits"),
    (imports_point_down, "kvedge.limits", "from kvedge.clock import Clock"),
    (imports_point_down, "kvedge.model.path", "from kvedge.protocol.codec import unpack"),
    (imports_point_down, "kvedge.storage.journal", "import kvedge.transport.aio"),
    (imports_point_down, "kvedge.client.client", "from kvedge.server import server"),
    (
        imports_point_down,
        "kvedge.server.server",
        "def f():\n    from kvedge.config import Settings",
    ),
    (imports_point_down, "kvedge.agent", "if TYPE_CHECKING:\n    from kvedge.cli.main import main"),
    (imports_point_down, "kvedge.agent", "importlib.import_module('kvedge.cli.main')"),
    (imports_point_down, "kvedge.model.path", "from ..protocol import codec"),
    (imports_point_down, "kvedge_drivers.onewire.port", "from kvedge_drivers.i2c import smbus"),
    (imports_point_down, "kvedge_drivers.ports", "from kvedge_drivers.bridge import Bridge"),
    (agent_knows_no_driver, "kvedge.cli.main", "import kvedge_drivers.host"),
    (agent_knows_no_driver, "kvedge", "from kvedge_drivers import registry"),
    (agent_goes_round_its_front_door, "kvedge.server.server", "from kvedge import P"),
    (agent_goes_round_its_front_door, "kvedge.cli.data", "import kvedge"),
    (agent_goes_round_its_front_door, "kvedge.cli.data", "from kvedge import *"),
    (drivers_use_the_surface, "kvedge_drivers.bridge", "from kvedge.server import server"),
    (drivers_use_the_surface, "kvedge_drivers.bridge", "from kvedge import storage"),
    (drivers_use_the_surface, "kvedge_drivers.bridge", "from kvedge.testing import clock"),
    (drivers_use_the_surface, "kvedge_drivers.testing.bus", "from kvedge.storage import journal"),
    (runner_is_an_application, "kvedge.runner.code", "from kvedge.protocol import codec"),
    (runner_is_an_application, "kvedge.runner.code", "from kvedge.server.server import Server"),
    (pure_floors_import_pure_things, "kvedge.model.stamp", "from kvedge.clock import Clock"),
    (pure_floors_import_pure_things, "kvedge.model.stamp", "import time"),
    (pure_floors_import_pure_things, "kvedge.model.merge", "import logging"),
    (pure_floors_import_pure_things, "kvedge.protocol.codec", "from pathlib import Path"),
    (pure_floors_import_pure_things, "kvedge.protocol.lease", "from random import random"),
    (pure_floors_only_compute, "kvedge.model.tree", "async def f(): pass"),
    (pure_floors_only_compute, "kvedge.model.tree", "await x"),
    (pure_floors_only_compute, "kvedge.model.tree", "def f(x): return (y async for y in x)"),
    (pure_floors_only_compute, "kvedge.protocol.codec", "def f():\n    return open('x')"),
    (pure_floors_only_compute, "kvedge.protocol.codec", "print('seen')"),
    (pure_floors_only_compute, "kvedge.model.when", "datetime.now(UTC)"),
    (pure_floors_only_compute, "kvedge.model.when", "x = date.today()"),
    (module_has_a_floor, "kvedge.attic", ""),
    (module_has_a_floor, "kvedge.model.utils", ""),
    *(
        (libraries_stay_at_their_door, f"{package}.elsewhere", f"import {library}")
        for library in DOORS
        for package in SOURCE_ROOTS.values()
    ),
]
PERMITTED = [
    ("kvedge", "from importlib import import_module\nimport_module('kvedge.client.client')"),
    ("kvedge.model.path", "from kvedge import limits\nfrom kvedge.errors import BadPath"),
    ("kvedge.model.path", "def reopen(x): return x.open()"),
    ("kvedge.protocol.lease", "from random import Random"),
    ("kvedge.protocol.codec", "import msgpack\nfrom kvedge.model.value import MISSING"),
    ("kvedge.storage.commit", "import threading\nimport anyio\nasync def f(): await g()"),
    ("kvedge.runner.code", "from kvedge.job import Message\nfrom kvedge.client.client import open"),
    ("kvedge.cli.demo", "import click\nfrom kvedge.agent import run_node"),
    ("kvedge_drivers.bridge", "from kvedge import P, open_client\nimport kvedge"),
    ("kvedge_drivers.testing.bus", "from kvedge.testing import clock\nimport socket, time"),
    ("kvedge_drivers.cli.demo", "from kvedge_drivers.testing import ha7e\nimport time, click"),
]


@pytest.mark.parametrize(("rule", "module", "source"), BREACHES)
def test_planted_breach_is_found(rule: Rule, module: str, source: str) -> None:
    assert list(rule(module, ast.parse(source)))


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_a_planted_breach(rule: Rule) -> None:
    assert any(rule is planted for planted, _, _ in BREACHES)


@pytest.mark.parametrize(("module", "source"), PERMITTED)
def test_permitted_source_is_left_alone(module: str, source: str) -> None:
    tree = ast.parse(source)
    assert [complaint for rule in RULES for complaint in rule(module, tree)] == []
