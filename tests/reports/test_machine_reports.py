"""SARIF against its official schema, workflow commands against the runner's grammar, JSON Lines."""

import importlib.metadata
import json
import re
from pathlib import Path
from urllib.parse import unquote

import jsonschema
import pytest
from hypothesis import example, given, settings
from reports_data import ERROR, MORE, NOTE, REPORTS, WARNING, linted, make
from test_reports import EVIL, hostile

from gate.records import Finding, Report
from gate.reports import REPORTS as FORMATS
from gate.reports import github, sarif, text
from gate.reports import json as documents

SCHEMA = Path(__file__).parent.parent / "fixtures" / "sarif" / "sarif-2.1.0-rtm.5.json"
COMMAND = re.compile(r"::(error|warning|notice) ((?:file=([^,:]*),)?title=([^,:]*))::(.*)")
VALIDATOR = jsonschema.Draft4Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def run_of(*reports: Report) -> dict:
    """The one run of a log that the official schema accepts."""
    log = json.loads(sarif.render(*reports))
    VALIDATOR.validate(log)
    (run,) = log["runs"]
    return run


@pytest.mark.parametrize("name", REPORTS)
def test_sarif_is_valid(name: str):
    assert run_of(REPORTS[name])["tool"]["driver"]["name"] == "quant-gate"


def test_sarif_tells_rule_place_and_why_it_is_ignored():
    run = run_of(REPORTS["lint"])
    results = {result["ruleId"]: result for result in run["results"]}
    rules = run["tool"]["driver"]["rules"]
    first = next(r for r in run["results"] if r["ruleId"] == "missing-scale")
    assert rules[first["ruleIndex"]]["id"] == "missing-scale"
    assert rules[first["ruleIndex"]]["help"]["markdown"].endswith("**Why.** It matters.")
    (location,) = first["locations"]
    uri = location["physicalLocation"]["artifactLocation"]["uri"]
    assert uri == "models/broken/model.safetensors"
    assert location["logicalLocations"][0]["fullyQualifiedName"] == ERROR.tensor
    (location,) = results["configs-disagree-exclude"]["locations"]
    assert location["logicalLocations"][0]["fullyQualifiedName"] == WARNING.pointer
    (suppression,) = results["tokenizer-missing"]["suppressions"]
    assert suppression["justification"] == NOTE.ignored
    (invocation,) = run["invocations"]
    assert invocation["exitCode"] == 1
    skipped = {note["associatedRule"]["id"] for note in invocation["toolExecutionNotifications"]}
    assert "other-base" in skipped


def fingerprints(*findings: Finding) -> list[str]:
    results = run_of(make("m", None, linted("FP8", *findings)))["results"]
    return [result["partialFingerprints"]["primaryLocationLineHash"] for result in results]


def test_sarif_fingerprints_tell_findings_apart_and_stay():
    several = fingerprints(ERROR, MORE)
    assert len(set(several)) == 2
    assert fingerprints(MORE) == several[1:]


def test_sarif_of_several_checkpoints_is_one_run():
    run = run_of(REPORTS["lint"], REPORTS["reference"])
    assert [each["exitCode"] for each in run["invocations"]] == [1, 0]
    uris = {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].split("/")[1]
            for r in run["results"]}  # fmt: skip
    assert uris == {"broken", "fp8"}


def test_sarif_names_the_manual_where_the_package_does(monkeypatch: pytest.MonkeyPatch):
    rules = run_of(REPORTS["lint"])["tool"]["driver"]["rules"]
    assert not any("helpUri" in rule for rule in rules), "the project names no address"

    class Metadata:
        def get_all(self, name: str) -> list[str]:
            return ["Source, https://example.org/x", "Documentation, https://example.org/rules.md"]

    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: Metadata())
    rules = run_of(REPORTS["lint"])["tool"]["driver"]["rules"]
    assert rules[0]["helpUri"] == f"https://example.org/rules.md#{rules[0]['id']}"


@settings(max_examples=60, deadline=None)
@given(EVIL)
@example("/etc/x y#z?%41:/\\")
def test_sarif_stays_valid_and_its_addresses_are_encoded(evil: str):
    text = sarif.render(hostile(f"x{evil}"))
    assert "##[" not in text and "\x1b" not in text
    run = json.loads(text)
    VALIDATOR.validate(run)
    for result in run["runs"][0]["results"]:
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert re.fullmatch(r"[A-Za-z0-9._~/%-]*", uri)
        assert "\x00" not in unquote(uri)


@settings(max_examples=100, deadline=None)
@given(EVIL)
@example("\n::error::x")
@example("%0A::set-output name=x::y")
@example("a,title=b::c")
@example("##[add-mask]x")
def test_commands_are_one_a_line_and_nothing_else(evil: str):
    harmless = github.render(hostile("x")).splitlines()
    lines = github.render(hostile(f"x{evil}")).split("\n")[:-1]
    assert len(lines) == len(harmless)
    for line, expected in zip(lines, harmless, strict=True):
        found, same = COMMAND.fullmatch(line), COMMAND.fullmatch(expected)
        assert found and same and found[1] == same[1]
        assert (found[3] is None) == (same[3] is None)


def test_more_annotations_than_github_shows_end_in_one_for_the_rest():
    many = [ERROR.model_copy(update={"tensor": f"t{index}"}) for index in range(39)]
    many.append(ERROR.model_copy(update={"message": "500 more", "count": 500}))
    lines = github.render(
        make("a", None, linted("FP8", *many, WARNING)), make("b", None, linted("FP8", ERROR))
    ).splitlines()
    kinds = [COMMAND.fullmatch(line)[1] for line in lines]  # type: ignore[index]
    assert kinds == ["error"] * 10 + ["warning"]
    assert lines[9].endswith("::531 more findings of this severity: missing-scale")


def test_annotations_leave_out_what_is_ignored_and_tell_a_failed_metric():
    assert "tokenizer-missing" not in github.render(REPORTS["lint"])
    text = github.render(REPORTS["fail"])
    assert text.startswith("::error title=FAIL%3A models/nvfp4::ifeval inst_level_strict_acc")
    assert github.render(REPORTS["pass"]) == ""


def test_text_cannot_become_a_workflow_command():
    report = REPORTS["lint"].model_copy(
        update={"checkpoint": "a " * 60 + "::error::x " + "##[add-mask]y " * 9}
    )
    # Wrapping puts any word at the beginning of a line, at some width.
    wrapped = [text.render(report, width=width) for width in range(40, 120)]
    for shown in (*wrapped, FORMATS["json"](report), FORMATS["sarif"](report)):
        for line in shown.splitlines():
            assert not line.lstrip().startswith("::") and "##[" not in line


def test_several_documents_are_one_a_line():
    lines = documents.render(REPORTS["lint"], REPORTS["pass"]).splitlines()
    assert [json.loads(line)["checkpoint"] for line in lines] == ["models/broken", "models/fp8"]


@pytest.mark.parametrize("kind", FORMATS)
def test_no_checkpoint_at_all(kind: str):
    text = FORMATS[kind]()
    assert kind in {"sarif", "junit"} or text == ""
