"""What servers say to each other: updates, gaps, digests, and pulls that bear loss and doubling."""

from __future__ import annotations

from collections.abc import Sequence, Set
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvedge.errors import RemoteProtocolError
from kvedge.model.buckets import Buckets, bucket_of
from kvedge.model.path import Path
from kvedge.model.stamp import Dot, Rid
from kvedge.model.value import MISSING, Missing, decode, packb
from kvedge.model.vector import Vector
from kvedge.protocol.batches import Carried, read_records, read_writers
from kvedge.protocol.exchange import Kind, Outgoing
from kvedge.protocol.membership import Admit, Record, Standing, State
from kvedge.protocol.membership import Event as MembershipEvent
from kvedge.protocol.replication import (
    BODY_MAX_BYTES,
    GAP_WAIT_S,
    PART_TRIES_MAX,
    PART_WAIT_S,
    STORED_WAIT_S,
    Arrived,
    Copied,
    Differs,
    Event,
    Replication,
    Way,
)

ANNOUNCED = b"announced"


class HandMembers:
    """Everybody gives to and takes from everybody, but for those named.  Implements `Members`."""

    def __init__(self) -> None:
        self.strangers: set[str] = set()  # their updates do not count
        self.expired: set[str] = set()  # nor does what they have
        self.life: int | None = None
        self.first: list[MembershipEvent] | None = []
        self.questions: list[tuple[Rid, int | None]] = []
        self.digests: list[tuple[Rid, bytes, int]] = []
        self.says: list[MembershipEvent] = []

    @property
    def digest(self) -> tuple[bytes, int]:
        return ANNOUNCED, Standing.GOOD

    def takes_updates_of(self, node: str) -> bool:
        return node not in self.strangers | self.expired

    def pulls_from(self, node: str) -> bool:
        return node not in self.expired

    def admits(
        self, sender: Rid, life: int | None, seen: Vector, now: float
    ) -> list[MembershipEvent] | None:
        self.questions.append((sender, life))
        return self.first

    def heard(
        self, sender: Rid, announced: bytes, standing: int, now: float
    ) -> list[MembershipEvent]:
        self.digests.append((sender, announced, standing))
        return self.says


class HandShelf:
    """Entries in a dict; what is taken is stored at once.  Implements `Shelf`."""

    def __init__(self, rid: Rid, part_max: int) -> None:
        self.rid = rid
        self.entries: dict[bytes, Carried] = {}
        self.seen = self.heard = self.taken = Vector()
        self.refusals = 0
        self._part_max = part_max
        self._tick = 0

    def base(self, rid: Rid) -> int:
        return 100

    def root(self) -> bytes:
        return self._buckets().root()

    def digests(self) -> bytes:
        return self._buckets().digests()

    def _buckets(self) -> Buckets:
        made = Buckets()
        for record in self.entries.values():
            if record.value is not MISSING:
                made.add(record.key, record.rank)
        return made

    def lacking(
        self, vector: Vector, *, after: bytes | None, bytes_max: int
    ) -> tuple[list[Carried], bytes | None]:
        found, rest = self._part(after)
        return [record for record in found if record.dot not in vector], rest

    def in_buckets(
        self, buckets: Set[int], *, after: bytes | None, bytes_max: int
    ) -> tuple[list[Carried], bytes | None]:
        found, rest = self._part(after)
        return [record for record in found if bucket_of(record.key) in buckets], rest

    def _part(self, after: bytes | None) -> tuple[list[Carried], bytes | None]:
        keys = [key for key in sorted(self.entries) if after is None or key > after]
        part = keys[: self._part_max]
        return [self.entries[key] for key in part], part[-1] if len(keys) > len(part) else None

    def store(self, record: Carried) -> None:
        old = self.entries.get(record.key)
        if old is None or (old.tock, old.dot) < (record.tock, record.dot):
            self.entries[record.key] = record
        self.seen.add(record.dot)

    def write(self, name: object, *, size: int = 1) -> Carried:
        return self._put(name, packb(bytes(size)))

    def delete(self, name: object) -> Carried:
        return self._put(name, MISSING)

    def _put(self, name: object, value: bytes | Missing) -> Carried:
        self._tick += 1
        tock = max([0, *(record.tock for record in self.entries.values())]) + 1
        record = Carried(Path("k", str(name)).key, tock, (Dot(self.rid, self._tick),), value)
        self.store(record)
        return record


class Node:
    """A shelf, its replication, and what it wants to be sent."""

    def __init__(self, name: str, part_max: int = 2) -> None:
        self.rid = Rid(name, 1 << 40)
        self.shelf = HandShelf(self.rid, part_max)
        self.members = HandMembers()
        self.replication = Replication(self.rid, self.shelf, self.members)
        self.arrived: list[Arrived] = []
        self.copied: list[Copied] = []
        self.differs: list[Differs] = []

    def act(self, events: Sequence[Event]) -> list[Outgoing]:
        """Store what has arrived; return what is to be sent."""
        for event in events:
            if isinstance(event, Arrived):
                self.arrived.append(event)
                for record in event.records:
                    self.shelf.store(record)
                self.shelf.seen.merge(event.seen)
            elif isinstance(event, Copied):
                self.copied.append(event)
            elif isinstance(event, Differs):
                self.differs.append(event)
        return [event for event in events if isinstance(event, Outgoing)]

    def receive(self, message: Outgoing, sender: Node, now: float = 0.0) -> list[Outgoing]:
        assert message.to in (None, self.rid.node)
        return self.act(self.replication.receive(message.kind, sender.rid, message.body, now))

    def expired(self, now: float) -> list[Outgoing]:
        return self.act(self.replication.expired(now))

    def holds(self, *names: object) -> bool:
        return set(self.shelf.entries) == {Path("k", str(name)).key for name in names}


