"""A real server process: killed, refused, on bad disks, fed garbage, read slowly, watched over."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from kvedge import limits
from kvedge.client.sync import SyncClient
from kvedge.clock import SystemClock
from kvedge.errors import LinkError, WriteRefused
from kvedge.model.path import Path as KvPath
from kvedge.model.value import packb
from kvedge.server.server import feed_watchdog, run_server
from kvedge.server.settings import ServerSettings
from kvedge.storage import frames
from kvedge.storage.frames import Header, Kind
from kvedge.transport.systemd import ServiceManager

pytestmark = pytest.mark.system

PATIENCE_S = 15.0
ROUNDS = 20
GROWTH_MAX_KB = 100 * 1024


def wait_until(is_so: Callable[[], object], what: str) -> None:
    """Wait for something that a process does."""
    end_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end_s, f"waited in vain for {what}"
        time.sleep(0.01)


def one_line(said: str) -> str:
    """Return the line that an unusable start says; a hint may follow it, indented."""
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("kv: ")]
    assert len(lines) == 1, said
    return lines[0]


# --- nothing that was acknowledged is lost ----------------------------------------------------


class Writer:
    """Writes rising numbers to a few places until the server is gone, and keeps account."""

    def __init__(self, client: SyncClient, name: int, first: int, enough: threading.Event) -> None:
        self.acknowledged: dict[KvPath, int] = {}
        self.sent: dict[KvPath, int] = {}
        self._client = client
        self._name = name
        self._first = first
        self._enough = enough
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        with self._client:
            for value in itertools.count(self._first):
                path = KvPath("w", self._name, value % 7)
                self.sent[path] = value
                try:
                    self._client.set(path, value)
                except LinkError:
                    return
                self.acknowledged[path] = value
                if value - self._first > 20:
                    self._enough.set()

    def join(self) -> None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


class Account:
    """What must be there, and what may be."""

    def __init__(self) -> None:
        self.acknowledged: dict[KvPath, int] = {}
        self.sent: dict[KvPath, int] = {}
        self._next = 0

    def load(self, server: Any, count: int = 4) -> list[Writer]:
        """Have writers write, and return when all is well under way."""
        enough = threading.Event()
        self._next += 100_000
        writers = [Writer(server.connect(), i, self._next, enough) for i in range(count)]
        assert enough.wait(PATIENCE_S)
        return writers

    def add(self, writers: list[Writer]) -> None:
        for writer in writers:
            writer.join()
            self.acknowledged |= writer.acknowledged
            self.sent |= writer.sent

    def check(self, client: SyncClient) -> None:
        there = {item.path: item.value for item in client.get_tree("w")}
        for path, value in self.acknowledged.items():
            found = there[KvPath(*path.elements[1:])]
            assert value <= found <= self.sent[path]


def test_twenty_kills_under_load_lose_nothing_acknowledged(
    new_server: Callable[..., Any], chance: random.Random
) -> None:
    server = new_server()
    account = Account()
    ticks = []
    for _ in range(ROUNDS):
        server.start()
        with server.connect() as client:
            account.check(client)
            ticks.append(client.greeting["tick"])
        writers = account.load(server)
        time.sleep(chance.random() * 0.05)  # any moment will do
        server.kill()
        account.add(writers)
    server.start()
    with server.connect() as client:
        account.check(client)
    assert ticks == sorted(set(ticks))
    assert "are damaged" not in server.log()


@pytest.fixture
def chance() -> random.Random:
    """Random numbers; the seed is in the test's output."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201
    return random.Random(seed)


def test_an_end_under_load_is_clean(new_server: Callable[..., Any]) -> None:
    server = new_server().start()
    with server.connect() as client:
        for i in range(2000):
            client.set(KvPath("x", i), i, relaxed=True)
    account = Account()
    writers = account.load(server)
    idle, slow, busy = server.wire(), server.wire(), server.wire()
    idle.next()
    slow.send(packb({"seq": 1, "action": "watch", "path": ("w",)}))
    busy.send(packb({"seq": 1, "action": "delete_tree", "path": ("x",)}))
    code, took_s = server.terminate()
    account.add(writers)

    assert code == 0
    assert took_s < 2
    assert not server.socket.exists()
    assert server.lines()[-2:] == [
        "INFO:kvedge.agent:told to stop",
        "INFO:kvedge.server.server:stopped",
    ]
    server.start()
    with server.connect() as client:
        account.check(client)


