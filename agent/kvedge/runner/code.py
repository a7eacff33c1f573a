"""Procedures: stored text made into a function, stored modules made importable, installed ones.

The text of a procedure is the body of a function, so that `return` works.  It is parsed as it is
and put into the function as a tree: nothing is indented, so multi-line strings stay as they are
and the line numbers of a traceback are those of the text.

Stored modules live in the run that asked for them.  An import statement of stored code looks among
the modules that the code requires first, so two jobs may use two versions of a module, a change
needs no unloading, and nothing is added to what the agent itself imports.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import entry_points
from types import CodeType, ModuleType
from typing import Any

from kvedge.errors import BadPath, JobFailed
from kvedge.limits import CODE_MAX_BYTES
from kvedge.model.path import P, Path

ENTRY_POINTS = "kvedge.procedures"
_MAIN = "procedure"


class CodeMissing(JobFailed):
    """There is no code where some is wanted; it may come."""


class Kind(Enum):
    """Where a procedure runs; the values are those of `is_async` in the tree."""

    ASYNC = True
    THREAD = False
    SYNC = None
    """Synchronous without more.  It runs in a thread as well: the loop belongs to all jobs."""


@dataclass(frozen=True, slots=True)
class StoredCode:
    """The text of a procedure or module as it is stored.

    Attributes:
        place: Where it stands.
        text: The program text.
        kind: Where it runs; a module runs where it is imported.
        names: Variables that must be given.
        requires: Modules that it imports.
        tock: The tock of its entry.
    """

    place: Path
    text: str
    kind: Kind = Kind.SYNC
    names: tuple[str, ...] = ()
    requires: tuple[Path, ...] = ()
    tock: int = 0

    @property
    def filename(self) -> str:
        """The name of the text in tracebacks."""
        return f"<{self.place}>"

    @classmethod
    def from_value(cls, place: Path, value: object, *, tock: int = 0) -> StoredCode:
        """Read the entry of a procedure or module.

        Raises:
            JobFailed: It is none; says which field is wrong.
        """
        if not isinstance(value, Mapping) or not isinstance(value.get("code"), str):
            raise JobFailed(str(place), "there is no text in its field code")
        size = len(value["code"].encode(errors="replace"))
        if size > CODE_MAX_BYTES:
            raise JobFailed(str(place), f"its {size} bytes are more than {CODE_MAX_BYTES}")
        is_async = value.get("is_async")
        if is_async is not None and not isinstance(is_async, bool):
            raise JobFailed(str(place), f"is_async is {is_async!r}, not True, False or None")
        return cls(
            place,
            value["code"],
            Kind(is_async),
            _names(place, value.get("vars") or ()),
            _modules(place, value.get("requires") or ()),
            tock,
        )


def _names(place: Path, given: object) -> tuple[str, ...]:
    if not isinstance(given, (tuple, list)) or not all(_is_name(name) for name in given):
        raise JobFailed(str(place), f"vars is {given!r}, not a list of names")
    return tuple(given)


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name.isidentifier()


def _modules(place: Path, given: Any) -> tuple[Path, ...]:
    try:
        return tuple(map(_module, given))
    except (TypeError, BadPath) as error:
        raise JobFailed(str(place), f"requires is {given!r}, not a list of modules") from error


def _module(name: Any) -> Path:
    path = P(name) if isinstance(name, str) else Path(*name)
    if not path or not all(isinstance(element, str) for element in path):
        raise TypeError("a module has a name")
    return path


# --- text -> function ---------------------------------------------------------------------------


def _compiled(stored: StoredCode, wrap: Callable[[ast.Module], ast.Module]) -> CodeType:
    try:
        tree = wrap(ast.parse(stored.text, stored.filename))
        code = compile(tree, stored.filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        where = "" if line is None else f"line {line}: "
        what = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
        raise JobFailed(str(stored.place), f"{where}{what}") from error
    lines = stored.text.splitlines(keepends=True)
    linecache.cache[stored.filename] = (len(stored.text), None, lines, stored.filename)
    return code


def _as_function(stored: StoredCode) -> Callable[[ast.Module], ast.Module]:
    word = "async def" if stored.kind is Kind.ASYNC else "def"
    header = f"{word} {_MAIN}({', '.join(stored.names)}): pass"

    def wrap(body: ast.Module) -> ast.Module:
        tree = ast.parse(header)
        function = tree.body[0]
        assert isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        function.body = body.body or function.body
        return tree

    return wrap


def make_function(
    stored: StoredCode, variables: Mapping[str, Any], modules: Mapping[str, StoredCode]
) -> Callable[[], Any]:
    """Return a function without arguments that runs a procedure once.

    Args:
        stored: The procedure.
        variables: What it finds as its variables.
        modules: What it may import, by dotted name.

    Raises:
        JobFailed: It cannot be compiled, or a variable that it needs is missing.
    """
    missing = [name for name in stored.names if name not in variables]
    if missing:
        raise JobFailed(str(stored.place), f"it needs the variables {', '.join(missing)}")
    code = _compiled(stored, _as_function(stored))
    space = _namespace(stored.filename, _Importer(modules))
    space.update(variables)
    exec(code, space)  # noqa: S102 -- running stored code is what a runner is for
    function = space.pop(_MAIN)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise JobFailed(str(stored.place), "it has a `yield`; a procedure returns its result")
    given = {name: variables[name] for name in stored.names}
    return lambda: function(**given)


# --- modules --------------------------------------------------------------------------------


def _namespace(name: str, importer: _Importer) -> dict[str, Any]:
    named = dict(vars(builtins))
    named["__import__"] = importer
    return {"__name__": name, "__builtins__": named}


class _Importer:
    """The import of stored code: among the modules that are required first, then as usual."""

    def __init__(self, stored: Mapping[str, StoredCode]) -> None:
        self._stored = stored
        self._made: dict[str, ModuleType] = {}
        self._parents = {name.rpartition(".")[0] for name in stored} - {""}
        for name in list(self._parents):
            while name := name.rpartition(".")[0]:
                self._parents.add(name)

    def __call__(
        self,
        name: str,
        space: Mapping[str, Any] | None = None,
        local: Mapping[str, Any] | None = None,
        fromlist: Iterable[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level or not (name in self._stored or name in self._parents):
            return builtins.__import__(name, space, local, tuple(fromlist or ()), level)
        module = self._load(name)
        for wanted in fromlist or ():
            if f"{name}.{wanted}" in self._stored:
                self._load(f"{name}.{wanted}")
        return module if fromlist else self._made[name.partition(".")[0]]

    def _load(self, name: str) -> ModuleType:
        parent, _, last = name.rpartition(".")
        above = self._load(parent) if parent else None
        module = self._made.get(name)
        if module is None:
            module = self._made[name] = self._make(name)
            if above is not None:
                setattr(above, last, module)
        return module

    def _make(self, name: str) -> ModuleType:
        stored = self._stored.get(name)
        if stored is None:
            return ModuleType(name)
        module = ModuleType(stored.filename)
        vars(module).update(_namespace(stored.filename, self))
        sys.modules[stored.filename] = module  # dataclasses look up the module of a class there
        exec(_compiled(stored, lambda tree: tree), vars(module))  # noqa: S102 -- see above
        return module


def missing_modules(start: StoredCode, known: Mapping[Path, StoredCode]) -> list[Path]:
    """Return which required modules must be read next; empty when all are known.

    Raises:
        JobFailed: Modules require each other; names the cycle.
    """
    missing: list[Path] = []
    done: set[Path] = set()

    def visit(stored: StoredCode, above: tuple[Path, ...]) -> None:
        for name in stored.requires:
            if name in above:
                cycle = " -> ".join(map(str, (*above[above.index(name) :], name)))
                raise JobFailed(str(start.place), f"modules require each other: {cycle}")
            if name in done:
                continue
            if name in known:
                visit(known[name], (*above, name))
                done.add(name)
            elif name not in missing:
                missing.append(name)

    visit(start, ())
    return missing


def dotted(name: Path) -> str:
    """Return a module's name as an import statement writes it."""
    return ".".join(map(str, name.elements))


# --- installed procedures -------------------------------------------------------------------


def installed_names() -> list[str]:
    """Return the names of the installed procedures, without the @."""
    return sorted({point.name for point in entry_points(group=ENTRY_POINTS)})


def load_installed(name: str) -> Callable[..., Any]:
    """Return an installed procedure, which is imported now.

    Args:
        name: Its name without the @.

    Raises:
        CodeMissing: There is none of this name.
    """
    for point in entry_points(group=ENTRY_POINTS, name=name):
        function: Callable[..., Any] = point.load()
        return function
    known = ", ".join(f"@{other}" for other in installed_names()) or "none"
    raise CodeMissing(f"@{name}", f"it is not installed; there are: {known}")
