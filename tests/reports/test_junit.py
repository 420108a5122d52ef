"""JUnit XML as its readers see it."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from junitparser import Failure, JUnitXml, Skipped, TestSuite
from reports_data import REPORTS
from test_reports import hostile

from gate.records import Report
from gate.reports import junit


def suites(*reports: Report) -> list[TestSuite]:
    return list(JUnitXml.fromstring(junit.render(*reports).encode()))


@pytest.mark.parametrize("name", REPORTS)
def test_the_verdict_is_what_a_reader_counts(name: str) -> None:
    (suite,) = suites(REPORTS[name])
    failed = [case for case in suite if any(isinstance(r, Failure) for r in case.result)]
    assert (REPORTS[name].verdict.outcome == "pass") == (not failed)
    assert suite.failures == len(failed)
    assert suite.tests == len(list(suite))
    assert suite.skipped == sum(any(isinstance(r, Skipped) for r in case.result) for case in suite)


def test_a_broken_rule_names_file_and_fix() -> None:
    (suite,) = suites(REPORTS["lint"])
    case = next(case for case in suite if case.name == "missing-scale")
    assert case.classname == "quant-gate.lint"
    assert "models/broken/model.safetensors" in case.result[0].text
    assert "Fix: " in case.result[0].text


def test_a_metric_without_a_limit_is_skipped() -> None:
    (suite,) = suites(REPORTS["fail"])
    case = next(case for case in suite if case.name == "ifeval prompt_level_strict_acc")
    assert case.result[0].message == "advisory: it has no limit"


def test_each_checkpoint_is_a_suite() -> None:
    both = list(REPORTS.values())[:2]
    assert [suite.name for suite in suites(*both)] == [report.checkpoint for report in both]


@settings(max_examples=50)
@given(evil=st.text(st.characters(codec="utf-8")))
def test_no_text_leaves_its_place(evil: str) -> None:
    report = hostile(f"x{evil}")
    cases = [case.classname for suite in suites(report) for case in suite]
    assert cases == [case.classname for suite in suites(hostile("x")) for case in suite]


def test_the_command_shows_a_stored_report_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gate import records
    from gate.cli import cli

    records.write(tmp_path / "report.json", REPORTS["fail"])
    arguments = ["report", str(tmp_path / "report.json"), "--report", f"junit={tmp_path / 'j.xml'}"]
    assert cli.main(arguments, standalone_mode=False) == 0
    assert capsys.readouterr().out.startswith("FAIL  ")
    assert JUnitXml.fromfile(str(tmp_path / "j.xml")).failures >= 1
