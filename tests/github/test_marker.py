"""What a sticky comment says of itself is read back, and nothing else is."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gate.github import marker
from gate.github.marker import MOST_VERDICTS, VERDICTS, Marker, Note, Shown

HEX = st.text("0123456789abcdef", min_size=40, max_size=40)
NUMBER = st.integers(0, 10**15)
SHOWN = st.builds(
    Shown,
    date=st.datetimes().map(lambda then: then.strftime("%Y-%m-%dT%H:%M:%SZ").zfill(20)),
    sha=HEX,
    verdict=st.sampled_from(VERDICTS),
    run=NUMBER,
    attempt=st.integers(0, 10**6),
)
MARKER = st.builds(
    Marker,
    key=st.text(min_size=1, max_size=40),
    run=NUMBER,
    attempt=st.integers(0, 10**6),
    sha=HEX,
    digest=st.text("0123456789abcdef", min_size=32, max_size=32),
)
NOTES = st.builds(Note, MARKER, st.lists(SHOWN, max_size=MOST_VERDICTS).map(tuple))
NOTE = Note(
    Marker("default", 100, 1, "a" * 40, "0" * 32),
    (Shown("2026-11-21T12:00:00Z", "a" * 40, "fail", 100, 1),),
)


@settings(deadline=None)
@given(NOTES, st.text(max_size=50))
def test_what_is_written_is_read_back(note: Note, text: str) -> None:
    assert marker.read(f"{marker.write(note)}\n\n{text}") == note


@settings(deadline=None)
@given(NOTES)
def test_no_key_ends_the_html_comment(note: Note) -> None:
    for line in marker.write(note).splitlines():
        inside = line.removeprefix("<!--").removesuffix("-->")
        assert "--" not in inside and ">" not in inside and "<" not in inside


@settings(deadline=None)
@given(st.text(max_size=300))
def test_other_text_says_nothing(text: str) -> None:
    assert marker.read(text) is None


@pytest.mark.parametrize(
    "change",
    [
        ("v1", "v2"),
        ("key=default", "key=d%65fault"),
        ("key=default", "key="),
        ("run=100", "run=0100"),
        ("run=100", "run=1٠0"),
        ("run=100", "run=-1"),
        ("sha=aaaa", "sha=aaa"),
        ("sha=a", "sha=A"),
        ("-->", "--> "),
        ("<!--", " <!--"),
        (" -->", " note=x -->"),
        ("key=default", "key=%FF"),
    ],
)
def test_an_almost_right_marker_is_none(change: tuple[str, str]) -> None:
    first = marker.write(NOTE).splitlines()[0]
    assert marker.read(first) is not None
    assert marker.read(first.replace(*change, 1)) is None


def test_a_marker_that_is_not_the_first_line_is_quoted_text() -> None:
    assert marker.read(f"Look:\n{marker.write(NOTE)}") is None


SOUND = marker.write(NOTE).splitlines()[1]


@pytest.mark.parametrize("line", ["", "12 PASS", SOUND.replace(" -->", " 2026,x -->"), SOUND[:-1]])
def test_verdicts_that_cannot_be_read_are_none_at_all(line: str) -> None:
    first = marker.write(NOTE).splitlines()[0]
    assert marker.read(f"{first}\n{line}") == Note(NOTE.marker, ())


def test_at_most_ten_earlier_verdicts_are_kept_and_shown() -> None:
    verdicts = tuple(
        Shown("2026-11-21T12:00:00Z", f"{n:040x}", "pass", n, n % 3) for n in range(1, 30)
    )
    kept = marker.read(marker.write(Note(NOTE.marker, verdicts)))
    assert kept is not None and [shown.run for shown in kept.verdicts] == list(range(19, 30))
    table = marker.earlier(kept.verdicts, "https://github.invalid/o/r/actions/runs")
    linked = re.findall(r"runs/(\d+(?:/attempts/2)?)\)", table)
    assert linked == ["28", "27", "26/attempts/2", "25", "24", "23/attempts/2",
                      "22", "21", "20/attempts/2", "19"]  # fmt: skip
    assert marker.earlier(kept.verdicts[-1:], "x") == ""


@pytest.mark.parametrize(
    ("date", "shown"),
    [
        ("2026-11-21T12:00:00+00:00", "2026-11-21T12:00:00Z"),
        ("2026-11-21T12:00:00Z", "2026-11-21T12:00:00Z"),
        ("2026-11-21T12:00:00+02:00", "2026-11-21T10:00:00Z"),
    ],
)
def test_a_moment_is_utc_to_the_second(date: str, shown: str) -> None:
    assert marker.moment(date) == shown


@pytest.mark.parametrize("date", ["", "yesterday", "9999-12-31T23:59:59-12:00"])
def test_what_is_no_moment_is_now(date: str) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", marker.moment(date))
