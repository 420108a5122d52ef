"""A verdict as a statement, and a release that is held against it."""

import base64
import copy
import json
import random
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from github_repository import Repository
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_toto_attestation.predicates.test_result.v0.test_result_pb2 import (
    TestResult as ResultMessage,
)
from in_toto_attestation.v1.statement import Statement as InTotoStatement

from gate import records
from gate.cli import cli
from gate.errors import AttestError, SettingsError
from gate.records import GateRun, Report, Waiver
from gate.statements import Refusal, unsigned
from gate.verify import Requirement

MODEL = "quantized_model"
Verify = Callable[..., str]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose checkpoint was judged: model, settings, report and statement."""
    made = Repository(tmp_path_factory.mktemp("judged") / "models")
    made.change(sound=[MODEL])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.root)
        patch.setenv("QUANT_GATE_CACHE", str(made.root.parent / "cache"))
        run("check", MODEL, "--full", "--report", "json=report.json")
        run("attest", "report.json", "--checkpoint", MODEL, "-o", "statement.json")
    return made.root


@pytest.fixture
def here(judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it for one test, which is the current directory."""
    own = Path(shutil.copytree(judged, tmp_path / "models"))
    monkeypatch.chdir(own)
    return own


@pytest.fixture
def verify(here: Path, capsys: pytest.CaptureFixture[str]) -> Verify:
    """Verifies by the command; what it prints."""

    def call(*options: str, code: int = 0, statement: str = "statement.json") -> str:
        capsys.readouterr()
        run("verify", MODEL, "--statement", statement, *options, code=code)
        return capsys.readouterr().out

    return call


def run(*arguments: str, code: int = 0) -> None:
    assert cli.main(list(arguments), standalone_mode=False) == code


