"""Leases in a heap of events: the production code of `protocol.lease`, from one seed.

Boards have clocks that run up to 1 % wrong, crash, pause and sleep; their servers are started
again; messages are lost, doubled and late; the network is split; voters are changed; jobs die,
ignore a request to stop, and outlive their server as orphans.  `LeaseSim` knows which board really
executes a job at which moment, and raises where two do that must not.

`python -m kvedge.testing.lease_sim SEED [HOURS [NODES [VOTERS]]]` repeats a run.
"""

from __future__ import annotations

import heapq
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from kvedge.model.stamp import Rid, new_incarnation
from kvedge.protocol.exchange import Kind, Outgoing
from kvedge.protocol.lease import (
    LEASE_DEFAULT_MS,
    Event,
    Extended,
    Keep,
    Kill,
    Leases,
    Memory,
    Mode,
    Observed,
    Run,
    Stop,
    View,
    Vouched,
    Want,
    first_voters,
)

GROUP = "g"
_WILL_MAX_S = 7.5  # one and a half keepalives of five seconds


@dataclass(frozen=True, slots=True)
class LeaseFaults:
    """What goes wrong.

    Attributes:
        loss: Part of the messages that is lost.
        twice: Part that comes twice.
        late: Part that comes late.
        late_s: By up to so many seconds.
        drift: So much clocks run wrong at most.
        stubborn: Part of the requests to stop that a job does not heed.
        every_s: On average something else happens after this time; 0: never.
        fates: What that is.
    """

    loss: float = 0.05
    twice: float = 0.02
    late: float = 0.05
    late_s: float = 3.0
    drift: float = 0.01
    stubborn: float = 0.1
    every_s: float = 15.0
    fates: tuple[str, ...] = (
        *("crash", "crash", "restart", "pause", "pause", "sleep", "split", "split", "heal", "heal"),
        *("voters", "voters", "hand_over", "job_dies", "power", "want", "drain"),
    )


CALM = LeaseFaults(loss=0.0, twice=0.0, late=0.0, stubborn=0.0, every_s=0.0)
LOSSY = LeaseFaults(stubborn=0.0, every_s=0.0)


@dataclass(slots=True)
class Execution:
    """A job that executes on a board.

    Attributes:
        run: How it was begun.
        rid: Under which life of the server.
        until_s: The lease, as the runner was told; boottime of the board.
    """

    run: Run
    rid: Rid
    until_s: float


class Overlap(AssertionError):
    """Two boards execute a job that one alone may execute."""


