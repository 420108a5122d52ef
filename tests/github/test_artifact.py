"""A fork's report is taken through the API and believed in nothing but its numbers."""

import io
import json
import os
import random
import subprocess
import sys
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from github_runs import BASE, FINDING, HEAD, REPOSITORY, WAIVER, comparison, failure, report, run
from github_stub import READ_ONLY, Artifact, Pull, Run, State, serve
from hypothesis import given, settings
from hypothesis import strategies as st

from gate import schema
from gate.errors import PublishError
from gate.github import artifact, publish, remaking, sticky
from gate.github.api import Client
from gate.github.publish import Options
from gate.records import (
    BaselineInfo,
    CanaryAnswer,
    ChangedCheckpoint,
    Detection,
    Flip,
    GateRun,
    InstructionChange,
    Policy,
    Previous,
    Report,
    Verdict,
)

FORK = "stranger/models"
PULL = Pull(number=7, head_repository=FORK, base_sha=BASE, author="stranger")
FINISHED = Run(id=55, run_attempt=3, head_repository=FORK)
LURE = "**Approved** by @octocat [here](https://evil.invalid) <!-- quant-gate:v1 --> LURE"
ORIGIN = remaking.Origin(REPOSITORY, "default", 55, 3, None, HEAD, BASE, 7)


def zipped(*files: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as opened:
        for name, content in files:
            opened.writestr(name, content)
    return archive.getvalue()


def stored(done: GateRun) -> bytes:
    return zipped(("run.json", done.model_dump_json().encode()), ("report.md", b"hi"))


def github(*archives: bytes, **held: Any) -> State:
    artifacts = [
        Artifact(id=number, run_id=55, name=f"quant-gate-{number}", content=content)
        for number, content in enumerate(archives)
    ]
    usual = {"pulls": {7: PULL}, "runs": {55: FINISHED}, "artifacts": artifacts}
    return State(**{"repository": REPOSITORY, **usual, **held})


def collect(state: State) -> artifact.Collected:
    with serve(state) as url:
        return artifact.collect(Client(url, "token", REPOSITORY, pause_s=0), REPOSITORY, 55, "main")


def test_a_forks_run_is_published_by_the_second_phase(tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    event.write_text(
        json.dumps(
            {
                "workflow_run": {"id": 55, "head_sha": HEAD, "head_branch": "change"},
                "repository": {"full_name": REPOSITORY},
            }
        )
    )
    claimed = run(report("a", lost=40), run_id=9999, key="x", pull_request=1, head_sha="c" * 40)
    state = github(stored(claimed))
    with serve(state) as url:
        done = subprocess.run(
            [sys.executable, "-m", "gate", "publish", "--workflow-run", "--key", "main"],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ
            | {
                "GITHUB_TOKEN": "token",
                "GITHUB_API_URL": url,
                "GITHUB_EVENT_NAME": "workflow_run",
                "GITHUB_EVENT_PATH": str(event),
            },
        )
    assert (done.returncode, done.stderr) == (0, "")
    (comment,), (settled,) = state.comments, state.statuses
    assert comment.issue == 7 and f"key=main run=55 attempt=3 sha={HEAD}" in comment.body
    assert comment.body.splitlines()[3].startswith("## ❌")
    assert "fork's own run" in comment.body.splitlines()[5]
    assert (settled.sha, settled.context, settled.state) == (HEAD, "quant-gate/main", "failure")
    assert settled.description.startswith("Fork's own run: FAIL: a: ifeval")


def test_the_parts_of_a_matrix_are_joined() -> None:
    collected = collect(github(stored(run(report("a"))), stored(run(report("b", lost=40)))))
    assert collected.run is not None and collected.run.status == "fail"
    assert collected.run.pull_request == 7 and len(collected.run.reports) == 2


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        ({"runs": {55: Run(id=55, event="push", head_repository=FORK)}}, "not started by a pull"),
        ({"pulls": {7: PULL.model_copy(update={"head_sha": "c" * 40})}}, "no open pull request"),
        ({"pulls": {7: PULL.model_copy(update={"state": "closed"})}}, "no open pull request"),
        ({"pulls": {7: PULL.model_copy(update={"head_ref": "other"})}}, "no open pull request"),
        (
            {"pulls": {7: PULL.model_copy(update={"head_repository": "stranger/other"})}},
            "no open pull request",
        ),
        (
            {
                "runs": {55: Run(id=55)},
                "pulls": {7: PULL.model_copy(update={"head_repository": None})},
            },
            "not a fork's",
        ),
    ],
)
def test_what_is_not_to_be_published_is_said(held: dict[str, Any], reason: str) -> None:
    collected = collect(github(stored(run(report("a"))), **held))
    assert collected.run is None and reason in collected.reason


