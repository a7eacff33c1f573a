"""Best-effort messages to all: what any broadcast promises, and what both kinds need.

A broadcast loses, repeats and delays messages, and each side may be told late that the connection
is gone.  Whoever sits above repairs that (version vectors and pulls), so nothing waits here:
what cannot be sent is dropped and counted.

A connection has a running number.  It rises with each attempt, not with each success: a broker
may have taken a last will although its answer got lost, and that will must never look like one
of a later connection.  No message passes from one connection into the next.

What is published comes back to its sender where one of its filters matches: MQTT 3.1.1 cannot
prevent it, and it shows that the broker lets the node publish there.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from kvedge import limits
from kvedge.errors import BadSetting, LimitExceeded

# RabbitMQ takes `.` for `/`, NATS refuses it, and spaces; these characters pass any broker.
_TOPIC = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
_FILTER = re.compile(r"(?:(?:[A-Za-z0-9_-]+|\+)/)*(?:[A-Za-z0-9_-]+|\+|#)")


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent to all who subscribed to a topic.

    Raises:
        BadSetting: The topic is none.
        LimitExceeded: The topic or the payload is too large.
    """

    topic: str
    payload: bytes

    def __post_init__(self) -> None:
        """Refuse what a broker would refuse or change."""
        if not _TOPIC.fullmatch(self.topic):
            why = "a topic is words of letters, digits, '_' or '-', with '/' between them"
            raise BadSetting(self.topic, why)
        _check_length("topic", self.topic, limits.BROADCAST_TOPIC_MAX_CHARS, "characters")
        _check_length("payload", self.payload, limits.BROADCAST_MAX_BYTES, "bytes")


def _check_length(what: str, content: str | bytes, limit: int, unit: str) -> None:
    if len(content) > limit:
        raise LimitExceeded(f"the broadcast's {what}", actual=len(content), limit=limit, unit=unit)


def is_usable(topic: str, payload: bytes) -> bool:
    """Tell whether a message from outside keeps the rules of our own."""
    return (
        len(topic) <= limits.BROADCAST_TOPIC_MAX_CHARS
        and len(payload) <= limits.BROADCAST_MAX_BYTES
        and _TOPIC.fullmatch(topic) is not None
    )


def matches(topic_filter: str, topic: str) -> bool:
    """Tell whether a topic is one of those that a filter names.

    `+` stands for one word, `#` at the end for all that follow, none included.
    """
    wanted, words = topic_filter.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        words = words[: len(wanted)]
    return len(wanted) == len(words) and all(
        want in ("+", word) for want, word in zip(wanted, words, strict=True)
    )


class Handler(Protocol):
    """Who is told of what happens; called in the event loop, and expected to return soon."""

    def connected(self, number: int) -> None:
        """There is a connection, and all filters are subscribed to."""

    def disconnected(self, reason: str) -> None:
        """The connection is gone, or there is none; again where the reason changes."""

    def received(self, topic: str, payload: bytes) -> None:
        """A message came; never outside a connection."""


Parting = Callable[[int], Message]
"""Makes a last message from the number of the connection."""


@dataclass(frozen=True, slots=True)
class Participant:
    """Who takes part, and how.

    Attributes:
        handler: Is told of connections and messages.
        filters: Topics that are listened to; `+` and `#` as in MQTT.
        will: Sent by the broker when a connection ends without a goodbye.
        farewell: Sent last when we leave by ourselves; the will is not sent then.

    Raises:
        BadSetting: A filter is none.
    """

    handler: Handler
    filters: tuple[str, ...]
    will: Parting | None = None
    farewell: Parting | None = None

    def __post_init__(self) -> None:
        """Refuse filters that could not match."""
        for topic_filter in self.filters:
            if not _FILTER.fullmatch(topic_filter):
                raise BadSetting(
                    topic_filter, "a filter is a topic, '+' for a word, '#' at its end"
                )


@dataclass(slots=True)
class Counts:
    """What happened so far.

    Attributes:
        published: Messages that were given to `publish`.
        dropped: Of these, those that were not sent: no connection, or too many were waiting.
        received: Messages that were handed to the handler.
        missed: Messages that came in faster than they were taken.
        unusable: Messages from outside that were too large, or on a topic that is none.
    """

    published: int = 0
    dropped: int = 0
    received: int = 0
    missed: int = 0
    unusable: int = 0


class Broadcast(Protocol):
    """Messages to all, as far as they get.

    Messages of one sender mostly arrive in order.
    """

    @property
    def counts(self) -> Counts:
        """What happened so far."""
        ...

    def publish(self, topic: str, payload: bytes) -> None:
        """Send to all, now or never; does not wait, tells nothing of the outcome.

        Without a connection it is dropped.  Where too many wait the oldest are dropped.

        Raises:
            BadSetting: The topic is none.
            LimitExceeded: The topic or the payload is too large.
        """
        ...

    def close(self) -> None:
        """Leave: what waits is sent, then the farewell; the handler hears nothing more."""
        ...


class Sized(Protocol):
    """What has a payload."""

    @property
    def payload(self) -> bytes:
        """The bytes that count."""
        ...


SizedT = TypeVar("SizedT", bound=Sized)


class Backlog(Generic[SizedT]):
    """Messages that wait, bounded by number and bytes; the oldest are dropped for a new one.

    Attributes:
        dropped: How many were.
    """

    def __init__(
        self,
        *,
        count_max: int = limits.BROADCAST_WAITING_MAX,
        size_max_bytes: int = limits.BROADCAST_WAITING_MAX_BYTES,
    ) -> None:
        self._waiting: deque[SizedT] = deque()
        self._size_bytes = 0
        self._count_max = count_max
        self._size_max_bytes = size_max_bytes
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, item: SizedT) -> None:
        """Add the newest."""
        self._waiting.append(item)
        self._size_bytes += len(item.payload)
        while len(self) > self._count_max or self._size_bytes > self._size_max_bytes:
            self.take()
            self.dropped += 1

    def take(self) -> SizedT:
        """Remove the oldest and return it."""
        item = self._waiting.popleft()
        self._size_bytes -= len(item.payload)
        return item

    def take_all(self) -> Iterator[SizedT]:
        """Remove one after the other, those included that are put meanwhile."""
        while self._waiting:
            yield self.take()

    def clear(self) -> None:
        """Drop all."""
        self.dropped += len(self)
        self._waiting.clear()
        self._size_bytes = 0
