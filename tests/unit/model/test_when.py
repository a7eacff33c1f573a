"""Words for times: what they mean, when they match next, and what they refuse."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge.errors import BadSetting
from kvedge.limits import TIME_WORDS_AHEAD_MAX_YEARS
from kvedge.model import when
from kvedge.model.when import When, next_time
from kvedge.testing.zones import zone_of

BERLIN = zone_of("CET-1CEST,M3.5.0,M10.5.0/3")
LORD_HOWE = zone_of("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0")
CAIRO = zone_of("EET-2EEST,M4.5.5/0,M10.5.4/24")  # the hour after midnight is skipped
HAVANA = zone_of("CST5CDT,M3.2.0/0,M11.1.0/1")  # skipped likewise, and in autumn it comes twice


def at(text: str, zone: object = BERLIN) -> datetime:
    """Return a local time; a trailing * means the second time that the clock shows it."""
    moment = datetime.fromisoformat(text.rstrip("*"))
    return moment.replace(tzinfo=zone, fold=text.endswith("*"))  # type: ignore[arg-type]


def show(moment: datetime | None) -> str:
    if moment is None:
        return "never"
    return moment.replace(tzinfo=None, fold=0).isoformat(" ") + "*" * moment.fold


NEXT = [
    # 2026-01-15 is a Thursday
    ("12 hr", "2026-01-15 12:45", "2026-01-16 12:00:00"),
    ("12 hr", "2026-01-15 12:00", "2026-01-16 12:00:00"),
    ("12 hr", "2026-01-15 11:59:59.999", "2026-01-15 12:00:00"),
    ("12 hr 10 min", "2026-01-15 12:00", "2026-01-15 12:10:00"),
    ("0 hr", "2026-01-15 12:00", "2026-01-16 00:00:00"),
    ("-1 hr", "2026-01-15 12:00", "2026-01-15 23:00:00"),
    ("-24 hr", "2026-01-15 12:00", "2026-01-16 00:00:00"),
    ("8 hr 30 sec", "2026-01-15 08:00:30", "2026-01-15 08:01:30"),
    ("8 hr 30 sec", "2026-01-15 08:59:30", "2026-01-16 08:00:30"),
    ("30 min", "2026-01-15 12:00", "2026-01-15 12:30:00"),
    ("30 min", "2026-01-15 12:30", "2026-01-15 13:30:00"),
    ("-1 min", "2026-01-15 12:30", "2026-01-15 12:59:00"),
    ("5 min 6 s", "2026-01-15 23:30", "2026-01-16 00:05:06"),
    ("10 sec", "2026-01-15 12:00:10", "2026-01-15 12:01:10"),
    ("-1 sec", "2026-01-15 12:00:10", "2026-01-15 12:00:59"),
    ("0 sec fri", "2026-01-15 12:00:10", "2026-01-16 00:00:00"),
    ("0 sec thu", "2026-01-15 23:59:10", "2026-01-22 00:00:00"),
    ("mon", "2026-01-15 12:00", "2026-01-19 00:00:00"),
    ("thu", "2026-01-15 12:00", "2026-01-22 00:00:00"),
    ("THURSDAY 13 Hours", "2026-01-15 12:00", "2026-01-15 13:00:00"),
    ("2 tue", "2026-01-15 12:00", "2026-02-10 00:00:00"),
    ("2 tue 9 hr", "2026-02-10 08:00", "2026-02-10 09:00:00"),
    ("-1 fri", "2026-01-15 12:00", "2026-01-30 00:00:00"),
    ("-1 fri", "2026-01-30 00:00", "2026-02-27 00:00:00"),
    ("-1 sat", "2026-01-15 12:00", "2026-01-31 00:00:00"),
    ("5 thu", "2026-01-30 00:00", "2026-04-30 00:00:00"),
    ("-5 sun", "2026-01-15 12:00", "2026-03-01 00:00:00"),
    ("31 d", "2026-01-31 00:00", "2026-03-31 00:00:00"),
    ("-1 d", "2026-01-31 00:00", "2026-02-28 00:00:00"),
    ("-1 d", "2028-02-01 00:00", "2028-02-29 00:00:00"),
    ("-31 d", "2026-01-15 12:00", "2026-03-01 00:00:00"),
    ("29 d 2 month", "2026-01-15 12:00", "2028-02-29 00:00:00"),
    ("29 d 2 month", "2096-03-01 12:00", "2104-02-29 00:00:00"),
    ("29 d 2 month mon", "2072-03-01 12:00", "2112-02-29 00:00:00"),
    ("6 month 1 d 8 h", "2026-01-15 12:00", "2026-06-01 08:00:00"),
    ("6 month", "2026-06-15 12:00", "2027-06-01 00:00:00"),
    ("-1 month 24 d", "2026-01-15 12:00", "2026-12-24 00:00:00"),
    ("1 wk", "2026-01-15 12:00", "2027-01-04 00:00:00"),
    ("53 wk", "2026-01-15 12:00", "2026-12-28 00:00:00"),
    ("-1 wk", "2027-01-15 12:00", "2027-12-27 00:00:00"),
    ("-1 week sunday", "2026-12-28 12:00", "2027-01-03 00:00:00"),
    ("3 wk", "2026-01-15 12:00", "2027-01-18 00:00:00"),  # it is week 3 already
    ("2027 yr", "2026-01-15 12:00", "2027-01-01 00:00:00"),
    ("2027 yr", "2027-01-01 00:00", "never"),
    ("2026 yr 30 min", "2026-12-31 23:45", "never"),
    ("30 d 2 month", "2026-01-15 12:00", "never"),
    ("5 mon 2 month 30 d", "2026-01-15 12:00", "never"),
]


@pytest.mark.parametrize(("words", "after", "found"), NEXT)
def test_next_time(words: str, after: str, found: str) -> None:
    assert show(next_time(words, at(after))) == found


def test_words_may_come_in_parts() -> None:
    found = next_time(("12", "hr", "10", "min"), at("2026-01-15 12:00"))
    assert show(found) == "2026-01-15 12:10:00"


# In 2026, Berlin skips 02:00 to 03:00 on 29 March, and shows that hour twice on 25 October.
CHANGES = [
    (BERLIN, "2 hr 30 min", "2026-03-28 12:00", ["2026-03-29 03:00:00", "2026-03-30 02:30:00"]),
    (BERLIN, "2 hr", "2026-03-29 00:00", ["2026-03-29 03:00:00", "2026-03-30 02:00:00"]),
    (BERLIN, "3 hr", "2026-03-29 00:00", ["2026-03-29 03:00:00", "2026-03-30 03:00:00"]),
    (BERLIN, "2 hr 30 sec", "2026-03-29 00:00", ["2026-03-29 03:00:00", "2026-03-30 02:00:30"]),
    (BERLIN, "30 min", "2026-03-29 01:00", ["2026-03-29 01:30:00", "2026-03-29 03:30:00"]),
    (BERLIN, "59 sec", "2026-03-29 01:59:00", ["2026-03-29 01:59:59", "2026-03-29 03:00:59"]),
    (BERLIN, "sun", "2026-03-28 12:00", ["2026-03-29 00:00:00", "2026-04-05 00:00:00"]),
    (BERLIN, "2 hr 30 min", "2026-10-25 00:00", ["2026-10-25 02:30:00", "2026-10-26 02:30:00"]),
    (BERLIN, "2 hr 30 min", "2026-10-25 02:10*", ["2026-10-26 02:30:00"]),
    (BERLIN, "2 hr", "2026-10-25 01:00", ["2026-10-25 02:00:00", "2026-10-26 02:00:00"]),
    (
        BERLIN,
        "30 min",
        "2026-10-25 02:00",
        ["2026-10-25 02:30:00", "2026-10-25 02:30:00*", "2026-10-25 03:30:00"],
    ),
    (BERLIN, "0 sec", "2026-10-25 02:59", ["2026-10-25 02:00:00*", "2026-10-25 02:01:00*"]),
    (LORD_HOWE, "15 min", "2026-10-04 01:00", ["2026-10-04 01:15:00", "2026-10-04 03:15:00"]),
    (LORD_HOWE, "2 hr 15 min", "2026-10-04 01:00", ["2026-10-04 02:30:00", "2026-10-05 02:15:00"]),
    (LORD_HOWE, "45 min", "2026-04-05 01:15", ["2026-04-05 01:45:00", "2026-04-05 01:45:00*"]),
    (CAIRO, "24 d", "2026-04-20 12:00", ["2026-04-24 01:00:00", "2026-05-24 00:00:00"]),
    (CAIRO, "0 sec 24 d", "2026-04-23 12:00", ["2026-04-24 01:00:00", "2026-04-24 01:01:00"]),
    (HAVANA, "1 d", "2026-10-20 12:00", ["2026-11-01 00:00:00", "2026-12-01 00:00:00"]),
    (HAVANA, "sun", "2026-03-07 12:00", ["2026-03-08 01:00:00", "2026-03-15 00:00:00"]),
]


@pytest.mark.parametrize(("zone", "words", "after", "found"), CHANGES)
def test_clock_that_is_put_on_or_back(
    zone: object, words: str, after: str, found: list[str]
) -> None:
    moment: datetime | None = at(after, zone)
    for expected in found:
        assert moment is not None
        moment = next_time(words, moment)
        assert show(moment) == expected


def test_moment_of_a_zone_is_that_of_the_caller() -> None:
    found = next_time("8 hr", at("2026-07-01 07:00"))
    assert found is not None
    assert found.tzinfo is BERLIN
    assert found.astimezone(UTC) == datetime(2026, 7, 1, 6, tzinfo=UTC)


BAD = [
    ("", "these are no words for a time"),
    ("  ", "these are no words for a time"),
    ("soon", "soon: no word for a time"),
    ("8", "8: a unit is missing behind it"),
    ("8 9 hr", "8: a unit is missing|9: no word for a time"),
    ("hr", "hr: a number is missing before it"),
    ("mon hr", "hr: a number is missing before it"),
    ("5 m", "m: this may be month or min; write that"),
    ("m", "m: this may be month or min; write that"),
    ("5 mo", "mo: this may be mon or month; write that"),
    ("24 hr", "24 hr: it must be 0 to 23 or -24 to -1"),
    ("-25 hr", "-25 hr: it must be 0 to 23"),
    ("60 min", "60 min: it must be 0 to 59 or -60 to -1"),
    ("-61 sec", "-61 sec: it must be 0 to 59"),
    ("0 d", "0 d: it must be 1 to 31 or -31 to -1"),
    ("13 month", "13 month: it must be 1 to 12 or -12 to -1"),
    ("54 wk", "54 wk: it must be 1 to 53 or -53 to -1"),
    ("6 tue", "6 weekday: it must be 1 to 5 or -5 to -1"),
    ("0 tue", "0 weekday: it must be 1 to 5"),
    ("-1 yr", "-1 yr: it must be 1970 to 9998$"),
    ("1969 yr", "1969 yr: it must be 1970 to 9998$"),
    ("8 hr 9 hour", "hour: the hour is given twice"),
    ("mon tue", "tue: the weekday is given twice"),
    ("+1 hr", r"\+1: no word for a time"),
    ("8hr", "8hr: no word for a time"),
    ("1.5 hr", r"1\.5: no word for a time"),
    ("٣ hr", "٣: no word for a time"),
    ("99999999 sec", "99999999: no word for a time"),
]


@pytest.mark.parametrize(("words", "message"), BAD)
def test_what_is_no_time_is_refused_by_its_word(words: str, message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        When.parse(words)


def test_mo_without_a_number_is_monday() -> None:
    assert When.parse("mo") == When(weekday=0)


def test_search_ends_where_the_limit_says() -> None:
    after = at("2026-01-15 12:00")
    last = after.year + TIME_WORDS_AHEAD_MAX_YEARS
    assert show(next_time(f"{last} yr", after)) == f"{last}-01-01 00:00:00"
    assert next_time(f"{last + 1} yr", after) is None


def test_end_of_the_calendar_is_no_error() -> None:
    assert next_time("31 d 12 month", datetime(9998, 12, 31, tzinfo=UTC)) is None


MATCHES = [
    ("12 hr", "2026-01-15 12:45", "2026-01-15 13:00:00"),
    ("45 min", "2026-01-15 12:45:30.5", "2026-01-15 12:46:00"),
    ("30 sec", "2026-01-15 12:45:30.5", "2026-01-15 12:45:31"),
    ("3 wk", "2026-01-15 12:45", "2026-01-19 00:00:00"),
    ("thu", "2026-01-15 12:45", "2026-01-16 00:00:00"),
    ("1 month", "2026-01-15 12:45", "2026-02-01 00:00:00"),
    ("2026 yr", "2026-01-15 12:45", "2027-01-01 00:00:00"),
    ("2 hr", "2026-10-25 02:45", "2026-10-25 03:00:00"),
    ("1 hr", "2026-03-29 01:45", "2026-03-29 03:00:00"),
    ("12 hr", "2026-01-15 11:45", "2026-01-15 11:45:00"),
]


@pytest.mark.parametrize(("words", "since", "end"), MATCHES)
def test_end_of_a_match(words: str, since: str, end: str) -> None:
    pattern, moment = When.parse(words), at(since)
    assert pattern.matches(moment) == (show(moment) != end)
    assert show(pattern.end_after(moment)) == end


def signed(low: int, high: int) -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(low, high) | st.integers(low - high - 1, -1)


PARTS = {
    "month": signed(1, 12),
    "d": signed(1, 31),
    "wk": signed(1, 53),
    "hr": signed(0, 23),
    "min": signed(0, 59),
    "sec": signed(0, 59),
}
MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 -- bounds have no zone


@given(
    parts=st.fixed_dictionaries(PARTS).filter(lambda parts: set(parts.values()) != {None}),
    moment=MOMENTS,
    zone=st.sampled_from([UTC, BERLIN, LORD_HOWE, CAIRO, HAVANA]),
)
def test_next_time_is_later_and_the_first(
    parts: dict[str, int | None], moment: datetime, zone: object
) -> None:
    words = " ".join(f"{number} {unit}" for unit, number in parts.items() if number is not None)
    after = moment.astimezone(zone)  # type: ignore[arg-type]
    found = next_time(words, after)
    if found is None:
        return
    assert found.astimezone(UTC) > moment
    just_before = (found.astimezone(UTC) - timedelta(microseconds=1)).astimezone(zone)  # type: ignore[arg-type]
    assert next_time(words, just_before) == found
    middle = (moment + (found.astimezone(UTC) - moment) / 2).astimezone(zone)  # type: ignore[arg-type]
    assert next_time(words, middle) == found


@given(hour=st.integers(0, 23), minute=st.integers(0, 59), moment=MOMENTS)
def test_a_daily_time_comes_once_on_each_day(hour: int, minute: int, moment: datetime) -> None:
    found = moment.astimezone(BERLIN)
    first = found.date()
    for days in range(1, 4):
        later = next_time(f"{hour} hr {minute} min", found)
        assert later is not None
        found = later
        assert (found.date() - first).days in (days - 1, days)
    assert (found.date() - first).days >= 2


@pytest.fixture(scope="module")
def page(project_root: Path) -> str:
    """The page that describes the words."""
    return (project_root / "docs/reference/times.md").read_text("utf-8")


def test_every_unit_is_described_with_its_numbers(page: str) -> None:
    for unit in when.UNITS.values():
        words = ", ".join(f"`{word}`" for word in unit.words)
        assert f"\n| {words} | {unit.low} to {unit.high} | " in page


def test_examples_of_the_page_are_words_for_a_time(page: str) -> None:
    examples = re.findall(r"^\| `(-?\d*[^`]*)` \| [^|]* \|$", page, re.MULTILINE)
    assert len(examples) >= 12
    for words in examples:
        assert next_time(words, at("2026-01-15 12:00")) is not None
