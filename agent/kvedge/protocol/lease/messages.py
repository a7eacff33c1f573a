"""What servers say to each other about leases: the bodies of messages of the kind LEASE.

Each is an array: its verb, then its fields in the order of its class.  What comes in is checked
in full, one predicate per field; `None` in the table of a field stands for a nested one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from kvedge.errors import RemoteProtocolError
from kvedge.model.stamp import TOCK_MAX, Rid
from kvedge.model.value import packb
from kvedge.protocol.batches import INCARNATION_MAX, read_body
from kvedge.protocol.lease.voters import (
    COUNTER_MAX,
    VOTERS_MAX,
    Number,
    Proposal,
    Stamp,
    View,
    Voters,
)

NAME_MAX_BYTES = 2048
"""Of a job, a group, a node or a board: more than any path."""

_NUMBER_MAX = (1 << 53) - 1
_LEASE_MAX_MS = 600_000


class Look(NamedTuple):
    """Is this job's lease free?"""

    job: str
    group: str


class Ask(NamedTuple):
    """Grant me the lease of a job, or renew it.

    Attributes:
        job: Which.
        group: Of the job.
        ballot: Rises with each attempt of this server to get the lease.
        round: Rises with each question of a ballot.
        stamp: The list of voters that is counted.
        fence: The holder's; 0 while it is not known yet.
        lease_ms: For how long.
        serial: Of the board that asks.
    """

    job: str
    group: str
    ballot: int
    round: int
    stamp: Stamp
    fence: int
    lease_ms: int
    serial: str


class Grant(NamedTuple):
    """You have mine.  No smaller tock than this one has been seen here."""

    job: str
    ballot: int
    round: int
    tock: int


class Held(NamedTuple):
    """The lease is not free.

    Attributes:
        job: Which.
        ballot: Of the question; 0 answers a look.
        left_ms: For how long; 0: it is free.
        is_firm: Somebody holds it, or nothing may be granted so soon after a start.  Otherwise
            somebody tries to get it, and may give up at any moment.
    """

    job: str
    ballot: int
    left_ms: int
    is_firm: bool


class Release(NamedTuple):
    """The lease that was granted under this ballot is not needed any more.

    Attributes:
        job: Which.
        rid: Who held it, perhaps in a former life of the server.
        ballot: Under which number.
        serial: Of the board that vouches for it.
        heir: Who should have it next; None: whoever comes first.
        was_held: It was more than an attempt, so others wait for it.
    """

    job: str
    rid: Rid
    ballot: int
    serial: str
    heir: str | None
    was_held: bool


class Released(NamedTuple):
    """That was heard."""

    job: str
    ballot: int


class Free(NamedTuple):
    """The lease that you looked for was released."""

    job: str
    heir: str | None


class Told(NamedTuple):
    """This is what I know of a group's voters."""

    group: str
    view: View


class Prepare(NamedTuple):
    """Promise to accept no earlier attempt to change the voters than mine."""

    group: str
    base: View
    number: Number


class Promise(NamedTuple):
    """I do.  This is what I have accepted before."""

    group: str
    number: Number
    accepted: Proposal | None


class Accept(NamedTuple):
    """Accept new voters."""

    group: str
    base: View
    proposal: Proposal


class Accepted(NamedTuple):
    """I have, durably; no fence that I know of is larger than this tock."""

    group: str
    number: Number
    tock: int


class Beaten(NamedTuple):
    """I have promised myself to a later attempt."""

    group: str
    number: Number
    promised: Number


class Claim(NamedTuple):
    """I am about to run this job (`Mode.ISLAND`)."""

    job: str
    rank: int


class Hold(NamedTuple):
    """I run this job (`Mode.ISLAND`); a fence of 0: not any more."""

    job: str
    fence: int


Message = (
    Look
    | Ask
    | Grant
    | Held
    | Release
    | Released
    | Free
    | Told
    | Prepare
    | Promise
    | Accept
    | Accepted
    | Beaten
    | Claim
    | Hold
)

