"""`kv sensor` against a real server: what is shown, bound, calibrated and refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import click
import pytest
from click.testing import CliRunner

from kvedge.client.sync import SyncClient, connect
from kvedge.clock import SystemClock
from kvedge.errors import AgentError, BadSetting, ConflictError
from kvedge.model.path import P, Path
from kvedge.testing.node import server_in_thread
from kvedge_drivers.cli import sensor as module
from kvedge_drivers.cli.sensor import sensor
from kvedge_drivers.readings.places import BINDINGS, RECORDS, Record, default_path
from kvedge_drivers.readings.states import State

A, B = "28.0000000000A1", "28.0000000000B2"
KEY_A, KEY_B = (Path("alpha", device, "temperature") for device in (A, B))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server of the node `alpha`."""
    with server_in_thread("alpha") as address:
        yield address


@pytest.fixture
def kv(server: str) -> Iterator[SyncClient]:
    """A client of the server, which has records of two thermometers of alpha."""
    with connect([server]) as client:
        for device, celsius in ((A, 21.5), (B, -4.0)):
            client.set(RECORDS + ("alpha", device, "temperature"), record(device, celsius))
        yield client
        client.delete_tree(RECORDS)
        client.delete_tree(BINDINGS)


def record(device: str, celsius: float, **changes: Any) -> dict[str, Any]:
    made = Record(
        path=default_path("alpha", device, "temperature"),
        unit="°C",
        device_class="temperature",
        precision=2,
        state=State.OK,
        reason="",
        time=SystemClock().wall_s(),
        synchronised=True,
        value=celsius,
        readings=1,
        interval_s=10,
        driver="onewire",
    )
    return replace(made, **changes).to_value()


class Session:
    """A `kvedge.job.CommandContext`."""

    def __init__(self, server: str) -> None:
        self.json = False
        self._server = server

    def connect(self) -> SyncClient:
        return connect([self._server])

    def print(self, value: object) -> None:
        click.echo(json.dumps(value))


