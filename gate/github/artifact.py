"""What a fork's run left behind: archives from strangers, opened in memory and believed in nothing.

The second phase of the fork pattern: a `workflow_run` with a token that may write takes the stored
run of a pull request's first phase through the API. Nothing is checked out, no name in an archive
becomes a path, and of the run only what `remaking` keeps is shown.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gate.errors import PublishError
from gate.github import joining, remaking
from gate.github.joining import FILE
from gate.github.remaking import Origin
from gate.records import SCHEMA_VERSION, GateRun

if TYPE_CHECKING:
    from gate.github.api import Artifact, Client, PullRequest, WorkflowRun

PREFIX = "quant-gate-"
MOST_ARTIFACTS = 256
MOST_ENTRIES = 100
MOST_BYTES = 20_000_000
"""Of all archives together, and of all that is in them."""

MOST_RATIO = 100
"""A run.json is compressed to a tenth; what shrinks a thousandfold is a bomb."""

DEPENDABOT = "dependabot[bot]"
"""Its pull requests are the repository's own, and yet their token only reads."""

AGAIN = "Run the workflow of the pull request again."


class Collected(NamedTuple):
    """A fork's run to publish, or in words why there is none."""

    run: GateRun | None
    reason: str = ""


def collect(client: "Client", repository: str, run_id: int, key: str) -> Collected:
    """The run that a finished workflow run of a fork's pull request stored.

    Raises:
        PublishError: GitHub does not answer, or does not allow the question.
    """
    finished = client.workflow_run(run_id)
    if finished.event != "pull_request":
        return Collected(None, f"run {run_id} was not started by a pull request")
    pull = _pull_request(client, finished)
    if pull is None:
        return Collected(None, "no open pull request has the commit that was judged as its head")
    if finished.head_repository == repository and pull.author != DEPENDABOT:
        return Collected(None, "the pull request is not a fork's, and its own run has published")
    origin = Origin(
        repository=repository,
        key=key,
        run_id=finished.id,
        run_attempt=finished.run_attempt,
        run_url=finished.html_url,
        head_sha=finished.head_sha,
        base_sha=pull.base_sha,
        pull_request=pull.number,
    )
    live = [
        each
        for each in client.artifacts(run_id)
        if each.name.startswith(PREFIX) and not each.expired
    ]
    problem = _problem(live)
    if problem:
        return Collected(remaking.failed(origin, problem))
    archives = [client.download_artifact(each.id, MOST_BYTES) for each in live]
    try:
        stored = _joined(archives)
    except PublishError as error:
        return Collected(remaking.failed(origin, error.message))
    return Collected(remaking.remake(stored, origin))


def _pull_request(client: "Client", finished: "WorkflowRun") -> "PullRequest | None":
    """The open one by its head, since GitHub names none for a fork; None if it moved on."""
    found = client.pull_requests_of(
        finished.head_sha,
        head_owner=(finished.head_repository or "").partition("/")[0] or None,
        head_ref=finished.head_branch,
    )
    # One branch may be offered to several branches of ours; it was judged once, for the first.
    return next(
        (
            pull
            for pull in found
            if pull.state == "open"
            and pull.head_sha == finished.head_sha
            and pull.head_repository == finished.head_repository
        ),
        None,
    )


def _problem(artifacts: Sequence["Artifact"]) -> str | None:
    """Why they are not even downloaded."""
    if not artifacts:
        return "the fork's run left no report, or it has expired"
    if len(artifacts) > MOST_ARTIFACTS:
        return f"the fork's run left {len(artifacts):,} artifacts"
    if sum(each.size_bytes for each in artifacts) > MOST_BYTES:
        return f"the fork's run left artifacts of more than {MOST_BYTES:,} bytes"
    return None


def _joined(archives: Sequence[bytes]) -> GateRun:
    """The run that is in these archives, as its author wrote it.

    Raises:
        PublishError: One of them cannot be read. It quotes nothing of them.
    """
    left, runs = MOST_BYTES, []
    for archive in archives:
        document = run_json(archive)
        left -= len(document)
        if left < 0:
            raise _refused(f"all of it has more than {MOST_BYTES:,} bytes")
        runs.append(read(document))
    try:
        return joining.join(runs)
    except PublishError as error:
        raise _refused("its parts do not belong to one run") from error


def run_json(archive: bytes) -> bytes:
    """The bytes of the one run.json in a zip archive, wherever it lies in there.

    Raises:
        PublishError: No such archive, more than one, or larger than a report can be.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            entries = opened.infolist()
            found = [each for each in entries if each.filename.rpartition("/")[2] == FILE]
            if len(found) != 1 or len(entries) > MOST_ENTRIES:
                raise _refused(f"it holds {len(found)} {FILE} among {len(entries)} files")
            return _entry(opened, found[0])
    except (
        zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, OverflowError,
        NotImplementedError, RuntimeError,
    ) as error:  # fmt: skip
        raise _refused("it is no zip archive that can be read") from error


def _entry(opened: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """An entry's bytes, however large it says that it is."""
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise _refused("it is compressed in an unusual way")
    with opened.open(entry) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise _refused(f"its {FILE} has more than {MOST_BYTES:,} bytes")
    if len(content) > MOST_RATIO * max(entry.compress_size, 1000):
        raise _refused(f"its {FILE} is compressed more than {MOST_RATIO} times")
    return content


def read(document: bytes) -> GateRun:
    """A stored run, held against the record and its JSON Schema.

    Raises:
        PublishError: It is none, or one of another version.
    """
    from pydantic import ValidationError

    try:
        value = json.loads(document)
        version = value.get("schema_version") if isinstance(value, dict) else None
        if type(version) is int and version > SCHEMA_VERSION:
            raise _refused(f"its {FILE} is of a newer quant-gate (schema version {version})")
        run = GateRun.model_validate(value)
        sound = _validator().is_valid(value)
    except (ValidationError, ValueError, RecursionError, OverflowError) as error:
        raise _refused(f"its {FILE} is not a stored run") from error
    if not sound:
        raise _refused(f"its {FILE} does not follow schemas/run.schema.json")
    return run


def _validator() -> Any:
    """The schema's, in which a number may be one of the words that JSON has no number for."""
    import jsonschema

    from gate import schema

    plain = jsonschema.Draft202012Validator

    def number(checker: Any, value: object) -> bool:
        words = {"NaN", "Infinity", "-Infinity"}
        return plain.TYPE_CHECKER.is_type(value, "number") or value in words

    validators: Any = jsonschema.validators
    made = validators.extend(plain, type_checker=plain.TYPE_CHECKER.redefine("number", number))
    return made(schema.load("run"))


def _refused(why: str) -> PublishError:
    return PublishError(f"the fork's report is refused: {why}", AGAIN)
