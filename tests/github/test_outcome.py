"""Inputs, outputs and exit codes: what the workflow says, and what it is told."""

import re
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from github_runs import FINDING, WAIVER, comparison, failure, report, run
from github_steps import parsed
from hypothesis import example, given
from hypothesis import strategies as st

from gate.errors import GateError, SettingsError
from gate.github import inputs, outcome, outputs
from gate.github.inputs import PREFIX, Inputs
from gate.records import Policy, Report

ACTION = yaml.safe_load((Path(__file__).parents[2] / "action.yml").read_text())
(STEP,) = ACTION["runs"]["steps"]

PASS, LOST = report("models/pass"), report("models/lost", lost=40)
INVALID = report("models/invalid", findings=[FINDING])
UNCLEAR = LOST.model_copy(
    update={"verdict": LOST.verdict.model_copy(update={"outcome": "inconclusive"})}
)
ADVISORY = {"policy": Policy(commit=None, digest="d", advisory=True)}
ERROR = {"failures": (failure("models/error"),)}


def asked(**given: str) -> Inputs:
    return inputs.read({f"{PREFIX}{name.upper()}": value for name, value in given.items()})


@pytest.mark.parametrize(
    ("reports", "changes", "asks", "status", "code"),
    [
        ([], {}, {}, "skipped", 0),
        ([PASS], {}, {}, "pass", 0),
        ([PASS, LOST], {}, {}, "fail", 1),
        ([LOST], {}, {"fail_on": "never"}, "fail", 0),
        ([LOST], {}, {"fail_on": "invalid"}, "fail", 0),
        ([LOST, INVALID], {}, {"fail_on": "invalid"}, "fail", 1),
        ([UNCLEAR], {}, {}, "inconclusive", 4),
        ([UNCLEAR, LOST], {}, {}, "fail", 1),
        ([UNCLEAR], {}, {"fail_on": "invalid"}, "inconclusive", 0),
        ([UNCLEAR], {}, {"fail_on": "never"}, "inconclusive", 0),
        ([PASS], ERROR, {}, "error", 3),
        ([PASS], ERROR, {"on_infra_error": "warn"}, "error", 0),
        ([PASS], ERROR, {"fail_on": "never"}, "error", 3),
        ([LOST], ERROR, {"on_infra_error": "warn"}, "fail", 1),
        ([LOST], ERROR, {"fail_on": "never"}, "fail", 3),
        ([LOST], {"waiver": WAIVER}, {}, "fail", 0),
        ([LOST], ERROR | {"waiver": WAIVER}, {}, "fail", 3),
        ([LOST], ADVISORY, {}, "skipped", 0),
        ([LOST], ADVISORY | ERROR, {}, "error", 3),
    ],
)
def test_what_a_run_means_for_the_step(
    reports: list[Report], changes: dict[str, Any], asks: dict[str, str], status: str, code: int
) -> None:
    done = run(*reports, **changes)
    assert outcome.outputs(done, Path("run.json"))["status"] == status
    assert outcome.exit_code(done, asked(**asks)) == code


def test_the_lowest_gating_retention_is_an_output() -> None:
    texts = comparison(retention=0.5, higher_is_better=False, task="text")
    advisory = comparison(retention=0.6, outcome=None)
    verdict = LOST.verdict.model_copy(update={"comparisons": (comparison(40), texts, advisory)})
    done = run(PASS, LOST.model_copy(update={"verdict": verdict}))
    assert outcome.outputs(done, Path("run.json"))["retention"] == "0.9000"
    invalid = INVALID.verdict.model_copy(update={"comparisons": ()})
    done = run(INVALID.model_copy(update={"verdict": invalid}))
    assert outcome.outputs(done, Path("run.json"))["retention"] == ""


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("command", "judge", "one of auto, detect, check, publish"),
        ("fail-on", "Regression", "one of regression, invalid, never"),
        ("on-infra-error", "ignore", "one of fail, warn"),
        ("comment", "yes", "one of always, changes, failures, never"),
        ("lfs", "on", "one of auto, off"),
        ("lint-only", "True", "true or false"),
        ("full", "1", "true or false"),
        ("commit-status", "no", "true or false"),
        ("publish-text", "yes", "true or false"),
        ("waiver-max-age", "3", "such as 3d or 12h"),
    ],
)
def test_a_wrong_input_is_refused(name: str, value: str, wanted: str) -> None:
    with pytest.raises(SettingsError) as refused:
        asked(**{name.replace("-", "_"): value})
    assert value in refused.value.message
    assert wanted in refused.value.hint


