"""Where servers keep in the tree what they know of each other: members, and changes that lost.

:n.member.NODE               state of a member; no entry, no member
:.kv.conflict.NODE.NUMBER    a change of NODE that lost against a concurrent one
"""

from kvedge.model.path import KV, SYSTEM

MEMBERS = SYSTEM / "member"
CONFLICTS = KV / "conflict"
