"""What servers say to each other: the kinds of messages, and one that is to be sent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Kind(IntEnum):
    """What a message is."""

    UPDATE = 1
    """New records of the sender."""
    DIGEST = 2
    """What the sender has seen and holds, as hashes."""
    ASK = 3
    """A question for what the asker lacks."""
    GIVE = 4
    """A part of the answer."""
    WANT = 5
    """A question for an announcement."""
    VECTOR = 6
    """An announcement: what the sender has on its disk."""
    VERDICT = 7
    """What the receiver's announcement came to."""
    BUCKETS = 8
    """The digests of the sender's buckets, for one who has seen the same and holds other."""
    AHEAD = 9
    """The receiver's records are ahead of the sender's clock, and are held."""
    CALL = 10
    """The sender wants something done, once."""
    ANSWER = 11
    """What came of it."""
    LEASE = 12
    """About leases and those who grant them; see `kvedge.protocol.lease`."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send.

    Attributes:
        kind: What it is.
        to: Whom; None for everybody.
        body: Its packed parts.
    """

    kind: Kind
    to: str | None
    body: bytes
