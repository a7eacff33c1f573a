"""All of a server's part in leases: it grants, it holds, and it changes voters.

The owner hands in what happens, with the time, and carries out what comes back, in order.  After
each wake-up `tick` comes before anything else: it kills what has lost its lease meanwhile.

What stands in `Keep` has to be durable before the owner calls `kept` with its number; only then
is answered.  A message to ourselves does not leave this module.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from random import Random

from kvedge.model.stamp import Rid
from kvedge.protocol.exchange import Kind, Outgoing
from kvedge.protocol.lease import electorate as electorates
from kvedge.protocol.lease.contest import NEVER, Contest
from kvedge.protocol.lease.electorate import Electorate
from kvedge.protocol.lease.granting import Granter, Post
from kvedge.protocol.lease.island import Island
from kvedge.protocol.lease.messages import (
    Accept,
    Accepted,
    Ask,
    Beaten,
    Claim,
    Free,
    Grant,
    Held,
    Hold,
    Look,
    Message,
    Prepare,
    Promise,
    Release,
    Released,
    Told,
    packed,
    read,
)
from kvedge.protocol.lease.terms import (
    Changed,
    Event,
    Extended,
    Keep,
    Kill,
    Memory,
    Mode,
    Observed,
    Run,
    Stop,
    Vouched,
    Want,
    Why,
    muted_until,
)
from kvedge.protocol.lease.voters import Kept, View

STAGGER_S = 0.12
"""Between two candidates that see a lease end: both rounds of the better one fit in."""

STAGGER_MAX = 5
"""Those behind the fifth come at the same time as it."""

AVOIDED_S = 0.6
"""So much later than all others comes a node that is to be avoided."""

LOAD_UNKNOWN = 1.0

Outcome = (
    electorates.Write | Post | Run | Extended | Stop | Kill | Changed | Keep | Observed | Outgoing
)


class Leases:
    """The leases of one server.

    Args:
        rid: Of this life of the server.
        serial: Of the board: another one with a copied card has another.
        boot: Names this boot of the machine.
        memory: What the former life was told to keep; None for a new server.
        now: Boottime in seconds.
        random: Draws pauses.
        tock: Returns the largest tock that the server has seen or given.
    """

    def __init__(
        self,
        rid: Rid,
        serial: str,
        *,
        boot: str,
        memory: Memory | None,
        now: float,
        random: Random,
        tock: Callable[[], int],
    ) -> None:
        self._rid = rid
        self._serial = serial
        self._boot = boot
        self._random = random
        self._store_tock = tock
        self._observed = 0
        self._granter = Granter(muted_until(now, boot, memory))
        self._marked_ms = 0  # the longest lease that is on the disk for this boot
        self._lease_max_ms = 0 if memory is None else memory.lease_max_ms
        groups = {} if memory is None else memory.groups
        self._electorates = {
            group: self._electorate(group, kept, now) for group, kept in groups.items()
        }
        self._contests: dict[str, Contest | Island] = {}
        self._loads: Mapping[str, float] = {}
        self._is_draining = False
        self._ready_s = now
        self._waiting: dict[int, tuple[Post, ...]] = {}  # for the disk
        self._marks: dict[int, int] = {}
        self._kept_number = 0

    @property
    def memory(self) -> Memory:
        """What must not be forgotten."""
        groups = {group: one.kept for group, one in self._electorates.items()}
        return Memory(self._boot, self._lease_max_ms, groups)

    def view(self, group: str) -> View | None:
        """Return what is known of a group's voters."""
        known = self._electorates.get(group)
        return None if known is None else known.view

    # --- jobs ---------------------------------------------------------------------------------

    def want(self, want: Want, now: float) -> list[Event]:
        """Run a job here when its lease can be had; the group's voters are known (`learn`)."""
        known = self._contests.get(want.job)
        if known is not None:
            known.again(want, now)
            return []
        electorate = self._electorates[want.group]
        if want.mode is Mode.QUORUM:
            self._contests[want.job] = Contest(
                self._rid,
                self._serial,
                want,
                electorate,
                now,
                random=self._random,
                delay=self._delay,
            )
        else:
            self._contests[want.job] = Island(
                self._rid,
                self._serial,
                want,
                electorate.view.lease_ms,
                now,
                ready_s=self._ready_s,
                random=self._random,
                delay=self._delay,
                tock=self._tock,
            )
        return []

    def unwant(self, job: str, now: float) -> list[Event]:
        """Do not run a job here any more; where it runs it is stopped."""
        known = self._contests.get(job)
        return [] if known is None else self._settle(known.unwant(now), now)

    def loads(self, loads: Mapping[str, float]) -> None:
        """Take note of the candidates that are there, and of their loads; 0 is idle."""
        self._loads = loads

    def hand_over(self, job: str, now: float, *, heir: str | None = None) -> list[Event]:
        """Stop a job here, so that another node takes it over.

        Args:
            job: Which.
            now: Boottime in seconds.
            heir: Who; None: whoever is the best.
        """
        known = self._contests.get(job)
        return [] if known is None else self._settle(known.stop(Why.HANDED_OVER, now, heir), now)

    def drain(self, now: float, *, is_draining: bool) -> list[Event]:
        """Hand over all jobs and take none, until the opposite is said; granting goes on."""
        self._is_draining = is_draining
        events = []
        for contest in list(self._contests.values()):
            if is_draining:
                events += self._settle(contest.stop(Why.HANDED_OVER, now), now)
            contest.is_wanted = not is_draining and contest.is_wanted
        return events

    def vouched(self, vouched: Vouched, now: float) -> list[Event]:
        """Take the board's word that a job is dead, so that its lease can end early."""
        known = self._contests.get(vouched.job)
        return [] if known is None else self._settle(known.vouched(vouched, now), now)

    # --- voters -------------------------------------------------------------------------------

    def learn(self, group: str, view: View, now: float) -> list[Event]:
        """Take note of voters that are known to count; of one epoch the first list stays.

        Args:
            group: Whose.
            view: As `Changed` told it, the list before included: without that, leases that were
                granted under it would be overlooked.
            now: Boottime in seconds.
        """
        known = self._electorates.get(group)
        if known is None:
            self._electorates[group] = self._electorate(group, Kept(view), now)
            return [self._keep(None)]
        before = known.view.stamp
        events = self._settle(known.learn(view, now), now)
        return events + self._ask_again(known, before, now)

    def propose(self, group: str, nodes: Sequence[str], lease_ms: int, now: float) -> None:
        """Change the voters of a group; `Changed` tells when a change counts, perhaps another."""
        self._electorates[group].propose(tuple(nodes), lease_ms, now)

    def kept(self, number: int, now: float) -> list[Event]:
        """Take note that what was to be kept is durable."""
        self._marked_ms = max(self._marked_ms, self._marks.pop(number, 0))
        return self._settle(self._waiting.pop(number, ()), now)

    # --- network and time ---------------------------------------------------------------------

    def connected(self, now: float) -> list[Event]:
        """Take note that the broker is there."""
        self._ready_s = max(self._ready_s, now + self._lease_s())
        islands = self._islands()
        return [event for one in islands for event in self._settle(one.connected(now), now)]

    def disconnected(self, now: float) -> None:
        """Take note that the broker has gone."""
        self._ready_s = max(self._ready_s, now + self._lease_s())
        for island in self._islands():
            island.disconnected(now)

    def gone(self, node: str, now: float) -> list[Event]:
        """Take note that a node is not seen any more: of no lease that voters have granted."""
        for island in self._islands():
            island.gone(node, now)
        return []

    def next_deadline(self) -> float | None:
        """Return when to call `tick`; None: not before something else happens."""
        due = NEVER
        for part in (*self._contests.values(), *self._electorates.values()):
            part_due = part.next_deadline()
            if part_due < due:
                due = part_due
        return None if due == NEVER else due

    def tick(self, now: float) -> list[Event]:
        """Check what runs, then do what is due."""
        events = self._check(now)
        for electorate in self._electorates.values():
            if now >= electorate.next_deadline():
                events += self._settle(electorate.tick(now), now)
        for job, contest in list(self._contests.items()):
            if now >= contest.next_deadline():
                events += self._settle(contest.tick(now), now)
            if contest.is_over and not self._is_draining:
                del self._contests[job]
        return events

    def receive(self, kind: Kind, sender: Rid, body: bytes, now: float) -> list[Event]:
        """Take a message of another server.

        Raises:
            RemoteProtocolError: It is wrong.
        """
        if kind is not Kind.LEASE:
            return []
        events = self._check(now)
        message = read(body)
        if message is not None:
            events += self._settle(self._take(sender, message, now), now)
        return events

    def _check(self, now: float) -> list[Event]:
        """Stop and kill what has to be, before anything else."""
        events: list[Event] = []
        for contest in self._contests.values():
            for outcome in contest.expired(now):
                assert isinstance(outcome, Stop | Kill)
                events.append(outcome)
        return events

    # --- messages -----------------------------------------------------------------------------

    def _take(self, sender: Rid, message: Message, now: float) -> Sequence[Outcome]:
        match message:
            case Ask():
                return self._take_ask(sender, message, now)
            case Look():
                return self._granter.look(sender, message, now)
            case Release():
                return self._granter.release(sender, message, now)
            case Told() | Prepare() | Promise() | Accept() | Accepted() | Beaten():
                return self._take_change(sender, message, now)
            case Grant() | Held() | Released() | Free() | Claim() | Hold():
                return self._take_for_job(sender, message, now)

    def _take_ask(self, sender: Rid, ask: Ask, now: float) -> Sequence[Outcome]:
        electorate = self._electorates.get(ask.group)
        if electorate is None or not electorate.is_voter:
            return []
        outcomes: list[Outcome] = []
        if ask.fence > self._observed:
            self._observed = ask.fence
            outcomes.append(Observed(ask.fence))
        outcomes += self._granter.ask(sender, ask, electorate.view, now, self._tock())
        if ask.lease_ms <= self._marked_ms:
            return outcomes
        # A restart has to know for how long this binds.
        self._lease_max_ms = max(self._lease_max_ms, ask.lease_ms)
        posts = tuple(one for one in outcomes if isinstance(one, Post))
        keep = self._keep(posts)
        if keep.number is not None:
            self._marks[keep.number] = self._lease_max_ms
        return [*(one for one in outcomes if not isinstance(one, Post)), keep]

    def _take_change(
        self,
        sender: Rid,
        message: Told | Prepare | Promise | Accept | Accepted | Beaten,
        now: float,
    ) -> Sequence[Outcome]:
        known = self._electorates.get(message.group)
        if known is None:
            if isinstance(message, Prepare | Accept):
                self._electorates[message.group] = self._electorate(
                    message.group, Kept(message.base), now
                )
                return self._take_change(sender, message, now)
            return []
        before = known.view.stamp
        outcomes: list[Outcome] = []
        match message:
            case Told():
                outcomes += known.learn(message.view, now)
            case Prepare():
                outcomes += known.prepare(sender.node, message, now)
            case Promise():
                outcomes += known.promise(sender.node, message, now)
            case Accept():
                outcomes += known.accept(sender.node, message, now)
            case Accepted():
                outcomes += known.accepted(sender.node, message, now)
            case Beaten():
                outcomes += known.beaten(message, now)
        outcomes += self._ask_again(known, before, now)
        return outcomes

    def _ask_again(self, known: Electorate, before: object, now: float) -> list[Event]:
        if known.view.stamp == before:
            return []
        contests = [one for one in self._contests.values() if isinstance(one, Contest)]
        mine = [one for one in contests if self._electorates[one.want.group] is known]
        return [event for one in mine for event in self._settle(one.voters_changed(now), now)]

    def _take_for_job(
        self, sender: Rid, message: Grant | Held | Released | Free | Claim | Hold, now: float
    ) -> Sequence[Outcome]:
        contest = self._contests.get(message.job)
        match contest, message:
            case Contest(), Grant():
                return contest.granted(sender.node, message, now)
            case Contest(), Held():
                return contest.held(sender.node, message, now)
            case Contest(), Released():
                contest.released(sender.node, message.ballot)
            case Contest() | Island(), Free():
                contest.free(message, now)
            case Island(), Claim():
                return contest.claim(sender, message, now)
            case Island(), Hold():
                return contest.hold(sender, message, now)
        return []

    # --- doing --------------------------------------------------------------------------------

    def _settle(self, outcomes: Sequence[Outcome], now: float) -> list[Event]:
        """Turn what the parts want into what the owner does."""
        events: list[Event] = []
        if not outcomes:
            return events
        todo = deque(outcomes)
        last: Message | None = None
        body = b""
        while todo:
            outcome = todo.popleft()
            if isinstance(outcome, Post):
                if outcome.to == self._rid.node:
                    todo.extend(self._take(self._rid, outcome.message, now))
                    continue
                if outcome.message is not last:  # mostly the same one for all voters
                    last = outcome.message
                    body = packed(last)
                events.append(Outgoing(Kind.LEASE, outcome.to, body))
            elif isinstance(outcome, electorates.Write):
                self._observe_views(events)
                events.append(self._keep(outcome.posts))
            else:
                events.append(outcome)
        return events

    def _observe_views(self, events: list[Event]) -> None:
        largest = max(one.view.tock for one in self._electorates.values())
        if largest > self._observed:
            self._observed = largest
            events.append(Observed(largest))

    def _keep(self, posts: tuple[Post, ...] | None) -> Keep:
        if not posts:
            return Keep(None, self.memory)
        self._kept_number += 1
        self._waiting[self._kept_number] = posts
        return Keep(self._kept_number, self.memory)

    def _tock(self) -> int:
        return max(self._observed, self._store_tock())

    def _electorate(self, group: str, kept: Kept, now: float) -> Electorate:
        return Electorate(self._rid.node, group, kept, now, random=self._random, tock=self._tock)

    def _islands(self) -> list[Island]:
        return [one for one in self._contests.values() if isinstance(one, Island)]

    def _lease_s(self) -> float:
        longest = max((e.view.lease_ms for e in self._electorates.values()), default=0)
        return longest / 1000

    def _delay(self, want: Want) -> float:
        """Return for how long to leave a job to better nodes, in seconds."""
        node = self._rid.node

        def badness(other: str) -> tuple[bool, bool, float, str]:
            load = round(self._loads.get(other, LOAD_UNKNOWN), 1)
            return other in want.avoid, other not in want.prefer, load, other

        mine = badness(node)
        better = sum(1 for other in self._loads if other != node and badness(other) < mine)
        pause_s = STAGGER_S * min(better, STAGGER_MAX) + self._random.uniform(0, STAGGER_S / 4)
        return pause_s + (AVOIDED_S if node in want.avoid else 0.0)
