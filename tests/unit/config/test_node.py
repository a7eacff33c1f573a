"""How a node gets its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvedge.config.node import node_name, own_node_name
from kvedge.errors import BadSetting

SERIAL = "10000000a1b2c3d4"
MACHINE = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("wanted", "hostname", "name"),
    [
        (None, "attic", "attic"),
        (None, "attic.example.org", "attic"),
        ("alpha", "attic", "alpha"),
        ("A_b-9", "attic", "A_b-9"),
        ("raspberrypi", "attic", "raspberrypi"),
    ],
)
def test_plain_names_need_no_note(wanted: str | None, hostname: str, name: str) -> None:
    assert node_name(wanted, hostname, SERIAL, MACHINE) == (name, None)


def test_a_dotted_name_is_cut_with_a_note() -> None:
    name, note = node_name("alpha.example.org", "attic", None, None)
    assert name == "alpha"
    assert note is not None
    assert "'alpha.example.org'" in note


@pytest.mark.parametrize(
    "hostname", ["raspberrypi", "localhost", "debian", "localhost.localdomain"]
)
def test_names_of_images_get_the_end_of_the_serial(hostname: str) -> None:
    name, note = node_name(None, hostname, SERIAL, MACHINE)
    assert name == f"{hostname.partition('.')[0]}-a1b2c3d4"
    assert note is not None
    assert name in note


@pytest.mark.parametrize("serial", [None, "", "0000000000000000", "--"])
def test_without_a_serial_the_machine_id_is_hashed(serial: str | None) -> None:
    name, _ = node_name(None, "debian", serial, MACHINE)
    other, _ = node_name(None, "debian", serial, MACHINE[::-1])
    assert name != other
    suffix = name.removeprefix("debian-")
    assert len(suffix) == 8
    assert suffix not in MACHINE


@pytest.mark.parametrize("machine_id", [None, "", "uninitialized"])
def test_a_board_that_nothing_tells_apart_must_be_named(machine_id: str | None) -> None:
    with pytest.raises(BadSetting, match=r"set \[node\] name"):
        node_name(None, "raspberrypi", None, machine_id)


@pytest.mark.parametrize("wanted", ["", ".", ".org", "a b", "a/b", "ä", "a" * 64, "a\n"])
def test_illegal_names_are_refused_with_the_way_out(wanted: str) -> None:
    with pytest.raises(BadSetting, match=r"letters, digits.*set \[node\] name"):
        node_name(wanted, "attic", None, None)


def test_an_illegal_host_name_is_refused_too() -> None:
    with pytest.raises(BadSetting, match="'my host'"):
        node_name(None, "my host", None, None)


@pytest.mark.parametrize(
    "place", ["proc/device-tree/serial-number", "sys/firmware/devicetree/base/serial-number"]
)
def test_the_serial_is_read_where_the_kernel_shows_it(tmp_path: Path, place: str) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True)
    file.write_text(f"{SERIAL}\0")
    name, _ = own_node_name(None, hostname="raspberrypi", root=str(tmp_path))
    assert name == "raspberrypi-a1b2c3d4"


def test_the_machine_id_is_read(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text(f"{MACHINE}\n")
    found = own_node_name(None, hostname="debian", root=str(tmp_path))
    assert found == node_name(None, "debian", None, MACHINE)


def test_this_machine_has_a_name() -> None:
    assert own_node_name("alpha") == ("alpha", None)
