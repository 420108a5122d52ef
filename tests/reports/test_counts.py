"""The line that counts the answers, in every form of a report."""

import pytest
from reports_data import NVFP4, linted, make

from gate.records import AnswerStats
from gate.reports import REPORTS, counts

STATS = AnswerStats(
    task="ifeval", asked=541, answered=541, scored=541, ended=529, truncated=12,
    tokens_mean=212.4, tokens_median=180, tokens_max=1280,
)  # fmt: skip
BASELINE = STATS.model_copy(update={"truncated": 9, "ended": 532, "tokens_mean": 204.6})
LINE = (
    "541 asked, 541 scored, 0 lost; 12 ended at the limit (baseline 9); 212 tokens on average "
    "(baseline 205)"
)


def test_the_sentence_holds_both_models() -> None:
    assert counts.sentence(STATS, BASELINE) == LINE
    alone = "541 asked, 541 scored, 0 lost; 12 ended at the limit; 212 tokens on average"
    assert counts.sentence(STATS, None) == alone


def test_what_is_unusual_is_added() -> None:
    found = STATS.model_copy(update={"empty": 3, "thought": 400})
    theirs = BASELINE.model_copy(update={"thought": 380, "cut_thinking": 2})
    said = counts.sentence(found, theirs)
    assert "; 3 empty (baseline 0)" in said
    assert "; 400 with thinking (baseline 380); 0 ended inside thinking (baseline 2)" in said
    silent = AnswerStats(task="mmlu", asked=10, answered=0, scored=10)
    assert counts.sentence(silent, None) == "10 asked, 10 scored, 0 lost"


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_reports_show_it(form: str) -> None:
    report = make("models/nvfp4", NVFP4.model_copy(update={"answer_stats": (STATS,)}), linted("F"))
    assert report.baseline is not None
    info = report.baseline.model_copy(update={"answer_stats": (BASELINE,)})
    shown = REPORTS[form](report.model_copy(update={"baseline": info})).replace("\\", "")
    assert "12 ended at the limit (baseline 9)" in " ".join(shown.split())
