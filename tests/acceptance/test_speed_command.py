"""Speed and memory through the real command."""

from collections.abc import Callable
from pathlib import Path

import pytest
import results
from checkpoints import build, edit_json
from test_exit_codes import SETTINGS, gate, measured, said
from test_real_model import workplace

from gate import records
from gate.records import EvalResult, Report
from gate.records.speeding import Throughput

TEXT = """
version: 1
metrics:
  - perplexity: {file: topics.txt, window: 32, windows: 2}
speed: {batch: 2, prompt_tokens: 8, new_tokens: 4, warmup: 0, repeats: 1, gpu_hour_price: 2.50}
"""


@pytest.fixture
def answered(tmp_path: Path) -> Callable[..., Path]:
    """A directory in which stored answers, and their speed, are judged."""

    def make(limits: str, ours: Throughput | None, **changes: object) -> Path:
        path = build(tmp_path / "model", "FP8")
        stored = measured(path, [1.0] * 200, 300.0, format="modelopt", weight_bits=8)
        candidate = stored.model_copy(update={"throughput": ours, **changes})
        records.write(tmp_path / "candidate.json", candidate)
        base = measured(path, [1.0] * 200, 300.0, weights_digest="0" * 64)
        base = base.model_copy(update={"throughput": results.throughput()})
        records.write(tmp_path / "baselines" / "base.json", base)
        (tmp_path / "quant-gate.yaml").write_text(f"{SETTINGS}speed: {limits}\n")
        return tmp_path

    return make


def check(directory: Path, code: int) -> str:
    return said(gate(directory, "check", "model", "--report", "json=report.json"), code)


def test_1_slower_than_the_baseline(answered: Callable[..., Path]) -> None:
    directory = answered("{max_slowdown: 0.05}", results.throughput((89, 90, 91)))
    text = check(directory, 1)
    assert "0.900 of the baseline's 100.0 (99.0 to 101.0)" in text.splitlines()[1]
    assert "Fix: Measure again on a machine that does nothing else" in text
    stored = records.read(directory / "report.json", Report)
    assert stored.evaluation is not None
    assert stored.evaluation.throughput == results.throughput((89, 90, 91))


def test_0_as_fast_as_the_baseline(answered: Callable[..., Path]) -> None:
    text = check(answered("{max_slowdown: 0.05}", results.throughput((95, 96, 97))), 0)
    assert "×0.960" in text


def test_0_decoded_weights_cannot_be_too_slow(answered: Callable[..., Path]) -> None:
    ours = results.throughput((1, 1, 1), emulated=True)
    text = check(answered("{max_slowdown: 0.05}", ours), 0)
    assert "Warning: max_slowdown was not applied" in text


def test_speed_is_not_looked_at_where_quality_failed(answered: Callable[..., Path]) -> None:
    lost = results.task([0.0] * 20 + [1.0] * 180)
    directory = answered("{max_slowdown: 0.05}", results.throughput((1, 1, 1)), tasks=(lost,))
    assert "tokens/s" not in check(directory, 1)
    everything = said(gate(directory, "check", "model", "--full"), 1)
    assert "may lose 10 net" in everything.splitlines()[1] and "tokens/s" in everything


def test_3_stored_answers_without_that_speed(answered: Callable[..., Path]) -> None:
    text = check(answered("{}", results.throughput(new_tokens=64)), 3)
    assert "hold no speed of this work" in text


def test_2_more_tokens_than_the_context_holds(answered: Callable[..., Path]) -> None:
    directory = answered("{new_tokens: 900}", results.throughput(new_tokens=900))
    edit_json(directory / "model", "config.json", lambda c: c.update(max_position_embeddings=1000))
    assert "more than the model's context of 1,000" in check(directory, 2)


@pytest.mark.model
def test_a_model_is_measured_and_stored(tmp_path: Path, export: Callable[[str], Path]) -> None:
    directory = workplace(tmp_path, TEXT)
    text = said(gate(directory, "eval", str(export("bf16")), "-o", "base.json"), 0)
    found = records.read(directory / "base.json", EvalResult).throughput
    assert found is not None and not found.emulated
    assert [speed.batch for speed in found.batches] == [1, 2]
    for speed in found.batches:
        assert 0 < speed.decode_tokens_per_s.low <= speed.decode_tokens_per_s.median
    assert found.peak_bytes > 200_000_000, "more than the weights take"
    assert found.cost_per_million is not None and "at 2.50 a GPU hour" in text
