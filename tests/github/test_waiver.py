"""A waiver by label: who, when and for which bytes it counts."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from github_stub import Fault, LabelEvent, Pull, State, serve
from hypothesis import given
from hypothesis import strategies as st

from gate.errors import PublishError, SettingsError
from gate.event import Event
from gate.github import waiver
from gate.github.api import Client
from gate.records import GateRun, LintResult, Report, Verdict, Waiver

LABEL = "quant-gate: waive"
HEAD = "a" * 40
NOW = datetime.now(UTC).replace(microsecond=0)
Waive = Callable[..., Waiver | str]


def ago(**length: float) -> str:
    """A moment as GitHub writes it."""
    return (NOW - timedelta(**length)).isoformat().replace("+00:00", "Z")


def report(outcome: str, date: str, reused_from: str | None = None) -> Report:
    lint = LintResult(format=None, findings=(), rules_run=(), skipped=())
    decided = Verdict(outcome=outcome, reasons=("because",), fix=None, stage="evaluation")
    return Report(
        gate_version="0", checkpoint="m", revision=None, command="gate check m", settings={},
        lint=lint, size=None, evaluation=None, baseline=None, verdict=decided, date=date,
        reused_from=reused_from, duration_s=1,
    )  # fmt: skip


def run(*reports: Report, **changes: object) -> GateRun:
    """A run about pull request 7 that failed two hours ago, unless told otherwise."""
    stated = {
        "gate_version": "0",
        "key": "default",
        "head_sha": HEAD,
        "pull_request": 7,
        "reports": reports or (report("fail", ago(hours=2)),),
        "date": ago(),
    }
    return GateRun.model_validate(stated | changes)


def event(
    name: str = "pull_request", action: str | None = "synchronize", label: str | None = None
) -> Event:
    return Event(
        name=name, action=action, repository="octo-org/models", base_sha="b" * 40, head_sha=HEAD,
        pull_request=7, fork=False, base_ref="main", head_ref="change", default_branch="main",
        label=label, labels=(), actor="author", run_id=1, payload={},
    )  # fmt: skip


def state(*events: LabelEvent, **changes: object) -> State:
    """A pull request that carries the label, set an hour ago by a maintainer."""
    own = events or (LabelEvent(issue=7, label=LABEL, at=ago(hours=1)),)
    stated = {
        "pulls": {7: Pull(number=7, author="author", labels=["bug", LABEL])},
        "label_events": own,
        "permissions": {"maintainer": "maintain", "reader": "triage", "author": "admin"},
    }
    return State(**(stated | changes))


def waive(
    held: State,
    judged: GateRun | None = None,
    started: Event | None = None,
    max_age: str = "3d",
    label: str = LABEL,
) -> Waiver | str:
    """Ask the stub."""
    with serve(held) as api_url:
        client = Client(api_url, "token", held.repository, pause_s=0)
        return waiver.waive(
            client, started or event(), judged or run(), label=label, max_age=waiver.age(max_age)
        )


def set_by(actor: str = "maintainer", *, added: bool = True, at: str = "") -> LabelEvent:
    return LabelEvent(issue=7, label=LABEL, actor=actor, added=added, at=at or ago(hours=1))


def test_it_names_who_and_until_when() -> None:
    found = waive(state())
    assert isinstance(found, Waiver)
    assert (found.by, found.label) == ("maintainer", LABEL)
    at, expires = map(datetime.fromisoformat, (found.at, found.expires))
    assert at == NOW - timedelta(hours=1) and expires - at == timedelta(days=3)


def test_it_counts_from_the_moment_it_was_last_set() -> None:
    old = [set_by(at=ago(days=9)), set_by(at=ago(days=8), added=False)]
    others = LabelEvent(issue=7, label="bug", at=ago(minutes=1), added=False)
    elsewhere = LabelEvent(issue=8, label=LABEL, at=ago(minutes=1), added=False)
    found = waive(state(*old, set_by(), others, elsewhere))
    assert isinstance(found, Waiver)
    assert datetime.fromisoformat(found.at) == NOW - timedelta(hours=1)


@pytest.mark.parametrize(
    ("max_age", "counts"), [("3d", True), ("2h", True), ("1h", False)], ids=str
)
def test_it_ends(max_age: str, counts: bool) -> None:
    found = waive(state(set_by(at=ago(hours=1, seconds=1))), max_age=max_age)
    assert isinstance(found, Waiver) is counts
    assert counts or "too long ago" in str(found)


@pytest.mark.parametrize(
    ("actor", "reason"),
    [
        ("author", "their own"),
        ("AUTHOR", "their own"),
        ("reader", "no write access"),
        ("stranger", "no write access"),
        ("renovate[bot]", "a program"),
        ("github-actions[bot]", "a program"),
        ("gate-account", "a program"),
    ],
)
def test_only_another_person_who_may_write_can_waive(actor: str, reason: str) -> None:
    everybody = (
        {actor: "admin"} if reason == "a program" else {"author": "admin", "AUTHOR": "admin"}
    )
    permissions = {"reader": "triage", **everybody}
    held = state(set_by(actor), permissions=permissions, viewer="gate-account", app=None)
    assert reason in str(waive(held))


def test_taken_off_it_does_not_count() -> None:
    gone = Pull(number=7, author="author", labels=["bug"])
    assert "does not carry" in str(waive(state(pulls={7: gone})))
    # Between the two questions somebody took it off.
    assert "nobody is known" in str(waive(state(set_by(), set_by(added=False))))
    assert "nobody is known" in str(waive(state(LabelEvent(issue=7, label="bug"))))


def test_after_a_push_it_has_to_be_set_again() -> None:
    """The bytes of the new commit were judged after the label was set."""
    judged = run(report("pass", ago(hours=2)), report("fail", ago(minutes=5)))
    assert "before these bytes were judged" in str(waive(state(), judged))
    one_of_two = run(report("fail", ago(hours=2)), report("inconclusive", ago(minutes=5)))
    assert "before these bytes were judged" in str(waive(state(), one_of_two))


def test_the_run_that_the_label_starts_may_judge_anew() -> None:
    judged = run(report("fail", ago()))
    assert isinstance(waive(state(), judged, event(action="labeled", label=LABEL)), Waiver)
    other = event(action="labeled", label="bug")
    assert "before these bytes were judged" in str(waive(state(), judged, other))
    removed = event(action="unlabeled", label=LABEL)
    assert "before these bytes were judged" in str(waive(state(), judged, removed))


def test_a_kept_verdict_is_as_old_as_it_is() -> None:
    judged = run(report("fail", ago(), reused_from=ago(hours=2)))
    assert isinstance(waive(state(), judged), Waiver)


def test_a_queue_takes_the_waiver_of_the_same_bytes_along() -> None:
    queued = {"head_sha": "c" * 40}
    kept = run(report("fail", ago(), reused_from=ago(hours=2)), **queued)
    queue = event("merge_group", "checks_requested")
    assert isinstance(waive(state(), kept, queue), Waiver)
    anew = run(report("fail", ago()), **queued)
    assert "before these bytes were judged" in str(waive(state(), anew, queue))


def test_an_older_commit_is_not_waived() -> None:
    moved = Pull(number=7, head_sha="d" * 40, author="author", labels=[LABEL])
    assert "moved on" in str(waive(state(pulls={7: moved})))


@pytest.mark.parametrize(
    "judged",
    [run(report("pass", ago(hours=2))), run(pull_request=None), run(reports=())],
    ids=["passed", "no pull request", "nothing judged"],
)
def test_there_has_to_be_something_to_waive(judged: GateRun) -> None:
    held = state()
    assert "no failed verdict" in str(waive(held, judged))
    assert held.requests == []


@pytest.mark.parametrize(
    ("at", "counts"),
    [
        (ago(minutes=-4), True),
        (ago(minutes=-30), False),
        ("9999-12-31T23:59:59Z", False),
    ],
    ids=["4 minutes", "30 minutes", "far"],
)
def test_clocks_may_differ_a_little(at: str, counts: bool) -> None:
    found = waive(state(set_by(at=at)))
    assert isinstance(found, Waiver) is counts
    assert counts or "still to come" in str(found)


@pytest.mark.parametrize(
    "name",
    [
        "quant-gate: waiv\N{CYRILLIC SMALL LETTER IE}",
        "Quant-Gate: Waive",
        " quant-gate: waive",
        "quant-gate: waive\n::error::",
        "a/../b?x=1#&%00",
        "<!-- -->`|@all",
    ],
)
def test_a_label_that_only_looks_alike_is_another(name: str) -> None:
    alike = Pull(number=7, author="author", labels=[name])
    held = state(LabelEvent(issue=7, label=name, at=ago(hours=1)), pulls={7: alike})
    assert "does not carry" in str(waive(held))
    found = waive(held, label=name)
    assert isinstance(found, Waiver) and found.label == name


def test_what_github_does_not_say_is_no_waiver() -> None:
    held = state(faults=[Fault(path="events", status=403, body={"message": "Forbidden"}, times=-1)])
    with pytest.raises(PublishError, match="label"):
        waive(held)


def test_a_report_without_a_moment_is_not_waived() -> None:
    assert "does not say when" in str(waive(state(), run(report("fail", "yesterday"))))


@pytest.mark.parametrize(("text", "hours"), [("3d", 72), ("12h", 12), ("90d", 2160), ("1h", 1)])
def test_an_age_is_days_or_hours(text: str, hours: int) -> None:
    assert waiver.age(text) == timedelta(hours=hours)


@pytest.mark.parametrize(
    "text", ["", "3", "0d", "-1d", "91d", "9999d", "3 d", "3d\n", "1w", "1d12h", "3D", "\u0663d"]
)
def test_other_ages_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="age"):
        waiver.age(text)


@given(st.text(max_size=12))
def test_no_text_makes_a_waiver_that_lasts(text: str) -> None:
    try:
        found = waiver.age(text)
    except SettingsError:
        return
    assert timedelta() < found <= waiver.LONGEST