def test_an_end_by_interrupt_is_clean_too(kv_server: Any) -> None:
    assert kv_server.signal(signal.SIGINT)[0] == 0


def test_relaxed_writes_survive_a_kill(new_server: Callable[..., Any]) -> None:
    server = new_server().start()
    with server.connect() as client:
        client.set("first", 0)
        for i in range(50):
            client.set(KvPath("r", i), i, relaxed=True)
    server.kill()
    server.start()
    with server.connect() as client:
        assert client.list("r") == list(range(50))


def test_without_a_directory_nothing_is_kept_and_it_says_so(new_server: Callable[..., Any]) -> None:
    server = new_server()
    command = server.command()
    at = command.index("--dir")
    server.command = lambda *_: command[:at] + command[at + 2 :]
    server.start()
    with server.connect() as client:
        client.set("a", 1)
        assert client.get("a").value == 1
    assert "nothing is kept on disk" in server.log()
    assert not server.data.exists()


# --- starts that cannot be --------------------------------------------------------------------


def test_the_first_value(new_server: Callable[..., Any]) -> None:
    server = new_server().start("-i", "Testing")
    with server.connect() as client:
        assert client.get(":").value == "Testing"
    server.terminate()
    code, said = server.refused("-i", "again")
    assert code != 0
    assert "holds 1 entries" in one_line(said)


def test_a_second_server_on_the_same_directory(kv_server: Any) -> None:
    code, said = kv_server.refused("--listen", f"unix:{kv_server.home}/other.sock")
    assert code != 0
    assert f"is in use by process {kv_server.pid}" in one_line(said)
    with kv_server.connect() as client:
        client.set("a", 1)


def test_a_second_server_on_the_same_socket(kv_server: Any) -> None:
    code, said = kv_server.refused("--dir", kv_server.home / "other")
    assert code != 0
    assert "a server answers there already" in one_line(said)
    with kv_server.connect() as client:
        client.set("a", 1)


def test_a_socket_left_by_a_killed_server_is_taken_over(new_server: Callable[..., Any]) -> None:
    server = new_server().start()
    server.kill()
    assert server.socket.exists()
    server.start()
    assert "of a process that is gone" in server.log()
    assert server.socket.stat().st_mode & 0o777 == 0o660
    with server.connect() as client:
        client.set("a", 1)


def test_a_file_that_is_no_socket_is_left_alone(new_server: Callable[..., Any]) -> None:
    server = new_server()
    server.socket.write_text("mine")
    code, said = server.refused()
    assert code != 0
    assert "a file that is no socket" in one_line(said)
    assert server.socket.read_text() == "mine"


def test_an_address_of_somebody_else(new_server: Callable[..., Any], free_port: int) -> None:
    server = new_server()
    with socket.create_server(("127.0.0.1", free_port)):
        code, said = server.refused("--listen", f"127.0.0.1:{free_port}")
    assert code != 0
    assert "in use" in one_line(said)
    assert not server.socket.exists()


def test_a_journal_of_another_network(new_server: Callable[..., Any]) -> None:
    server = new_server().start("--net", "one", "-i", "x")
    server.terminate()
    code, said = server.refused("--net", "two")
    assert code != 0
    assert "one" in one_line(said)
    assert "two" in one_line(said)
    server.start("--net", "one")