def test_dependabots_token_only_reads_so_the_second_phase_speaks_for_it() -> None:
    pull = PULL.model_copy(update={"head_repository": None, "author": "dependabot[bot]"})
    collected = collect(github(stored(run()), runs={55: Run(id=55)}, pulls={7: pull}))
    assert collected.run is not None and collected.run.status == "skipped"


def test_a_run_that_left_nothing_has_no_verdict() -> None:
    collected = collect(github())
    assert collected.run is not None and collected.run.status == "error"
    assert "left no report" in collected.run.failures[0].message


@pytest.mark.parametrize(
    "archive",
    [
        b"",
        b"PK\x03\x04 not really",
        zipped(("report.json", b"{}")),
        zipped(("run.json", b"{}"), ("other/run.json", b"{}")),
        zipped(*((f"{n}", b"") for n in range(101)), ("run.json", b"{}")),
        zipped(("run.json", b"{}"), method=zipfile.ZIP_BZIP2),
        zipped(("run.json", b"[" * 200_000)),
        zipped(("run.json", b'{"schema_version": 1}')),
        zipped(("run.json", b"\xff\xfe")),
        zipped(("run.json", b"1" * 10_000)),
        stored(run(report("a")))[:-30],
    ],
    ids=lambda archive: archive[30:38].hex(),
)
def test_an_archive_that_cannot_be_read_is_refused_in_our_own_words(archive: bytes) -> None:
    with pytest.raises(PublishError, match="the fork's report is refused") as refused:
        artifact.read(artifact.run_json(archive))
    assert len(refused.value.message) < 200


@pytest.mark.parametrize(
    ("padding", "method", "said"),
    [
        (1_000_000, zipfile.ZIP_DEFLATED, "compressed more than 100 times"),
        (artifact.MOST_BYTES, zipfile.ZIP_STORED, "more than 20,000,000 bytes"),
    ],
)
def test_a_sound_run_that_is_blown_up_is_refused(padding: int, method: int, said: str) -> None:
    document = run(report("a")).model_dump_json().encode()
    assert artifact.run_json(zipped(("run.json", document + b" " * 10_000))).startswith(document)
    with pytest.raises(PublishError, match=said):
        artifact.run_json(zipped(("run.json", document + b" " * padding), method=method))


def test_what_is_too_large_is_not_downloaded() -> None:
    state = github(bytes(artifact.MOST_BYTES), bytes(1))
    collected = collect(state)
    assert collected.run is not None and state.blob_requests == []
    assert "artifacts of more than 20,000,000 bytes" in collected.run.failures[0].message


def test_all_parts_together_are_bounded() -> None:
    noise = bytes(random.Random(0).choices(b" \n\t\r", k=100_000))
    large = zipped(("run.json", run(report("a")).model_dump_json().encode() + noise * 70))
    collected = collect(github(large, large, large))
    assert collected.run is not None
    assert "more than 20,000,000 bytes" in collected.run.failures[0].message


def test_an_encrypted_entry_is_refused() -> None:
    content = bytearray(zipped(("run.json", b"{}"), method=zipfile.ZIP_STORED))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    with pytest.raises(PublishError):
        artifact.run_json(bytes(content))


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_bytes_of_any_kind_are_refused_or_read(junk: bytes, place: int, change: bytes) -> None:
    sound = zipped(("run.json", run(report("a")).model_dump_json().encode()))
    place = place % len(sound)
    for archive in (junk, sound[:place] + change + sound[place + len(change) :]):
        try:
            artifact.read(artifact.run_json(archive))
        except PublishError:
            continue


