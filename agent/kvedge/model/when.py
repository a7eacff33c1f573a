"""Words for times, as "12 hr", "2 tue", "-1 fri" or "6 month 1 d 8 h": when do they match next?

The words are those of MoaT.  Each pair of a number and a unit must match; what is left out may be
anything, but what is finer than all that is named is zero.  So "8 hr" begins to match at 08:00:00
of each day, "30 min" half past each hour, and "1 month" when January begins.

Days are counted by the calendar, so a zone with daylight saving asks for two rules:

- A time that names its hour, or no time of day at all, comes once on each of its days: where the
  clock skips it, at the moment of the skip; where the clock shows it twice, the first time.
- A time that names no hour ("30 min") comes once in each hour that really passes: where the clock
  skips it, not at all; where the clock shows it twice, twice.

Nothing here asks the time or reads a zone: both come with the `datetime` that is handed in.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo

from kvedge.errors import BadSetting
from kvedge.limits import TIME_WORDS_AHEAD_MAX_YEARS

_NUMBER = re.compile(r"-?\d{1,4}", re.ASCII)
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
_HOUR_S = 3600
_MINUTE_S = 60
_EXAMPLE = "write them as in '8 hr', '2 tue 9 hr' or '6 month 1 d'"


@dataclass(frozen=True, slots=True)
class _Unit:
    """A unit: its words, and what may be counted in it."""

    words: tuple[str, ...]
    low: int
    high: int
    has_end: bool = True  # negative numbers count from the end of the next larger unit


UNITS = {
    "year": _Unit(("yr", "year", "years", "y"), 1970, 9998, has_end=False),
    "month": _Unit(("month", "months"), 1, 12),
    "week": _Unit(("wk", "week", "weeks", "w"), 1, 53),
    "day": _Unit(("d", "dy", "day", "days"), 1, 31),
    "hour": _Unit(("hr", "h", "hour", "hours"), 0, 23),
    "minute": _Unit(("min", "minute", "minutes"), 0, 59),
    "second": _Unit(("sec", "s", "second", "seconds"), 0, 59),
}
_UNIT_OF = {word: name for name, unit in UNITS.items() for word in unit.words}
_NTH = _Unit((), 1, 5)
_FIXED = ("month", "hour", "minute", "second")  # as long in every year and on every day

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WEEKDAY_OF = {
    word: number for number, day in enumerate(_WEEKDAYS) for word in (day, day[:3], day[:2])
}
_AMBIGUOUS = {"m": "month or min", "mo": "mon or month"}


@dataclass(frozen=True, slots=True)
class When:
    """A pattern of times; None matches anything.

    Attributes:
        year: Gregorian year.
        month: 1 to 12.
        week: Number of the ISO week, 1 to 53; negative ones from the end of its year.
        day: Day of the month; negative ones from its end.
        weekday: 0 for Monday.
        nth: Which one of these weekdays in the month; negative ones from its end.
        hour: 0 to 23.
        minute: 0 to 59.
        second: 0 to 59.
    """

    year: int | None = None
    month: int | None = None
    week: int | None = None
    day: int | None = None
    weekday: int | None = None
    nth: int | None = None
    hour: int | None = None
    minute: int | None = None
    second: int | None = None

    @classmethod
    def parse(cls, words: str | Sequence[str]) -> When:
        """Read words for a time.

        >>> When.parse("-1 fri 12 hr")
        When(weekday=4, nth=-1, hour=12)

        Raises:
            BadSetting: They are none; names the word.
        """
        text = words if isinstance(words, str) else " ".join(map(str, words))
        found: dict[str, int] = {}
        number: int | None = None
        for word in text.lower().split():
            if number is None and _NUMBER.fullmatch(word):
                number = int(word)
                continue
            for name, value in _meaning(text, word, number):
                if name in found:
                    raise BadSetting(text, f"{word}: the {name} is given twice")
                found[name] = value
            number = None
        if number is not None:
            raise BadSetting(text, f"{number}: a unit is missing behind it; {_EXAMPLE}")
        if not found:
            raise BadSetting(repr(text), f"these are no words for a time; {_EXAMPLE}")
        return cls(**found)

    def __repr__(self) -> str:
        """Return what is set."""
        fields = ((name, getattr(self, name)) for name in self.__slots__)
        given = ", ".join(f"{name}={value}" for name, value in fields if value is not None)
        return f"When({given})"

    def matches(self, moment: datetime) -> bool:
        """Tell whether a moment is one of those, by the calendar and clock of its zone."""
        return self._is_day(moment.date()) and all(
            wanted is None or wanted == found
            for wanted, found in (
                (self.hour, moment.hour),
                (self.minute, moment.minute),
                (self.second, moment.second),
            )
        )

    def next_after(self, after: datetime) -> datetime | None:
        """Return the first moment after another one at which it begins to match.

        Args:
            after: Any moment, with its zone.

        Returns:
            A moment of the same zone; None where there is none in the next
            `TIME_WORDS_AHEAD_MAX_YEARS` years.
        """
        assert after.tzinfo is not None, "a time without a zone is no moment"
        if self.hour is None and (self.minute is not None or self.second is not None):
            found = self._next_by_clock(after.astimezone(UTC), after.tzinfo)
        else:
            found = self._next_by_calendar(after, after.tzinfo)
        return None if found is None else found.astimezone(after.tzinfo)

    def end_after(self, since: datetime) -> datetime | None:
        """Return the first moment, from one on, at which it does not match.

        Returns:
            A moment of the same zone; None where it goes on beyond the next
            `TIME_WORDS_AHEAD_MAX_YEARS` years.
        """
        assert since.tzinfo is not None, "a time without a zone is no moment"
        last_year = since.year + TIME_WORDS_AHEAD_MAX_YEARS
        moment = since
        while self.matches(moment):
            if moment.year >= min(last_year, 9998):
                return None
            moment = self._end_of_part(moment).astimezone(since.tzinfo)
        return moment

    # --- days -------------------------------------------------------------------------------------

    def _is_day(self, day: date) -> bool:
        month_days = calendar.monthrange(day.year, day.month)[1]
        return (
            self.year in (None, day.year)
            and self.month in (None, day.month)
            and self.day in (None, day.day, day.day - month_days - 1)
            and self.weekday in (None, day.weekday())
            and self.nth in (None, (day.day + 6) // 7, -((month_days - day.day + 7) // 7))
            and (self.week is None or self._is_week(day))
        )

    def _is_week(self, day: date) -> bool:
        year, week, _ = day.isocalendar()
        weeks = date(year, 12, 28).isocalendar().week  # the 28th is always in the last one
        return self.week in (week, week - weeks - 1)

    def _days_from(self, first: date) -> Iterator[date]:
        """Yield the days that match, from one on; leaps over the months that do not."""
        last_year = min(first.year + TIME_WORDS_AHEAD_MAX_YEARS, 9998)
        day = first
        if self.year is not None:
            day = max(day, date(self.year, 1, 1))
            last_year = min(last_year, self.year)
        while day.year <= last_year:
            if self.month not in (None, day.month):
                day = date(day.year + day.month // 12, day.month % 12 + 1, 1)
                continue
            if self._is_day(day):
                yield day
            day += _DAY

    def _has_no_time_of_day(self) -> bool:
        return self.hour is None and self.minute is None and self.second is None

    # --- moments ----------------------------------------------------------------------------------

    def _next_by_calendar(self, after: datetime, zone: tzinfo) -> datetime | None:
        """Return the next one of those that come once on each of their days."""
        # The moment of a skip may be a day after the time that was skipped.
        for day in self._days_from(after.date() - _DAY):
            if self._has_no_time_of_day() and self._is_day(day - _DAY):
                continue  # it matches since the day before
            for moment in self._moments(day, zone):
                if moment > after:
                    return moment
        return None

    def _moments(self, day: date, zone: tzinfo) -> Iterator[datetime]:
        repeated = self.second is not None and self.minute is None
        for minute in range(60) if repeated else (self.minute or 0,):
            wall = datetime(day.year, day.month, day.day, self.hour or 0, minute, self.second or 0)  # noqa: DTZ001 -- its zone comes next
            yield _moment(wall, zone)

    def _next_by_clock(self, after: datetime, zone: tzinfo) -> datetime | None:
        """Return the next one of those that come in every hour, or in every minute."""
        period_s = _MINUTE_S if self.minute is None else _HOUR_S
        wanted_s = (self.minute or 0) * _MINUTE_S + (self.second or 0)
        moment = after.replace(microsecond=0) + _SECOND
        while True:  # each turn moves on, to a day that matches at the latest
            local = moment.astimezone(zone)
            day = next(self._days_from(local.date()), None)
            if day is None:
                return None
            if day != local.date():
                moment = _moment(datetime(day.year, day.month, day.day), zone)  # noqa: DTZ001 -- see above
                continue
            lag_s = (wanted_s - local.minute * _MINUTE_S - local.second) % period_s
            if not lag_s:
                return moment
            moment = _until_change(moment, moment + timedelta(seconds=lag_s), zone)

    def _end_of_part(self, moment: datetime) -> datetime:
        """Return the end of the second, minute, hour or day that a moment is in."""
        if self.second is not None:
            return moment.astimezone(UTC).replace(microsecond=0) + _SECOND
        rest_s = _MINUTE_S - moment.second
        if self.minute is None:
            rest_s += (59 - moment.minute) * _MINUTE_S
        if self.minute is not None or self.hour is not None:
            return moment.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=rest_s)
        assert moment.tzinfo is not None
        day = moment.date() + _DAY
        return _moment(datetime(day.year, day.month, day.day), moment.tzinfo)  # noqa: DTZ001 -- see above


def next_time(words: str | Sequence[str], after: datetime) -> datetime | None:
    """Return the first moment after another one at which words begin to match.

    >>> next_time("12 hr", datetime(2030, 1, 31, 12, 45, tzinfo=UTC))
    datetime.datetime(2030, 2, 1, 12, 0, tzinfo=datetime.timezone.utc)

    Args:
        words: As "8 hr", or the same in parts.
        after: Any moment, with its zone, whose calendar and clock count.

    Returns:
        A moment of the same zone; None where there is none in the next
        `TIME_WORDS_AHEAD_MAX_YEARS` years, as "30 d 2 month" or a year that is over.

    Raises:
        BadSetting: They are no words for a time; names the word.
    """
    return When.parse(words).next_after(after)


def has_time_word(text: str) -> bool:
    """Tell whether there is a unit or a weekday in a text, so that a time may be meant."""
    words = text.lower().split()
    return any(word in _UNIT_OF or word in _WEEKDAY_OF or word in _AMBIGUOUS for word in words)


def _meaning(text: str, word: str, number: int | None) -> list[tuple[str, int]]:
    """Return the fields that a word stands for, with the number before it."""
    if word in _AMBIGUOUS and (number is not None or word not in _WEEKDAY_OF):
        raise BadSetting(text, f"{word}: this may be {_AMBIGUOUS[word]}; write that")
    if word in _WEEKDAY_OF:
        weekday = ("weekday", _WEEKDAY_OF[word])
        return [weekday] if number is None else [weekday, ("nth", _checked(text, _NTH, number))]
    name = _UNIT_OF.get(word)
    if name is None:
        raise BadSetting(text, f"{word}: no word for a time; {_EXAMPLE}")
    if number is None:
        raise BadSetting(text, f"{word}: a number is missing before it; {_EXAMPLE}")
    value = _checked(text, UNITS[name], number, word)
    if value < 0 and name in _FIXED:
        value += UNITS[name].high + 1
    return [(name, value)]


def _checked(text: str, unit: _Unit, number: int, word: str = "weekday") -> int:
    count = unit.high - unit.low + 1
    if unit.low <= number <= unit.high or (unit.has_end and -count <= number < 0):
        return number
    ends = f" or {-count} to -1" if unit.has_end else ""
    raise BadSetting(text, f"{number} {word}: it must be {unit.low} to {unit.high}{ends}")


def _moment(wall: datetime, zone: tzinfo) -> datetime:
    """Return when a clock in a zone shows a time first; where it skips it, when it does so."""
    moment = wall.replace(tzinfo=zone).astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == wall:
        return moment
    # By the offset before the skip the time lies behind it, by the one after it before it.
    return _until_change(wall.replace(tzinfo=zone, fold=1).astimezone(UTC), moment, zone)


def _until_change(early: datetime, late: datetime, zone: tzinfo) -> datetime:
    """Return a later moment, or the first one with its offset where that has changed meanwhile."""
    offset = late.astimezone(zone).utcoffset()
    if early.astimezone(zone).utcoffset() == offset:
        return late
    while late - early > _SECOND:
        middle = early + timedelta(seconds=(late - early) // _SECOND // 2)
        if middle.astimezone(zone).utcoffset() == offset:
            late = middle
        else:
            early = middle
    return late