def test_a_journal_of_a_newer_version(
    new_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new_server()
    server.data.mkdir()
    monkeypatch.setattr(frames, "VERSION_MAJOR", frames.VERSION_MAJOR + 1)
    header = Header(Kind.JOURNAL, 1, "kvedge", "alpha", 1 << 40, 0, 0)
    journal = server.data / "journal-00000001.kvj"
    journal.write_bytes(frames.encode_header(header))
    before = journal.read_bytes()
    code, said = server.refused()
    assert code != 0
    assert "by a newer version" in one_line(said)
    assert journal.read_bytes() == before


def test_a_journal_that_is_something_else(new_server: Callable[..., Any]) -> None:
    server = new_server()
    server.data.mkdir()
    (server.data / "journal-00000001.kvj").write_bytes(b"my diary " * 100)
    server.start()
    assert "journal-00000001.kvj: 900 bytes at byte 0 are damaged" in server.log()
    with server.connect() as client:
        client.set("a", 1)
    assert (server.data / "journal-00000001.kvj").read_bytes() == b"my diary " * 100


def test_a_damaged_journal_costs_what_is_damaged(new_server: Callable[..., Any]) -> None:
    server = new_server().start()
    with server.connect() as client:
        for i in range(50):
            client.set(KvPath("d", i), f"value-{i}-of-many")
    server.terminate()
    journal = next(server.data.glob("journal-*.kvj"))
    data = bytearray(journal.read_bytes())
    at = data.index(b"value-25-of-many")
    data[at] ^= 4
    journal.write_bytes(data)

    server.start()
    with server.connect() as client:
        assert client.list("d") == [i for i in range(50) if i != 25]
        client.set(KvPath("d", 25), "again")
    told = next(line for line in server.lines() if "are damaged" in line)
    assert told.startswith("ERROR:")
    assert journal.name in told
    offset = int(told.partition("at byte ")[2].split()[0])
    assert offset < at < offset + 100


# --- disks ------------------------------------------------------------------------------------


class SmallDisk:
    """A file system of its own, in a mount namespace that ends with the server in it."""

    def __init__(self, server: Any, options: str = "size=256k") -> None:
        self.server = server
        server.data.mkdir()
        as_root = os.geteuid() == 0
        script = f'mount -t tmpfs -o {options} tmpfs "$0" && exec "$@"'
        self.prefix = [
            "unshare", *(() if as_root else ("-Ur",)), "--mount",
            "sh", "-c", script, str(server.data),
        ]  # fmt: skip
        self._enter = ["--user", "--preserve-credentials"] if not as_root else []

    @property
    def path(self) -> Path:
        return Path(f"/proc/{self.server.pid}/root{self.server.data}")

    def run(self, *words: object) -> None:
        """Run a command in the namespace."""
        enter = ["nsenter", "--target", str(self.server.pid), *self._enter, "--mount"]
        subprocess.run([*enter, *map(str, words)], check=True)

    def fill(self) -> Path:
        filler = self.path / "filler"
        with filler.open("wb", buffering=0) as file:
            while True:
                try:
                    file.write(b"x" * 4096)
                except OSError:
                    return filler


def set_until_refused(client: SyncClient) -> tuple[int, WriteRefused]:
    """Fill the page that is left; return how many writes went in, and the refusal."""
    for i in range(1000):
        try:
            client.set(KvPath("f", i), "x" * 100)
        except WriteRefused as error:
            return i, error
    raise AssertionError("nothing was refused")


def test_a_disk_that_fills_up(new_server: Callable[..., Any]) -> None:
    server = new_server()
    small = SmallDisk(server)
    server.start(prefix=small.prefix)
    with server.connect() as client, server.connect() as watching:
        client.set("kept", 1)
        changes = watching.watch("f", fetch=True)
        assert next(changes).state == "uptodate"
        filler = small.fill()
        count, error = set_until_refused(client)
        assert "No space left" in str(error)
        assert error.certain
        assert client.list("f") == list(range(count))
        assert client.get("kept").value == 1
        with pytest.raises(WriteRefused):
            client.set("kept", "x" * 200)
        assert client.get("kept").value == 1

        filler.unlink()
        client.set(KvPath("f", count), "room again")
        seen = [next(changes).path for _ in range(count + 1)]
        assert seen == [KvPath(i) for i in range(count + 1)]
    said = [line for line in server.lines() if line.startswith("ERROR:")]
    assert said
    assert all("No space left" in line for line in said)


def test_a_disk_that_turns_read_only(new_server: Callable[..., Any]) -> None:
    """An empty file system that is read-only covers the directory for a while."""
    server = new_server()
    small = SmallDisk(server)
    server.start(prefix=small.prefix)
    with server.connect() as client:
        small.run("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", server.data)
        with pytest.raises(WriteRefused, match="Read-only file system"):
            client.set("a", 1)
        assert "value" not in client.get("a")
        small.run("umount", server.data)
        client.set("a", 2)
        assert client.get("a").value == 2


def test_a_start_on_a_disk_that_is_read_only(new_server: Callable[..., Any]) -> None:
    server = new_server()
    small = SmallDisk(server, "ro")
    code, said = server.refused(prefix=small.prefix)
    assert code != 0
    assert "writes are refused" in one_line(said)
    assert str(server.data) in one_line(said)


# --- bad input --------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


def request(action: str, seq: int = 1, **fields: Any) -> bytes:
    return packb({"seq": seq, "action": action, **fields})


def with_raw(name: str, raw: bytes) -> bytes:
    """A set_value with a field that no packer would make."""
    head = packb({"seq": 1, "action": "set_value", "path": ("a",)})
    return bytes((head[0] + 1,)) + head[1:] + packb(name) + raw


MEGABYTE = 1 << 20
ENDINGS = {
    "bytes": (b"\xc1\xff\x00garbage", "starts with byte c1"),
    "http": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "starts with byte 47"),
    "list": (packb([1, 2, 3]), "is no map"),
    "two megabytes": (with_raw("value", b"\xc6\x00\x20\x00\x00" + bytes(2 << 20)), "at most 1048576 bytes"),  # noqa: E501
    "promise": (with_raw("value", b"\xc6\xff\xff\xff\xff" + bytes(2 << 20)), "at most 1048576 bytes"),  # noqa: E501
    "depth": (with_raw("value", nested(100_000)), "nested too deep"),
    "empty maps": (b"\x80" * MEGABYTE, "no seq"),
    "empty maps inside": (with_raw("value", b"\xdd\x00\x0f\x00\x00" + b"\x80" * 0xF0000), "at most 16384 parts"),  # noqa: E501
    "no seq": (packb({"action": "get_tock"}), "no seq"),
    "seq reuse": (request("get_tock", 5) + request("get_tock", 5), "seq 5 came after seq 5"),
    "seq backwards": (request("get_tock", 5) + request("get_tock", 4), "seq 4 came after seq 5"),
    "seq text": (packb({"seq": "1", "action": "get_tock"}), "seq"),
    "late hello": (request("get_tock") + packb({"seq": 0, "kvedge": []}), "seq"),
    "bad hello": (packb({"seq": 0, "kvedge": 5}), "'kvedge' is a list"),
}  # fmt: skip
REPLIES = {
    "unknown action": (request("dance"), "no such action"),
    "no action": (packb({"seq": 1}), "no action"),
    "action number": (packb({"seq": 1, "action": 7}), "no action"),
    "bad path": (request("get_value", path=7), "not a path"),
    "path element": (request("get_value", path=({},)), "not a path"),
    "long path": (request("get_value", path=("x",) * 65), "at most 64"),
    "depth 40": (with_raw("value", nested(40)), "at most 32 levels"),
    "not unicode": (with_raw("value", b"\xa2\xff\xfe"), "not valid Unicode"),
    "same key": (with_raw("value", b"\x82\x01\x01\xc3\x01"), "the same key twice"),
    "map as key": (with_raw("value", b"\x81\x80\x01"), "is the key of a map"),
    "extension": (with_raw("value", b"\xd4\x63\x00"), "extension type 99"),
    "nchain": (request("get_value", path=(), nchain="x"), "'nchain'"),
    "big value": (with_raw("value", b"\xc6\x00\x08\x00\x00" + bytes(1 << 19)), "at most 229376 bytes"),  # noqa: E501
}  # fmt: skip