@pytest.mark.parametrize(
    "document",
    [
        {"schema_version": 2},
        {"schema_version": 1, "extra": 1},
        {"schema_version": True},
        [],
        "x",
    ],
)
def test_what_is_no_stored_run_is_refused(document: Any) -> None:
    value = json.loads(run(report("a")).model_dump_json())
    value = {**value, **document} if isinstance(document, dict) else document
    with pytest.raises(PublishError):
        artifact.read(json.dumps(value).encode())


def test_a_run_with_figures_that_json_has_no_number_for_is_read() -> None:
    odd = comparison(retention=float("nan"), baseline=float("inf"))
    judged = report("a")
    verdict = judged.verdict.model_copy(update={"comparisons": (odd,)})
    done = run(judged.model_copy(update={"verdict": verdict}))
    assert artifact.read(done.model_dump_json().encode()) is not None


def test_the_schema_decides_where_the_record_would_convert() -> None:
    value = json.loads(run(report("a")).model_dump_json())
    value["run_id"] = "100"
    with pytest.raises(PublishError, match=r"run\.schema\.json"):
        artifact.read(json.dumps(value).encode())


def test_the_schema_has_no_pattern_that_could_be_made_to_run_long() -> None:
    assert '"pattern":' not in json.dumps(schema.load("run"))


def lured() -> GateRun:
    """A run with a lure in every text that its author can write."""
    finding = FINDING.model_copy(
        update={"message": LURE, "tensor": LURE, "file": LURE, "fix": LURE, "pointer": LURE}
    )
    answer = CanaryAnswer(
        task=LURE, doc_id=1, defect=LURE, prompt=LURE, baseline=LURE, candidate=LURE
    )
    verdict = Verdict(
        outcome="fail",
        reasons=(LURE,),
        fix=LURE,
        stage="canary",
        comparisons=(comparison(task=LURE, metric=LURE, method=LURE, reason=LURE),),
        canary=(answer,),
    )
    judged = report(LURE, findings=[finding, finding.model_copy(update={"rule": LURE})])
    flip = Flip(
        task=LURE, metric=LURE, doc_id=3, gained=False, parts=(LURE,), prompt=LURE,
        baseline=LURE, candidate=LURE,
    )  # fmt: skip
    change = InstructionChange(task=LURE, metric=LURE, kind=LURE, n=3, baseline=3, candidate=1)
    info = BaselineInfo(
        path=LURE, model=LURE, revision=LURE, weights_digest=LURE, date=LURE, device=LURE,
        warnings=(LURE,),
    )  # fmt: skip
    lint = judged.lint.model_copy(update={"format": LURE, "algorithms": (LURE,)})
    judged = judged.model_copy(
        update={
            "gate_version": LURE, "revision": LURE, "files": (LURE,), "command": LURE,
            "settings": {LURE: LURE}, "lint": lint, "baseline": info, "verdict": verdict,
            "flips": (flip,), "instructions": (change,), "private_tasks": (LURE,),
            "reused_from": LURE, "date": LURE, "run_id": 4711, "reused_run": 4711,
            "previous": Previous(
                content="0" * 64, revision=LURE, weights_digest=LURE, date=LURE, missing=(LURE,),
                comparisons=(comparison(task=LURE, metric=LURE, method=LURE, reason=LURE),),
            ),
        }
    )  # fmt: skip
    policy = Policy(commit=LURE, digest=LURE, changed=(LURE,), advisory=True)
    changed = ChangedCheckpoint(path=LURE, change="renamed", previous=LURE, files=(LURE,))
    found = Detection(
        base=LURE, head=LURE, source=LURE, checkpoints=(changed,), policy_files=(LURE,)
    )
    return run(
        judged, failures=(failure(LURE),), gate_version=LURE, event=LURE, key=LURE, date=LURE,
        repository=LURE, run_url=LURE, head_sha=LURE, waiver=WAIVER, policy=policy, detection=found,
    )  # fmt: skip