class Board:
    """One board: clock, disk, server and its job."""

    def __init__(self, sim: LeaseSim, name: str) -> None:
        self.sim = sim
        self.name = name
        self.generation = 0
        self.boot = 0
        self.died_s = -60.0
        self.rate = 1.0
        self.memory: Memory | None = None
        self.tock = sim.random.randrange(1, 1000)
        self.is_up = False
        self.wakes_s: float | None = None  # paused or asleep until then
        self.inbox: list[tuple[Rid, bytes]] = []
        self.execution: Execution | None = None
        self.due_s = float("inf")
        self.life = 0
        self.is_wanted = sim.is_wanted
        self._power_on()

    def _power_on(self) -> None:
        random, drift = self.sim.random, self.sim.faults.drift
        self.rate = 1.0 + random.choice((-drift, 0.0, drift))
        self.boot += 1
        self.boot_real_s = self.sim.now
        # The kernel cannot be up for longer than the power is back.
        off_s = self.sim.now - self.died_s
        self.boot_local_s = random.uniform(0, min(15.0, off_s)) * self.rate

    def local(self) -> float:
        """Return CLOCK_BOOTTIME."""
        return self.boot_local_s + (self.sim.now - self.boot_real_s) * self.rate

    def real(self, local: float) -> float:
        """Return when the board's clock shows something."""
        return self.boot_real_s + (local - self.boot_local_s) / self.rate

    def start(self, *, is_boot: bool) -> None:
        """Start the server, perhaps after the whole board."""
        if self.is_up:
            return
        if is_boot:
            self._power_on()
        sim = self.sim
        self.is_up = True
        self.life += 1
        self.generation += 1
        self.wakes_s, self.inbox, self.due_s = None, [], float("inf")
        self.rid = Rid(self.name, new_incarnation(self.generation, sim.random.getrandbits(40)))
        self.leases = Leases(
            self.rid,
            f"serial of {self.name}",
            boot=f"boot {self.boot} of {self.name}",
            memory=self.memory,
            now=self.local(),
            random=sim.random,
            tock=lambda: self.tock,
        )
        if self.leases.view(GROUP) is None:
            self.act(self.leases.learn(GROUP, sim.first, self.local()))
        self.act(self.leases.connected(self.local()))
        if self.is_wanted:
            self.act(self.leases.want(sim.want, self.local()))
        self.leases.loads(sim.loads)
        orphan = self.execution
        if orphan is not None:  # the new server kills what the old one has left
            self.end_execution()
            self.vouch(orphan.rid, orphan.run.ballot)

    def crash(self, *, is_board: bool) -> None:
        """Let the server die; its job lives on until its lease ends, unless the board dies, too."""
        if not self.is_up:
            return
        self.is_up = False
        self.life += 1
        if is_board:
            self.died_s = self.sim.now
        if is_board or (self.execution and self.execution.until_s == float("inf")):
            self.end_execution()
        elif self.execution is not None:
            self._end_orphan(self.execution)

    def _end_orphan(self, orphan: Execution) -> None:
        def end() -> None:
            if self.execution is orphan and not self.is_up:
                self.end_execution()

        self.sim.at(self.real(orphan.until_s), end)

    def pause(self, length_s: float) -> None:
        """Let nothing happen on this board for a while, though its clock goes on."""
        if not self.is_up or self.wakes_s is not None:
            return
        life, self.wakes_s = self.life, self.sim.now + length_s
        if self.execution is not None:
            self.sim.ceases(self)

        def wake() -> None:
            if self.life == life:
                self.wake()

        self.sim.at(self.wakes_s, wake)

    def wake(self) -> None:
        """Go on: first what the module wants to be first, then all that has waited."""
        self.wakes_s, self.due_s = None, float("inf")
        self.act(self.leases.tick(self.local()))
        if self.execution is not None:
            self.sim.executes(self)
        waiting, self.inbox = self.inbox, []
        for sender, body in waiting:
            self.receive(sender, body)

    def receive(self, sender: Rid, body: bytes) -> None:
        """Take a message."""
        if not self.is_up:
            return
        if self.wakes_s is not None:
            self.inbox.append((sender, body))
            return
        self.act(self.leases.receive(Kind.LEASE, sender, body, self.local()))

    def tick_at(self, due_s: float) -> None:
        """Let the module do what is due."""
        if self.is_up and self.wakes_s is None and due_s == self.due_s:
            self.due_s = float("inf")
            self.act(self.leases.tick(self.local()))

    def act(self, events: Sequence[Event]) -> None:
        """Do what the module wants."""
        for event in events:
            match event:
                case Outgoing(to=to, body=body):
                    self.sim.send(self, to, body)
                case Keep():
                    self._keep(event)
                case Observed(tock=tock):
                    self.tock = max(self.tock, tock)
                case Run():
                    self._run(event)
                case Extended(until_s=until_s):
                    if self.execution is not None:
                        self.execution.until_s = until_s
                case Stop():
                    self._stop(event)
                case Kill():
                    self.end_execution()
                    self._vouch_soon(event.ballot, 0.02)
        self._schedule()

    def _schedule(self) -> None:
        deadline = self.leases.next_deadline() if self.is_up else None
        if deadline is None or self.wakes_s is not None:
            return
        due_s = max(self.real(deadline) + 1e-6, self.sim.now)
        if due_s < self.due_s:
            self.due_s = due_s
            self.sim.at(due_s, lambda: self.tick_at(due_s))

    def _keep(self, keep: Keep) -> None:
        life = self.life

        def done() -> None:
            if self.life == life:
                self.memory = keep.kept
                number = keep.number
                if number is not None:
                    self.later(0.0, lambda: self.act(self.leases.kept(number, self.local())))

        self.sim.at(self.sim.now + self.sim.random.uniform(0.001, 0.03), done)

    def later(self, pause_s: float, call: Callable[[], None]) -> None:
        """Call something in this life of the server, when the board is awake."""
        life = self.life

        def due() -> None:
            if self.life != life:
                return
            if self.wakes_s is not None:
                self.sim.at(self.wakes_s + 1e-3, due)
                return
            call()

        self.sim.at(self.sim.now + pause_s, due)

    # --- the job ------------------------------------------------------------------------------

    def _run(self, run: Run) -> None:
        self.execution = Execution(run, self.rid, run.until_s)
        self.tock = max(self.tock, run.fence) + self.sim.random.randrange(5)
        self.sim.started(self, run)
        self.sim.executes(self)

    def _stop(self, stop: Stop) -> None:
        random = self.sim.random
        if random.random() < self.sim.faults.stubborn:
            return  # it does not listen, and is killed in the end
        ballot = stop.ballot

        def ended() -> None:
            self.end_execution(ballot)
            self._vouch_soon(ballot, 0.02)

        self.later(random.uniform(0.02, 0.3), ended)

    def die(self) -> None:
        """Let the job's process die; the server notices and vouches for that."""
        if self.execution is not None and self.is_up and self.wakes_s is None:
            ballot = self.execution.run.ballot
            self.end_execution()
            self._vouch_soon(ballot, 0.05)

    def _vouch_soon(self, ballot: int, pause_s: float) -> None:
        rid = self.rid
        self.later(pause_s, lambda: self.vouch(rid, ballot))

    def vouch(self, rid: Rid, ballot: int) -> None:
        """Say that the job is dead."""
        if self.execution is None:
            word = Vouched(self.sim.want.job, rid, ballot, f"serial of {self.name}")
            self.act(self.leases.vouched(word, self.local()))

    def end_execution(self, ballot: int | None = None) -> None:
        """Have the job dead."""
        if self.execution is None or ballot not in (None, self.execution.run.ballot):
            return
        self.execution = None
        self.sim.ceases(self)