def test_bad_input(kv_server: Any) -> None:
    """Everything in one process, so that what one leaves behind would trouble the next."""
    with kv_server.connect() as client:
        client.set("kept", 1)
        before_kb = kv_server.rss_kb()
        for name, (data, words) in ENDINGS.items():
            with closing(kv_server.wire()) as wire:
                wire.next()
                with suppress(BrokenPipeError, ConnectionResetError):  # it may have heard enough
                    wire.send(data)
                told = wire.rest()
                assert told, name
                assert words in told[-1]["error"], name
                assert "seq" not in told[-1], name
            assert client.get("kept").value == 1
        for name, (data, words) in REPLIES.items():
            with closing(kv_server.wire()) as wire:
                wire.next()
                wire.send(data)
                told = [wire.next()]
                assert told[0] is not None, name
                assert words in told[0]["error"], name
                assert told[0]["seq"] == 1, name
                wire.send(request("get_value", seq=2, path=("kept",)))
                answer = wire.next()
                assert answer is not None
                assert answer["value"] == 1, name
        assert kv_server.rss_kb() - before_kb < GROWTH_MAX_KB
    warned = [line for line in kv_server.lines() if "broke the rules" in line]
    assert len(warned) == len(ENDINGS)
    assert all(line.startswith("WARNING:") and "uid" in line for line in warned)