def test_no_text_of_a_fork_survives() -> None:
    made = remaking.remake(lured(), ORIGIN)
    options = Options(forked=True)
    body = sticky.compose(publish.post(made, options), None)
    for text in (made.model_dump_json(), body):
        assert "LURE" not in text and "octocat" not in text and "evil" not in text
    assert made.status == "fail" and made.waiver is None and made.policy is None


def test_answers_that_condemn_are_counted_and_not_shown() -> None:
    made = remaking.remake(lured(), ORIGIN).reports[0].verdict
    assert made.canary == () and made.stage == "lint"
    alone = lured().reports[0].model_copy(update={"lint": report().lint})
    made = remaking.remake(run(alone), ORIGIN).reports[0].verdict
    assert (made.outcome, made.stage) == ("fail", "canary")
    assert made.reasons[0] == "the fork's run says FAIL: the model degenerates on 1 prompt"


def test_every_field_of_a_report_is_made_anew_or_left_out() -> None:
    """A field that a later version adds must be looked at before a fork may fill it."""
    assert set(Report.model_fields) == {
        "schema_version", "gate_version", "checkpoint", "revision", "files", "command", "settings",
        "lint", "size", "evaluation", "baseline", "verdict", "flips", "instructions",
        "private_tasks", "policy", "policy_digest", "digests", "run_id", "reused_from",
        "reused_run", "previous", "diagnosis", "date", "duration_s", "runtime_quantization",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("claimed", "outcome"),
    [
        (comparison(31, outcome="pass"), "fail"),
        (comparison(12, outcome="fail"), "fail"),
        (comparison(12), "pass"),
        (comparison(12, net_loss=None), "fail"),
        (comparison(12, net_loss=float("nan")), "fail"),
        (comparison(31, threshold=None, outcome="fail", budget=None), "pass"),
        (
            comparison(
                budget=None, higher_is_better=False, threshold=Decimal("1.1"), retention=1.2
            ),
            "fail",
        ),
        (
            comparison(
                budget=None, higher_is_better=False, threshold=Decimal("1.1"), retention=1.05
            ),
            "pass",
        ),
    ],
)
def test_what_is_decided_follows_from_the_numbers(claimed: Any, outcome: str) -> None:
    judged = report("a")
    verdict = judged.verdict.model_copy(update={"comparisons": (claimed,), "outcome": "pass"})
    made = remaking.remake(run(judged.model_copy(update={"verdict": verdict})), ORIGIN)
    assert made.reports[0].verdict.outcome == outcome


def test_a_lint_error_cannot_be_called_a_pass() -> None:
    judged = report("a", findings=[FINDING])
    verdict = judged.verdict.model_copy(update={"outcome": "pass"})
    made = remaking.remake(run(judged.model_copy(update={"verdict": verdict})), ORIGIN)
    assert made.status == "fail"
    (found,) = made.reports[0].lint.findings
    assert found.message == "A quantized layer lacks a scale."
    assert found.fix == made.reports[0].verdict.fix and "export again" in found.fix


@settings(deadline=None)
@given(st.floats(), st.floats(), st.integers(), st.floats())
def test_numbers_of_any_size_are_shown(low: float, high: float, n: int, seconds: float) -> None:
    odd = comparison(baseline=low, candidate=high, retention=high, ci_low=low, ci_high=high, n=n)
    judged = report("a")
    size = judged.size.model_copy(update={"stored_bytes": n, "bits_per_weight": low})  # type: ignore[union-attr]
    verdict = judged.verdict.model_copy(update={"comparisons": (odd,)})
    judged = judged.model_copy(update={"verdict": verdict, "size": size, "duration_s": seconds})
    made = remaking.remake(run(judged), ORIGIN)
    assert publish.text(made, Options(forked=True), "", 60_000).startswith("## ")


def test_without_the_permission_the_second_phase_says_which() -> None:
    granted = {name: level for name, level in READ_ONLY.items() if name != "actions"}
    with pytest.raises(PublishError) as refused:
        collect(github(granted=granted))
    assert "actions: read" in refused.value.hint