def test_check_needs_a_checkpoint() -> None:
    with pytest.raises(SettingsError, match="needs a checkpoint"):
        asked(command="check")


def test_lines_and_ages_are_read() -> None:
    found = asked(paths=" a/** \n\nb\n", run_json="x\ny/z", waiver_max_age="12h", lint_only="true")
    assert found.paths == ("a/**", "b")
    assert found.run_json == (Path("x"), Path("y/z"))
    assert found.waiver_max_age == timedelta(hours=12)
    assert found.lint_only


def test_every_input_of_the_action_is_read_and_no_other() -> None:
    declared = set(ACTION["inputs"])
    passed = {
        name.removeprefix(PREFIX).lower().replace("_", "-"): value
        for name, value in STEP["env"].items()
    }
    assert passed == {name: f"${{{{ inputs.{name} }}}}" for name in declared}
    read = {field.name.replace("_", "-") for field in fields(Inputs)}
    assert declared == read | {"python", "wheels"}  # those two are for scripts/action.sh


def test_the_defaults_of_the_action_are_those_of_its_absence() -> None:
    stated = {
        f"{PREFIX}{name.upper().replace('-', '_')}": entry["default"]
        for name, entry in ACTION["inputs"].items()
        if name != "github-token"
    }
    with_settings = inputs.read({f"{PREFIX}SETTINGS": "quant-gate.yaml"})
    assert inputs.read(stated) == with_settings


def test_the_action_is_one_step_without_expressions_in_its_script() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert "${{" not in STEP["run"]
    assert "uses" not in STEP
    for name, entry in ACTION["inputs"].items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
        assert entry["description"]
        assert entry["required"] is False
        assert isinstance(entry["default"], str), name


def test_every_output_of_the_action_is_one_that_is_written() -> None:
    elsewhere = {"matrix", "comment-url", "attestations", "attestations-path"}
    assert set(outcome.outputs(run(PASS), Path("run.json"))) | elsewhere == set(ACTION["outputs"])
    for name, entry in ACTION["outputs"].items():
        assert entry["value"] == f"${{{{ steps.{STEP['id']}.outputs.{name} }}}}"


def test_nobody_reads_the_variables_that_a_composite_action_lacks() -> None:
    sources = [
        *Path(outcome.__file__).parent.glob("*.py"),
        Path(__file__).parents[2] / "scripts/action.sh",
    ]
    for path in sources:
        assert not re.search(r"(?<!QUANT_GATE_)INPUT_[A-Z]", path.read_text()), path


@given(st.dictionaries(st.sampled_from(["status", "matrix"]), st.text()))
def test_outputs_are_read_back_as_they_were(values: dict[str, str]) -> None:
    assert parsed("".join(outputs.heredocs(values))) == values


def test_outputs_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="GitHub takes 1 MB"):
        outputs.write(str(tmp_path / "output"), {"matrix": "x" * 500_000})
    with pytest.raises(GateError, match="GITHUB_OUTPUT cannot be written"):
        outputs.write(str(tmp_path), {"status": "pass"})
    outputs.write(None, {"status": "pass"})


def test_the_end_of_an_output_cannot_be_guessed() -> None:
    first, second = ("".join(outputs.heredocs({"status": "pass"})) for _ in range(2))
    assert first != second


@given(st.text())
@example("::error::x")
@example("##[error]x")
def test_no_text_becomes_a_command(text: str) -> None:
    assert not re.search(r"[\r\n]", outputs.escaped(text).replace("%0A", ""))
    line = outputs.plain(text)
    assert "::" not in line
    assert "##[" not in line
    assert len(line.splitlines()) <= 1
