"""The broadcast in memory, with a broker that loses, repeats, reorders and delays on request.

Nothing runs by itself: whoever owns it asks for `next_deadline` and calls `advance`.  Time is a
number that begins at 0, and all chance comes from one generator, so a seed repeats a run exactly.

A message to several is several copies with a fate each.  Copies from one sender to one receiver
arrive in order, as with MQTT, unless a fault says otherwise.  A copy belongs to the connection of
its receiver: what is under way when that ends never arrives.  Handlers are called from `advance`
alone, so `publish` may be called from anywhere.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kvedge import limits
from kvedge.transport.broadcast import Counts, Message, Participant, Parting, matches

if TYPE_CHECKING:
    from random import Random

_BROKER_GONE = "the broker is gone"
_CONNECTION_CUT = "the connection was cut"


@dataclass(frozen=True, slots=True)
class Faults:
    """What may happen to each copy of a message.

    Attributes:
        loss: Probability that it does not arrive.
        duplication: Probability that it arrives twice.
        reordering: Probability that others may overtake it, for up to `reordering_max_s`.
        reordering_max_s: How long it may then take.
        delay_min_s: Shortest way; above 0, so that answers to answers take time.
        delay_max_s: Longest way, order kept.
        queue_max: Copies under way to one receiver; further ones are lost, as at a slow reader.
        retry_min_s: Shortest pause before a client connects again.
        retry_max_s: Longest.
    """

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    reordering_max_s: float = 1.0
    delay_min_s: float = 0.0002
    delay_max_s: float = 0.0005
    queue_max: int = limits.BROADCAST_WAITING_MAX
    retry_min_s: float = 0.2
    retry_max_s: float = 1.5

    def __post_init__(self) -> None:
        """Refuse what would make time stand still."""
        assert 0 < self.delay_min_s <= self.delay_max_s
        assert 0 < self.retry_min_s <= self.retry_max_s


class Loopback:
    """A broker, its clients and the network between them.

    Attributes:
        faults: May be replaced at any time; copies under way keep their fate.
        now_s: The time, in seconds since the beginning.
    """

    def __init__(self, random: Random, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.now_s = 0.0
        self.random = random
        self._is_up = True
        self._clients: list[LoopbackBroadcast] = []
        self._blocked: set[tuple[str, str]] = set()  # asked, never iterated: its order is chance
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()  # events of the same time happen in this order

    # --- time --------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return when something happens next; None for never."""
        return self._events[0][0] if self._events else None

    def advance(self, until_s: float) -> None:
        """Let happen what happens until then, one after the other, that moment included."""
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, happen = heapq.heappop(self._events)
            happen()
        self.now_s = max(self.now_s, until_s)

    def schedule(self, at_s: float, happen: Callable[[], None]) -> None:
        """Let something happen at a time, after all that was scheduled for it before."""
        heapq.heappush(self._events, (at_s, next(self._number), happen))

    # --- who takes part, and what goes wrong ---------------------------------------------------

    def join(self, name: str, participant: Participant) -> LoopbackBroadcast:
        """Return a client that connects in a moment.

        Args:
            name: For `block`; two clients may have the same, as cloned boards do.
            participant: Who takes part.
        """
        client = LoopbackBroadcast(self, name, participant)
        self._clients.append(client)
        client.connect_in(self.draw_delay_s())
        return client

    def block(self, sender: str, receiver: str) -> None:
        """Lose all that one sends to the other, in this direction; neither is told."""
        self._blocked.add((sender, receiver))

    def unblock(self, sender: str, receiver: str) -> None:
        """Let it pass again."""
        self._blocked.discard((sender, receiver))

    def stop_broker(self) -> None:
        """Kill the broker: all copies under way are lost, and no wills are sent."""
        self._is_up = False
        for client in list(self._clients):
            client.disconnect(_BROKER_GONE)

    def start_broker(self) -> None:
        """Start it again; the clients come back when they try."""
        self._is_up = True

    # --- for its clients ---------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether the broker runs."""
        return self._is_up

    def draw_delay_s(self) -> float:
        """Return how long a copy takes."""
        return self.random.uniform(self.faults.delay_min_s, self.faults.delay_max_s)

    def forget(self, client: LoopbackBroadcast) -> None:
        """Let a client go for good."""
        self._clients.remove(client)

    def spread(self, sender: str, message: Message) -> None:
        """Send copies to all who listen to the topic, as far as the broker runs."""
        for client in self._clients if self._is_up else ():
            if client.listens_to(message.topic) and (sender, client.name) not in self._blocked:
                self._send_copies(sender, client, message)

    def _send_copies(self, sender: str, receiver: LoopbackBroadcast, message: Message) -> None:
        faults, chance = self.faults, self.random.random
        if chance() < faults.loss:
            return
        for _ in range(2 if chance() < faults.duplication else 1):
            if chance() < faults.reordering:
                took_s = self.random.uniform(faults.delay_min_s, faults.reordering_max_s)
                receiver.expect(message, self.now_s + took_s)
            else:
                receiver.expect_in_order(sender, message, self.now_s + self.draw_delay_s())


