"""How far one mosquitto carries: boards times updates per second, until it has no time left.

What is real: the broker, its connections, and the bytes, which are updates of the production code
in sealed envelopes, and beats.  What is not: the boards.  Each is a connection that publishes so
many updates a second and acknowledges, but does not open, what comes in.  Real servers on this
machine would be the limit themselves, where each board has a processor of its own.

    python tests/bench/bench_load.py [--qos 0] [--rates 1,5,20] [--boards 5,10,20,50,100]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections import Counter
from pathlib import Path
from random import Random

import measure

from kvedge import limits
from kvedge.model.path import Path as TreePath
from kvedge.model.stamp import Dot, Rid
from kvedge.model.value import packb
from kvedge.protocol.batches import Carried, Writers, record_parts
from kvedge.protocol.envelope import Sealer, mac_key
from kvedge.testing.mosquitto import Mosquitto, mosquitto

SECONDS = 5.0
WARM_UP_S = 1.5
SETTLE_S = 1.0  # for what is under way at the end
BUSY = 0.95  # of one core: mosquitto has one thread
DELIVERED = 0.999
SLOW_S = 0.25
NET = "bench"
KEY = mac_key(NET, b"a key of 16 bytes or more")

_CONNECT, _PUBLISH, _PUBACK, _SUBSCRIBE = 0x10, 0x30, 0x40, 0x82
_CONNACK, _SUBACK = 0x20, 0x90
_INCARNATION = 1 << 40


class Tally:
    """What all boards together have sent and heard while it counts.

    Attributes:
        sent: Messages given to the broker.
        heard: Messages that came from it.
        late_s: How long those took that one of the boards heard.
    """

    def __init__(self) -> None:
        self.is_counting = False
        self.sent = self.heard = 0
        self.late_s: list[float] = []
        self.under_way: dict[bytes, float] = {}


def packet(kind: int, *parts: bytes) -> bytes:
    """Return an MQTT packet."""
    body = b"".join(parts)
    size, length = len(body), bytearray()
    while True:
        size, low = divmod(size, 128)
        length.append(low | (0x80 if size else 0))
        if not size:
            return bytes([kind]) + bytes(length) + body


def text(content: str) -> bytes:
    """Return a string as MQTT writes it."""
    return len(content).to_bytes(2, "big") + content.encode()


class Board(asyncio.Protocol):
    """One connection: sends real messages, counts and acknowledges what it hears."""

    def __init__(self, name: str, tally: Tally, *, qos: int, is_witness: bool) -> None:
        self.ready = asyncio.get_running_loop().create_future()
        self._name = name
        self._tally = tally
        self._qos = qos
        self._is_witness = is_witness
        rid = Rid(name, _INCARNATION)
        self._sealer = Sealer(NET, KEY, rid)
        self._rid = rid
        self._tick = 0
        self._number = 0
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        flags = b"\x04\x02\x00\x00"  # 3.1.1, clean session, no keepalive
        transport.write(packet(_CONNECT, text("MQTT"), flags, text(f"b-{self._name}")))
        topics = ("u/+", "d", "p/+", f"q/{self._name}")
        wanted = [text(f"{NET}/{topic}") + bytes([self._qos]) for topic in topics]
        transport.write(packet(_SUBSCRIBE, b"\x00\x01", *wanted))

    def publish(self, topic: str, kind: str, body: bytes) -> None:
        """Send a message in its envelope."""
        payload = self._sealer.seal(topic, kind, body)
        name = f"{NET}/{topic}"
        number = b""
        if self._qos:
            self._number = self._number % 65535 + 1
            number = self._number.to_bytes(2, "big")
        if self._tally.is_counting:
            self._tally.sent += 1
            self._tally.under_way[payload] = time.perf_counter()
        self._transport.write(packet(_PUBLISH | self._qos << 1, text(name), number, payload))

    def update(self) -> None:
        """Send a changed value of some 20 bytes."""
        self._tick += 1
        key = TreePath("sensor", self._name, "attic", "temperature").key
        record = Carried(key, self._tick, (Dot(self._rid, self._tick),), packb(21.5 + self._tick))
        writers = Writers()
        parts = record_parts(record, writers, lambda _: 12_345)
        self.publish(f"u/{self._name}", "update", packb((writers.listed, (parts,))))

    def beat(self) -> None:
        """Say that it is there."""
        self.publish(f"p/{self._name}", "beat", packb((1,)))

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        place, end = 0, len(data)
        answers = bytearray()
        while end - place >= 2:
            size, shift, at = 0, 0, place + 1
            while at < end:
                byte = data[at]
                size |= (byte & 0x7F) << shift
                shift += 7
                at += 1
                if byte < 0x80:
                    break
            else:
                break
            if at + size > end:
                break
            kind = data[place] & 0xF0
            if kind == _PUBLISH:
                self._take(data, at, at + size, data[place] & 6, answers)
            elif kind == _SUBACK:
                self.ready.set_result(None)
            place = at + size
        self._rest = data[place:]
        if answers:
            self._transport.write(answers)

    def _take(self, data: bytes, begin: int, end: int, qos: int, answers: bytearray) -> None:
        content = begin + 2 + int.from_bytes(data[begin : begin + 2], "big")
        if qos:
            answers += b"\x40\x02" + data[content : content + 2]
            content += 2
        tally = self._tally
        tally.heard += tally.is_counting
        if self._is_witness:
            began_s = tally.under_way.pop(data[content:end], None)
            if began_s is not None:
                tally.late_s.append(time.perf_counter() - began_s)

    def close(self) -> None:
        """Be gone."""
        self._transport.abort()


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _speak(board: Board, rate: float, random: Random) -> None:
    """Update at this rate, and beat, until cancelled."""
    loop = asyncio.get_running_loop()
    due_s = loop.time() + random.random() / rate
    beat_s = loop.time() + random.random() * limits.BEAT_INTERVAL_S
    while True:
        await asyncio.sleep(due_s - loop.time())
        board.update()
        due_s += 1 / rate
        if loop.time() > beat_s:
            board.beat()
            beat_s += limits.BEAT_INTERVAL_S


async def load(broker: Mosquitto, boards: int, rate: float, *, qos: int) -> Counter[str]:
    """Return what so many boards with so many updates per second each come to."""
    loop = asyncio.get_running_loop()
    tally, random = Tally(), Random(1)
    members = []
    for number in range(boards):
        _, board = await loop.create_connection(
            lambda n=number: Board(f"n{n}", tally, qos=qos, is_witness=n == 0),  # type: ignore[misc]
            broker.host,
            broker.port,
        )
        await board.ready
        members.append(board)
    tasks = [asyncio.create_task(_speak(board, rate, random)) for board in members]
    await asyncio.sleep(WARM_UP_S)
    tally.is_counting = True
    broker_s, own_s = cpu_s(broker.pid), time.process_time()
    began_s = time.perf_counter()
    await asyncio.sleep(SECONDS)
    took_s = time.perf_counter() - began_s
    broker_s, own_s = cpu_s(broker.pid) - broker_s, time.process_time() - own_s
    heard = tally.heard
    for task in tasks:
        task.cancel()
    await asyncio.sleep(SETTLE_S)
    late = sorted(tally.late_s) or [0.0]
    found: Counter[str] = Counter()
    for board in members:
        board.close()
    await asyncio.gather(*tasks, return_exceptions=True)
    found["sent"] = round(tally.sent / took_s)
    found["heard"] = round(heard / took_s)
    found["arrived_ppm"] = round(1e6 * len(tally.late_s) / max(1, tally.sent))
    found["broker_percent"] = round(100 * broker_s / took_s)
    found["own_percent"] = round(100 * own_s / took_s)
    found["per_message_ns"] = round(1e9 * broker_s / max(1, heard))
    found["p50_us"] = round(1e6 * late[len(late) // 2])
    found["p99_us"] = round(1e6 * late[int(0.99 * (len(late) - 1))])
    return found


def verdict(found: Counter[str]) -> str:
    """Say who has no time left, if anybody."""
    if found["broker_percent"] >= 100 * BUSY:
        return "broker full"
    if found["own_percent"] >= 100 * BUSY:
        return "boards full"  # this script: says nothing about the broker
    if found["arrived_ppm"] < 1e6 * DELIVERED or found["p99_us"] > 1e6 * SLOW_S:
        return "late"
    return ""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--qos", type=int, choices=(0, 1), default=1)
    parser.add_argument("--rates", default="1,5,20", help="updates per second of each board")
    parser.add_argument("--boards", default="5,10,20,50,100,200")
    wanted = parser.parse_args()
    measure.heading(f"One mosquitto under load, QoS {wanted.qos}")
    print("boards  each/s   in/s  out/s  broker  us/out  boards   p50 ms   p99 ms  arrived")
    with measure.scratch() as here, mosquitto(here, lines=["log_type information"]) as broker:
        for rate in map(float, wanted.rates.split(",")):
            for boards in map(int, wanted.boards.split(",")):
                found = asyncio.run(load(broker, boards, rate, qos=wanted.qos))
                said = verdict(found)
                print(
                    f"{boards:6} {rate:7.0f} {found['sent']:6} {found['heard']:6}"
                    f" {found['broker_percent']:5} % {found['per_message_ns'] / 1000:7.1f}"
                    f" {found['own_percent']:5} %"
                    f" {found['p50_us'] / 1000:8.1f} {found['p99_us'] / 1000:8.1f}"
                    f" {found['arrived_ppm'] / 1e4:7.2f} % {said}".rstrip(),
                    flush=True,
                )
                if said:
                    break


if __name__ == "__main__":
    main()
