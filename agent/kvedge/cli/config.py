"""`kv config`: is the configuration right, what holds, and who says so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypedDict

import click

from kvedge.cli.connection import Session
from kvedge.config.keys import KEYS
from kvedge.config.settings import Settings, gather, load, number_or_text


@click.group()
def config() -> None:
    """Check the configuration, and show what holds."""


@config.command()
@click.argument("file", required=False)
@click.pass_context
def check(ctx: click.Context, file: str | None) -> None:
    """Check FILE, or all that is read without one; print each thing that is wrong."""
    sources = given_sources(ctx.obj)
    gathered = gather(**{**sources, "config_file": file} if file else sources)
    for problem in gathered.problems:
        click.echo(str(problem), err=True)
    if gathered.problems:
        ctx.exit(1)
    read = ", ".join(gathered.files) or "no configuration file, only defaults"
    click.echo(f"{read}: correct", err=True)


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show(session: Session, as_json: bool) -> None:  # noqa: FBT001 - click calls it by name
    """Print every setting, its value, and where the value comes from."""
    rows = settings_rows(load(**given_sources(session)))
    if as_json or session.json:
        click.echo(json.dumps(rows, ensure_ascii=False))
        return
    for name, row in rows.items():
        click.echo(_line(name, row["value"], row["origin"]))


def settings_rows(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return value and origin of every setting by its full name; passwords are replaced."""
    rows = {}
    for name, key in KEYS.items():
        if key.section != "runner":
            rows[name] = _row(settings, name, key.shown(_value(settings, name)))
    runners = [asdict(each) for each in settings.runners]
    return {**rows, "runner": _row(settings, "runner", runners)}


def _row(settings: Settings, name: str, value: object) -> dict[str, Any]:
    return {"value": value, "origin": settings.origins.get(name, "default")}


def _value(settings: Settings, name: str) -> object:
    section, _, attribute = name.partition(".")
    return getattr(getattr(settings, section), attribute.replace(".", "_"))


def _line(name: str, value: object, origin: str) -> str:
    """Return a setting as a line of TOML, a comment where it has no value."""
    if value is None:
        return f"# {name} is not set: {KEYS[name].default}"
    return f"{name} = {_toml(value)}  # {origin}"


def _toml(value: object) -> str:
    """Return a value as TOML; JSON is that too for the texts and numbers that settings hold."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        given = [f"{name} = {_toml(each)}" for name, each in value.items() if each is not None]
        return f"{{{', '.join(given)}}}"
    return json.dumps(value, ensure_ascii=False)


class Sources(TypedDict):
    """Arguments of `gather` and `load`: all sources of settings that a command line names."""

    config_file: str | None
    overrides: Sequence[str]
    environ: Mapping[str, str]
    flags: Mapping[str, object]


def given_sources(session: Session) -> Sources:
    """Return what the options before the command's name say about settings."""
    given = session.given
    flags = {f"connect.{name}": given.text(name) for name in ("socket", "host", "port", "auth")}
    return {
        "config_file": given.text("config"),
        "overrides": given.texts("set"),
        "environ": session.environ,
        "flags": {n: number_or_text(n, text) for n, text in flags.items() if text is not None},
    }
