"""Words for times and spans."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from kvedge.cli.times import seconds, seconds_or_words, start_time
from kvedge.errors import BadSetting

ZONE = timezone(timedelta(hours=2))
NOW = datetime(2030, 1, 31, 12, 0, 30, tzinfo=ZONE)

SPANS = [
    ("0", 0),
    ("90", 90),
    ("1.5", 1.5),
    ("90s", 90),
    ("0.5s", 0.5),
    ("5m", 300),
    ("1h30m", 5400),
    ("1d", 86400),
    ("1d1h1m1.5s", 90061.5),
]
NO_SPANS = ["", "-1", "s", "m", "1x", "1.5m", "30m1h", "1e3", "inf", "nan", " 5", "٣", "5 m"]


@pytest.mark.parametrize(("text", "span"), SPANS)
def test_span(text: str, span: float) -> None:
    assert seconds(text, "-r") == span


@pytest.mark.parametrize("text", NO_SPANS)
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(BadSetting, match=r"^-r .*: seconds are needed, as in 90, 1\.5 or 1h30m$"):
        seconds(text, "-r")


def test_a_unix_time_is_no_span() -> None:
    with pytest.raises(BadSetting, match="more than ten years"):
        seconds("1795327024", "-d")


def test_whole_seconds_stay_integers() -> None:
    assert repr(seconds("90", "-r")) == repr(seconds("1m30s", "-r")) == "90"


STARTS = [
    ("-", None),
    ("now", 0),
    ("0", 0),
    ("0s", 0),
    ("10", datetime(2030, 1, 31, 12, 0, 40, tzinfo=ZONE)),
    ("1h", datetime(2030, 1, 31, 13, 0, 30, tzinfo=ZONE)),
    ("2030-02-01T08:00+02:00", datetime(2030, 2, 1, 8, 0, tzinfo=ZONE)),
    ("2030-02-01 08:00:30Z", datetime(2030, 2, 1, 10, 0, 30, tzinfo=ZONE)),
]


@pytest.mark.parametrize(("text", "start"), STARTS)
def test_start(text: str, start: datetime | int | None) -> None:
    expected = start.timestamp() if isinstance(start, datetime) else start
    assert start_time(text, NOW, "-t") == expected


@pytest.mark.parametrize(
    ("text", "days", "hour"),
    [("12:00", 1, 12), ("12:00:30", 1, 12), ("12:01", 0, 12), ("07:30", 1, 7)],
)
def test_time_of_day_is_the_next_one(text: str, days: int, hour: int) -> None:
    # A time without a zone is meant as that of the machine.
    now = NOW.astimezone().replace(hour=12, minute=0, second=30)
    start = start_time(text, now, "-t")
    assert isinstance(start, float)
    found = datetime.fromtimestamp(start, now.tzinfo)
    assert ((found.date() - now.date()).days, found.hour) == (days, hour)


WORDS = [
    ("25 hr", "25 hr: it must be 0 to 23 or -24 to -1"),
    ("tomorrow 8 hr", "tomorrow: no word for a time"),
    ("5 m", "m: this may be month or min"),
    ("2020 yr", "this time does not come in the next 40 years"),
    ("30 d 2 month", "this time does not come in the next 40 years"),
]


@pytest.mark.parametrize("text", ["12 hr", "mon", "2 tue 9 hr", "6 month 1 d 8 h"])
def test_words_are_kept_for_the_node_to_understand(text: str) -> None:
    assert start_time(text, NOW, "-t") == seconds_or_words(text, NOW, "-r") == text


@pytest.mark.parametrize(("text", "message"), WORDS)
def test_words_that_make_no_time(text: str, message: str) -> None:
    with pytest.raises(BadSetting, match=f"^-t {text}: .*{message}"):
        start_time(text, NOW, "-t")
    with pytest.raises(BadSetting, match=f"^-r {text}: .*{message}"):
        seconds_or_words(text, NOW, "-r")


def test_hours_from_now_are_no_hour_of_the_day() -> None:
    assert seconds_or_words("12h", NOW, "-r") == 43200
    assert start_time("12h", NOW, "-t") == NOW.timestamp() + 43200


@pytest.mark.parametrize(
    "text", ["", "later", "25:00", "-5", "7:30", "1969-12-30", "12:00Z", "2030-02-30"]
)
def test_what_is_no_start(text: str) -> None:
    with pytest.raises(BadSetting, match=r"^-t .*: give now, seconds .*, or - for never$"):
        start_time(text, NOW, "-t")
