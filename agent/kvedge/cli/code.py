"""`kv code` and `kv code module`: stored procedures, and modules that they import."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

import click

from kvedge.cli.either_order import (
    PATH,
    EitherOrderGroup,
    NotFound,
    connect,
    json_option,
    say,
    the_session,
)
from kvedge.client.sync import SyncClient
from kvedge.errors import BadSetting, BadValue, JobFailed
from kvedge.model.path import EMPTY, P, Path
from kvedge.runner.code import StoredCode, installed_names, make_function
from kvedge.runner.places import MODULES, PROCEDURES


@dataclass(frozen=True, slots=True)
class _Kind:
    """Procedures or modules."""

    noun: str
    place: Path
    command: str
    defaults: Mapping[str, object]


_PROCEDURE = _Kind(
    "procedure", PROCEDURES, "kv code", {"is_async": None, "vars": [], "requires": []}
)
_MODULE = _Kind("module", MODULES, "kv code module", {"requires": []})


@click.group(cls=EitherOrderGroup)
@json_option
def code() -> None:
    """Stored procedures and modules.

    A procedure is the body of a Python function: its `return` is the result of the job that runs
    it.  NAME is a path; name and verb may stand in either order.

    $ kv code set the.answer <<END
    print("Forty-Two!")
    return 42
    END
    $ kv code the.answer get
    $ kv run -n board1 set -c the.answer -t now a.question
    """


@code.group(cls=EitherOrderGroup)
@json_option
def module() -> None:
    """Stored modules, which procedures import.

    $ kv code module set greeting -s greeting.py
    $ kv code set hello --requires greeting -s hello.py
    """


# --- set -------------------------------------------------------------------------------------

_SCRIPT = click.option("-s", "--script", metavar="FILE", help="Read the text from FILE.")
_REQUIRES = click.option(
    "--requires",
    multiple=True,
    metavar="MODULE[,MODULE]",
    help="Stored modules that it imports; '' for none.",
)


@code.command("set")
@click.argument("name", type=PATH)
@_SCRIPT
@click.option("--async", "kind", flag_value="async", help="It awaits; it runs in the event loop.")
@click.option("--thread", "kind", flag_value="thread", help="It blocks; it runs in a thread.")
@click.option("--sync", "kind", flag_value="sync", help="It does neither.  [default]")
@click.option(
    "--vars",
    "names",
    multiple=True,
    metavar="NAME[,NAME]",
    help="Variables that a job must give; '' for none.",
)
@_REQUIRES
@json_option
def set_procedure(
    name: Path,
    script: str | None,
    kind: str | None,
    names: tuple[str, ...],
    requires: tuple[str, ...],
) -> None:
    """Store the procedure NAME.

    The text comes from standard input, or from a file with -s.  It is checked first: what is no
    Python is not stored.  Of a procedure that is there already, the options that are not given
    stay as they are.

    $ kv code set the.answer <<END
    return 42
    END
    $ kv code set pump.watch --async --vars pin,level -s pump.py
    """
    if name and str(name[0]).startswith("@"):
        raise BadSetting(str(name), "names with @ are those of installed procedures")
    changes: dict[str, object] = {} if kind is None else {"is_async": _IS_ASYNC[kind]}
    if names:
        changes["vars"] = _split(names)
    _store(_PROCEDURE, name, script, changes, requires)


_IS_ASYNC: Mapping[str, bool | None] = {"async": True, "thread": False, "sync": None}


@module.command("set")
@click.argument("name", type=PATH)
@_SCRIPT
@_REQUIRES
@json_option
def set_module(name: Path, script: str | None, requires: tuple[str, ...]) -> None:
    """Store the module NAME.

    The text comes from standard input, or from a file with -s, and is checked first.  A procedure
    imports it by its name, as in `import greeting` or `import tools.greeting`.

    $ kv code module set greeting -s greeting.py
    """
    if not all(isinstance(part, str) and part.isidentifier() for part in name):
        raise BadSetting(str(name), "a module needs a name that an import statement can have")
    _store(_MODULE, name, script, {}, requires)


def _store(
    kind: _Kind,
    name: Path,
    script: str | None,
    changes: dict[str, object],
    requires: Sequence[str],
) -> None:
    _check_name(kind, name)
    if requires:
        changes["requires"] = [P(one) for one in _split(requires)]
    changes["code"] = _text_of(script)
    session = the_session()
    with connect() as client:
        old = client.get(kind.place + name)
        known = old.value if "value" in old and isinstance(old.value, dict) else {}
        value = {**kind.defaults, **known, **changes}
        check(kind.place + name, str(name), value)
        tock = client.set(kind.place + name, value).tock
        _tell_missing(client, value["requires"])
    session.note(f"{kind.noun} {name} stored")
    if session.json:
        session.print({"tock": session.tock(tock)})


def _split(words: Sequence[str]) -> list[str]:
    return [part.strip() for word in words for part in word.split(",") if part.strip()]


def _check_name(kind: _Kind, name: Path) -> None:
    if not name:
        why = f"':' is the root; a {kind.noun} needs a name; see `{kind.command} --help`"
        raise BadSetting("NAME", why)


def _text_of(script: str | None) -> str:
    """Return the text of a file, or of standard input.

    Raises:
        BadSetting: It cannot be read.
    """
    name = "standard input" if script in (None, "-") else str(script)
    if name == "standard input" and sys.stdin.isatty():
        say("type the text; ^D on a line of its own ends it")
    try:
        text = File(name).read_text("utf-8") if script == name else sys.stdin.read()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise BadSetting(name, f"cannot be read: {why}") from error
    if not text.strip():
        raise BadSetting(name, "there is no text in it")
    return text


def check(place: Path, name: str, value: Mapping[str, Any]) -> None:
    """Raise BadValue where a runner could not use a procedure or module.

    Args:
        place: Where it is to be stored.
        name: What to call it in the message.
        value: What is to be stored.
    """
    try:
        stored = StoredCode.from_value(place, value)
        if "is_async" in value:
            make_function(stored, dict.fromkeys(stored.names), {})  # it is made, and not called
        else:
            compile(stored.text, name, "exec", dont_inherit=True)
    except (JobFailed, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadValue(name, _why(error, str(value["code"]))) from error


def _why(error: BaseException, text: str) -> str:
    """Return what is wrong with a text: line, reason and the line itself."""
    cause = error.__cause__ if isinstance(error.__cause__, SyntaxError) else error
    if not isinstance(cause, SyntaxError):
        return str(getattr(error, "cause", error)) or type(error).__name__
    number = cause.lineno or 1
    line = (cause.text or "".join(text.splitlines()[number - 1 : number])).strip()
    hint = "; give --async" if "outside async function" in cause.msg else ""
    return f"line {number}: {cause.msg}: `{line}`{hint}"


def _tell_missing(client: SyncClient, names: Sequence[Path]) -> None:
    for name in names:
        if "value" not in client.get(MODULES + name):
            say(f"note: there is no module {name} yet; store it with `kv code module set {name}`")


# --- get, delete, list -----------------------------------------------------------------------


def _add_common(group: click.Group, kind: _Kind) -> None:
    """Give a group the verbs that procedures and modules share."""

    @group.command("get", help=_GET_HELP.format(noun=kind.noun, command=kind.command))
    @click.argument("name", type=PATH)
    @click.option("-s", "--script", metavar="FILE", help="Write the text to FILE.")
    @json_option
    def _(name: Path, script: str | None) -> None:
        _print_code(kind, name, script)

    @group.command("delete", help=_DELETE_HELP.format(noun=kind.noun, command=kind.command))
    @click.argument("name", type=PATH)
    @json_option
    def _(name: Path) -> None:
        _delete(kind, name)


_GET_HELP = """Print the text of the {noun} NAME.

