"""What is written is read back, older versions too; anything else is a clear refusal."""

import math
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from results import perplexity, result, task

from gate import records
from gate.errors import GateError
from gate.records import EvalResult, Finding, Report

FIXTURES = Path(__file__).parent / "fixtures"
KINDS = {"eval-result": EvalResult, "report": Report}
STORED = sorted(FIXTURES.glob("*-v*.json"))


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_every_schema_version_is_read(path: Path):
    kind = KINDS[path.stem.rsplit("-v", 1)[0]]
    assert records.read(path, kind).schema_version <= records.SCHEMA_VERSION


def test_there_is_a_fixture_of_every_version_of_every_kind():
    versions = range(1, records.SCHEMA_VERSION + 1)
    assert {p.stem for p in STORED} == {f"{kind}-v{v}" for kind in KINDS for v in versions}


def test_a_result_survives_the_disk(tmp_path: Path):
    kept = result(task([1.0, 0.0, math.inf]), perplexities=[perplexity([1.0, 2.5])])
    records.write(tmp_path / "new" / "b.json", kept)
    assert records.read(tmp_path / "new" / "b.json", EvalResult) == kept


def test_nan_survives_the_disk(tmp_path: Path):
    records.write(tmp_path / "b.json", result(task([math.nan])))
    assert math.isnan(records.read(tmp_path / "b.json", EvalResult).tasks[0].value)


def test_a_written_file_is_whole_readable_and_alone(tmp_path: Path):
    records.write_text(tmp_path / "b.json", "first")
    records.write_text(tmp_path / "b.json", "second")
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]
    assert (tmp_path / "b.json").read_text() == "second"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "b.json").stat().st_mode) == 0o666 & ~umask


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    records.write_text(tmp_path / "b.json", "first")
    with pytest.raises(UnicodeEncodeError):
        records.write_text(tmp_path / "b.json", "x" * 100_000 + "\ud800")
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]
    assert (tmp_path / "b.json").read_text() == "first"


def test_a_directory_that_is_a_file_is_a_clear_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GateError, match="cannot be written"):
        records.write_text(tmp_path / "file" / "b.json", "x")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"[]", "no schema_version"),
        (b'{"schema_version": "1"}', "no schema_version"),
        (b'{"schema_version": true}', "no schema_version"),
        (b'{"schema_version": 999}', "Upgrade"),
        (b'{"schema_version": 1, "model": "x"}', "not a stored EvalResult"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, content: bytes, words: str):
    (tmp_path / "b.json").write_bytes(content)
    with pytest.raises(GateError) as error:
        records.read(tmp_path / "b.json", EvalResult)
    assert words in error.value.message + error.value.hint
    assert error.value.exit_code == 3


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.getbasetemp() / "bytes.json"
    path.write_bytes(content)
    with pytest.raises(GateError):
        records.read(path, EvalResult)


def test_a_report_is_not_taken_for_a_baseline():
    with pytest.raises(GateError, match="not a stored EvalResult"):
        records.read(FIXTURES / "report-v1.json", EvalResult)


def test_records_are_frozen_and_closed():
    finding = Finding(rule="r", severity="error", message="m", fix="f")
    with pytest.raises(ValidationError):
        finding.severity = "note"
    with pytest.raises(ValidationError):
        Finding(rule="r", severity="error", message="m", fix="f", extra=1)


def test_value_and_standard_error_of_a_task():
    measured = task([1.0, 1.0, 1.0, 0.0])
    assert measured.value == 0.75
    assert measured.stderr == pytest.approx(0.25)  # sqrt(p (1 - p) / (n - 1))
    assert math.isnan(task([]).value) and math.isnan(task([1.0]).stderr)


def test_weighted_documents_count_by_their_points():
    two = task([2.0, 1.0])
    samples = tuple(
        s.model_copy(update={"weight": w}) for s, w in zip(two.samples, (2.0, 3.0), strict=True)
    )
    assert two.model_copy(update={"samples": samples}).value == 0.6


@pytest.mark.parametrize(
    ("nll", "value"), [([100.0, 300.0], math.exp(2)), ([1e9, 1e9], math.inf), ([], math.nan)]
)
def test_perplexity_is_the_exponential_of_the_mean(nll: list[float], value: float):
    assert perplexity(nll).value == pytest.approx(value, nan_ok=True)
    assert math.isnan(perplexity([math.nan, 1.0]).value)
