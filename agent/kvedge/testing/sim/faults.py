"""What goes wrong in a simulation, how often, and how that is said on a command line."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, slots=True)
class Faults:
    """Chances, per message or per operation of a user, but where something else is said.

    Attributes:
        loss: A message is lost.
        twice: It comes twice.
        late: It takes up to `late_s` instead of milliseconds.
        late_s: How late that is.
        split: Two nodes are cut off from each other, one way or both; or all splits end.
        crash: A board loses power, now or between two operations of its disk.
        leave: A server ends in good order, and is started again.
        broker: The broker is started again and has forgotten all.
        wrong: Per node: its clock is wrong or not set at the start, drifts, or starts in 1970
            whenever it gets power.
        step: A clock steps, is set, or is lost.
        ahead: It steps a day ahead.
        snapshot: A board shortens its journal, early.
        slow: A watcher gets slow, or is quick again.
        join: Per run: the last node is added while the others are at work.
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
    leave: float = 0.002
    broker: float = 0.003
    wrong: float = 0.6
    step: float = 0.003
    ahead: float = 0.0
    snapshot: float = 0.003
    slow: float = 0.01
    join: float = 0.3
    full: float = 0.0
    flip: float = 0.0
    image: float = 0.0
    expire: float = 0.0
    forget: float = 0.0


HARSH = Faults(full=0.01, flip=0.002, image=0.003, expire=0.002, forget=0.002)
"""What cards, people and cosmic rays do on top of what networks do."""

ROUGH = Faults(loss=0.3, twice=0.2, late=0.3, split=0.05, crash=0.02)
"""A network that hardly works."""

DARK = Faults(loss=0.9, crash=0.05)
"""Boards lose power often, and mostly before anybody has heard of their writes."""

CLOCKS = Faults(wrong=1.0, step=0.03, ahead=0.003)
"""Clocks that nobody should trust."""

QUIET = Faults(**{field.name: 3.0 if field.name == "late_s" else 0.0 for field in fields(Faults)})
"""Nothing goes wrong by itself."""

PRESETS = {
    "default": Faults(),
    "harsh": HARSH,
    "rough": ROUGH,
    "dark": DARK,
    "clocks": CLOCKS,
    "quiet": QUIET,
}


def faults_text(faults: Faults) -> str:
    """Return the words that `read_faults` makes the same faults of."""

    def differing(preset: Faults) -> list[str]:
        names = [field.name for field in fields(Faults)]
        changed = [name for name in names if getattr(faults, name) != getattr(preset, name)]
        return [f"{name}={getattr(faults, name)!r}" for name in changed]

    found = [(name, differing(preset)) for name, preset in PRESETS.items()]
    name, changed = min(found, key=lambda one: len(one[1]))
    return ",".join((name, *changed))


def read_faults(text: str) -> Faults:
    """Return the faults that a text names: a preset, and what differs from it.

    >>> read_faults("rough,crash=0.5") == replace(ROUGH, crash=0.5)
    True

    Raises:
        ValueError: It names something else.
    """
    name, *changes = text.split(",")
    if name not in PRESETS:
        raise ValueError(f"{name} is none of {', '.join(PRESETS)}")
    changed = {}
    for change in changes:
        what, _, number = change.partition("=")
        if what not in Faults.__slots__:
            raise ValueError(f"{what} is no fault")
        changed[what] = float(number)
    return replace(PRESETS[name], **changed)
