"""A real owserver that hangs, restarts or loses its adapter, and the program that runs one."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from kvedge.clock import SystemClock
from kvedge.errors import DriverError, PortBusy, PortUnavailable
from kvedge_drivers.onewire.families import temperature_celsius
from kvedge_drivers.onewire.pyownet_port import PyownetPort, _Request
from kvedge_drivers.testing.onewire import SimulatedBus, SimulatedSensor
from kvedge_drivers.testing.owserver import Owserver, drifted_celsius, main, owserver_with

pytestmark = pytest.mark.system

ADDRESS = "28.0000000000A1"
TIMEOUT_S = 0.3
PATIENCE_S = 10.0  # for what takes milliseconds on an idle machine
CUT_S = 1.0  # a thread that is not cut goes on for 2 s and more


@pytest.fixture
def server() -> Iterator[Owserver]:
    """An owserver before one sensor."""
    with owserver_with(SimulatedBus(SimulatedSensor(ADDRESS, 21.5))) as running:
        yield running


def port_of(server: Owserver, *, timeout_s: float = TIMEOUT_S) -> PyownetPort:
    return PyownetPort(server.host, server.port, timeout_s=timeout_s, conversion_s=0)


async def measured(server: Owserver, *, timeout_s: float = PATIENCE_S) -> float:
    port = port_of(server, timeout_s=timeout_s)
    await port.convert_all()
    return temperature_celsius(ADDRESS, await port.read(ADDRESS, "scratchpad"))


async def no_threads_but(before: set[threading.Thread]) -> None:
    """Wait until no thread works on a request any more."""
    with anyio.fail_after(CUT_S):
        for thread in set(threading.enumerate()) - before:
            while is_asking(thread):  # noqa: ASYNC110 (a thread sets no event of anyio)
                await anyio.sleep(0.01)


def is_asking(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    while frame:
        if frame.f_code.co_filename.endswith("pyownet/protocol.py"):
            return True
        frame = frame.f_back
    return False


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_hung_adapter_is_given_up_in_time(server: Owserver, anyio_backend: str) -> None:
    port, before = port_of(server), set(threading.enumerate())
    await port.devices()
    server.adapter.is_hung = True
    asked_s = SystemClock().boottime_s()
    with pytest.raises(PortUnavailable, match=f"no answer after {TIMEOUT_S:g} s"):
        await port.read(ADDRESS, "scratchpad")
    assert SystemClock().boottime_s() - asked_s < TIMEOUT_S + 1
    server.adapter.is_hung = False
    await no_threads_but(before)
    assert await measured(server) == 21.5


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_frozen_server_leaves_no_thread_behind(server: Owserver, anyio_backend: str) -> None:
    port, before = port_of(server), set(threading.enumerate())
    await port.devices()
    server.freeze()
    with pytest.raises(PortUnavailable, match="no answer"):
        await port.devices()
    await no_threads_but(before)
    server.thaw()
    assert await measured(server) == 21.5


async def test_cancelled_read_ends_its_thread(server: Owserver) -> None:
    port, before = port_of(server, timeout_s=60), set(threading.enumerate())
    await port.devices()
    server.adapter.is_hung = True
    with anyio.move_on_after(0.1) as scope:
        await port.read(ADDRESS, "scratchpad")
    assert scope.cancelled_caught
    await no_threads_but(before)


def test_request_that_was_cut_before_it_began_is_not_sent(server: Owserver) -> None:
    request = _Request(port_of(server)._server)
    request.cut()
    with pytest.raises(PortUnavailable, match="nobody waits"):
        request.run(_Request.convert_all)


async def test_who_waits_behind_a_hung_call_is_told_that_it_is_busy(server: Owserver) -> None:
    port = port_of(server)
    await port.devices()
    server.adapter.is_hung = True
    caught: list[DriverError] = []

    async def ask() -> None:
        with pytest.raises(DriverError) as error:
            await port.read(ADDRESS, "scratchpad")
        caught.append(error.value)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)
    assert {type(error) for error in caught} == {PortUnavailable, PortBusy}


async def test_server_restarts_between_reads(server: Owserver) -> None:
    port = port_of(server, timeout_s=PATIENCE_S)
    for _ in range(2):
        await port.read(ADDRESS, "temperature")
        server.stop()
        with pytest.raises(PortUnavailable, match="refused"):
            await port.devices()
        server.start()
        assert await port.devices() == [ADDRESS]


async def test_port_may_be_made_before_the_server_runs(server: Owserver) -> None:
    server.stop()
    port = port_of(server, timeout_s=PATIENCE_S)
    with pytest.raises(PortUnavailable, match="refused"):
        await port.devices()
    server.start()
    assert await port.devices() == [ADDRESS]


async def test_open_port_does_not_keep_the_server_from_stopping(server: Owserver) -> None:
    await port_of(server).devices()
    asked_s = SystemClock().boottime_s()
    server.stop()
    assert SystemClock().boottime_s() - asked_s < 2


async def test_unplugged_adapter_is_no_absent_device(server: Owserver) -> None:
    port = port_of(server, timeout_s=PATIENCE_S)
    await port.read(ADDRESS, "scratchpad")
    server.adapter.unplug()
    for _ in range(2):
        with pytest.raises(PortUnavailable):
            await port.read(ADDRESS, "scratchpad")
        with pytest.raises(PortUnavailable):
            await port.devices()
    server.adapter.plug()
    assert await measured(server) == 21.5


async def test_unknown_host_is_told() -> None:
    with pytest.raises(PortUnavailable, match=r"owserver at no-such-host\.invalid:4304"):
        await PyownetPort("no-such-host.invalid").devices()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
        struct.pack(">5i", 0, 0, 0, 0, 0),  # a word is missing
        struct.pack(">6i", 0, 4, 0, 0, 9, 0) + b"four",  # more data than payload
        struct.pack(">6i", 0, 2**30, 0, 0, 0, 0),  # a payload nobody wants
    ],
)
async def test_something_else_than_an_owserver_is_told(answer: bytes) -> None:
    async def talk(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(answer)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    number = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, talk)
        with pytest.raises(PortUnavailable, match=f"127.0.0.1:{number}"):
            await PyownetPort("127.0.0.1", number).read(ADDRESS, "scratchpad")
        tasks.cancel_scope.cancel()


def test_missing_program_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(PortUnavailable, match="apt install owserver"),
        owserver_with(SimulatedBus()),
    ):
        pass


def test_port_that_is_taken_is_told(server: Owserver) -> None:
    with (
        pytest.raises(PortUnavailable, match=f"{server.port}: Address already in use"),
        owserver_with(SimulatedBus(), port=server.port),
    ):
        pass


def test_program_that_ends_at_once_is_quoted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "owserver"
    fake.write_text("#!/bin/sh\necho 'no such adapter' >&2\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PortUnavailable, match="no such adapter"), owserver_with(SimulatedBus()):
        pass


# --- the program ----------------------------------------------------------------------------


@pytest.fixture
def program() -> Iterator[subprocess.Popen[str]]:
    """The demonstration server, just started."""
    command = [sys.executable, "-m", "kvedge_drivers.testing.owserver", f"{ADDRESS}=30"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()  # killed, it would leave its owserver behind


def announced_port(program: subprocess.Popen[str]) -> int:
    assert program.stdout
    line = program.stdout.readline()
    assert line.startswith("Running on 127.0.0.1:")
    assert line.endswith(".\n")
    return int(line.strip().strip(".").rpartition(":")[2])


async def test_program_serves_sensors_that_drift(program: subprocess.Popen[str]) -> None:
    port = PyownetPort(port=announced_port(program), conversion_s=0)
    assert await port.devices() == [ADDRESS]
    await port.convert_all()
    celsius = temperature_celsius(ADDRESS, await port.read(ADDRESS, "scratchpad"))
    assert celsius == pytest.approx(30, abs=1.6)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_program_ends_on_a_signal(program: subprocess.Popen[str], number: signal.Signals) -> None:
    announced_port(program)
    program.send_signal(number)
    assert program.wait(PATIENCE_S) == 0


def test_program_ends_with_its_input(program: subprocess.Popen[str]) -> None:
    announced_port(program)
    assert program.stdin
    program.stdin.close()
    assert program.wait(PATIENCE_S) == 0


def test_program_serves_on_without_an_input() -> None:
    command = [sys.executable, "-m", "kvedge_drivers.testing.owserver", f"{ADDRESS}=30"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            announced_port(program)
            with pytest.raises(subprocess.TimeoutExpired):
                program.wait(2)
        finally:
            program.terminate()


def test_program_explains_a_wrong_sensor(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["tiger"])
    assert caught.value.code == 2
    assert "'tiger' is not family 28 or 10" in capsys.readouterr().err


def test_drift_depends_on_time_alone() -> None:
    assert drifted_celsius(20.0, elapsed_s=0, index=0) == 20.0
    assert drifted_celsius(20.0, elapsed_s=15, index=0) == pytest.approx(21.5)
    assert drifted_celsius(20.0, elapsed_s=15, index=1) != drifted_celsius(
        20.0, elapsed_s=15, index=2
    )
