"""What later records refer to is in the log before them, also after a refusal."""

from __future__ import annotations

from kvedge.model.stamp import Dot, Rid
from kvedge.model.value import MISSING, packb, unpack
from kvedge.protocol.batches import Carried
from kvedge.server.records import Loaded
from kvedge.server.store import Store

OWN, OTHER = Rid("own", 1), Rid("other", 5)
KEY = b"\x08a\x00"


class ListLog:
    """Keeps what is submitted."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        self.payloads.append(payload)
        return len(self.payloads)

    def rids_after(self, number: int) -> list[str]:
        """Return the nodes of the rids that were announced behind a number."""
        kinds = [unpack(payload) for payload in self.payloads[number:]]
        return [parts[2] for parts in kinds if parts[0] == 1]


def test_a_refused_rid_is_announced_again() -> None:
    log = ListLog()
    store = Store(OWN, 0, Loaded(), log)
    record = Carried(KEY, 7, (Dot(OTHER, 1),), packb(1))
    store.take(record, {OTHER: 40})
    assert log.rids_after(0) == ["other"]
    store.refuse(1)
    before = len(log.payloads)
    store.take(record, {OTHER: 40})
    assert log.rids_after(before) == ["other"]


def test_an_own_rid_that_was_refused_is_announced_again() -> None:
    log = ListLog()
    store = Store(OWN, 0, Loaded(), log)
    for expected in (["own"], ["own"]):
        before = len(log.payloads)
        store.write(KEY, MISSING, wall_ms=None, relaxed=False, done=lambda error: None)
        assert log.rids_after(before) == expected
        store.refuse(before + 1)


def test_what_the_log_has_is_announced_once() -> None:
    log = ListLog()
    store = Store(OWN, 0, Loaded(), log)
    for _ in range(3):
        store.write(KEY, packb(1), wall_ms=None, relaxed=False, done=lambda error: None)
    assert log.rids_after(0) == ["own"]


def test_waiting_bytes_are_counted_until_they_are_done_or_refused() -> None:
    log = ListLog()
    store = Store(OWN, 0, Loaded(), log)
    for _ in range(2):
        store.write(KEY, packb(b"x" * 1000), wall_ms=None, relaxed=False, done=lambda error: None)
    assert 2000 < store.pending_bytes < 2100
    first = store.confirm(written_to=3, synced_to=3)
    assert len(first) == 1
    assert 1000 < store.pending_bytes < 1050
    store.refuse(4)
    assert store.pending_bytes == 0