Check = Callable[[Any], Any]


def _number(largest: int) -> Check:
    def check(given: Any) -> int:
        _require(type(given) is int and 0 <= given <= largest)
        return int(given)

    return check


def _name(given: Any) -> str:
    _require(isinstance(given, str) and 0 < len(given) <= NAME_MAX_BYTES)
    return str(given)


def _flag(given: Any) -> bool:
    _require(isinstance(given, bool))
    return bool(given)


def _maybe(check: Check) -> Check:
    return lambda given: None if given is None else check(given)


def _parts(make: Callable[..., Any], *checks: Check) -> Check:
    def check(given: Any) -> Any:
        _require(isinstance(given, tuple) and len(given) >= len(checks))
        return make(*(check(part) for check, part in zip(checks, given, strict=False)))

    return check


def _nodes(given: Any) -> tuple[str, ...]:
    _require(isinstance(given, tuple) and 0 < len(given) <= VOTERS_MAX)
    found = tuple(_name(node) for node in given)
    _require(len(set(found)) == len(found))
    return found


def _rank(given: Any) -> Any:
    _require(isinstance(given, tuple) and len(given) == 3)
    return _number(_NUMBER_MAX)(given[0]), _number(COUNTER_MAX)(given[1]), _text(given[2])


def _text(given: Any) -> str:
    _require(isinstance(given, str) and len(given) <= NAME_MAX_BYTES)
    return str(given)


def _require(condition: bool) -> None:  # noqa: FBT001 -- reads as a sentence
    if not condition:
        raise RemoteProtocolError("a server's message about leases is wrong")


def _checked(check: Check, given: Any) -> Any:
    return check(given)


_COUNT, _TOCK = _number(_NUMBER_MAX), _number(TOCK_MAX)
_LEASE = _number(_LEASE_MAX_MS)
_VOTERS = _parts(Voters, _COUNT, _nodes, _LEASE)
_TRY = _parts(Number, _number(COUNTER_MAX), _text)
_PROPOSAL = _parts(Proposal, _TRY, _VOTERS)
_VIEW = _parts(View, _VOTERS, _maybe(_VOTERS), _TOCK, _maybe(_PROPOSAL))
_RID = _parts(Rid, _name, _number(INCARNATION_MAX))

_TABLE: tuple[tuple[Callable[..., Message], tuple[Check, ...]], ...] = (
    (Look, (_name, _name)),
    (Ask, (_name, _name, _COUNT, _COUNT, _rank, _TOCK, _LEASE, _name)),
    (Grant, (_name, _COUNT, _COUNT, _TOCK)),
    (Held, (_name, _COUNT, _COUNT, _flag)),
    (Release, (_name, _RID, _COUNT, _name, _maybe(_name), _flag)),
    (Released, (_name, _COUNT)),
    (Free, (_name, _maybe(_name))),
    (Told, (_name, _VIEW)),
    (Prepare, (_name, _VIEW, _TRY)),
    (Promise, (_name, _TRY, _maybe(_PROPOSAL))),
    (Accept, (_name, _VIEW, _PROPOSAL)),
    (Accepted, (_name, _TRY, _TOCK)),
    (Beaten, (_name, _TRY, _TRY)),
    (Claim, (_name, _COUNT)),
    (Hold, (_name, _TOCK)),
)
_VERBS: dict[Any, int] = {make: verb for verb, (make, _) in enumerate(_TABLE)}


def packed(message: Message) -> bytes:
    """Return the body of a message."""
    return packb((_VERBS[type(message)], *message))


def read(body: bytes) -> Message | None:
    """Return what a body says; None for a verb of a newer minor version.

    Raises:
        RemoteProtocolError: It is wrong.
    """
    verb, *fields = read_body(body, 1)
    _require(type(verb) is int and verb >= 0)
    if verb >= len(_TABLE):
        return None
    make, checks = _TABLE[verb]
    _require(len(fields) >= len(checks))
    message: Message = make(*map(_checked, checks, fields))
    return message
