"""The two entries of a channel: what is stored, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from kvedge.errors import BadSetting
from kvedge.model.path import P
from kvedge.model.value import pack, unpack
from kvedge_drivers.readings.places import Binding, Record, default_path, value_path
from kvedge_drivers.readings.states import State

RECORD = Record(
    path=P("cellar.temperature"),
    unit="°C",
    device_class="temperature",
    precision=2,
    state=State.MISSING,
    reason="28.0000000000A1 does not answer",
    time=1_700_000_000.5,
    synchronised=True,
    value=21.5,
    readings=7,
    errors={"device": 2},
    interval_s=10,
    driver="onewire",
    bus="127.0.0.1:4304",
)


def test_record_comes_back_from_the_store() -> None:
    assert Record.from_value(unpack(pack(RECORD.to_value()))) == RECORD


def test_record_has_the_fields_others_rely_on() -> None:
    stored = RECORD.to_value()
    names = "path unit class precision state reason time synchronised value readings errors"
    assert set(names.split()) <= set(stored)
    assert (stored["state"], stored["class"]) == ("missing", "temperature")
    assert type(stored["state"]) is str


def test_field_of_a_later_version_is_passed_over() -> None:
    assert Record.from_value({**RECORD.to_value(), "colour": "red"}) == RECORD


@pytest.mark.parametrize(
    "change",
    [{"state": "tired"}, {"path": "cellar"}, {"state": None}],
)
def test_record_that_is_none(change: dict[str, Any]) -> None:
    with pytest.raises(BadSetting):
        Record.from_value({**RECORD.to_value(), **change})


@pytest.mark.parametrize("value", [None, 12, "text", [], {}, {"state": "ok"}])
def test_something_else_than_a_record(value: object) -> None:
    with pytest.raises(BadSetting):
        Record.from_value(value)


def test_reader_waits_for_the_renewal() -> None:
    assert RECORD.fresh_for_s == 90


@pytest.mark.parametrize(
    "binding",
    [Binding(), Binding(P("a.b")), Binding(offset=0.5), Binding(P("a.b"), offset=-1, gain=2)],
)
def test_binding_comes_back_from_the_store(binding: Binding) -> None:
    assert Binding.from_value(unpack(pack(binding.to_value()))) == binding


def test_only_wishes_are_stored() -> None:
    assert Binding(P("a.b"), offset=0.5).to_value() == {"path": P("a.b"), "offset": 0.5}


def test_binding_may_name_its_path_as_text() -> None:
    assert Binding.from_value({"path": "a.b"}).path == P("a.b")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (12, "binding"),
        ({"path": 12}, "path"),
        ({"path": ""}, "path"),
        ({"path": "a..b"}, "path"),
        ({"path": ":n.auth"}, "place of the system"),
        ({"path": ":.kv.run"}, "place of the system"),
        ({"offset": "much"}, "offset"),
        ({"offset": True}, "offset"),
        ({"gain": float("nan")}, "gain"),
        ({"gain": None}, "gain"),
    ],
)
def test_binding_that_cannot_be_used(value: object, why: str) -> None:
    with pytest.raises(BadSetting, match=why):
        Binding.from_value(value)


def test_default_place() -> None:
    assert str(default_path("alpha", "tmp102", "temperature")) == "sensor.alpha.tmp102.temperature"
    assert value_path("a.b") == P("a.b")
