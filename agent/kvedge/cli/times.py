"""Words for times and spans on the command line: pure, the present is handed in."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta

from kvedge.errors import BadSetting
from kvedge.limits import TIME_WORDS_AHEAD_MAX_YEARS
from kvedge.model.when import When, has_time_word

_UNITS_S = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)
_SPAN = re.compile(r"(?=\d)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?", re.ASCII)
_SPAN_MAX_S = 10 * 365 * 86400
"""Ten years: more is a unix time that was taken for a span."""

_NOT_EARLIER = datetime(2026, 1, 1, tzinfo=UTC)
"""When this was written; a board whose clock says less does not know the time."""


def seconds(text: str, option: str) -> float:
    """Return a span: a number of seconds, or numbers with units.

    >>> seconds("90", "-r"), seconds("1h30m", "-r"), seconds("0.5s", "-r")
    (90, 5400, 0.5)

    Args:
        text: The word.
        option: The option it stands behind, for the message.

    Raises:
        BadSetting: It is no span, or one of more than ten years.
    """
    match = _SPAN.fullmatch(text)
    if _NUMBER.fullmatch(text):
        span = float(text)
    elif match:
        parts = zip(match.groups(), _UNITS_S.values(), strict=True)
        span = sum(float(part) * unit for part, unit in parts if part)
    else:
        raise BadSetting(f"{option} {text}", "seconds are needed, as in 90, 1.5 or 1h30m")
    if span > _SPAN_MAX_S:
        raise BadSetting(f"{option} {text}", "that is more than ten years of seconds")
    return int(span) if span == int(span) else span


def words(text: str, now: datetime, option: str) -> str:
    """Return words for a time.

    Args:
        text: The words.
        now: The present, with its zone.
        option: The option they stand behind, for the message.

    Raises:
        BadSetting: They are none, or that time does not come.
    """
    try:
        found = When.parse(text).next_after(max(now, _NOT_EARLIER))
    except BadSetting as error:
        raise BadSetting(f"{option} {text}", error.why) from error
    if found is None:
        why = f"this time does not come in the next {TIME_WORDS_AHEAD_MAX_YEARS} years"
        raise BadSetting(f"{option} {text}", why)
    return text


def seconds_or_words(text: str, now: datetime, option: str) -> float | str:
    """Return a span or words for a time; raises as `seconds` and `words` do."""
    return words(text, now, option) if has_time_word(text) else seconds(text, option)


def start_time(text: str, now: datetime, option: str) -> float | str | None:
    """Return a start: 0 for at once, None for never, words, else unix seconds.

    It may be `now`, `-`, a span from now on, a time of day (the next one), a date with a time, or
    words for a time, which the node of the job will understand by its own clock.

    Args:
        text: The word.
        now: The present, with its zone.
        option: The option it stands behind, for the message.

    Raises:
        BadSetting: It is none of these.
    """
    if text == "-":
        return None
    if text == "now":
        return 0
    if has_time_word(text):
        return words(text, now, option)
    if _NUMBER.fullmatch(text) or _SPAN.fullmatch(text):
        span = seconds(text, option)
        return now.timestamp() + span if span else 0
    moment = _time_of_day(text, now) or _date(text, now)
    if moment is None or moment.timestamp() <= 0:
        why = (
            "give now, seconds (also 5m, 1h30m), 07:30, '2030-01-31 07:30', "
            "words as in '2 tue 9 hr', or - for never"
        )
        raise BadSetting(f"{option} {text}", why)
    return moment.timestamp()


def _time_of_day(text: str, now: datetime) -> datetime | None:
    try:
        wanted = time.fromisoformat(text) if ":" in text else None
    except ValueError:
        return None
    if wanted is None or wanted.tzinfo is not None:
        return None
    day = now.date() + timedelta(days=now.time() >= wanted)
    # Without a zone it is local time, whatever its offset is on that day.
    return datetime.combine(day, wanted).astimezone(now.tzinfo)


def _date(text: str, now: datetime) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(now.tzinfo)
    except (ValueError, OverflowError):
        return None