With --json, all that is stored about it.

$ {command} get the.answer
$ {command} get the.answer -s answer.py
"""
_DELETE_HELP = """Delete the {noun} NAME.

$ {command} delete the.answer
"""

_add_common(code, _PROCEDURE)
_add_common(module, _MODULE)


@code.command("list")
@click.argument("prefix", type=PATH, required=False)
@click.option("--installed", is_flag=True, help="Those of packages instead, for `kv run -c @NAME`.")
@json_option
def list_procedures(prefix: Path | None, installed: bool) -> None:  # noqa: FBT001 -- click passes by name
    """Print the names of the procedures.

    All, or those at PREFIX and below.

    $ kv code list
    $ kv code list --installed
    """
    if not installed:
        _print_names(_PROCEDURE, prefix or EMPTY)
    elif prefix is None:
        the_session().print([f"@{name}" for name in installed_names()])
    else:
        raise BadSetting("--installed", "it takes no PREFIX; see `kv code list --help`")


@module.command("list")
@click.argument("prefix", type=PATH, required=False)
@json_option
def list_modules(prefix: Path | None) -> None:
    """Print the names of the modules.

    All, or those at PREFIX and below.

    $ kv code module list
    """
    _print_names(_MODULE, prefix or EMPTY)


def _print_names(kind: _Kind, prefix: Path) -> None:
    session = the_session()
    with connect() as client:
        names = [str(prefix + result.path) for result in client.get_tree(kind.place + prefix)]
    session.print(names)


def _print_code(kind: _Kind, name: Path, script: str | None) -> None:
    _check_name(kind, name)
    session = the_session()
    with connect() as client:
        result = client.get(kind.place + name)
    if "value" not in result:
        raise _not_found(kind, name)
    stored = result.value
    if not isinstance(stored, dict) or not isinstance(stored.get("code"), str):
        raise JobFailed(str(kind.place + name), "there is no text in its field code")
    if script and script != "-":
        _write(script, stored["code"])
    elif session.json:
        session.print(stored)
    else:
        text = stored["code"]
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def _write(script: str, text: str) -> None:
    try:
        File(script).write_text(text, "utf-8")
    except OSError as error:
        raise BadSetting(script, f"cannot be written: {error.strerror}") from error


def _delete(kind: _Kind, name: Path) -> None:
    _check_name(kind, name)
    session = the_session()
    with connect() as client:
        changed = client.delete(kind.place + name).changed
    if not changed:
        raise _not_found(kind, name)
    say(f"{kind.noun} {name} deleted")
    if session.json:
        session.print({"deleted": str(name)})


def _not_found(kind: _Kind, name: Path) -> NotFound:
    return NotFound(
        str(name), f"there is no such {kind.noun}; `{kind.command} list` shows what there is"
    )
