"""The oracle speaks: a cluster that is equal is tampered with, once for each promise."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvedge.model import entry as entries
from kvedge.model.path import Path
from kvedge.model.places import CONFLICTS
from kvedge.model.stamp import Dot, Rid
from kvedge.model.value import MISSING, pack, packb
from kvedge.protocol.membership import Record, Standing, State
from kvedge.server.members import member_entry
from kvedge.server.records import rank_of
from kvedge.server.store import Pending
from kvedge.testing.sim import Broken, Check, Cluster
from kvedge.testing.sim.node import Node
from kvedge.testing.sim.oracle import ROWS_PER_NODE, Rank
from kvedge.testing.sim.stories import KEY, metered, quiet
from kvedge.testing.sim.users import chain_value

ABSENT = Path("k", "absent").key
STRANGER = Rid("stranger", 1)


def _written(cluster: Cluster, value: object = "here") -> tuple[Node, Node, Rank]:
    """Return two nodes and the rank of what is at KEY now, on both."""
    a, b, *_ = cluster.nodes
    a.write(KEY, pack(value))
    cluster.run(5)
    return a, b, a.held()[KEY][0]


def _put(node: Node, key: bytes, packed: bytes) -> None:
    node.store.tree.put(key, packed)


def trees_differ(cluster: Cluster) -> None:
    _, b, _ = _written(cluster)
    b.store.tree.drop(KEY)
    cluster.check()


def one_has_seen_more(cluster: Cluster) -> None:
    cluster.nodes[1].store.seen.add(Dot(STRANGER, 1))
    cluster.check()


def one_has_not_stored_all(cluster: Cluster) -> None:
    cluster.nodes[0].store.durable.close("a", 1 << 20)
    cluster.check()


def a_tombstone_is_kept(cluster: Cluster) -> None:
    cluster.nodes[2].store.tombstones[KEY] = None
    cluster.check()


def one_is_down(cluster: Cluster) -> None:
    cluster.nodes[1].is_up = False
    cluster.check()


def a_promised_write_is_lost_everywhere(cluster: Cluster) -> None:
    a, _, _ = _written(cluster)
    held = dict(a.held())
    del held[KEY]
    a.oracle.check_final_records(held)


def an_older_record_is_final(cluster: Cluster) -> None:
    a, _, before = _written(cluster)
    old = a.held()[KEY]
    _written(cluster, "newer")
    assert old[0] == before
    a.oracle.check_final_records({**a.held(), KEY: old})


def a_record_that_nobody_wrote_is_final(cluster: Cluster) -> None:
    a, _, (tock, _, _) = _written(cluster)
    chain = (Dot(STRANGER, 1),)
    a.oracle.check_final_records({**a.held(), KEY: ((tock + 1, STRANGER, 1), chain, pack(1))})


def a_value_is_another_one(cluster: Cluster) -> None:
    a, _, _ = _written(cluster)
    rank, chain, _ = a.held()[KEY]
    a.oracle.check_final_records({**a.held(), KEY: (rank, chain, pack("other"))})


def a_refused_write_is_final(cluster: Cluster) -> None:
    a, _, _ = _written(cluster)
    a.disk.capacity_bytes = 0
    a.write(KEY, pack("refused"))
    refused = a.store.newest(KEY)
    assert refused is not None
    cluster.run(0.5)
    a.disk.capacity_bytes = None
    chain = entries.chain_of(refused, a.store.rids)
    rank = rank_of(refused, a.store.rids)
    a.oracle.check_final_records({**a.held(), KEY: (rank, chain, pack("refused"))})


def the_dead_rise(cluster: Cluster) -> None:
    a, _, _ = _written(cluster)
    held = a.held()
    a.write(KEY, MISSING)
    cluster.run(60)
    assert a.store.get(KEY) is None
    a.oracle.check_resurrection(held)


def two_win(cluster: Cluster) -> None:
    a, _, (_, rid, tick) = _written(cluster)
    expected = chain_value(a, KEY)
    a.oracle.won(a, KEY, expected, Dot(rid, tick + 1))
    a.oracle.won(a, KEY, expected, Dot(rid, tick + 2))


def a_writer_does_not_read_its_write(cluster: Cluster) -> None:
    a, _, (tock, rid, tick) = _written(cluster)
    a.oracle.acknowledged(a, KEY, (tock + 1, rid, tick + 1), relaxed=True)


def a_reader_goes_back(cluster: Cluster) -> None:
    a, _, _ = _written(cluster)
    old = a.store.get(KEY)
    assert old is not None
    _written(cluster, "newer")
    a.oracle.read(a, KEY)
    _put(a, KEY, old)
    a.oracle.read(a, KEY)


def the_tock_falls(cluster: Cluster) -> None:
    a, _, _ = _written(cluster)
    a.store._tock -= 1 << 40
    a.oracle.tock_told(a)


def the_tock_falls_across_a_power_cut(cluster: Cluster) -> None:
    a, _, _ = _written(cluster)
    a.crash()
    for name in a.disk.names():
        a.disk.remove(name)
    a.start()


def a_later_write_is_older(cluster: Cluster) -> None:
    a, _, (tock, _, _) = _written(cluster)
    a.store._tock = tock - 5
    a.clock.is_set = False
    a.write(ABSENT, pack(1))


def a_watcher_is_told_backwards(cluster: Cluster) -> None:
    a, _, _ = _written(cluster)
    old = a.store.get(KEY)
    assert old is not None
    _written(cluster, "newer")
    a.watchers.notify(KEY, old)


def a_watcher_is_told_twice(cluster: Cluster) -> None:
    a, _, _ = _written(cluster)
    packed = a.store.get(KEY)
    assert packed is not None
    a.watchers.notify(KEY, packed)


def a_watcher_misses_something(cluster: Cluster) -> None:
    a, _, _ = _written(cluster)
    del a.watcher.view[KEY]
    cluster.check()


def a_watcher_is_not_told_of_a_deletion(cluster: Cluster) -> None:
    a, _, (tock, _, _) = _written(cluster)
    a.watcher.view[ABSENT] = tock, pack(1)
    cluster.check()


def a_dot_is_used_twice(cluster: Cluster) -> None:
    a, _, _ = _written(cluster)
    a.store._tick -= 1
    a.write(KEY, pack("other"))


def a_dot_means_something_else(cluster: Cluster) -> None:
    _, b, _ = _written(cluster)
    packed = b.store.get(KEY)
    assert packed is not None
    other = entries.join(entries.tock_of(packed), entries.links_of(packed), pack("other"))
    b.oracle.settled(b, Pending(1, KEY, other, None, lambda _: None, is_own=False))


def a_vector_grows(cluster: Cluster) -> None:
    a = cluster.nodes[0]
    for number in range(ROWS_PER_NODE * len(cluster.nodes) + 1):
        a.store.taken.add(Dot(Rid("a", number), 1))
    cluster.check()


def the_table_of_rids_grows(cluster: Cluster) -> None:
    a = cluster.nodes[0]
    for number in range(200):
        a.store.rids.number(Rid("a", number))
    a.oracle.check_memory(a, len(cluster.nodes))


def a_write_stays_under_way(cluster: Cluster) -> None:
    a = cluster.nodes[0]
    a.write(KEY, pack(1))
    a.oracle.check_memory(a, len(cluster.nodes))


def the_guard_holds_something(cluster: Cluster) -> None:
    a, b, _ = cluster.nodes
    a.clock.set(86400.0)
    a.write(KEY, pack("tomorrow"))
    cluster.run(5)
    b.oracle.check_memory(b, len(cluster.nodes))


def a_conflict_is_made_up(cluster: Cluster) -> None:
    a, _, old = _written(cluster)
    _, _, new = _written(cluster, "knowing it")
    lost, won = (
        {"node": "a", "tick": a.store.base + tick, "tock": tock} for tock, _, tick in (old, new)
    )
    value = {"path": ["k", 0], "kind": "concurrent", "lost": lost, "won": won}
    a.write((CONFLICTS / "a" / (a.store.base + old[2])).key, packb(value))


def a_conflict_is_not_told(cluster: Cluster) -> None:
    a, b, _ = _written(cluster)
    cluster.cut(("a", "b"), ("b", "a"), ("a", "c"), ("c", "a"))
    a.write(KEY, pack("loses"))
    cluster.run(1)
    b.write(KEY, pack("wins"))
    cluster.run(1)
    cluster.cut()
    cluster.run(30)
    for node in cluster.nodes:
        for key in [key for key, _ in node.store.tree.items() if key.startswith(CONFLICTS.key)]:
            node.store.tree.drop(key)
    a.oracle.check_reports(cluster.nodes)


def an_honest_board_is_regressed(cluster: Cluster) -> None:
    a = cluster.nodes[0]
    a.network.members.standing = Standing.REGRESSED
    a.oracle.look(a)


def an_honest_board_has_left(cluster: Cluster) -> None:
    a = cluster.nodes[0]
    a.network.members.standing = Standing.EXPIRED
    a.oracle.check_membership(a)


def a_member_expires_too_soon(cluster: Cluster) -> None:
    a = cluster.nodes[0]
    key, value = member_entry("b", Record(State.EXPIRED), by="a", reason="not heard")
    a.write(key, value)


def one_is_no_member(cluster: Cluster) -> None:
    a = cluster.nodes[0]
    a.network.members.forget("a")
    a.oracle.check_membership(a)


CASES: tuple[tuple[Callable[[Cluster], None], Check], ...] = (
    (trees_differ, Check.CONVERGENCE),
    (one_has_seen_more, Check.CONVERGENCE),
    (one_has_not_stored_all, Check.CONVERGENCE),
    (a_tombstone_is_kept, Check.CONVERGENCE),
    (one_is_down, Check.CONVERGENCE),
    (a_promised_write_is_lost_everywhere, Check.FINAL_RECORD),
    (an_older_record_is_final, Check.FINAL_RECORD),
    (a_record_that_nobody_wrote_is_final, Check.FINAL_RECORD),
    (a_value_is_another_one, Check.FINAL_RECORD),
    (a_refused_write_is_final, Check.FINAL_RECORD),
    (the_dead_rise, Check.RESURRECTION),
    (two_win, Check.COMPARE_AND_SET),
    (a_writer_does_not_read_its_write, Check.OWN_WRITES),
    (a_reader_goes_back, Check.OWN_WRITES),
    (the_tock_falls, Check.TOCK),
    (the_tock_falls_across_a_power_cut, Check.TOCK),
    (a_later_write_is_older, Check.CAUSALITY),
    (a_watcher_is_told_backwards, Check.WATCH),
    (a_watcher_is_told_twice, Check.WATCH),
    (a_watcher_misses_something, Check.WATCH),
    (a_watcher_is_not_told_of_a_deletion, Check.WATCH),
    (a_dot_is_used_twice, Check.SAME_DOT),
    (a_dot_means_something_else, Check.SAME_DOT),
    (a_vector_grows, Check.MEMORY),
    (the_table_of_rids_grows, Check.MEMORY),
    (a_write_stays_under_way, Check.MEMORY),
    (the_guard_holds_something, Check.MEMORY),
    (a_conflict_is_made_up, Check.FALSE_CONFLICT),
    (a_conflict_is_not_told, Check.SILENT_LOSS),
    (an_honest_board_is_regressed, Check.JUDGEMENT),
    (an_honest_board_has_left, Check.JUDGEMENT),
    (a_member_expires_too_soon, Check.EXPIRY),
    (one_is_no_member, Check.EXPIRY),
)


@pytest.mark.parametrize(("tamper", "check"), CASES, ids=lambda it: getattr(it, "__name__", ""))
def test_a_broken_promise_is_told(tamper: Callable[[Cluster], None], check: Check) -> None:
    cluster = quiet(1)
    cluster.check()
    with pytest.raises(Broken) as told:
        tamper(cluster)
    assert told.value.check is check


def test_every_promise_has_a_case() -> None:
    by_a_story = {Check.TRAFFIC}  # see test_mutations
    assert {check for _, check in CASES} | by_a_story == set(Check)


def test_a_meter_counts_what_is_sent() -> None:
    cluster = quiet(1)
    with metered(cluster) as meter:
        cluster.nodes[0].write(KEY, pack(1))
        cluster.run(1)
    assert meter.bytes["update"] > 0