def test_half_messages_cost_nobody_anything(kv_server: Any) -> None:
    whole = request("set_value", path=("half",), value="x" * 1000)
    for cut in range(1, len(whole), 97):
        wire = kv_server.wire()
        wire.next()
        wire.send(whole[:cut])
        if cut % 2:
            wire.close()
    with kv_server.connect() as client:
        assert "value" not in client.get("half")
        client.set("half", 1)


def test_a_client_that_asks_for_much_and_reads_nothing(kv_server: Any) -> None:
    """A few thousand requests of 30 bytes ask for gigabytes."""
    with kv_server.connect() as client:
        for i in range(8):
            client.set(KvPath("big", i), b"v" * (limits.VALUE_MAX_BYTES - 10))
        before_kb = kv_server.rss_kb()
        greedy = [kv_server.wire() for _ in range(4)]
        for wire in greedy:
            asked = [request("get_value", seq, path=("big", 0)) for seq in range(1, 5000)]
            wire.socket.settimeout(0.2)
            with pytest.raises(TimeoutError):  # it is not even read to the end
                wire.send(b"".join(asked) * 20)
        streams = kv_server.wire()
        streams.send(b"".join(request("get_tree", seq, path=("big",)) for seq in range(1, 100)))
        for _ in range(20):
            assert client.get(KvPath("big", 1)).value
        assert kv_server.rss_kb() - before_kb < GROWTH_MAX_KB


def test_one_connection_too_many(kv_server: Any) -> None:
    wires = [kv_server.wire() for _ in range(limits.CONNECTIONS_MAX)]
    assert all("error" not in wire.next() for wire in wires)
    late = kv_server.wire().rest()
    assert len(late) == 1
    assert "at most 256 connections" in late[0]["error"]
    wires[0].close()

    def is_free() -> bool:
        with closing(kv_server.wire()) as wire:
            greeting = wire.next()
            return greeting is not None and "error" not in greeting

    wait_until(is_free, "a place that is free again")


# --- slow readers -----------------------------------------------------------------------------

PLACES = limits.WATCH_PENDING_MAX + 900
UPDATES = 50_000


def flood(server: Any) -> dict[KvPath, int]:
    """Send many updates over one connection, as fast as they are taken; return the last values."""
    wire = server.wire()
    wire.next()
    latest = {}
    for start in range(0, UPDATES, 500):
        batch = []
        for i in range(start, start + 500):
            latest[KvPath(i % PLACES)] = i
            batch.append(
                request("set_value", i + 1, path=("s", i % PLACES), value=i, relaxed=True, nchain=0)
            )
        wire.send(b"".join(batch))
        for _ in range(500):
            answer = wire.next()
            assert answer["changed"] is True
    return latest


