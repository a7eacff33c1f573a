"""Leases: the right to run a job of a group, on one of its nodes.

Leases are granted by **voters**, servers that the group has named.  A majority of them can be
bound to one holder alone, so two holders cannot be; a side of a split that has no majority stops
its jobs.  A runner holds through its own server.  Who cannot have three voters may run a job on
each side of a split (`Mode.ISLAND`).

    terms.py        durations, modes, what the owner is told
    voters.py       lists of voters, what is a quorum      electorate.py   changing them
    granting.py     the voter                              contest.py      who wants to hold
    island.py       without voters                         messages.py     what is said
    leases.py       all of a server's part, for its owner

Sans-IO: times are seconds of CLOCK_BOOTTIME, which counts suspends, and are handed in; so are
random numbers.  What is promised holds where clocks run up to 1 % wrong, messages are lost,
doubled and late, boards crash, pause and sleep, and voters are changed meanwhile.  It does not
hold where a voter forgets what it has kept: a board whose card was restored or copied has to be
kept out of the lists until it was made a voter anew.
"""

from kvedge.protocol.lease.leases import Leases
from kvedge.protocol.lease.terms import (
    LEASE_DEFAULT_MS,
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
)
from kvedge.protocol.lease.voters import View, Voters, first_voters

__all__ = [
    "LEASE_DEFAULT_MS",
    "Changed",
    "Event",
    "Extended",
    "Keep",
    "Kill",
    "Leases",
    "Memory",
    "Mode",
    "Observed",
    "Run",
    "Stop",
    "View",
    "Voters",
    "Vouched",
    "Want",
    "Why",
    "first_voters",
]
