"""What goes wrong in a simulation, and how often."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Faults:
    """Chances, per message or per operation of a user.

    Attributes:
        loss: A message is lost.
        twice: It comes twice.
        late: It takes up to `late_s` instead of milliseconds.
        late_s: How late that is.
        split: Two nodes are cut off from each other, one way or both; or all splits end.
        crash: A board loses power, now or between two operations of its disk.
        broker: The broker is started again and has forgotten all.
        step: A clock steps, is set, or is lost.
        snapshot: A board shortens its journal, early.
        full: A disk fills up, turns read-only or fails a sync; or is well again.
        flip: A board loses power and comes back with a bit flipped.
        image: A board is restored from an image of itself.
        expire: A board is expired by hand.
        forget: An entry vanishes from a board's memory.
    """

    loss: float = 0.05
    twice: float = 0.05
    late: float = 0.05
    late_s: float = 3.0
    split: float = 0.01
    crash: float = 0.005
    broker: float = 0.003
    step: float = 0.003
    snapshot: float = 0.003
    full: float = 0.0
    flip: float = 0.0
    image: float = 0.0
    expire: float = 0.0
    forget: float = 0.0


HARSH = Faults(full=0.01, flip=0.002, image=0.003, expire=0.002, forget=0.002)
"""What cards, people and cosmic rays do on top of what networks do."""
