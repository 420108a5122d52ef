"""Deliver a verdict to GitHub: commit status, sticky comment, job summary, annotations.

Delivering changes no verdict. What cannot be delivered becomes a warning that says why, and the
other places are still tried.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from gate import terminal
from gate.errors import GateError
from gate.github import marker, status, sticky, summary
from gate.records import GateRun

if TYPE_CHECKING:
    from gate.github.api import Client

FORKED = (
    "> These figures come from the fork's own run of the workflow, which the author of the change "
    "controls; its own words are not repeated. The binding verdict is the merge queue's, or that "
    "of a run on a branch of this repository."
)

T = TypeVar("T")


class Options(NamedTuple):
    """What is delivered.

    Attributes:
        forked: The run was a fork's own, taken from its artifacts.
    """

    comment: sticky.Mode = "always"
    commit_status: bool = True
    forked: bool = False


class Published(NamedTuple):
    """What became of it.

    Attributes:
        comment_url: Where the comment is; None if there is none.
        notes: What was done, or left out with reason, a sentence each.
        warnings: What could not be delivered, and what to do about it, a line each.
    """

    comment_url: str | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


class _Log:
    """Sentences about what was tried."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def attempt(self, what: str, act: Callable[[], T]) -> T | None:
        """Do it; an error becomes a warning."""
        try:
            return act()
        except GateError as error:
            self.warnings.append(f"{what} was not delivered: {error.message}. {error.hint}")
            return None


def publish(
    run: GateRun, client: "Client | None", options: Options, environ: Mapping[str, str]
) -> Published:
    """Deliver a finished run everywhere that the options name, each place on its own.

    Args:
        client: Of the repository's API; None to leave out what needs it.
        environ: Names the summary's file, and says whether a runner reads what is printed.
    """
    log = _Log()
    url = None
    if run.event == "workflow_run":
        # It takes over another run's report, which names that run's event. With none to take over
        # there is nothing to say of the commit, least of all that it passed.
        return Published(None, (), ())
    if client is not None and options.commit_status and run.head_sha is not None:
        settled = status.settled(run, forked=options.forked)
        log.attempt("The commit status", partial(_set_status, client, run, settled, log))
    if client is not None and options.comment != "never" and _has_comment(run):
        url = log.attempt("The comment", partial(_comment, client, run, options, log))
    render = partial(text, run, options, "")
    if log.attempt("The job summary", partial(summary.append, render, environ)):
        log.notes.append("The report was added to the job summary.")
    if environ.get("GITHUB_ACTIONS") == "true":
        from gate.reports import github

        terminal.say(github.render_run(run, log.warnings))
    return Published(url, tuple(log.notes), tuple(log.warnings))


def announce(client: "Client", sha: str, key: str, run_url: str | None) -> str | None:
    """Set the commit status that says that a run has started; a warning if that is refused."""
    log = _Log()
    begun = status.pending(key)
    act = partial(client.set_status, sha, begun.state, begun.context, begun.description, run_url)
    log.attempt("The commit status", act)
    return next(iter(log.warnings), None)


def text(run: GateRun, options: Options, history: str, limit: int) -> str:
    """The report's Markdown, with a word on a fork's figures below its first line."""
    from gate.reports import comment

    if not options.forked:
        return comment.render(run, limit=limit, history=history)
    rendered = comment.render(run, limit=limit - len(FORKED) - 2, history=history)
    first, _, rest = rendered.partition("\n\n")
    return "\n\n".join([first, FORKED, *filter(None, [rest])])


def post(run: GateRun, options: Options) -> sticky.Post:
    """What the comment has to say of a run.

    Raises:
        GateError: The run does not say which commit it judged.
    """
    if run.head_sha is None:
        raise GateError(
            "the run does not say which commit it judged",
            "Publish the run.json that the action wrote.",
        )
    waived = run.status == "fail" and run.waiver is not None
    # The footer names the run: one that says the same of the same commit is no news.
    anonymous = run.model_copy(update={"run_id": None, "run_url": None})
    shown = marker.Shown(
        date=marker.moment(run.date),
        sha=run.head_sha,
        verdict="waived" if waived else run.status,
        run=run.run_id or 0,
        attempt=run.run_attempt,
    )
    return sticky.Post(
        key=run.key,
        shown=shown,
        render=partial(text, run, options),
        substance=text(anonymous, options, "", sticky.MOST_BODY),
        runs_url=_runs_url(run),
        quiet=_nothing_to_say(run),
    )


def _has_comment(run: GateRun) -> bool:
    """Whether it is about a pull request as it is, not about a queue's merge of it."""
    return run.pull_request is not None and run.event != "merge_group"


def _nothing_to_say(run: GateRun) -> bool:
    """Whether the change touches neither a checkpoint nor what it is judged by."""
    found, policy = run.detection, run.policy
    touched = found is not None and (found.checkpoints or found.policy_files)
    policy_touched = policy is not None and (policy.changed or policy.references)
    return not (run.reports or run.failures or touched or policy_touched)


def _runs_url(run: GateRun) -> str:
    before, found, _ = (run.run_url or "").partition("/actions/runs/")
    return f"{before if found else f'https://github.com/{run.repository}'}/actions/runs"


def _set_status(client: "Client", run: GateRun, settled: status.CommitStatus, log: _Log) -> None:
    assert run.head_sha is not None
    client.set_status(
        run.head_sha, settled.state, settled.context, settled.description, run.run_url
    )
    log.notes.append(f"Commit status {settled.context}: {settled.state}.")


def _comment(client: "Client", run: GateRun, options: Options, log: _Log) -> str | None:
    """Write the comment unless the pull request has moved on; its address."""
    said = post(run, options)
    assert run.pull_request is not None
    head = client.pull_request(run.pull_request).head_sha
    if head != run.head_sha:
        log.notes.append(
            f"No comment was written: pull request {run.pull_request} has moved on to {head[:7]}."
        )
        return None
    posted = sticky.update(client, run.pull_request, said, options.comment)
    log.notes.append(_DONE[posted.done])
    return posted.url


_DONE = {
    "created": "The comment was created.",
    "updated": "The comment was updated.",
    "unchanged": "The comment says the same already.",
    "newer": "The comment was left alone: it shows a newer run's verdict.",
    "not wanted": "No comment was due.",
}