@dataclass
class LeaseSim:
    """Some boards that share one job.

    Attributes:
        seed: What everything is drawn from.
        nodes: How many boards.
        voters: How many of them grant at first.
        mode: What is promised.
        faults: What goes wrong.
        lease_ms: How long a lease is.
        is_wanted: The boards want the job from the beginning.
    """

    seed: int
    nodes: int = 5
    voters: int = 3
    mode: Mode = Mode.QUORUM
    faults: LeaseFaults = field(default_factory=LeaseFaults)
    lease_ms: int = LEASE_DEFAULT_MS
    is_wanted: bool = True

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.now = 0.0
        self.starts: list[tuple[float, str]] = []
        self.held_s = 0.0
        self.sent_count = 0
        self.changes = 0
        self.loads: dict[str, float] = {}
        self._fence = 0
        self._since_s = 0.0
        self._executing: set[str] = set()
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sides: dict[str, int] = {}
        self._fates: dict[str, Callable[[Board], None]] = {
            "crash": self._fate_crash,
            "restart": self._fate_restart,
            "pause": self._fate_pause,
            "sleep": self._fate_sleep,
            "split": self._fate_split,
            "heal": self._fate_heal,
            "voters": self._fate_voters,
            "hand_over": self._fate_hand_over,
            "job_dies": self._fate_job_dies,
            "power": self._fate_power,
            "want": self._fate_want,
            "drain": self._fate_drain,
        }
        names = [f"n{number}" for number in range(self.nodes)]
        self.first = View(first_voters(names[: self.voters], lease_ms=self.lease_ms))
        self.want = Want("job", GROUP, self.mode)
        self.loads = dict.fromkeys(names, 0.0)
        self.boards = {name: Board(self, name) for name in names}
        for board in self.boards.values():
            board.start(is_boot=True)
        self._next_fate()

    # --- time ---------------------------------------------------------------------------------

    def at(self, time: float, call: Callable[[], None]) -> None:
        """Call something at a time."""
        heapq.heappush(self._events, (time, next(self._order), call))

    def run_until(self, end: float) -> None:
        """Let time pass."""
        events = self._events
        while events and events[0][0] <= end:
            self.now, _, call = heapq.heappop(events)
            call()
        self.now = end

    def run_until_held(self, limit_s: float) -> float:
        """Let time pass until some board executes the job; return how long that took."""
        start = self.now
        while not self._executing and self._events and self.now < start + limit_s:
            self.now, _, call = heapq.heappop(self._events)
            call()
        return self.now - start

    def run_until_other(self, name: str, limit_s: float) -> float:
        """Let time pass until some other board executes the job; return how long that took."""
        start = self.now
        while not self._executing - {name} and self._events and self.now < start + limit_s:
            self.now, _, call = heapq.heappop(self._events)
            call()
        return self.now - start

    # --- the oracle ---------------------------------------------------------------------------

    @property
    def executing(self) -> set[str]:
        """The boards that execute the job at this moment."""
        return set(self._executing)

    @property
    def holder(self) -> Board | None:
        """The board that executes the job, if it is one."""
        return self.boards[next(iter(self._executing))] if len(self._executing) == 1 else None

    def executes(self, board: Board) -> None:
        """Take note that a board executes the job from now on."""
        if not self._executing:
            self._since_s = self.now
        self._executing.add(board.name)
        if self.mode is Mode.QUORUM and len(self._executing) > 1:
            raise Overlap(f"seed {self.seed}, {self.now:.3f} s: {sorted(self._executing)}")

    def ceases(self, board: Board) -> None:
        """Take note that a board does not execute it any more."""
        if board.name in self._executing:
            self._executing.discard(board.name)
            if not self._executing:
                self.held_s += self.now - self._since_s

    def started(self, board: Board, run: Run) -> None:
        """Take note that a board has begun to hold the lease."""
        self.starts.append((self.now, board.name))
        if self.mode is Mode.QUORUM and run.fence <= self._fence:
            told = f"fence {run.fence} after {self._fence}"
            raise Overlap(f"seed {self.seed}, {self.now:.3f} s: {told}")
        self._fence = max(run.fence, self._fence)

    # --- the network --------------------------------------------------------------------------

    def send(self, sender: Board, to: str | None, body: bytes) -> None:
        """Carry a message, or lose it."""
        names = [to] if to is not None else [name for name in self.boards if name != sender.name]
        random, faults, rid = self.random, self.faults, sender.rid
        for name in names:
            if name not in self.boards:
                continue
            self.sent_count += 1
            draw = random.random()
            if draw < faults.loss or self._is_cut(rid.node, name):
                continue
            for _ in range(2 if draw < faults.loss + faults.twice else 1):
                delay = 0.0005 + random.random() * 0.01
                if faults.late and random.random() < faults.late:
                    delay = random.random() * faults.late_s
                self.at(self.now + delay, self._delivery(rid, self.boards[name], body))

    def _delivery(self, sender: Rid, to: Board, body: bytes) -> Callable[[], None]:
        def deliver() -> None:
            if to.is_up and not self._is_cut(sender.node, to.name):
                to.receive(sender, body)

        return deliver

    def _is_cut(self, one: str, other: str) -> bool:
        return self._sides.get(one, 0) != self._sides.get(other, 0)

    def split(self, sides: dict[str, int]) -> None:
        """Cut the network; nodes that are not named are on side 0."""
        self._sides = sides
        for one, other in itertools.permutations(self.boards, 2):
            if sides.get(one, 0) != sides.get(other, 0):
                self._will(one, self.boards[other])

    def heal(self) -> None:
        """Mend the network."""
        self._sides = {}

    def disconnect(self, name: str) -> None:
        """Cut one board off, and let it know."""
        self.split({name: 1})
        board = self.boards[name]
        board.leases.disconnected(board.local())

    def reconnect(self) -> None:
        """Mend the network, and let all know."""
        self.heal()
        for board in self.boards.values():
            if board.is_up and board.wakes_s is None:
                board.act(board.leases.connected(board.local()))

    def _will(self, dead: str, to: Board) -> None:
        def told() -> None:
            to.act(to.leases.gone(dead, to.local()))

        if to.is_up:
            to.later(self.random.uniform(0, _WILL_MAX_S), told)

    def crash(self, board: Board, *, back_s: float, will_s: float | None = None) -> None:
        """Cut a board's power, and give it back."""
        board.crash(is_board=True)
        for other in self.boards.values():
            if other is not board and will_s is None:
                self._will(board.name, other)
            elif other is not board and other.is_up and will_s is not None:
                other.later(will_s, self._told_gone(board.name, other))
        self.at(self.now + back_s, lambda: board.start(is_boot=True))

    def _told_gone(self, dead: str, to: Board) -> Callable[[], None]:
        return lambda: to.act(to.leases.gone(dead, to.local()))

    # --- users --------------------------------------------------------------------------------

    def all_want(self) -> None:
        """Let all boards want the job."""
        for board in self.boards.values():
            board.is_wanted = True
            if board.is_up and board.wakes_s is None:
                board.act(board.leases.want(self.want, board.local()))

    def change_voters(self, by: Board, nodes: Sequence[str]) -> None:
        """Let a user change the voters."""
        self.changes += 1
        by.leases.propose(GROUP, nodes, self.lease_ms, by.local())
        by.act([])

    @property
    def epoch(self) -> int:
        """Of the voters."""
        views = [board.leases.view(GROUP) for board in self.boards.values()]
        return max(view.voters.epoch for view in views if view is not None)

    def calm_down(self) -> None:
        """Let nothing go wrong any more; all boards want the job."""
        self.faults = CALM
        self.reconnect()
        self.all_want()

    # --- fate ---------------------------------------------------------------------------------

    def _next_fate(self) -> None:
        if not self.faults.every_s:
            return
        pause_s = self.random.expovariate(1 / self.faults.every_s)

        def strike() -> None:
            if not self.faults.every_s:
                return
            name = self.random.choice(self.faults.fates)
            self._fates[name](self._victim())
            self._next_fate()

        self.at(self.now + pause_s, strike)

    def _victim(self) -> Board:
        """Return a board, often the one that matters."""
        holder = self.holder
        if holder is not None and self.random.random() < 0.5:
            return holder
        return self.random.choice(list(self.boards.values()))

    def _fate_crash(self, board: Board) -> None:
        self.crash(board, back_s=self.random.choice((0.5, 2.0, 8.0, 40.0)))

    def _fate_restart(self, board: Board) -> None:
        board.crash(is_board=False)
        again_s = self.random.uniform(0.1, 4)
        self.at(self.now + again_s, lambda: board.start(is_boot=False))

    def _fate_pause(self, board: Board) -> None:
        board.pause(self.random.uniform(0.1, 8))

    def _fate_sleep(self, board: Board) -> None:
        board.pause(self.random.uniform(5, 120))

    def _fate_split(self, board: Board) -> None:
        count = self.random.choice((2, 2, 3))
        self.split({name: self.random.randrange(count) for name in self.boards})

    def _fate_heal(self, board: Board) -> None:
        self.heal()

    def _fate_voters(self, board: Board) -> None:
        if board.is_up and board.wakes_s is None:
            count = min(self.random.choice((3, 3, 4, 5)), self.nodes)
            self.change_voters(board, self.random.sample(sorted(self.boards), count))

    def _fate_hand_over(self, board: Board) -> None:
        if board.is_up and board.wakes_s is None:
            board.act(board.leases.hand_over("job", board.local()))

    def _fate_job_dies(self, board: Board) -> None:
        board.die()

    def _fate_power(self, board: Board) -> None:
        if self.random.random() < 0.8:
            return
        back_s = self.random.uniform(0.1, 3)
        for one in self.boards.values():
            self.crash(one, back_s=back_s + self.random.random())

    def _fate_want(self, board: Board) -> None:
        if not board.is_up or board.wakes_s is not None:
            return
        board.is_wanted = not board.is_wanted or self.random.random() < 0.5
        if board.is_wanted:
            board.act(board.leases.want(self.want, board.local()))
        else:
            board.act(board.leases.unwant("job", board.local()))

    def _fate_drain(self, board: Board) -> None:
        if board.is_up and board.wakes_s is None:
            board.act(board.leases.drain(board.local(), is_draining=True))

            def again() -> None:
                board.act(board.leases.drain(board.local(), is_draining=False))
                if board.is_wanted:
                    board.act(board.leases.want(self.want, board.local()))

            board.later(20.0, again)


def main(words: Sequence[str]) -> None:
    """Run one seed and tell how it went."""
    seed = int(words[0])
    hours = float(words[1]) if len(words) > 1 else 1.0
    nodes = int(words[2]) if len(words) > 2 else 5
    voters = int(words[3]) if len(words) > 3 else 3
    sim = LeaseSim(seed, nodes=nodes, voters=voters)
    sim.run_until(hours * 3600)
    held = sim.held_s / sim.now
    sys.stdout.write(
        f"seed {seed}: {hours} h, {len(sim.starts)} leases, held {held:.1%} of the time, "
        f"{sim.changes} attempts to change voters, {sim.sent_count} messages\n"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
