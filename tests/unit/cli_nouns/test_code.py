"""`kv code`: files, standard input, sizes, what is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kvedge.client.sync import SyncClient
from kvedge.limits import CODE_MAX_BYTES
from kvedge.model.path import P
from kvedge.runner.code import StoredCode
from kvedge.runner.places import module_at, procedure_at
from kvedge.testing.transcripts import Outcome

Kv = Callable[..., Outcome]


def test_what_is_stored_is_what_a_runner_reads(kv_here: Kv, client: SyncClient) -> None:
    done = kv_here(
        *["code", "set", "a.b", "--async", "--vars", "x, y", "--vars", "z", "--requires", "m,n.o"],
        typed="return x\n",
    )
    assert done.code == 0
    stored = StoredCode.from_value(P("a.b"), client.get(procedure_at(P("a.b"))).value)
    assert stored.text == "return x\n"
    assert stored.kind.value is True
    assert stored.names == ("x", "y", "z")
    assert stored.requires == (P("m"), P("n.o"))


@pytest.mark.parametrize(
    ("flag", "is_async"), [("--async", True), ("--thread", False), ("--sync", None)]
)
def test_where_it_runs(kv_here: Kv, flag: str, is_async: bool | None) -> None:
    kv_here("code", "set", "a", "--async", typed="return 1")
    kv_here("code", "set", "a", flag, typed="return 1")
    assert json.loads(kv_here("code", "get", "a", "--json").output)["is_async"] is is_async


def test_file_in_and_out(kv_here: Kv, tmp_path: Path) -> None:
    text = "# é\nreturn '\\n'"  # no newline at its end, and none is made up
    (tmp_path / "in.py").write_text(text, "utf-8")
    assert kv_here("code", "set", "a", "-s", str(tmp_path / "in.py")) == Outcome()
    assert kv_here("code", "get", "a", "-s", str(tmp_path / "out.py")) == Outcome()
    assert (tmp_path / "out.py").read_text("utf-8") == text
    assert kv_here("code", "get", "a").output == f"{text}\n"


def test_file_that_cannot_be_written(kv_here: Kv, tmp_path: Path) -> None:
    kv_here("code", "set", "a", typed="return 1")
    done = kv_here("code", "get", "a", "-s", str(tmp_path / "no" / "file"))
    assert done.code == 2
    assert done.errors.endswith("/no/file: cannot be written: No such file or directory\n")


def test_file_that_is_no_text(kv_here: Kv, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_bytes(b"return '\xff'")
    done = kv_here("code", "set", "a", "-s", str(tmp_path / "x.py"))
    assert (done.code, done.errors.endswith("x.py: cannot be read: it is not UTF-8\n")) == (2, True)


def test_a_dash_is_standard_input(kv_here: Kv) -> None:
    assert kv_here("code", "set", "a", "-s", "-", typed="return 1\n").code == 0
    assert kv_here("code", "get", "a", "-s", "-").output == "return 1\n"


def test_too_large(kv_here: Kv) -> None:
    done = kv_here("code", "set", "a", typed="x = 1\n" * (CODE_MAX_BYTES // 6 + 1))
    assert done.code == 2
    assert f"more than {CODE_MAX_BYTES}" in done.errors


@pytest.mark.parametrize("text", ["x = '\0'", "(" * 500, "x = 1\n  y = 2", "'"])
def test_text_that_no_parser_takes(kv_here: Kv, text: str) -> None:
    for noun in (["code"], ["code", "module"]):
        done = kv_here(*noun, "set", "a", typed=text)
        assert done.code == 2
        assert done.errors.startswith("kv: a cannot be stored: ")
        assert done.errors.count("\n") == 1


def test_checking_runs_nothing(kv_here: Kv, tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    text = f"import pathlib\npathlib.Path({str(witness)!r}).touch()\n"
    assert kv_here("code", "set", "a", typed=text).code == 0
    assert kv_here("code", "module", "set", "a", typed=text).code == 0
    assert not witness.exists()


def test_modules_are_not_procedures(kv_here: Kv, client: SyncClient) -> None:
    kv_here("code", "module", "set", "a.b", typed="x = 1\n")
    assert "value" in client.get(module_at(P("a.b")))
    assert kv_here("code", "get", "a.b").code == 1


def test_installed_procedures(kv_here: Kv) -> None:
    done = kv_here("code", "list", "--installed", "--json")
    assert {"@host", "@onewire"} <= set(json.loads(done.output))


def test_an_entry_that_is_no_procedure(kv_here: Kv, client: SyncClient) -> None:
    client.set(procedure_at(P("a")), 5)
    done = kv_here("code", "get", "a")
    assert done.code == 1
    assert done.errors == "kv: :.kv.code.proc.a failed: there is no text in its field code\n"
    assert kv_here("code", "set", "a", typed="return 1").code == 0
    assert kv_here("code", "get", "a").output == "return 1\n"


def test_json_tells_what_was_done(kv_here: Kv) -> None:
    tock = json.loads(kv_here("code", "set", "a", "--json", typed="return 1").output)["tock"]
    assert int(tock) > 0
    assert json.loads(kv_here("code", "delete", "a", "--json").output) == {"deleted": "a"}
    done = kv_here("code", "delete", "a", "--json")
    assert json.loads(done.errors)["etype"] == "absent"
