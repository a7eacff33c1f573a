"""Directed runs: what chance brings about too seldom.  Each ends with all nodes equal and checked.

A story takes a seed, from which delays are drawn, and raises `Broken` where a promise is broken.
Nothing goes wrong in it but what it tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

from kvedge.errors import WriteRefused
from kvedge.model.entry import Fence, value_of
from kvedge.model.value import MISSING, pack
from kvedge.protocol.envelope import Opened
from kvedge.protocol.membership import State
from kvedge.protocol.replication import carried_bytes
from kvedge.server.traffic import Passed
from kvedge.testing.sim.cluster import NAMES, PACE, Cluster, image_of
from kvedge.testing.sim.faults import QUIET
from kvedge.testing.sim.node import EPOCH_S, Node
from kvedge.testing.sim.oracle import Broken, Check
from kvedge.testing.sim.users import BELOW

KEY = (BELOW / 0).key
LIFE_S = 12.0
"""How long a daily board of a story is up, and how long a day lasts."""

ROWS_MAX = 60
"""Rows that vectors may have while a board crashes all the time: it is never there to be heard."""

PART_BYTES = 1000
OVERHEAD_BYTES = 4096
"""Vectors and frames in the questions and answers of a pull."""

_EXPIRING = replace(PACE, count_interval_s=10.0, expire_after_s=120.0)


def quiet(seed: int, names: tuple[str, ...] = NAMES, *, is_expiring: bool = False) -> Cluster:
    """Return a cluster of members that are equal."""
    cluster = Cluster(seed, names, QUIET, _EXPIRING if is_expiring else PACE)
    cluster.run(5)
    cluster.nodes[0].write((BELOW / "first").key, pack(0))
    cluster.run(25)
    for node in cluster.nodes:
        node.oracle.check_membership(node)
    return cluster


def end(cluster: Cluster) -> None:
    """Heal a cluster and check it."""
    cluster.heal()
    cluster.check()


def equal_soon(cluster: Cluster, seconds: float = 30.0) -> None:
    """Let time pass until all trees are equal.

    Raises:
        Broken: They do not get equal.
    """
    for _ in range(int(seconds * 10)):
        first = cluster.nodes[0].held()
        if all(node.is_up and node.held() == first for node in cluster.nodes):
            return
        cluster.run(0.1)
    raise Broken(Check.CONVERGENCE, f"not within {seconds} s")


# --- traffic --------------------------------------------------------------------------------------


class Meter:
    """Counts what nodes send, by kind; implements `traffic.Listener`."""

    def __init__(self) -> None:
        self.bytes: Counter[str] = Counter()

    def take(self, passed: Passed) -> None:
        """Count a message."""
        if passed.direction == "out" and isinstance(passed.content, Opened):
            self.bytes[passed.content.kind] += passed.size


@contextmanager
def metered(cluster: Cluster) -> Iterator[Meter]:
    """Count what is sent in a block."""
    meter = Meter()
    for node in cluster.nodes:
        node.network.taps.add(meter)
    yield meter
    for node in cluster.nodes:
        node.network.taps.remove(meter)


def _bytes_to_heal(seed: int, writers: tuple[str, ...], count: int = 200) -> None:
    cluster = quiet(seed, ("a", "b"))
    for number in range(4 * count):
        cluster.nodes[0].write((BELOW / number).key, pack("x" * 40))
        cluster.run(0.02)
    cluster.run(10)
    cluster.cut(("a", "b"), ("b", "a"))
    for name in writers:
        for number in range(count):
            cluster.node(name).write((BELOW / name / number).key, pack("x" * 40))
            cluster.run(0.02)
    cluster.run(10)
    one, other = (cluster.node(name) for name in ("a", "b"))
    missing = _missing_bytes(one, other) + _missing_bytes(other, one)
    with metered(cluster) as meter:
        cluster.cut()
        equal_soon(cluster, 120)
    spent = meter.bytes["ask"] + meter.bytes["give"] + meter.bytes["update"]
    if spent > 2 * missing + OVERHEAD_BYTES:
        raise Broken(Check.TRAFFIC, f"{spent} bytes for {missing} that were missing")
    end(cluster)


def _missing_bytes(at: Node, of: Node) -> int:
    """Return how many bytes of records one node lacks of another one."""
    store = of.store
    found = [
        of.network._shelf.carried(key, packed)  # noqa: SLF001 -- as it travels
        for key, packed in store.tree.items()
        if store.dot_of(packed) not in at.store.seen
    ]
    return sum(map(carried_bytes, found))


def one_side_wrote(seed: int) -> None:
    """Healing costs little where one side wrote while the other was away."""
    _bytes_to_heal(seed, ("a",))


def both_sides_wrote(seed: int) -> None:
    """Healing costs little where both sides wrote."""
    _bytes_to_heal(seed, ("a", "b"))


# --- clocks -----------------------------------------------------------------------------------


def clocks_step_a_day(seed: int) -> None:
    """What is written after something was seen wins, whatever clocks do in between."""
    cluster = quiet(seed)
    for number, step_s in enumerate((0.0, -86400.0, 1800.0, -1800.0, -EPOCH_S, -86400.0)):
        for node in cluster.nodes:
            node.clock.set(step_s)
            node.write(KEY, pack([number, node.name]))
            cluster.run(0.1)
            node.clock.set()
            cluster.run(3)
            if any(other.held()[KEY][1][0].rid.node != node.name for other in cluster.nodes):
                raise Broken(Check.CAUSALITY, f"a later write of {node.name} has lost")
    cluster.crash(cluster.nodes[0])
    cluster.run(40)
    end(cluster)


def a_board_in_1970(seed: int) -> None:
    """A board without a clock of its own works from 1970 on, and its later writes win."""
    cluster = quiet(seed)
    a, b, _ = cluster.nodes
    b.clock.forgets = True
    for number in range(3):
        cluster.crash(b)
        cluster.run(25)
        a.write(KEY, pack(["a", number]))
        cluster.run(2)
        b.write(KEY, pack(["b", number]))
        cluster.run(2)
        if a.held()[KEY][1][0].rid.node != "b":
            raise Broken(Check.CAUSALITY, "a later write has lost to the clock")
    end(cluster)


# --- crashes ----------------------------------------------------------------------------------


def _script(cluster: Cluster, node: Node) -> None:
    """Let users of a node do a little of everything, and the node shorten its journal."""
    node.write(KEY, pack("one"))
    cluster.run(0.05)
    node.write((BELOW / 1).key, pack("two"), relaxed=True)
    node.compare_and_set(KEY, pack("three"), delay_s=0.01)
    node.compare_and_set(KEY, pack("four"), delay_s=0.01)
    cluster.run(0.05)
    node.write((BELOW / 1).key, MISSING)
    node.writer.queue.want_snapshot()
    cluster.run(0.05)
    node.write((BELOW / 2).key, pack("five"))


def _plan(node: Node) -> None:
    """Let users of a node do things a moment later."""
    node.write(KEY, pack("one"))
    node.write((BELOW / 1).key, pack("two"), relaxed=True)
    for value in ("three", "four"):
        node.after(0.05, partial(node.compare_and_set, KEY, pack(value), delay_s=0.0))
    node.after(0.1, partial(node.write, (BELOW / 1).key, MISSING))


def crash_at_each_operation(seed: int) -> None:
    """The power goes at each operation of the disk: appends, syncs, files and names."""
    for operations in range(200):
        cluster = quiet(seed * 1000 + operations, ("a", "b"))
        a = cluster.node("a")
        if operations % 2:
            cluster.cut(("a", "b"))  # nobody else has heard of it
        a.disk.power_left = operations // 2
        life = a.store.rid
        with suppress(WriteRefused):
            _script(cluster, a)
        cluster.run(3)
        cluster.cut()
        is_over = a.is_up and a.store.rid == life
        cluster.run(20)
        end(cluster)
        if is_over:
            return
    raise AssertionError("the script has no end")


def crash_at_each_event(seed: int, step: int = 1) -> None:
    """The power goes at each event: between stamp and disk, disk and answer, answer and update."""
    for events in range(0, 400, step):
        cluster = quiet(seed, ("a", "b"))
        if events % 4 < 2:
            cluster.cut(("a", "b"))  # nobody else has heard of it
        a, first = cluster.node("a"), cluster.passed
        _plan(a)
        begun = cluster.now
        while cluster.passed < first + events:
            cluster.step()
        is_over = cluster.now > begun + 0.5
        cluster.crash(a, torn_bytes=None if events % 2 else 0)
        cluster.cut()
        cluster.run(25)
        end(cluster)
        if is_over:
            return
    raise AssertionError("the script has no end")


# --- memory -----------------------------------------------------------------------------------


def _peak_rows(cluster: Cluster) -> int:
    vectors = [node.store.seen for node in cluster.nodes if node.is_up]
    vectors += [v for n in cluster.nodes if n.is_up for v in n.network.peer_vectors().values()]
    return max(map(len, vectors), default=0)


def daily_restarts(seed: int, days: int = 60) -> None:
    """A board that restarts each day leaves no rows, rids or files behind; others write."""
    cluster = quiet(seed)
    a, b, c = cluster.nodes
    peak = 0
    for day in range(days):
        for node in (a, b, c):
            if node.is_up:
                node.write((BELOW / node.name / (day % 7)).key, pack(day))
        cluster.run(LIFE_S)
        peak = max(peak, _peak_rows(cluster))
        c.crash()
        c.start()
        cluster.run(2 * LIFE_S)
    if peak > ROWS_MAX // 2:
        raise Broken(Check.MEMORY, f"a vector had {peak} rows")
    end(cluster)


def a_crash_loop(seed: int, lives: int = 250) -> None:
    """A board that crashes for hours, some seconds after each start, costs bounded memory."""
    cluster = quiet(seed)
    a, _, c = cluster.nodes
    peak = 0
    for life in range(lives):
        if life % 5 == 0:
            a.write((BELOW / (life % 20)).key, pack(life))
        c.write((BELOW / "c" / (life % 3)).key, pack(life))
        cluster.run(cluster.random.uniform(0.5, 6))
        peak = max(peak, _peak_rows(cluster))
        c.crash()
        c.start()
    if peak > ROWS_MAX:
        raise Broken(Check.MEMORY, f"a vector had {peak} rows")
    cluster.run(60)
    end(cluster)


# --- members ----------------------------------------------------------------------------------


def expiry_and_return(seed: int) -> None:
    """A member that is away too long is expired, returns, and brings back nothing but its own."""
    cluster = quiet(seed, is_expiring=True)
    a, _, c = cluster.nodes
    a.write(KEY, pack("old"))
    cluster.run(30)
    cluster.cut(("c", "a"), ("c", "b"), ("a", "c"), ("b", "c"))
    c.write((BELOW / 1).key, pack("written alone"))
    cluster.run(5)
    leaving = c.leave()
    assert leaving is not None
    cluster.cut()
    a.write(KEY, MISSING)
    cluster.run(3 * _EXPIRING.expire_after_s)
    if a.network.members.state("c") is not State.EXPIRED:
        raise Broken(Check.EXPIRY, "c is still a member")
    if a.store.get(KEY) is not None:
        raise Broken(Check.MEMORY, "its tombstone is kept although c is expired")
    c.start()
    cluster.run(60)
    if (BELOW / 1).key not in a.held():
        raise Broken(Check.FINAL_RECORD, "what c had written alone is lost")
    end(cluster)


def a_clock_jumps_while_one_is_away(seed: int) -> None:
    """A wall clock that jumps by a year expires nobody: running time counts."""
    cluster = quiet(seed, is_expiring=True)
    a, _, c = cluster.nodes
    c.leave()
    cluster.run(20)
    for node in cluster.nodes:
        node.clock.set(365 * 86400.0)
    cluster.run(40)
    if a.network.members.state("c") is not State.MEMBER:
        raise Broken(Check.EXPIRY, "c was expired after a minute")
    c.start()
    cluster.run(20)
    end(cluster)


def a_deletion_is_lost_with_the_power(seed: int) -> None:
    """What a member has seen and not stored it has not acknowledged: it is not missed later."""
    cluster = quiet(seed)
    a, b, _ = cluster.nodes
    for number in range(6):
        a.write(KEY, pack("old"))
        cluster.run(2 * PACE.announce_interval_s)
        b.write((BELOW / 1).key, pack(number))  # announced at once, and then not for a while
        cluster.run(PACE.announce_interval_s - 0.6 + 0.1 * number)
        b.write((BELOW / 2).key, pack(number))  # what comes now is not synced at once
        cluster.run(0.02)
        a.write(KEY, MISSING)
        cluster.run(0.9)
        cluster.crash(b, torn_bytes=0)
        cluster.run(2 * PACE.announce_interval_s)
    end(cluster)


def a_late_write_meets_a_reaped_tombstone(seed: int) -> None:
    """Nothing is reaped by who lacks what others have announced: it may still be on its way."""
    cluster = quiet(seed)
    a, b, c = cluster.nodes
    c.write(KEY, pack("first"))
    cluster.run(30)
    cluster.hold("b", "a", "u/b")
    cluster.hold("a", "b", "q/")
    cluster.hold("a", "c", "q/")
    b.write(KEY, pack("on its way"))
    cluster.run(2)
    a.write(KEY, MISSING)
    cluster.run(50)
    cluster.release()
    cluster.run(20)
    end(cluster)


def a_joiner_between_two_parts(seed: int) -> None:
    """A joiner is a member before it has a part: nothing is reaped behind its back."""
    cluster = quiet(seed, ("a", "b"))
    a = cluster.node("a")
    for number in range(300):
        a.write((BELOW / number).key, pack("x" * PART_BYTES))
        cluster.run(0.05)
    cluster.run(30)
    joiner = cluster.add("c")
    for giver in ("a", "b"):
        cluster.hold(giver, "c", "q/", skip=1, size_min=10 * PART_BYTES)
    while joiner.store.get(KEY) is None:
        cluster.step()
    a.write(KEY, MISSING)
    cluster.run(7)
    cluster.release()
    cluster.run(60)
    end(cluster)


def a_reader_is_restored(seed: int) -> None:
    """A board that never writes is restored from an old image: it brings back nothing."""
    cluster = quiet(seed)
    a, _, c = cluster.nodes
    a.write(KEY, pack("old"))
    cluster.run(30)
    image = image_of(c)
    a.write(KEY, MISSING)
    cluster.run(60)
    if any(node.store.get(KEY) is not None for node in cluster.nodes):
        raise Broken(Check.MEMORY, "its tombstone is kept although everybody has it")
    cluster.restore(c, image)
    cluster.run(60)
    end(cluster)


def a_higher_fence_is_older(seed: int) -> None:
    """In a split a job writes under a higher fence, then another one under a lower: later wins."""
    cluster = quiet(seed)
    a, b, c = cluster.nodes
    everybody = [(one.name, other.name) for one in (a, b, c) for other in (a, b, c)]
    cluster.cut(*everybody)
    a.write(KEY, pack("higher"), fence=Fence("job", 9))
    cluster.run(1)
    b.write(KEY, pack("lower"), fence=Fence("job", 5))
    cluster.run(1)
    cluster.cut()
    end(cluster)
    held = c.store.get(KEY)
    if held is None or value_of(held) != pack("lower"):
        raise Broken(Check.FINAL_RECORD, "a fence has decided a merge")


def a_joiner_while_others_write(seed: int) -> None:
    """A board joins while others write and delete, and becomes equal."""
    cluster = quiet(seed, ("a", "b"))
    a, b = cluster.nodes
    for number in range(400):
        if number == 100:
            cluster.add("c")
        value = MISSING if number % 3 == 0 else pack("x" * PART_BYTES)
        cluster.random.choice((a, b)).write((BELOW / (number % 150)).key, value)
        cluster.run(0.05)
    end(cluster)


def a_server_leaves(seed: int) -> None:
    """A server that ends in good order is missed at once, and holds up nothing that it had."""
    cluster = quiet(seed)
    a, _, c = cluster.nodes
    a.write(KEY, pack("old"))
    cluster.run(30)
    a.write(KEY, MISSING)
    cluster.run(1.5)
    cluster.leave(c)
    cluster.run(0.05)
    if "c" in a.network.seen:
        raise Broken(Check.CONVERGENCE, "a thinks that c is still there")
    cluster.run(40)
    if not c.is_up:
        raise AssertionError("c did not come back")
    end(cluster)


# --- watchers -----------------------------------------------------------------------------------


def a_slow_watcher(seed: int) -> None:
    """A slow watcher is told of a deletion late, and its tombstone waits for that."""
    cluster = quiet(seed)
    a, b, _ = cluster.nodes
    for number in range(20):
        a.write((BELOW / number).key, pack(number))
    cluster.run(30)
    b.watcher.hurry(is_quick=False)
    a.write(KEY, MISSING)
    cluster.run(60)
    if KEY not in b.watcher.view:
        raise Broken(Check.WATCH, "a slow watcher was told")
    b.watcher.hurry(is_quick=True)
    cluster.run(5)
    b.oracle.check_watch(b)
    end(cluster)


Story = Callable[[int], None]

STORIES: tuple[Story, ...] = (
    one_side_wrote,
    both_sides_wrote,
    clocks_step_a_day,
    a_board_in_1970,
    crash_at_each_operation,
    crash_at_each_event,
    daily_restarts,
    a_crash_loop,
    expiry_and_return,
    a_clock_jumps_while_one_is_away,
    a_deletion_is_lost_with_the_power,
    a_late_write_meets_a_reaped_tombstone,
    a_joiner_between_two_parts,
    a_reader_is_restored,
    a_joiner_while_others_write,
    a_server_leaves,
    a_slow_watcher,
)
