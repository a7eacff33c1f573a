"""Damaged sessions: whatever bytes come, the server's half answers and holds little.

The seed is fixed, so a failure repeats; `python -m pytest` shows the bytes.
"""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from kvedge import limits
from kvedge.model.path import P
from kvedge.protocol.codec import FEATURES, encode
from kvedge.protocol.framing import Framer
from kvedge.protocol.server_session import Acked, Asked, Broken, Reply, ServerSession

SEED = 20_261_122
ROUNDS = 20_000
MB = 1 << 20

CHAIN = {"node": "n", "tick": 7, "prev": {"node": "m", "tick": 2, "prev": None}}
VALUE = {"a": (1, 1.5, None, True, b"\0\xff", "€", {"b": P("x:1")}), "big": 1 << 80}
SESSION = [
    {"seq": 0, "kvedge": FEATURES, "qlen": 10},
    {"seq": 1, "action": "get_value", "path": ("a", 1, True, None, (1, "b")), "nchain": 3},
    {"seq": 2, "action": "set_value", "path": P("a.b:1"), "value": VALUE, "chain": CHAIN},
    {"seq": 3, "action": "watch", "path": (), "fetch": True, "max_depth": 4, "nchain": -1},
    {"seq": 3, "state": "ack", "ack": 5},
    {"seq": 4, "action": "delete_value", "path": ("a",), "prev": VALUE},
    {"seq": 5, "action": "enum_internal", "path": ("auth",), "with_data": True},
    {"seq": 6, "action": "get_value", "node": "n", "tick": 300},
    {"seq": 7, "action": "stop", "task": 3},
]
RECORDED = [encode(message) for message in SESSION]

Mutation = Callable[[random.Random, bytearray], None]


def _spot(draw: random.Random, data: bytearray) -> int:
    return draw.randrange(len(data))


def flip(draw: random.Random, data: bytearray) -> None:
    data[_spot(draw, data)] ^= 1 << draw.randrange(8)


def overwrite(draw: random.Random, data: bytearray) -> None:
    # Heads of maps, lists, texts and extensions, which change what follows.
    heads = (
        b"\x80\x81\x90\x91\xa0\xa1\xc0\xc1\xc7\xc9\xd4\xd5\xd6\xd9\xdb\xdc\xdd\xde\xdf\xff\x03\x02"
    )
    data[_spot(draw, data)] = draw.choice(heads)


def insert(draw: random.Random, data: bytearray) -> None:
    at = _spot(draw, data)
    data[at:at] = draw.randbytes(draw.randrange(1, 5))


def delete(draw: random.Random, data: bytearray) -> None:
    at = _spot(draw, data)
    del data[at : at + draw.randrange(1, 5)]


def repeat(draw: random.Random, data: bytearray) -> None:
    at, size = _spot(draw, data), draw.randrange(1, 20)
    data[at:at] = data[at : at + size] * draw.choice((1, 2, 100))


MUTATIONS: tuple[Mutation, ...] = (flip, overwrite, insert, delete, repeat)


def damaged(draw: random.Random) -> bytes:
    """Return a few messages of a session, damaged in a few places."""
    data = bytearray(b"".join(draw.sample(RECORDED, draw.randrange(1, 4))))
    for _ in range(draw.choice((1, 1, 2, 5))):
        if data:
            draw.choice(MUTATIONS)(draw, data)
    return bytes(data)


def pieces(draw: random.Random, data: bytes) -> Iterator[bytes]:
    at = draw.randrange(len(data) + 1)
    yield data[:at]
    yield data[at:]


def check(session: ServerSession, draw: random.Random, data: bytes) -> None:
    events = [event for piece in pieces(draw, data) for event in session.receive(piece)]
    assert all(isinstance(event, Asked | Reply | Acked | Broken) for event in events)
    assert not any(isinstance(event, Broken) for event in events[:-1])
    for event in events:
        if isinstance(event, Reply | Broken):
            assert len(event.data) < 4096
            assert "error" in Framer().feed(event.data)[0]


@pytest.mark.slow
def test_damaged_sessions_are_answered() -> None:
    draw = random.Random(SEED)
    peaks = []
    tracemalloc.start()
    try:
        for _ in range(ROUNDS):
            session = ServerSession(logged_in=True)
            session.receive(RECORDED[0] if draw.random() < 0.5 else b"")
            data = damaged(draw)
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            try:
                check(session, draw, data)
            except Exception as error:
                error.add_note(f"the bytes were {data!r}")
                raise
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    # msgpack interns the keys of maps; now and then the interpreter's table of these doubles.
    assert sorted(peaks)[-4] < MB // 4


@pytest.mark.slow
def test_noise_is_answered() -> None:
    draw = random.Random(SEED)
    for _ in range(ROUNDS // 4):
        noise = draw.randbytes(draw.randrange(1, 64))
        check(ServerSession(logged_in=False), draw, noise)
        check(ServerSession(logged_in=True), draw, b"\x83\xa3seq\x01\xa6action" + noise)


def test_recorded_session_is_sound() -> None:
    session = ServerSession(logged_in=True)
    events = session.receive(b"".join(RECORDED))
    assert [type(event) for event in events].count(Asked) == len(SESSION) - 2
    assert len(events) == len(SESSION) - 1
    assert max(map(len, RECORDED)) < limits.MESSAGE_BEFORE_LOGIN_MAX_BYTES