@pytest.fixture
def run(kv: SyncClient, server: str) -> Callable[[str], str]:
    """Runs a command below `kv sensor` and returns its output."""

    def run_words(words: str) -> str:
        done = CliRunner().invoke(sensor, words.split(), obj=Session(server))
        if isinstance(done.exception, AgentError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    return run_words


Run = Callable[[str], str]


def test_list_shows_a_table(run: Run) -> None:
    lines = run("list").splitlines()
    assert [line.split()[:4] for line in lines] == [
        ["PATH", "VALUE", "STATE", "AGE"],
        ["sensor.alpha.28:.0000000000A1.temperature", "21.50", "°C", "ok"],
        ["sensor.alpha.28:.0000000000B2.temperature", "-4.00", "°C", "ok"],
    ]


def test_list_prints_json(run: Run) -> None:
    first, second = json.loads(run("list --json"))
    assert (first["device"], first["value"], first["unit"]) == (A, 21.5, "°C")
    assert (second["path"], second["state"]) == (
        "sensor.alpha.28:.0000000000B2.temperature",
        "ok",
    )


def test_list_of_one_node(run: Run) -> None:
    assert len(json.loads(run("list --json -n alpha"))) == 2
    assert json.loads(run("list --json -n beta")) == []


def test_list_passes_over_what_is_no_record(run: Run, kv: SyncClient) -> None:
    kv.set(RECORDS + ("alpha", "x", "y"), "rubbish")
    kv.set(RECORDS / "z", record(A, 1.0))
    assert len(json.loads(run("list --json"))) == 2


def test_empty_list_says_how_to_begin(run: Run, kv: SyncClient) -> None:
    kv.delete_tree(RECORDS)
    assert run("list") == ""


@pytest.mark.parametrize(
    "name",
    [
        f"{A}.temperature",
        "28:.0000000000A1.temperature",
        "sensor.alpha.28:.0000000000A1.temperature",
    ],
)
def test_bind(run: Run, kv: SyncClient, name: str) -> None:
    run(f"bind {name} cellar.temperature")
    assert kv.get(BINDINGS + KEY_A).value == {"path": P("cellar.temperature")}


def test_bind_keeps_the_calibration(run: Run, kv: SyncClient) -> None:
    run(f"bind {A}.temperature cellar --offset 0.5 --gain 2")
    run(f"bind {A}.temperature attic")
    assert kv.get(BINDINGS + KEY_A).value == {"path": P("attic"), "offset": 0.5, "gain": 2.0}


def test_bind_of_a_sensor_that_is_not_there_yet(run: Run, kv: SyncClient) -> None:
    run("bind 28.0000000000FF.temperature cellar -n beta")
    assert kv.get(BINDINGS + ("beta", "28.0000000000FF", "temperature")).value["path"] == P(
        "cellar"
    )


@pytest.mark.parametrize("name", ["temperature", ".x", "x.", ":.kv.run"])
def test_bind_of_what_is_no_sensor(run: Run, name: str) -> None:
    with pytest.raises(BadSetting, match=r"not DEVICE\.CHANNEL"):
        run(f"bind {name} cellar")


@pytest.mark.parametrize("path", [":.kv.run", ":n.x", ":"])
def test_bind_to_a_place_of_the_system(run: Run, path: str) -> None:
    with pytest.raises(BadSetting, match="path"):
        run(f"bind {A}.temperature {path}")


def test_bind_where_another_is(run: Run) -> None:
    run(f"bind {A}.temperature cellar")
    with pytest.raises(ConflictError, match=f"{A}.temperature of alpha"):
        run(f"bind {B}.temperature cellar")
    with pytest.raises(ConflictError, match=f"{B}.temperature of alpha"):
        run(f"bind {A}.temperature sensor.alpha.28:.0000000000B2.temperature")
    run(f"bind {A}.temperature cellar")


def test_bind_where_another_that_is_not_there_yet_will_be(run: Run, kv: SyncClient) -> None:
    kv.set(BINDINGS + ("beta", "x", "y"), {"path": "cellar"})
    kv.set(BINDINGS + ("beta", "x", "z"), {"offset": 1})
    kv.set(BINDINGS + ("beta", "x", "wrong"), {"path": ""})
    with pytest.raises(ConflictError, match=r"x\.y of beta"):
        run(f"bind {A}.temperature cellar")
    run(f"bind {A}.temperature attic")


def test_unbind(run: Run, kv: SyncClient) -> None:
    run(f"bind {A}.temperature cellar")
    run(f"unbind {A}.temperature")
    assert "value" not in kv.get(BINDINGS + KEY_A)
    with pytest.raises(ConflictError, match=f"^{A}.temperature of alpha is not bound$"):
        run(f"unbind {A}.temperature")


def test_unbind_by_the_place_where_a_value_will_be(run: Run, kv: SyncClient) -> None:
    run("bind 28.0000000000FF.temperature cellar")
    run("unbind cellar")
    assert "value" not in kv.get(BINDINGS + ("alpha", "28.0000000000FF", "temperature"))


def test_calibrate(run: Run, kv: SyncClient) -> None:
    run(f"calibrate {A}.temperature --offset 0.5")
    run(f"calibrate {A}.temperature --gain 1.1")
    assert kv.get(BINDINGS + KEY_A).value == {"offset": 0.5, "gain": 1.1}
    assert json.loads(run(f"calibrate {A}.temperature")) == {"offset": 0.5, "gain": 1.1}


@pytest.mark.parametrize(("gain", "offset"), [(None, 0.5), (2.0, -21.0)])
def test_calibrate_by_comparison(
    run: Run, kv: SyncClient, gain: float | None, offset: float
) -> None:
    run(f"calibrate {A}.temperature --actual 22" + (f" --gain {gain}" if gain else ""))
    assert kv.get(BINDINGS + KEY_A).value["offset"] == offset


def test_calibrate_counts_what_holds_already(run: Run, kv: SyncClient) -> None:
    kv.set(BINDINGS + KEY_A, {"offset": 1.5})  # the 21.5 of the record are 20 as measured
    run(f"calibrate {A}.temperature --actual 21")
    assert kv.get(BINDINGS + KEY_A).value == {"offset": 1.0}


def test_calibrate_by_comparison_needs_a_current_value(run: Run, kv: SyncClient) -> None:
    kv.set(RECORDS + KEY_A, record(A, 21.5, state=State.MISSING, reason="away"))
    with pytest.raises(ConflictError, match="no current value"):
        run(f"calibrate {A}.temperature --actual 22")


@pytest.mark.parametrize("options", ["--gain 0", "--actual 1 --offset 2", "--offset nan"])
def test_calibration_that_cannot_be(run: Run, options: str) -> None:
    with pytest.raises(BadSetting):
        run(f"calibrate {A}.temperature {options}")


def test_watch_prints_what_changes(
    run: Run, kv: SyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter(range(2))

    def wait(*_: object) -> None:
        if next(looks, None) is None:
            raise KeyboardInterrupt
        kv.set(RECORDS + KEY_B, record(B, -4.0, state=State.FAULT, reason="its CRC is wrong"))

    monkeypatch.setattr(module, "_wait", wait)
    done = CliRunner().invoke(sensor, ["watch"], obj=Session(kv.endpoint))
    assert done.stdout.splitlines() == [
        "sensor.alpha.28:.0000000000A1.temperature  21.50 °C  ok",
        "sensor.alpha.28:.0000000000B2.temperature  -4.00 °C  ok",
        "sensor.alpha.28:.0000000000B2.temperature  (-4.00 °C)  fault: its CRC is wrong",
    ]


def test_screen_shows_first_what_is_not_ok(kv: SyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    kv.set(RECORDS + KEY_B, record(B, -4.0, state=State.FAULT, reason="its CRC is wrong"))
    monkeypatch.setenv("LINES", "3")
    screen = module._screen(module._rows(kv, None))
    assert "0000000000B2" in screen
    assert "0000000000A1" not in screen
    assert "1 of 2 are not ok.  1 more do not fit." in screen
