"""Where servers keep in the tree what they know of each other, and of who may write what.

:n.member.NODE               state of a member; no entry, no member
:n.home.PATH                 which node makes all writes at PATH and below
:n.fence.JOB                 the highest fence of a job that was used
:.kv.conflict.NODE.NUMBER    a change of NODE that lost against a concurrent one
"""

from kvedge.model.path import KV, SYSTEM

MEMBERS = SYSTEM / "member"
CONFLICTS = KV / "conflict"
HOMES = SYSTEM / "home"
FENCES = SYSTEM / "fence"