@pytest.fixture
def a() -> Node:
    """The node that mostly asks."""
    return Node("a")


@pytest.fixture
def b() -> Node:
    """The node that mostly has something."""
    return Node("b")


@pytest.fixture
def c() -> Node:
    """A third one."""
    return Node("c")


def kinds(messages: Sequence[Outgoing]) -> list[tuple[Kind, str | None]]:
    return [(message.kind, message.to) for message in messages]


def update(node: Node, *records: Carried) -> Outgoing:
    [message] = node.replication.updates(records)
    return message


def asked(asker: Node, giver: Node, now: float = 0.0) -> Outgoing:
    """Let a digest begin a pull; return the question."""
    [ask] = asker.receive(giver.replication.digest(), giver, now)
    assert ask.kind == Kind.ASK
    return ask


def given_for(ask: Outgoing, asker: Node, giver: Node) -> Outgoing:
    """Return the answer to a question."""
    return giver.receive(ask, asker)[0]


def given_records(asks: Sequence[Outgoing], asker: Node, giver: Node) -> list[Carried]:
    """Return what the answer to a question brings."""
    [ask] = asks
    parts = decode(given_for(ask, asker, giver).body)
    return read_records(parts[5], read_writers(parts[4]))


def remade(message: Outgoing, **changed: Any) -> Outgoing:
    """Return a GIVE with some parts changed."""
    names = ("incarnation", "number", "after", "rest", "writers", "records", "cut")
    parts = dict(zip(names, decode(message.body), strict=True)) | changed
    return Outgoing(message.kind, message.to, packb(tuple(parts.values())))


# --- updates and gaps -------------------------------------------------------------------------


def test_an_update_brings_what_is_not_known(a: Node, b: Node) -> None:
    first, second = b.shelf.write(1), b.shelf.write(2)
    assert a.receive(update(b, first), b) == []
    assert a.receive(update(b, first, second), b) == []
    assert [event.records for event in a.arrived] == [[first], [second]]
    assert [event.bases for event in a.arrived] == [{b.rid: 100}] * 2
    assert not any(event.seen for event in a.arrived)
    assert {event.way for event in a.arrived} == {Way.UPDATE}


def test_an_update_of_known_records_is_no_news(a: Node, b: Node) -> None:
    message = update(b, b.shelf.write(1))
    a.receive(message, b)
    assert a.replication.receive(message.kind, b.rid, message.body, 0) == []


