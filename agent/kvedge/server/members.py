"""Members as the tree has them: entries `:n.member.NODE`, to records and back.

{"state": "member" | "expired", "since": incarnation, "by": node, "reason": text}
"""

from __future__ import annotations

from kvedge.model import places
from kvedge.model.path import elements_of
from kvedge.model.value import Missing, packb, unpack
from kvedge.protocol.membership import Record, State

MEMBERS = places.MEMBERS.key
"""Where the keys of members begin."""

_STATES = {"member": State.MEMBER, "expired": State.EXPIRED}
_NAMES = {state: name for name, state in _STATES.items()}


def member_entry(node: str, record: Record, *, by: str, reason: str) -> tuple[bytes, bytes]:
    """Return key and packed value of a member's entry."""
    value = {
        "state": _NAMES[record.state],
        "since": record.since,
        "by": by,
        "reason": reason,
    }
    return (places.MEMBERS / node).key, packb(value)


def read_member(key: bytes, value: bytes | Missing) -> tuple[str | None, Record | None]:
    """Return which node an entry speaks of and what it says; None where it says nothing.

    Whoever may write system data may write nonsense; that is as if there were no entry.
    """
    elements = elements_of(key)
    node = elements[2] if len(elements) == 3 else None
    if not isinstance(node, str):
        return None, None
    fields = None if isinstance(value, Missing) else unpack(value)
    if not isinstance(fields, dict) or fields.get("state") not in _STATES:
        return node, None
    since = fields.get("since", 0)
    return node, Record(_STATES[fields["state"]], since if type(since) is int else 0)