class LoopbackBroadcast:
    """One client; implements `Broadcast`.

    Attributes:
        name: As given to `Loopback.join`.
    """

    def __init__(self, net: Loopback, name: str, participant: Participant) -> None:
        self.name = name
        self._net = net
        self._participant = participant
        self._counts = Counts()
        self._number = 0
        self._is_open = True
        self._is_connected = False
        self._reason = ""
        self._expected = 0
        self._last_s: dict[str, float] = {}  # arrival of the last copy in order, by sender

    @property
    def counts(self) -> Counts:
        """What happened so far."""
        return replace(self._counts)

    def publish(self, topic: str, payload: bytes) -> None:
        """Send to all, as `Broadcast.publish` promises."""
        message = Message(topic, payload)
        self._counts.published += 1
        if self._is_connected:
            self._net.spread(self.name, message)
        else:
            self._counts.dropped += 1

    def close(self) -> None:
        """Leave; the farewell is sent, the will is not."""
        if self._is_connected:
            self._send(self._participant.farewell, self._number)
        self._go()

    # --- faults ------------------------------------------------------------------------------

    def kill(self, *, will_after_s: float = 0.0) -> None:
        """End its process: the handler hears nothing more, the broker sends the will.

        Args:
            will_after_s: Until the broker notices; 0 where the socket is closed, else 1.5 times
                the keepalive interval.
        """
        if self._is_connected:
            self._schedule_will(will_after_s)
        self._go()

    def cut(self, *, will_after_s: float = 0.0, away_s: float = 0.0) -> None:
        """Break its connection: it is told, the broker sends the will, it connects again.

        Args:
            will_after_s: As for `kill`.
            away_s: How long at least it cannot connect.
        """
        if self._is_connected:
            self._schedule_will(will_after_s)
            self.disconnect(_CONNECTION_CUT, away_s=away_s)

    def _go(self) -> None:
        if self._is_open:
            self._is_open = self._is_connected = False
            self._net.forget(self)

    def _schedule_will(self, after_s: float) -> None:
        number = self._number
        will = self._participant.will
        self._net.schedule(self._net.now_s + after_s, lambda: self._send(will, number))

    def _send(self, parting: Parting | None, number: int) -> None:
        if parting:
            self._net.spread(self.name, parting(number))

    # --- for the net -------------------------------------------------------------------------

    def connect_in(self, wait_s: float) -> None:
        """Try to connect after a while."""
        self._net.schedule(self._net.now_s + wait_s, self._try_to_connect)

    def disconnect(self, reason: str, *, away_s: float = 0.0) -> None:
        """End the connection, and try again by and by."""
        if self._is_connected:
            self._is_connected = False
            self._net.schedule(self._net.now_s, lambda: self._tell(reason))
            self._connect_again(away_s)

    def listens_to(self, topic: str) -> bool:
        """Tell whether copies of such messages are for it."""
        return self._is_connected and any(matches(f, topic) for f in self._participant.filters)

    def expect_in_order(self, sender: str, message: Message, at_s: float) -> None:
        """Let a copy arrive, but not before the one that its sender sent before."""
        at_s = max(at_s, self._last_s.get(sender, 0.0))
        self._last_s[sender] = at_s
        self.expect(message, at_s)

    def expect(self, message: Message, at_s: float) -> None:
        """Let a copy arrive, unless too many are under way."""
        if self._expected >= self._net.faults.queue_max:
            self._counts.missed += 1
            return
        self._expected += 1
        number = self._number
        self._net.schedule(at_s, lambda: self._arrive(message, number))

    def _arrive(self, message: Message, number: int) -> None:
        if not self._is_connected or self._number != number:
            return
        self._expected -= 1
        self._counts.received += 1
        self._participant.handler.received(message.topic, message.payload)

    def _try_to_connect(self) -> None:
        if not self._is_open:
            return
        self._number += 1
        if not self._net.is_up:
            self._tell(_BROKER_GONE)
            self._connect_again()
            return
        self._is_connected = True
        self._reason = ""
        self._expected = 0
        self._last_s.clear()
        self._participant.handler.connected(self._number)

    def _connect_again(self, away_s: float = 0.0) -> None:
        faults = self._net.faults
        pause_s = self._net.random.uniform(faults.retry_min_s, faults.retry_max_s)
        self.connect_in(max(away_s, pause_s))

    def _tell(self, reason: str) -> None:
        if self._is_open and reason != self._reason:
            self._reason = reason
            self._participant.handler.disconnected(reason)