def test_updates_go_to_everybody_in_batches_of_bounded_size(a: Node, b: Node) -> None:
    records = [b.shelf.write(i, size=BODY_MAX_BYTES // 5) for i in range(9)]
    messages = b.replication.updates(records)
    assert kinds(messages) == [(Kind.UPDATE, None)] * 3
    assert max(len(message.body) for message in messages) <= BODY_MAX_BYTES
    for message in messages:
        a.receive(message, b)
    assert a.shelf.entries == b.shelf.entries
    assert b.replication.updates([]) == []


def test_a_gap_is_pulled_after_a_while_and_not_before(a: Node, b: Node) -> None:
    b.shelf.write(1)
    a.receive(update(b, b.shelf.write(2)), b, now=5.0)
    assert a.replication.next_deadline() == 5.0 + GAP_WAIT_S
    assert a.expired(5.0 + GAP_WAIT_S - 0.001) == []
    [ask] = a.expired(5.0 + GAP_WAIT_S)
    assert kinds([ask]) == [(Kind.ASK, "b")]
    a.receive(given_for(ask, a, b), b, now=5.3)
    assert a.holds(1, 2)
    assert a.replication.next_deadline() is None


@pytest.mark.parametrize("ticks", [(1,), (1, 2), (2, 1), (3, 1, 2)])
def test_what_comes_together_leaves_no_gap(a: Node, b: Node, ticks: tuple[int, ...]) -> None:
    records = {tick: b.shelf.write(tick) for tick in (1, 2, 3)}
    a.receive(update(b, *(records[tick] for tick in ticks)), b)
    assert a.replication.next_deadline() is None


def test_further_gaps_of_a_sender_do_not_put_off_its_pull(a: Node, b: Node) -> None:
    records = [b.shelf.write(i) for i in range(6)]
    a.receive(update(b, records[1]), b, now=1.0)
    a.receive(update(b, records[3]), b, now=1.1)
    assert a.replication.next_deadline() == 1.0 + GAP_WAIT_S


def test_a_gap_waits_for_the_pull_that_is_under_way(a: Node, b: Node, c: Node) -> None:
    c.shelf.write("c")
    ask = asked(a, c)
    b.shelf.write(1)
    a.receive(update(b, b.shelf.write(2)), b)
    assert a.expired(1.0) == []
    assert a.receive(b.replication.digest(), b, now=1.0) == []  # nor does it get lost by this
    a.receive(given_for(ask, a, c), c, now=1.1)
    assert kinds(a.expired(1.2)) == [(Kind.ASK, "b")]


# --- digests ----------------------------------------------------------------------------------


def test_equal_servers_are_consistent_and_silent(a: Node, b: Node) -> None:
    a.receive(update(b, b.shelf.write(1)), b)
    assert not a.replication.is_consistent
    assert a.receive(b.replication.digest(), b) == []
    assert a.replication.is_consistent


def test_who_has_seen_something_else_is_asked(a: Node, b: Node) -> None:
    b.shelf.write(1)
    a.replication.is_consistent = True
    assert kinds(a.receive(b.replication.digest(), b)) == [(Kind.ASK, "b")]
    assert not a.replication.is_consistent


def test_equal_vectors_with_different_entries_are_not_consistent(a: Node, b: Node) -> None:
    a.receive(update(b, b.shelf.write(1)), b)
    a.shelf.entries.clear()
    # A pull by vectors would not bring it.
    assert kinds(a.receive(b.replication.digest(), b)) == [(Kind.BUCKETS, "b")]
    assert not a.replication.is_consistent


# --- pulls ------------------------------------------------------------------------------------


def test_a_pull_comes_in_parts_and_its_cut_counts_after_the_last(a: Node, b: Node) -> None:
    for name in (5, 1, 2, 3, 4, 3):
        b.shelf.write(name)
    message = asked(a, b)
    parts = 0
    while True:
        give = given_for(message, a, b)
        answer = a.receive(give, b)
        parts += 1
        if not answer:
            break
        assert not list(a.arrived[-1].seen)
        [message] = answer
    assert parts == 3
    assert a.holds(1, 2, 3, 4, 5)
    assert a.arrived[-1].seen == b.shelf.seen == a.shelf.seen
    assert a.replication.next_deadline() is None


def test_the_cut_is_that_of_the_first_part(a: Node, b: Node) -> None:
    """What changed behind the pull meanwhile was not sent, so it must not count as seen."""
    for name in (1, 2, 3):
        b.shelf.write(name)
    [ask] = a.receive(given_for(asked(a, b), a, b), b)
    late = b.shelf.write(0)  # before the key to go on behind
    assert a.receive(given_for(ask, a, b), b) == []
    assert late.dot not in a.shelf.seen
    assert a.holds(1, 2, 3)
    a.receive(given_for(asked(a, b), a, b), b)
    assert late.dot in a.shelf.seen


def test_a_part_that_does_not_come_is_asked_for_again(a: Node, b: Node) -> None:
    for name in (1, 2, 3):
        b.shelf.write(name)
    [lost] = a.receive(given_for(asked(a, b, now=1.0), a, b), b, now=2.0)
    assert a.replication.next_deadline() == 2.0 + PART_WAIT_S
    assert a.expired(2.0 + PART_WAIT_S - 0.001) == []
    assert a.expired(2.0 + PART_WAIT_S) == [lost]
    a.receive(given_for(lost, a, b), b)
    assert a.holds(1, 2, 3)


def test_a_pull_is_given_up_after_so_many_tries(a: Node, b: Node, c: Node) -> None:
    b.shelf.write(1)
    c.shelf.write(2)
    asked(a, b)
    tries = 1
    for now in range(1, 60):
        deadline = a.replication.next_deadline()
        if deadline is not None and now >= deadline:
            tries += len(a.expired(float(now)))
    assert tries == PART_TRIES_MAX
    assert a.replication.next_deadline() is None
    asked(a, c, now=99.0)  # another may be asked


def test_each_part_has_its_own_tries(a: Node, b: Node) -> None:
    for name in range(5):
        b.shelf.write(name)
    now, message = 0.0, asked(a, b)
    for _ in range(3):
        for _ in range(PART_TRIES_MAX - 1):
            now += PART_WAIT_S
            [message] = a.expired(now)
        [message] = a.receive(given_for(message, a, b), b, now) or [message]
    assert a.holds(*range(5))


def test_one_pull_at_a_time(a: Node, b: Node, c: Node) -> None:
    b.shelf.write(1)
    c.shelf.write(2)
    asked(a, b)
    assert a.receive(c.replication.digest(), c) == []
    assert a.receive(b.replication.digest(), b) == []


def test_a_doubled_part_is_ignored(a: Node, b: Node) -> None:
    for name in (1, 2, 3):
        b.shelf.write(name)
    first = given_for(asked(a, b), a, b)
    [ask] = a.receive(first, b)
    assert a.receive(first, b) == []
    last = given_for(ask, a, b)
    a.receive(last, b)
    assert a.receive(last, b) == []
    assert len(a.arrived) == 2


@pytest.mark.parametrize(
    "changed", [{"incarnation": 7}, {"number": 2}, {"after": b"\x08k\0"}, {"after": 0}]
)
def test_a_part_of_another_pull_is_ignored(a: Node, b: Node, changed: dict[str, Any]) -> None:
    b.shelf.write(1)
    give = given_for(asked(a, b), a, b)
    assert a.receive(remade(give, **changed), b) == []
    assert not a.arrived
    a.receive(give, b)
    assert a.holds(1)


def test_a_part_of_somebody_else_is_ignored(a: Node, b: Node, c: Node) -> None:
    b.shelf.write(1)
    give = given_for(asked(a, b), a, b)
    assert a.receive(give, c) == []
    assert not a.arrived


def test_a_question_to_an_earlier_life_is_ignored(a: Node, b: Node) -> None:
    b.shelf.write(1)
    ask = asked(a, b)
    again = Node("b")
    again.rid = Rid("b", 2 << 40)
    again.replication = Replication(again.rid, again.shelf, again.members)
    assert again.receive(ask, a) == []


@pytest.mark.parametrize("rest", [b"", b"\x01", "same", 5, "text", ["list"]])
def test_a_part_that_does_not_get_on_is_refused(a: Node, b: Node, rest: Any) -> None:
    for name in (1, 2, 3):
        b.shelf.write(name)
    [ask] = a.receive(given_for(asked(a, b), a, b), b)
    give = given_for(ask, a, b)
    after = decode(give.body)[2]
    before = len(a.arrived)
    with pytest.raises(RemoteProtocolError):
        a.receive(remade(give, rest=after if rest == "same" else rest), b)
    assert len(a.arrived) == before
    a.receive(give, b)
    assert a.holds(1, 2, 3)


def test_of_a_wrong_part_nothing_is_taken_its_cut_neither(a: Node, b: Node) -> None:
    b.shelf.write(1)
    give = given_for(asked(a, b), a, b)
    claims = remade(give, rest=5, cut=((0, 1, 1000),))
    with pytest.raises(RemoteProtocolError):
        a.receive(claims, b)
    a.receive(give, b)
    assert a.shelf.seen == b.shelf.seen


def test_a_cut_does_not_count_where_something_of_the_pull_was_refused(a: Node, b: Node) -> None:
    for name in (1, 2, 3):
        b.shelf.write(name)
    [ask] = a.receive(given_for(asked(a, b), a, b), b)
    a.shelf.refusals += 1  # the disk was full for a moment
    a.receive(given_for(ask, a, b), b)
    assert not list(a.arrived[-1].seen)
    assert a.replication.next_deadline() is None
    a.shelf.seen = a.shelf.heard = a.shelf.taken = Vector()
    message = [asked(a, b, now=STORED_WAIT_S)]
    while message:
        message = a.receive(given_for(message[0], a, b), b)
    assert a.shelf.seen == b.shelf.seen


def test_what_came_is_not_asked_for_again_while_it_is_stored(a: Node, b: Node) -> None:
    b.shelf.write(1)
    ask = asked(a, b)
    give = given_for(ask, a, b)
    [arrived] = a.replication.receive(give.kind, b.rid, give.body, 1.0)
    assert isinstance(arrived, Arrived)
    assert a.receive(b.replication.digest(), b, now=1.0 + STORED_WAIT_S - 0.001) == []
    asked(a, b, now=1.0 + STORED_WAIT_S)  # it never got there


def test_what_came_and_is_stored_is_waited_for_no_more(a: Node, b: Node) -> None:
    b.shelf.write(1)
    a.receive(given_for(asked(a, b), a, b), b, now=1.0)
    assert {event.way for event in a.arrived} == {Way.PULL}
    b.shelf.write(2)
    asked(a, b, now=1.0)


@pytest.mark.parametrize("has_asked", [True, False])
def test_a_life_that_has_ended_is_asked_no_more(a: Node, b: Node, has_asked: bool) -> None:
    b.shelf.write(1)
    if has_asked:
        asked(a, b)
    else:
        a.receive(update(b, b.shelf.write(2)), b)
    assert a.replication.next_deadline() is not None
    again = Node("b")
    again.rid = Rid("b", 2 << 40)
    again.replication = Replication(again.rid, again.shelf, again.members)
    again.shelf.write(3)
    asked(a, again)
    assert a.receive(b.replication.digest(), b) == []  # late words of the earlier life


def test_who_is_asked_by_somebody_with_more_asks_back(a: Node, b: Node) -> None:
    a.shelf.write(1)
    answer = b.receive(asked(a, b), a)
    assert kinds(answer) == [(Kind.GIVE, "a"), (Kind.ASK, "a")]
    b.receive(given_for(answer[1], b, a), a)
    assert b.holds(1)


def test_the_next_part_is_asked_for_before_the_last_one_is_merged(a: Node, b: Node) -> None:
    for name in range(3):
        b.shelf.write(name)
    part = given_for(asked(a, b), a, b)
    events = a.replication.receive(part.kind, b.rid, part.body, 0.0)
    assert [type(event) for event in events] == [Outgoing, Arrived]


def test_what_is_only_under_way_is_not_looked_for(a: Node, b: Node) -> None:
    a.shelf.store(b.shelf.write("known"))
    for now in (0.0, 0.1):
        b.expired(now)
    b.shelf.write("under way")
    assert given_records([asked(a, b, 0.1)], a, b) == []


def test_what_is_not_known_for_longer_is_looked_for(a: Node, b: Node) -> None:
    a.shelf.store(b.shelf.write("known"))
    record = b.shelf.write("lost")
    for now in (0.0, 0.1):
        b.expired(now)
    b.shelf.write("under way")
    assert record in given_records([asked(a, b, 0.1)], a, b)


def test_an_answer_without_records_claims_nothing(a: Node, b: Node) -> None:
    a.shelf.store(b.shelf.write("known"))
    for now in (0.0, 0.1):
        b.expired(now)
    record = b.shelf.write("under way")
    assert a.receive(given_for(asked(a, b, 0.1), a, b), b) == []
    assert record.dot not in a.shelf.seen
    assert a.expired(5.0) == []  # the pull is over


def test_ticks_of_a_batch_in_any_order_leave_no_gap(a: Node, b: Node) -> None:
    records = [b.shelf.write(name) for name in range(4)]
    a.receive(update(b, *reversed(records)), b)
    assert a.expired(GAP_WAIT_S) == []


def test_who_is_asked_by_somebody_with_less_does_not(a: Node, b: Node) -> None:
    b.shelf.write(1)
    assert kinds(b.receive(asked(a, b), a)) == [(Kind.GIVE, "a")]


@pytest.mark.parametrize("number", [None, "1", -1, msgpack.ExtType(2, b"\xff" * 200), "\udcff"])
def test_a_question_that_cannot_be_answered_is_refused(a: Node, b: Node, number: Any) -> None:
    incarnation, _, *rest = decode(asked(a, b_with_one(b)).body)
    packer = msgpack.Packer(unicode_errors="surrogateescape")
    body = packer.pack((incarnation, number, *rest))
    with pytest.raises(RemoteProtocolError, match="number"):
        b.replication.receive(Kind.ASK, a.rid, body, 0)


@pytest.mark.parametrize("after", [1, "k", ["k"], msgpack.ExtType(9, b"")])
def test_a_question_behind_no_key_is_refused(a: Node, b: Node, after: Any) -> None:
    incarnation, number, _, *rest = decode(asked(a, b_with_one(b)).body)
    body = msgpack.packb((incarnation, number, after, *rest))
    with pytest.raises(RemoteProtocolError, match="go on behind"):
        b.replication.receive(Kind.ASK, a.rid, body, 0)


def b_with_one(node: Node) -> Node:
    node.shelf.write(1)
    return node


def test_a_node_that_is_gone_is_asked_no_more(a: Node, b: Node, c: Node) -> None:
    c.shelf.write(1)
    a.receive(update(c, c.shelf.write(2)), c)
    asked(a, b_with_one(b))
    a.replication.forget("b")
    assert a.replication.next_deadline() == GAP_WAIT_S
    a.replication.forget("c")
    assert a.replication.next_deadline() is None
    assert a.expired(9.0) == []


def test_a_message_of_another_kind_is_of_a_newer_version(a: Node, b: Node) -> None:
    assert a.replication.receive(99, b.rid, b"", 0) == []


def test_messages_of_a_newer_minor_version_are_read(a: Node, b: Node) -> None:
    for name in (1, 2, 3):
        b.shelf.write(name)

    def newer(message: Outgoing) -> Outgoing:
        return Outgoing(message.kind, message.to, packb((*decode(message.body), "more")))

    messages = a.receive(newer(b.replication.digest()), b)
    while messages:
        messages = a.receive(newer(given_for(newer(messages[0]), a, b)), b)
    assert a.holds(1, 2, 3)
    a.receive(newer(update(b, b.shelf.write(4))), b)
    assert a.holds(1, 2, 3, 4)


# --- members ----------------------------------------------------------------------------------


def delivered(messages: Sequence[tuple[Node, Outgoing]], *nodes: Node, now: float = 0.0) -> int:
    """Carry messages to whom they are for, and what comes of them, until all is said."""
    waiting, count = [*messages], 0
    while waiting:
        sender, message = waiting.pop(0)
        count += 1
        assert count < 500, "they never stop talking"
        for node in nodes:
            if node is not sender and message.to in (None, node.rid.node):
                waiting += [(node, answer) for answer in node.receive(message, sender, now)]
    return count


def test_updates_of_who_is_no_member_are_pulled_instead(a: Node, b: Node) -> None:
    """A question makes one of the two known to the other; an update tells nobody of anybody."""
    a.members.strangers = {"b"}
    assert a.receive(update(b, b.shelf.write(1)), b, now=3.0) == []
    assert not a.arrived
    assert a.replication.next_deadline() == 3.0
    [ask] = a.expired(3.0)
    a.receive(given_for(ask, a, b), b)
    assert a.holds(1)


def test_what_an_expired_node_says_is_neither_taken_nor_pulled(a: Node, b: Node) -> None:
    a.members.expired = {"b"}
    a.receive(update(b, b.shelf.write(1)), b)
    assert a.expired(0.0) == []
    assert a.replication.next_deadline() is None
    assert a.receive(b.replication.digest(), b) == []
    assert not a.arrived


def test_a_wrong_update_is_refused_whoever_sends_it(a: Node, b: Node) -> None:
    a.members.strangers = {"b"}
    with pytest.raises(RemoteProtocolError):
        a.replication.receive(Kind.UPDATE, b.rid, packb(([], [(1, 2, 3)])), 0.0)
    assert a.replication.next_deadline() is None


ADMITTING: list[MembershipEvent] = [Admit({"a": Record(State.MEMBER, 1)})]


@pytest.mark.parametrize(
    ("first", "kinds_sent"),
    [(None, [Kind.ASK]), ([], [Kind.GIVE, Kind.ASK]), (ADMITTING, [])],
    ids=["it may not be answered", "nothing comes first", "something comes first"],
)
def test_a_question_is_answered_when_nothing_comes_first(
    a: Node, b: Node, first: Sequence[Admit] | None, kinds_sent: list[Kind]
) -> None:
    a.shelf.write("a")
    b.shelf.write("b")
    ask = asked(a, b)
    b.members.first = None if first is None else [*first]
    events = b.replication.receive(ask.kind, a.rid, ask.body, 0.0)
    sent = [event.kind for event in events if isinstance(event, Outgoing)]
    assert sent == kinds_sent
    assert [event for event in events if isinstance(event, Admit)] == (first or [])
    assert b.members.questions == [(a.rid, None)]


def test_a_question_says_for_which_life_it_asks(a: Node, b: Node) -> None:
    b.shelf.write(1)
    a.members.life = 77
    b.receive(asked(a, b), a)
    [copy] = a.act(a.replication.copy(b.rid, 0.0))
    b.receive(copy, a)
    assert b.members.questions == [(a.rid, 77), (a.rid, a.rid.incarnation)]


def test_a_question_that_was_put_off_may_be_looked_at_again(a: Node, b: Node) -> None:
    b.shelf.write(1)
    ask = asked(a, b)
    b.members.first = ADMITTING
    assert b.receive(ask, a) == []
    b.members.first = []
    a.receive(given_for(ask, a, b), b)
    assert a.holds(1)


WRONG_LIVES: tuple[Any, ...] = (-1, 1 << 63, True, 1.0, "1", b"", [1], {})
WRONG_BUCKETS: tuple[Any, ...] = (1, "12", {}, [-1], [256], [True], ["1"], [1.0], [0] * 257)


@pytest.mark.parametrize(
    ("at", "odd", "words"),
    [
        *((5, odd, "next life") for odd in WRONG_LIVES),
        *((6, odd, "buckets") for odd in WRONG_BUCKETS),
    ],
)
def test_a_question_with_wrong_parts_is_refused(
    a: Node, b: Node, at: int, odd: Any, words: str
) -> None:
    parts = list(decode(asked(a, b_with_one(b)).body))
    parts[at] = odd
    with pytest.raises(RemoteProtocolError, match=words):
        b.replication.receive(Kind.ASK, a.rid, msgpack.packb(parts), 0.0)
    assert not b.members.questions


def test_a_digest_says_what_its_sender_announced_and_how_it_stands(a: Node, b: Node) -> None:
    b.shelf.write(1)
    a.members.says = [Outgoing(Kind.WANT, "b", b"")]
    messages = a.receive(b.replication.digest(), b)
    assert a.members.digests == [(b.rid, ANNOUNCED, Standing.GOOD)]
    assert kinds(messages) == [(Kind.WANT, "b"), (Kind.ASK, "b")]


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("odd", [None, 1.0, True, "text", [b"x"], {}])
def test_a_wrong_digest_is_refused(a: Node, b: Node, at: int, odd: Any) -> None:
    a.replication.is_consistent = True
    parts = list(decode(b_with_one(b).replication.digest().body))
    parts[at] = odd
    with pytest.raises(RemoteProtocolError, match="digest"):
        a.replication.receive(Kind.DIGEST, b.rid, packb(parts), 0.0)
    assert not a.members.digests
    assert a.replication.is_consistent


def test_what_is_held_back_need_not_be_sent_again(a: Node, b: Node) -> None:
    """Both say the same, and hold something else until the time of the record has come."""
    record = b.shelf.write(1)
    a.shelf.heard = b.shelf.seen.copy()
    messages = a.receive(b.replication.digest(), b)
    assert Kind.ASK not in [message.kind for message in messages]
    a.shelf.write(2)
    a.shelf.heard = a.shelf.seen.union(b.shelf.seen)
    assert record.dot not in a.shelf.seen
    assert kinds(a.receive(asked(b, a), b)) == [(Kind.GIVE, "b")]
    question = a.act(a.replication.receive(Kind.DIGEST, b.rid, b.replication.digest().body, 0.0))
    assert record.key not in {r.key for r in given_records(question, a, b)}


# --- copies -----------------------------------------------------------------------------------


def copied_from(a: Node, b: Node, *, losing: int = 0) -> Copied:
    """Take a whole copy; so many parts of it are lost at first."""
    [ask] = a.act(a.replication.copy(b.rid, 0.0))
    now = 0.0
    while a.replication.is_copying:
        give = given_for(ask, a, b)
        if losing:
            losing -= 1
            now += PART_WAIT_S
            [again] = a.expired(now)
            assert again == ask
            continue
        assert not a.copied
        messages = a.receive(give, b, now)
        assert a.receive(give, b, now) == []  # a doubled part
        if messages:
            [ask] = messages
    [copied] = a.copied
    return copied


@pytest.mark.parametrize("losing", [0, 1, PART_TRIES_MAX - 1])
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_a_copy_is_collected_and_handed_over_once(
    a: Node, b: Node, count: int, losing: int
) -> None:
    c = Node("c")
    for name in range(count):
        record = (b, c)[name % 2].shelf.write(name)
        for node in (a, b):  # known here: it comes all the same
            node.shelf.store(record)
    copied = copied_from(a, b, losing=losing)
    assert sorted(copied.records, key=lambda record: record.key) == [
        record for _, record in sorted(b.shelf.entries.items())
    ]
    assert copied.seen == b.shelf.seen
    assert copied.bases == {rid: 100 for rid, _ in b.shelf.seen}
    assert not a.arrived
    assert a.replication.next_deadline() is None


def test_a_copy_has_tombstones_and_what_was_seen_at_its_first_part(a: Node, b: Node) -> None:
    for name in (1, 2, 3):
        b.shelf.write(name)
    gone = b.shelf.delete(2)
    [ask] = a.act(a.replication.copy(b.rid, 0.0))
    [ask] = a.receive(given_for(ask, a, b), b)
    late = b.shelf.write(0)  # before the key to go on behind
    a.receive(given_for(ask, a, b), b)
    [copied] = a.copied
    assert gone in copied.records
    assert late not in copied.records
    assert late.dot not in copied.seen
    assert gone.dot in copied.seen


def test_a_copy_takes_the_place_of_a_pull_and_no_pull_that_of_a_copy(a: Node, b: Node) -> None:
    c = Node("c")
    for name in (1, 2, 3):
        b.shelf.write(name)
    old = given_for(asked(a, b), a, b)
    [ask] = a.act(a.replication.copy(b.rid, 0.0))
    assert a.receive(old, b) == []
    c.shelf.write("c")
    assert a.receive(c.replication.digest(), c) == []
    assert a.replication.is_copying
    while ask:
        answers = a.receive(given_for(ask, a, b), b)
        if not answers:
            break
        [ask] = answers
    assert [len(copied.records) for copied in a.copied] == [3]
    assert not a.arrived


def test_a_copy_that_was_given_up_leaves_nothing_to_the_next(a: Node, b: Node) -> None:
    c = Node("c")
    for node in (b, c):
        for name in (1, 2, 3):
            node.shelf.write(f"{node.rid.node}{name}")
    [ask] = a.act(a.replication.copy(b.rid, 0.0))
    a.receive(given_for(ask, a, b), b)
    for attempt in range(1, PART_TRIES_MAX + 1):
        assert a.replication.is_copying
        a.expired(attempt * PART_WAIT_S)
    assert not a.replication.is_copying
    copied = copied_from(a, c)
    assert {record.dot.rid.node for record in copied.records} == {"c"}
    assert copied.seen == c.shelf.seen


# --- repair -----------------------------------------------------------------------------------


def same_nodes(count: int, part_max: int = 2) -> tuple[Node, Node]:
    """Return two nodes that hold the same and have seen the same."""
    a, b = Node("a", part_max), Node("b", part_max)
    for name in range(count):
        record = (a, b)[name % 2].shelf.write(name)
        if name % 5 == 4:
            for node in (a, b):
                node.shelf.store(record)
            record = (a, b)[name % 2].shelf.delete(name)
        for node in (a, b):
            node.shelf.store(record)
    assert a.shelf.seen == b.shelf.seen
    return a, b


def buckets_of(sender: Node, to: Node) -> Outgoing:
    """Return what a node says of its buckets to one that has seen the same."""
    [message] = sender.receive(to.replication.digest(), to)
    assert message.kind == Kind.BUCKETS
    return message


def test_who_holds_other_entries_shows_buckets_and_both_give_theirs() -> None:
    a, b = same_nodes(6)
    mine, theirs = Path("k", "0").key, Path("k", "1").key
    del a.shelf.entries[mine], b.shelf.entries[theirs]
    message = buckets_of(a, b)
    answers = b.receive(message, a)
    assert kinds(answers) == [(Kind.BUCKETS, "a"), (Kind.ASK, "a")]
    delivered([(b, answer) for answer in answers], a, b)
    assert a.shelf.entries == b.shelf.entries
    assert len(a.shelf.entries) == 6
    for node, other in ((a, b), (b, a)):
        [differs] = node.differs
        assert differs.peer == other.rid
        assert set(differs.buckets) == {bucket_of(mine), bucket_of(theirs)}
        assert all(event.way is Way.REPAIR and not event.seen for event in node.arrived)
    assert a.receive(b.replication.digest(), b) == []
    assert a.replication.is_consistent


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(1, 5), st.integers(0, 1 << 32))
def test_whatever_was_lost_comes_back_from_whoever_has_it(
    count: int, part_max: int, seed: int
) -> None:
    random = Random(seed)
    a, b = same_nodes(count, part_max)
    whole = dict(a.shelf.entries)
    for key, record in whole.items():
        holder = random.choice((a, b, None, None))
        if holder is not None and record.value is not MISSING:
            del holder.shelf.entries[key]
    for speaker in (b, a):
        delivered([(speaker, speaker.replication.digest())], a, b)
    assert a.shelf.entries == b.shelf.entries == whole
    assert a.shelf.seen == b.shelf.seen


def test_a_repair_asks_for_the_buckets_that_differ_alone() -> None:
    a, b = same_nodes(40, part_max=100)
    lost = Path("k", "7").key
    del a.shelf.entries[lost]
    delivered([(b, b.replication.digest())], a, b)
    moved = {record.key for event in a.arrived + b.arrived for record in event.records}
    assert lost in moved
    assert {bucket_of(key) for key in moved} == {bucket_of(lost)}


def test_a_tombstone_is_given_where_a_live_entry_came_back() -> None:
    a, b = same_nodes(5)
    key = Path("k", "4").key
    gone = b.shelf.entries[key]
    assert gone.value is MISSING
    a.shelf.entries[key] = Carried(key, gone.tock - 1, (Dot(a.rid, 1),), packb("old"))
    delivered([(b, b.replication.digest())], a, b)
    assert a.shelf.entries[key] == b.shelf.entries[key] == gone


def test_buckets_are_compared_by_equal_vectors_alone() -> None:
    a, b = same_nodes(6)
    del a.shelf.entries[Path("k", "0").key]
    message = buckets_of(a, b)
    b.shelf.write("new")
    assert b.receive(message, a) == []
    assert not b.differs


def test_buckets_for_an_earlier_life_are_ignored() -> None:
    a, b = same_nodes(6)
    del a.shelf.entries[Path("k", "0").key]
    message = buckets_of(a, b)
    again = Replication(Rid("b", 2 << 40), b.shelf, b.members)
    assert again.receive(message.kind, a.rid, message.body, 0.0) == []


def test_equal_buckets_are_answered_and_no_more() -> None:
    """The digest was of a moment ago; an answer is not answered."""
    a, b = same_nodes(6)
    lost = a.shelf.entries.pop(Path("k", "0").key)
    message = buckets_of(a, b)
    del b.shelf.entries[lost.key]
    [answer] = b.receive(message, a)
    assert answer.kind == Kind.BUCKETS
    assert a.receive(answer, b) == []
    assert not a.differs
    assert not b.differs


def test_one_repair_at_a_time() -> None:
    a, b = same_nodes(6)
    del a.shelf.entries[Path("k", "0").key]
    message = buckets_of(a, b)
    assert len(b.receive(message, a)) == 2
    assert kinds(b.receive(message, a)) == [(Kind.BUCKETS, "a")]
    assert b.receive(a.replication.digest(), a) == []  # nor is it begun by a digest meanwhile
    assert len(b.differs) == 1


def test_an_expired_node_repairs_nobody() -> None:
    a, b = same_nodes(6)
    del a.shelf.entries[Path("k", "0").key]
    message = buckets_of(a, b)
    b.members.expired = {"a"}
    assert kinds(b.receive(message, a)) == [(Kind.BUCKETS, "a")]
    assert not b.differs


@pytest.mark.parametrize("odd", [None, 1, "x" * 2048, b"", bytes(2047), bytes(2049), [0] * 256])
def test_wrong_buckets_are_refused(odd: Any) -> None:
    a, b = same_nodes(6)
    parts = (b.rid.incarnation, b"", odd, False)
    with pytest.raises(RemoteProtocolError, match="bucket digests"):
        b.replication.receive(Kind.BUCKETS, a.rid, packb(parts), 0.0)


# --- anything at all --------------------------------------------------------------------------


def test_wrong_messages_are_refused_in_words_and_in_no_other_way() -> None:
    random = Random(7)
    odd: tuple[Any, ...] = (
        *(None, True, -1, 1 << 63, 1.5, "\udcff", b"", [], {}, [[]], b"\x06", b"\x09" * 2000),
        *(msgpack.ExtType(2, b"\xff" * 200), msgpack.ExtType(3, b"\xc1")),
    )
    reasons = []
    packer = msgpack.Packer(unicode_errors="surrogateescape")
    for number in range(2000):
        a, b = Node("a"), Node("b")
        for name in (1, 2, 3):
            b.shelf.write(name)
        ask = asked(a, b)
        whole = (update(b, b.shelf.write(4)), b.replication.digest(), ask, given_for(ask, a, b))
        message = whole[number % 4]
        to, sender = (b, a) if message.kind == Kind.ASK else (a, b)
        parts = list(decode(message.body))
        parts[random.randrange(len(parts))] = random.choice(odd)
        try:
            to.act(to.replication.receive(message.kind, sender.rid, packer.pack(parts), 0))
        except RemoteProtocolError as error:
            reasons.append(str(error))
    assert len(reasons) > 500
    assert min(len(reason.split()) for reason in reasons) > 8


class Pair:
    """Two nodes, what was written, and a network that loses, doubles and reorders."""

    def __init__(self, random: Random, part_max: int, loss: float) -> None:
        self.nodes = Node("a", part_max), Node("b", part_max)
        self.written: dict[Dot, Carried] = {}
        self.loss = loss
        self._random = random
        self._waiting: list[tuple[Node, Node, Outgoing]] = []

    def send(self, sender: Node, messages: Sequence[Outgoing]) -> None:
        other = self.nodes[1] if sender is self.nodes[0] else self.nodes[0]
        weights = 1 - self.loss, self.loss / 2, self.loss / 2
        for message in messages:
            copies = self._random.choices((1, 0, 2), weights)[0]
            self._waiting.extend([(other, sender, message)] * copies)

    def write(self, node: Node) -> None:
        record = node.shelf.write(self._random.randrange(12))
        self.written[record.dot] = record
        self.send(node, node.replication.updates([record]))

    def step(self, now: float) -> None:
        """Let timers speak and messages come, not all of them while things go wrong."""
        for node in self.nodes:
            if not self.loss or self._random.random() < 0.3:
                self.send(node, [node.replication.digest()])
            self.send(node, node.expired(now))
        while self._waiting and (not self.loss or self._random.random() < 0.9):
            at = self._random.randrange(len(self._waiting))
            to, sender, message = self._waiting.pop(at)
            self.send(to, to.receive(message, sender, now))

    def check(self) -> None:
        """What counts as seen is there, or something newer is."""
        for node in self.nodes:
            for dot in (dot for dot in self.written if dot in node.shelf.seen):
                held = node.shelf.entries[self.written[dot].key]
                assert (held.tock, held.dot) >= (self.written[dot].tock, dot)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 5), st.floats(0.01, 0.3))
def test_two_become_equal_whatever_is_lost_or_doubled(
    seed: int, part_max: int, loss: float
) -> None:
    random = Random(seed)
    pair = Pair(random, part_max, loss)
    for now in range(90):
        for node in pair.nodes:
            if now < 50 and random.random() < 0.5:
                pair.write(node)
        if now == 60:
            pair.loss = 0.0
        pair.step(float(now))
        pair.check()
    one, other = (node.shelf for node in pair.nodes)
    assert one.entries == other.entries
    assert one.seen == other.seen
