"""A failure that is waived by a label: who set it, when, and whether that still counts.

A waiver is for the bytes that were judged when it was set. So it counts where the label was set
after these bytes were judged, or where setting it is what started this run; after a push that
changes a checkpoint it has to be set again.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from gate import duration
from gate.records import GateRun, Waiver

if TYPE_CHECKING:
    from gate.event import Event
    from gate.github.api import Client, LabelEvent, PullRequest

LONGEST = timedelta(days=90)
CLOCK_SKEW = timedelta(minutes=5)
"""How far this machine's clock may lag behind GitHub's."""

WRITERS = frozenset({"admin", "write"})


def age(text: str) -> timedelta:
    """How long a waiver counts: `3d` or `12h`, at most 90 days.

    Raises:
        SettingsError: It is written otherwise.
    """
    return duration.parse(text, "age of a waiver", LONGEST)


def waive(
    client: "Client", event: "Event", run: GateRun, *, label: str, max_age: timedelta
) -> Waiver | str:
    """The waiver that counts for a run, or in words why there is none.

    Args:
        client: Asked for the label's history and for who may write.
        event: What started the run.
        run: Whose verdicts are to be waived.
        label: The name as it is on GitHub, letter for letter.
        max_age: From the moment at which it was set last.

    Raises:
        PublishError: GitHub does not answer, or does not allow the question.
    """
    failed = [report for report in run.reports if report.verdict.outcome != "pass"]
    if not failed or run.pull_request is None:
        return "there is no failed verdict of a pull request"
    try:
        judged = max(_moment(report.reused_from or report.date) for report in failed)
    except (ValueError, OverflowError):
        return "the report does not say when the checkpoint was judged"
    pull = client.pull_request(run.pull_request)
    if label not in pull.labels:
        return f"the pull request does not carry the label {label}"
    if event.name != "merge_group" and pull.head_sha != run.head_sha:
        return "the pull request has moved on since this commit"
    last = _last(client.label_events(run.pull_request), label)
    if last is None:
        return f"nobody is known to have set the label {label}"
    starts_this = event.action == "labeled" and event.label == label
    return _by_time(last, None if starts_this else judged, max_age) or (
        _by_person(client, last.actor, pull)
        or Waiver(
            label=label,
            by=str(last.actor),
            at=_moment(last.at).isoformat(),
            expires=(_moment(last.at) + max_age).isoformat(),
        )
    )


def _last(events: Sequence["LabelEvent"], label: str) -> "LabelEvent | None":
    """The event that set the label as it is now; GitHub lists them in order."""
    own = [event for event in events if event.label == label]
    return own[-1] if own and own[-1].added else None


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _by_time(event: "LabelEvent", judged: datetime | None, max_age: timedelta) -> str | None:
    """Why the moment does not count; None where it does.

    Args:
        event: That set the label.
        judged: When the last of the failed checkpoints was judged; None where that is no matter.
        max_age: How long it counts.
    """
    try:
        at = _moment(event.at)
    except (ValueError, OverflowError):
        return "GitHub does not say when the label was set"
    passed = datetime.now(UTC) - at
    if passed < -CLOCK_SKEW:
        return f"the label was set at {at.isoformat()}, which is still to come by this clock"
    if passed > max_age:
        return f"the label was set at {at.isoformat()}, too long ago to count; set it again"
    if judged is not None and at < judged:
        return "the label was set before these bytes were judged; remove it and set it again"
    return None


def _by_person(client: "Client", actor: str | None, pull: "PullRequest") -> str | None:
    """Why the one who set the label does not count; None for somebody who does."""
    if not actor:
        return "the account that set the label is gone"
    if actor.casefold() == (pull.author or "").casefold():
        return f"{actor} set the label on their own pull request"
    own = client.viewer() or ""
    if actor.endswith("[bot]") or actor.casefold() == own.casefold():
        return f"the label was set by a program, {actor}"
    if client.permission(actor) not in WRITERS:
        return f"{actor}, who set the label, has no write access"
    return None
