"""The simulated adapter speaks the ASCII protocol of the HA7E."""

from __future__ import annotations

import pytest

from kvedge_drivers.testing.ha7e import Ha7eAdapter
from kvedge_drivers.testing.onewire import SimulatedBus, SimulatedSensor

A1, B2 = "28.0000000000A1", "28.0000000000B2"
ROM_A1, ROM_B2 = b"EFA1000000000028\r", b"90B2000000000028\r"
READ_SCRATCHPAD = b"W0ABEFFFFFFFFFFFFFFFFFF\r"


@pytest.fixture
def adapter() -> Ha7eAdapter:
    return Ha7eAdapter(SimulatedBus(SimulatedSensor(A1, 10.125), SimulatedSensor(B2)))


def test_search_goes_on_until_an_empty_line(adapter: Ha7eAdapter) -> None:
    assert adapter.receive(b"S") + adapter.receive(b"s") == ROM_B2 + ROM_A1
    assert adapter.receive(b"s") == b"\r"
    assert adapter.receive(b"s") == b"\r"


def test_what_was_found_last_is_selected_again(adapter: Ha7eAdapter) -> None:
    """owserver waits 5 s when the answer to M is not the device it found."""
    adapter.receive(b"Sss")
    assert adapter.receive(b"M") == ROM_A1


def test_selected_device_converts_and_is_read(adapter: Ha7eAdapter) -> None:
    assert adapter.receive(b"A" + ROM_A1) == ROM_A1
    assert adapter.receive(b"W0144\r") == b"44\r"
    assert adapter.receive(b"M") == ROM_A1
    assert adapter.receive(READ_SCRATCHPAD) == b"BEA2004B467FFF0E10E5\r"


def test_absent_device_reads_as_ones(adapter: Ha7eAdapter) -> None:
    adapter.receive(b"A0000000000000028\r")
    assert adapter.receive(READ_SCRATCHPAD) == b"BEFFFFFFFFFFFFFFFFFF\r"


def test_presence_check_is_a_search_written_as_bytes(adapter: Ha7eAdapter) -> None:
    """Recorded from owserver 3.2p4: 64 times two read slots and the bit of the wanted ROM."""
    adapter.receive(b"R")
    asked = b"W19F0DBBE6FDBB66DDBB66DDBB66DDBB66DDBB66DDFB6EFFFBFFF\r"
    there = adapter.receive(asked)
    assert there != adapter.receive(b"R" + asked.replace(b"BE6F", b"B66D"))
    assert not there.endswith(b"FFFF\r")


@pytest.mark.parametrize("size", [1, 2, 7])
def test_commands_may_arrive_in_pieces(adapter: Ha7eAdapter, size: int) -> None:
    sent = b"R" + b"A" + ROM_A1 + b"W0144\r" + b"M" + READ_SCRATCHPAD
    pieces = [sent[start : start + size] for start in range(0, len(sent), size)]
    answer = b"".join(adapter.receive(piece) for piece in pieces)
    assert answer.endswith(b"BEA2004B467FFF0E10E5\r")


def test_noise_is_passed_over(adapter: Ha7eAdapter) -> None:
    assert adapter.receive(b"\x00?\r\n\xff") == b""
    assert adapter.receive(b"WZZ") == b"\r"
    assert adapter.receive(b"R") == b"\r"