def test_a_watcher_that_does_not_read(kv_server: Any) -> None:
    with kv_server.connect() as client:
        client.set("s.gone", 1)
        lazy, few = kv_server.wire(), kv_server.wire()
        for wire in (lazy, few):
            wire.send(request("watch", path=("s",), fetch=True))
        before_kb = kv_server.rss_kb()
        latest = flood(kv_server)
        client.delete("s.gone")
        client.set("s.last", "last")
        assert client.get("s.last").value == "last"
        assert kv_server.rss_kb() - before_kb < GROWTH_MAX_KB

        expected = latest | {KvPath("last"): "last"}
        held: dict[KvPath, Any] = {}
        marked = 0
        tocks: dict[KvPath, int] = {}
        last: tuple[Any, ...] = ()
        while held != expected:
            item = lazy.next()
            assert item is not None
            if "path" not in item:
                continue
            last = (*last[: item["depth"]], *item["path"])
            path = KvPath(*last)
            is_conflated = bool(item.get("conflated"))
            assert item["tock"] > tocks.get(path, 0) - is_conflated
            tocks[path] = item["tock"]
            marked += is_conflated
            if "value" in item:
                held[path] = item["value"]
            else:
                held.pop(path, None)
        assert marked
        client.set("s.last", "after")  # and it goes on
        item = lazy.next()
        assert item is not None
        assert item["value"] == "after"


# --- the service manager ----------------------------------------------------------------------


class Notices:
    """Stands in for the service manager's socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(PATIENCE_S)

    def next(self) -> str:
        return self._socket.recv(4096).decode()

    def waiting(self) -> list[str]:
        self._socket.setblocking(False)
        found = []
        try:
            while True:
                found.append(self.next())
        except BlockingIOError:
            self._socket.settimeout(PATIENCE_S)
            return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def notices(tmp_path: Path) -> Iterator[Notices]:
    """What the service manager is told."""
    with closing(Notices(tmp_path / "notify")) as made:
        yield made


def test_the_service_manager_is_told(
    new_server: Callable[..., Any], notices: Notices, tmp_path: Path
) -> None:
    told_s = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3600000"}
    server = new_server().start(environ=told_s)
    first = {notices.next(), notices.next()}
    assert first == {"READY=1\nSTATUS=node alpha", "WATCHDOG=1"}
    started_s = time.monotonic()
    assert notices.next() == "WATCHDOG=1"
    assert time.monotonic() - started_s < 3.6
    server.terminate()
    assert notices.waiting()[-1] == "STOPPING=1"


async def test_the_watchdog_is_not_fed_while_the_journal_is_stuck(
    notices: Notices,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A card that hangs in fdatasync(2): the loop goes on, the journal's thread does not."""
    may_sync, is_stuck = threading.Event(), threading.Event()
    sync = os.fdatasync

    def hang(descriptor: int) -> None:
        is_stuck.set()
        may_sync.wait(PATIENCE_S)
        sync(descriptor)

    manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "150000"})
    settings = ServerSettings("alpha", directory=str(tmp_path / "data"))
    async with run_server(settings, clock=SystemClock()) as server, asyncio.TaskGroup() as tasks:
        await server.write_initial(packb(1))
        monkeypatch.setattr(os, "fdatasync", hang)
        writing = tasks.create_task(server.write_initial(packb(2)))
        await asyncio.to_thread(is_stuck.wait, PATIENCE_S)
        feeding = tasks.create_task(feed_watchdog(server, manager, stuck_after_s=0.1))
        await asyncio.sleep(0.2)
        assert set(notices.waiting()) <= {"WATCHDOG=1"}  # until it is known to be stuck
        await asyncio.sleep(0.2)
        assert notices.waiting() == []
        assert not writing.done()
        may_sync.set()
        await writing
        assert await asyncio.to_thread(notices.next) == "WATCHDOG=1"
        feeding.cancel()
    assert "the journal does not move" in caplog.text


# --- the log ----------------------------------------------------------------------------------


def test_the_log_has_one_line_per_change_of_state(new_server: Callable[..., Any]) -> None:
    server = new_server().start("-i", "x")
    for _ in range(3):
        with server.connect() as client:
            for i in range(50):
                client.set(KvPath("a", i), i, relaxed=True)
                client.get(KvPath("a", i))
            assert len(list(client.get_tree("a"))) == 50
            client.delete_tree("a")
    server.terminate()
    said = [" ".join(line.split()[:2]) for line in server.lines()]
    assert [line for line in said if "clock" not in line] == [
        "INFO:kvedge.server.server:node alpha",
        "INFO:kvedge.server.server:listening on",
        "INFO:kvedge.agent:told to",
        "INFO:kvedge.server.server:stopped",
    ]