def edit(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def stated(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def figures(statement: Any) -> Any:
    return statement["predicate"]["configuration"][0]["annotations"]


def test_a_statement_is_what_in_toto_parses_strictly(here: Path) -> None:
    value = stated(here / "statement.json")
    predicate = json_format.ParseDict(
        value["predicate"], ResultMessage(), ignore_unknown_fields=False
    )
    assert predicate.result == "PASSED"
    assert next(iter(predicate.passed_tests)) == "lint"
    InTotoStatement.copy_from_pb(
        json_format.ParseDict(
            value, InTotoStatement([], "", {}).pb.__class__(), ignore_unknown_fields=False
        )
    ).validate()


def test_what_a_signer_takes_is_the_same_statement(here: Path) -> None:
    signed = ("--predicate", "predicate.json", "--checksums", "files.sha256")
    run("attest", "report.json", "--checkpoint", MODEL, "-o", "again.json", *signed)
    whole = stated(here / "again.json")
    assert stated(here / "predicate.json") == whole["predicate"]
    checked = subprocess.run(
        ["sha256sum", "--strict", "--check", "../files.sha256"],
        cwd=here / MODEL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
    assert len(checked.stdout.splitlines()) == len(whole["subject"])


def test_every_file_is_a_subject(here: Path) -> None:
    named = {entry["name"] for entry in stated(here / "statement.json")["subject"]}
    assert named == {path.name for path in (here / MODEL).iterdir()}


def test_the_bytes_that_were_judged_are_verified(verify: Verify) -> None:
    shown = verify()
    assert shown.startswith(f"VERIFIED  {MODEL}\n")
    assert "Any age would do" in shown


def test_any_changed_byte_is_named(here: Path, verify: Verify) -> None:
    files = sorted((here / MODEL).iterdir())
    draw = random.Random(7)
    for _ in range(200):
        path = draw.choice(files)
        content = bytearray(path.read_bytes())
        position = draw.randrange(len(content))
        content[position] ^= 1 << draw.randrange(8)
        before = path.read_bytes()
        path.write_bytes(content)
        assert f"{path.name} changed: SHA-256" in verify(code=1)
        path.write_bytes(before)


def test_a_file_that_was_added_or_taken_away_is_named(here: Path, verify: Verify) -> None:
    (here / MODEL / "modeling_evil.py").write_text("", encoding="utf-8")
    (here / MODEL / "config.json").unlink()
    shown = verify(code=1)
    assert "modeling_evil.py was added after the verdict" in shown
    assert "config.json is missing" in shown


def test_files_of_the_tools_that_fetched_it_do_not_count(here: Path, verify: Verify) -> None:
    (here / MODEL / ".cache" / "huggingface").mkdir(parents=True)
    (here / MODEL / ".cache" / "huggingface" / "x.lock").touch()
    verify()


def test_a_link_out_of_the_checkpoint_has_no_verdict(here: Path) -> None:
    (here / MODEL / "extra").symlink_to(here / "report.json")
    with pytest.raises(Exception, match="extra leads out of"):
        run("verify", MODEL, "--statement", "statement.json")


def test_no_statement_blocks(verify: Verify) -> None:
    assert "there is no statement" in verify(code=1, statement="missing.json")


@pytest.mark.parametrize("result", ["FAILED", "WARNED"])
def test_only_a_passed_verdict_will_do(here: Path, verify: Verify, result: str) -> None:
    edit(here / "statement.json", lambda value: value["predicate"].update(result=result))
    assert f"the verdict is {result}" in verify(code=1)


def test_a_waived_verdict_blocks(here: Path, verify: Verify) -> None:
    report = records.read(here / "report.json", Report)
    failed = report.verdict.model_copy(update={"outcome": "fail"})
    waiver = Waiver(label="waive", by="ada", at="2026-11-20T00:00:00Z", expires="2026-11-23")
    waived = GateRun(
        gate_version="1",
        key="default",
        reports=(report.model_copy(update={"verdict": failed}),),
        waiver=waiver,
        date=records.now(),
    )
    records.write(here / "run.json", waived)
    run("attest", "run.json", "--checkpoint", MODEL, "-o", "statement.json")
    assert "the verdict was waived by ada" in verify(code=1)


def test_other_settings_are_named(here: Path, verify: Verify) -> None:
    path = here / "quant-gate.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "borderline: block\n", encoding="utf-8")
    assert "it was judged by other settings: borderline differ" in verify(code=1)


def test_another_baseline_is_another_policy(here: Path, verify: Verify) -> None:
    (baseline,) = (here / "baselines").glob("*.json")
    edit(baseline, lambda value: value.update(date="2020-01-01T00:00:00+00:00"))
    assert "it was judged by other baselines, tasks or settings files" in verify(code=1)


def test_a_verdict_grows_too_old(here: Path, verify: Verify) -> None:
    verify("--max-age", "14d")
    old = (datetime.now(UTC) - timedelta(days=15)).isoformat()
    edit(here / "statement.json", lambda value: figures(value).update(date=old))
    assert "the verdict is 15 days old; at most 14 are allowed" in verify(
        "--max-age", "14d", code=1
    )
    verify()


@pytest.mark.parametrize("date", ["2999-01-01T00:00:00+00:00", "soon", None])
def test_a_verdict_without_a_past_date_blocks(here: Path, verify: Verify, date: object) -> None:
    edit(here / "statement.json", lambda value: figures(value).update(date=date))
    assert "the verdict" in verify(code=1)


def test_requirements_are_held_against_the_figures(here: Path, verify: Verify) -> None:
    (name,) = [n for n in figures(stated(here / "statement.json"))["metrics"] if " " in n][:1]
    task = name.split(" ")[0]
    sign = "<=" if task == "perplexity" else ">="
    verify("--require", f"{task}{sign}{'10' if sign == '<=' else '0.1'}")
    assert f"{name} is" in verify(
        "--require", f"{name}{sign}{'0' if sign == '<=' else '9'}", code=1
    )
    assert "not measured" in verify("--require", "gsm8k>=0.95", code=1)


@pytest.mark.parametrize("figure", [None, "NaN", "1", True, [1]])
def test_what_is_no_number_meets_nothing(here: Path, verify: Verify, figure: object) -> None:
    def change(value: Any) -> None:
        for found in figures(value)["metrics"].values():
            found["retention"] = figure

    edit(here / "statement.json", change)
    task = next(iter(figures(stated(here / "statement.json"))["metrics"])).split(" ")[0]
    assert "is asked" in verify("--require", f"{task}>=0.1", code=1)


def test_a_requirement_that_is_none_is_a_wrong_command_line() -> None:
    with pytest.raises(SettingsError, match="no requirement"):
        Requirement.parse("ifeval is fine")


@pytest.mark.parametrize("bundle", [False, True])
def test_an_envelope_holds_the_same_statement(here: Path, verify: Verify, bundle: bool) -> None:
    payload = base64.b64encode((here / "statement.json").read_bytes()).decode()
    envelope = {"payload": payload, "payloadType": "application/vnd.in-toto+json", "signatures": []}
    value = {"mediaType": "x", "dsseEnvelope": envelope} if bundle else envelope
    (here / "bundle.json").write_text(json.dumps(value), encoding="utf-8")
    verify(statement="bundle.json")


def test_an_unchanged_file_is_not_read_again(here: Path, verify: Verify) -> None:
    verify("--cache", "known.json")
    edit(
        here / "known.json",
        lambda value: [entry.__setitem__(2, "f" * 64) for entry in value.values()],
    )
    assert "changed: SHA-256" in verify("--cache", "known.json", code=1)
    (here / MODEL / "config.json").touch()
    changed = verify("--cache", "known.json", code=1).splitlines()
    assert not [line for line in changed if line.startswith("config.json")]


def test_other_bytes_than_the_judged_are_not_attested(here: Path) -> None:
    (here / MODEL / "config.json").write_bytes(b"{}")
    with pytest.raises(AttestError, match=r"other bytes than these: config\.json"):
        run("attest", "report.json", "--checkpoint", MODEL, "-o", "other.json")
    assert not (here / "other.json").exists()


def test_what_ended_early_is_attested_only_where_settings_say_so(here: Path) -> None:
    def stop(value: Any) -> None:
        found = next(c for c in value["verdict"]["comparisons"] if c["outcome"])
        found["early_stop"] = {
            "reason": "PASS", "n_planned": 541, "outcome": "pass", "certain": False
        }  # fmt: skip

    edit(here / "report.json", stop)
    arguments = ("attest", "report.json", "--checkpoint", MODEL, "-o", "early.json")
    with pytest.raises(AttestError, match="of 541 documents"):
        run(*arguments)
    edit(here / "report.json", lambda value: value["settings"].update(attest="early"))
    run(*arguments)


def test_what_the_target_computes_otherwise_is_not_attested(here: Path) -> None:
    target = {"name": "vLLM 0.32 on NVIDIA H100", "differs": ["weights: stored"]}
    edit(here / "report.json", lambda report: report["evaluation"].update(target=target))
    with pytest.raises(AttestError, match=r"vLLM 0\.32 on NVIDIA H100 computes: weights: stored"):
        run("attest", "report.json", "--checkpoint", MODEL, "-o", "x.json")


def test_a_report_that_measured_nothing_is_not_attested(here: Path) -> None:
    edit(here / "report.json", lambda value: value.update(digests={}))
    with pytest.raises(AttestError, match="measured nothing"):
        run("attest", "report.json", "--checkpoint", MODEL, "-o", "x.json")


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=60,
    deadline=None,
)
@given(data=st.data())
def test_no_content_of_a_statement_breaks_reading_it(judged: Path, data: st.DataObject) -> None:
    value = copy.deepcopy(stated(judged / "statement.json"))
    keys = ["subject", "predicate", "predicateType", "_type", "payload", "dsseEnvelope"]
    json_value = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=5,
    )
    value[data.draw(st.sampled_from(keys))] = data.draw(json_value)
    content = json.dumps(data.draw(st.sampled_from([value, [value], "x", 1]))).encode()
    found = unsigned(content, Path("hostile.json"))
    assert isinstance(found, Refusal) or found.predicate.result == "PASSED"
