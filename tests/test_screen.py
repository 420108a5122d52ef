"""Reading before writing: order, the first look, distributions kept and compared, resuming."""

from collections.abc import Callable
from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import results

from gate import drift, verdict
from gate.batching import order
from gate.drift import store
from gate.errors import BaselineError, BaselineMismatchError, NonFiniteLogitsError, SettingsError
from gate.journal import Journal
from gate.readings import Readings
from gate.records import Distributions, EvalResult, PerplexityResult, TaskSetup
from gate.screen import Screen, known_to
from gate.settings import PerplexityMetric, PerplexityText, Settings

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXT = PerplexityText(file="text.txt", window=9, windows=40)
CONTENT = "".join(LETTERS[i * i % 26] for i in range(360))
SEED = "seed"


class Letters:
    """A model that knows 26 letters; what it says of the next hangs on the last and on `noise`.

    Args:
        shift: Nats that every token of the text is less likely, at the cost of the last letter.
        noise: How far its logits lie from those of a model without.
    """

    bos: int | None = None

    def __init__(self, shift: float = 0.0, noise: float = 0.0) -> None:
        rng = np.random.default_rng(0)
        self.logits = rng.normal(size=(26, 26)) + noise * rng.normal(size=(26, 26))
        self.shift = shift
        self.read_windows: list[tuple[int, ...]] = []

    def token_ids(self, text: str) -> np.ndarray:
        return np.array([LETTERS.index(letter) for letter in text if letter in LETTERS], np.int64)

    def prompt(self, task: str, doc_id: int) -> str:
        return f"prompt {doc_id}"

    def doc_ids(self, task: str) -> range:
        return range(100)

    def setups(self) -> tuple[TaskSetup, ...]:
        return (results.setup(),)

    def read(
        self,
        windows: np.ndarray,
        *,
        top: int = 0,
        at: np.ndarray | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> drift.Reading:
        self.read_windows += [tuple(window) for window in windows]
        logits = self.logits[windows[:, :-1]]
        logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        ids = np.argsort(-logprobs, axis=-1)[..., :top].astype(np.int32)
        asked = np.zeros((*logits.shape[:2], 0), np.int32) if at is None else at
        found = np.take_along_axis(logprobs, windows[:, 1:, None], axis=-1)[..., 0] - self.shift
        if progress:
            progress(len(windows))
        return drift.Reading(
            found.astype(np.float32),
            ids,
            np.take_along_axis(logprobs, ids, axis=-1).astype(np.float32),
            np.take_along_axis(logprobs, asked, axis=-1).astype(np.float32),
        )

    def rounding_floor(self, windows: np.ndarray) -> None:
        return None


def screen(backend: Letters, journal: Journal, **options: object) -> Screen:
    stated = {"known": {}, "directory": None, "top": 5} | options
    return Screen(
        backend,  # type: ignore[arg-type]
        SEED,
        journal,
        lambda label, total: nullcontext(lambda done: None),
        **stated,  # type: ignore[arg-type]
    )


@pytest.fixture
def stored(tmp_path: Path) -> EvalResult:
    """A baseline with distributions beside it."""
    with Journal(None) as journal:
        reading = screen(Letters(), journal, directory=tmp_path)
        found = reading.read_text(TEXT, CONTENT)
    return results.result(
        perplexities=[found], distributions=tuple(reading.distributions), format=None
    )


def settings(limit: str | None = "1.15", **changes: object) -> Settings:
    metric = PerplexityMetric(perplexity=TEXT, max_ratio=Decimal(limit) if limit else None)
    drift_limits = {name: changes.pop(name) for name in ("max_kl", "min_same_top") & changes.keys()}
    metric = PerplexityMetric.model_validate(metric.model_dump() | drift_limits)
    return Settings.model_validate({"metrics": (metric,), **changes})


def judged(asked: Settings, stored: EvalResult, backend: Letters, **options: object):
    """The candidate's perplexity, its result, and what the verdict makes of it."""
    (metric,) = asked.perplexity_metrics
    rule = verdict.condemned(asked, metric, stored, 8)
    with Journal(None) as journal:
        reading = screen(backend, journal, **options)
        found = reading.read_text(TEXT, CONTENT, rule)
    result = results.result(perplexities=[found], drifts=tuple(reading.drifts), seed=SEED)
    return found, result, verdict.compare(asked, stored, result, 8)


def test_a_candidate_beyond_the_limit_ends_after_sixteen_windows(stored: EvalResult) -> None:
    """In committed random order; the sentence says after how many; full runs agree."""
    backend = Letters(shift=0.3)
    found, result, (comparison,) = judged(settings(), stored, backend)
    windows = drift.text_windows(backend, TEXT, CONTENT)
    committed = order(range(40), SEED, TEXT.label)[:16]
    assert list(found.window_ids) == committed
    assert backend.read_windows == [tuple(windows[i]) for i in committed]
    assert found.early_stop is not None
    assert (found.early_stop.n_planned, found.early_stop.certain) == (40, False)
    assert (comparison.outcome, comparison.n) == ("fail", 16)
    assert comparison.early_stop == found.early_stop
    assert comparison.reason.endswith("FAIL after 16 of 40 windows, 99.9 % sure")
    assert comparison.retention == pytest.approx(np.exp(0.3), rel=1e-4)
    decided = verdict.decide(results_lint(), verdict.compare(settings(), stored, result, 8))
    assert (decided.outcome, decided.stage) == ("fail", "perplexity")


def results_lint():
    from gate.records import LintResult

    return LintResult(format="modelopt", algorithms=("FP8",), rules_run=())


@pytest.mark.parametrize(
    ("shift", "changes"),
    [
        (0.0, {}),
        (0.1, {}),
        (0.3, {"early_stop": "off"}),
        (0.3, {"early_stop": "certain"}),
        (0.3, {"borderline": "inconclusive"}),
        (0.3, {"limit": None}),
    ],
)
def test_otherwise_every_window_is_read(
    shift: float, changes: dict[str, str], stored: EvalResult
) -> None:
    """Within the limit, without one, or where the settings do not let evidence decide."""
    backend = Letters(shift=shift)
    found, _, (comparison,) = judged(settings(**changes), stored, backend)
    assert (found.window_ids, found.early_stop, comparison.n) == ((), None, 40)
    assert len(backend.read_windows) == 40
    base = stored.perplexities[0].window_nll
    assert found.window_nll == pytest.approx([nll + 8 * shift for nll in base], rel=1e-5)


def test_chance_alone_seldom_ends_a_text(stored: EvalResult) -> None:
    """At the limit itself, over many orders: at most a few of a thousand."""
    rng = np.random.default_rng(1)
    asked = settings("1.15")
    rule = verdict.condemned(asked, asked.perplexity_metrics[0], stored, 8)
    assert rule is not None
    base = np.array(stored.perplexities[0].window_nll)
    # The whole text lies exactly on the limit.
    moved = rng.normal(scale=0.05, size=40)
    moved += np.log(1.15) - moved.mean()
    ended = 0
    for trial in range(1000):
        ids = order(range(40), str(trial), TEXT.label)[:16]
        nll = tuple((base + 8 * moved)[ids])
        some = stored.perplexities[0].model_copy(
            update={"window_nll": nll, "window_ids": tuple(ids)}
        )
        ended += rule(some, 40) is not None
    assert ended <= 3


def test_what_is_no_number_ends_a_text_at_once(stored: EvalResult) -> None:
    backend = Letters(shift=float("inf"))
    with pytest.raises(NonFiniteLogitsError, match=r"text\.txt"):
        judged(settings(), stored, backend)
    assert len(backend.read_windows) == 16
    (metric,) = settings().perplexity_metrics
    rule = verdict.condemned(settings(), metric, stored, 8)
    huge = stored.perplexities[0].model_copy(
        update={"window_nll": (1e300, *[1.0] * 15), "window_ids": tuple(range(16))}
    )
    assert rule is not None and rule(huge, 40) is not None


@pytest.mark.parametrize("claim", ["windows of its choice", "within the limit"])
def test_a_stored_claim_to_have_stopped_is_worked_out_anew(claim: str, stored: EvalResult) -> None:
    """Not in the committed order, or not beyond the limit: no FAIL rests on it."""
    found, result, _ = judged(settings(), stored, Letters(shift=0.3))
    base, ids = stored.perplexities[0].window_nll, found.window_ids
    if claim == "windows of its choice":
        ids, nll = tuple(range(16)), tuple(nll + 2.4 for nll in base[:16])
    else:
        nll = tuple(base[i] for i in ids)
    claimed = found.model_copy(update={"window_ids": ids, "window_nll": nll})
    (comparison,) = verdict.compare(
        settings(), stored, result.model_copy(update={"perplexities": (claimed,)}), 8
    )
    assert comparison.outcome == "inconclusive"
    assert "not settled after 16 of 40 windows" in comparison.reason


@pytest.mark.parametrize("ids", [(0, 0), (-1, 1), (0, 40), (0,)])
def test_windows_that_are_none_of_the_baselines_are_refused(
    ids: tuple[int, ...], stored: EvalResult
) -> None:
    odd = stored.perplexities[0].model_copy(update={"window_nll": (1.0, 2.0), "window_ids": ids})
    with pytest.raises(BaselineMismatchError, match="not among the baseline's 40"):
        verdict.compare(settings(), stored, results.result(perplexities=[odd]), 8)


def test_a_text_that_was_stopped_is_no_baseline(stored: EvalResult) -> None:
    _, result, _ = judged(settings(), stored, Letters(shift=0.3))
    with pytest.raises(BaselineMismatchError, match="stopped early"):
        verdict.compare(settings(), result, stored, 8)


def test_distributions_are_kept_in_the_order_of_the_text(
    stored: EvalResult, tmp_path: Path
) -> None:
    (record,) = stored.distributions
    assert (record.name, record.source, record.k, record.tokens) == ("text.txt", "text", 5, 320)
    top = store.load(tmp_path, record)
    windows = drift.text_windows(Letters(), TEXT, CONTENT)
    assert (top.sequences.ids == windows).all()
    expected = Letters().read(windows, top=5)
    assert (top.ids.reshape(40, 8, 5) == expected.top_ids).all()


def test_a_candidate_is_compared_in_the_same_pass(stored: EvalResult, tmp_path: Path) -> None:
    """With no more windows read than for its perplexity; a model has no drift from itself."""
    known, why = known_to(stored, tmp_path)
    assert why == ""
    same = Letters()
    _, result, _ = judged(settings(), stored, same, known=known)
    moved = result.drift(TEXT.label)
    assert len(same.read_windows) == 40
    assert moved is not None and moved.kl < 1e-6 and moved.same_top == 1
    _, result, _ = judged(settings("9"), stored, Letters(noise=1.0), known=known)
    moved = result.drift(TEXT.label)
    assert moved is not None and moved.kl > 0.05 and moved.same_top < 0.9
    assert moved.distributions == stored.distributions[0].digest
    _, result, _ = judged(settings(), stored, Letters(shift=0.3, noise=1.0), known=known)
    early = result.drift(TEXT.label)
    assert early is not None and (early.windows, early.tokens) == (16, 128)


@pytest.mark.parametrize(
    ("limits", "outcomes"),
    [
        ({"max_kl": "0.01"}, ["fail"]),
        ({"max_kl": "5"}, ["pass"]),
        ({"min_same_top": "0.99"}, ["fail"]),
        ({"max_kl": "5", "min_same_top": "0.01"}, ["pass", "pass"]),
    ],
)
def test_drift_gates_where_it_has_a_limit(
    limits: dict[str, str], outcomes: list[str], stored: EvalResult, tmp_path: Path
) -> None:
    known, _ = known_to(stored, tmp_path)
    asked = settings("9", **limits)
    _, _, (ratio, *rows) = judged(asked, stored, Letters(noise=1.0), known=known)
    assert ratio.outcome == "pass"
    assert [row.outcome for row in rows] == outcomes
    assert all(row.task == "drift" and row.ci_low < row.candidate < row.ci_high for row in rows)
    decided = verdict.decide(results_lint(), (ratio, *rows))
    assert decided.outcome == ("fail" if "fail" in outcomes else "pass")


def test_a_limit_on_drift_needs_this_baselines_distributions(
    stored: EvalResult, tmp_path: Path
) -> None:
    """Where they are missing, damaged, not kept, or another baseline's."""
    asked = settings("9", max_kl="1")
    verdict.require_distributions(asked, stored, "")
    with pytest.raises(BaselineError, match="has no distributions"):
        verdict.require_distributions(asked, results.result(), "")
    with pytest.raises(SettingsError, match="top_tokens: 0"):
        verdict.require_distributions(settings(max_kl="1", top_tokens=0), stored, "")
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(b"PK")
    known, why = known_to(stored, tmp_path)
    assert known == {} and file.name in why
    with pytest.raises(BaselineError, match=file.name):
        verdict.require_distributions(asked, stored, why)
    with pytest.raises(BaselineMismatchError, match="not compared with this baseline"):
        judged(asked, stored, Letters())


def readings(asked: Settings, tmp_path: Path) -> Readings:
    """Of a model of 26 tokens of context."""
    from checkpoints import build
    from judging import gather

    path = build(tmp_path / "model", "FP8")
    (tmp_path / "text.txt").write_text(CONTENT)
    return Readings(asked, gather(path).checkpoint, tmp_path, None)


def test_without_distributions_the_report_says_why(stored: EvalResult, tmp_path: Path) -> None:
    found = readings(settings(), tmp_path)
    found.compare_with(results.result(), tmp_path)
    assert found.known == {} and "stored without distributions" in found.unread[-1]
    found.compare_with(stored, tmp_path / "elsewhere")
    assert f"{stored.distributions[0].digest}.npz" in found.unread[-1]
    count = len(found.unread)
    found.compare_with(stored, tmp_path)
    assert set(found.known) == {("text", "text.txt")} and len(found.unread) == count


def test_answers_are_read_after_their_prompts(tmp_path: Path) -> None:
    """The same documents for whatever candidate: drawn by the suite alone; 32 of them."""
    from gate.records import Answer

    asked = Settings.model_validate({"metrics": [{"task": "ifeval"}]})
    found = readings(asked, tmp_path)
    answers = [Answer(doc_id=i, text="abc", tokens=3, finish="stop") for i in range(100)]
    backend = Letters()
    with Journal(None) as journal:
        reading = screen(backend, journal, directory=tmp_path)
        found.keep_answers(reading, backend, {"ifeval": answers})  # type: ignore[arg-type]
    (record,) = reading.distributions
    assert (record.name, record.source, record.tokens) == ("ifeval", "answers", 96)
    top = store.load(tmp_path, record)
    prompt = backend.token_ids("prompt")
    assert top.sequences.ids[0].tolist() == [*prompt, 0, 1, 2]
    stored = results.result(distributions=(record,))
    found.compare_with(stored, tmp_path)
    other = Letters(noise=1.0)
    with Journal(None) as journal:
        reading = screen(other, journal, known=found.known)
        found.read_answers(reading)
    (moved,) = reading.drifts
    assert (moved.source, moved.tokens, moved.windows) == ("answers", 96, 32)
    assert moved.kl > 0 and moved.distributions == record.digest


def test_a_resumed_run_reads_nothing_twice(stored: EvalResult, tmp_path: Path) -> None:
    """What was kept and what was compared; another baseline, or a file that is gone, is read."""
    path, place = tmp_path / "run.jsonl", tmp_path / "arrays"
    known, _ = known_to(stored, tmp_path)
    keeping, comparing = {"directory": place}, {"known": known}

    def again(options: dict[str, object], windows: int) -> tuple[list[Distributions], list[object]]:
        backend = Letters()
        with Journal(path) as journal:
            reading = screen(backend, journal, **options)
            assert reading.read_text(TEXT, CONTENT) == stored.perplexities[0]
        assert len(backend.read_windows) == windows
        return reading.distributions, reading.drifts

    first = again(keeping, 40)
    assert again(keeping, 0) == first and len(first[0]) == 1
    next(place.glob("*.npz")).unlink()
    assert again(keeping, 40) == first
    compared = again(comparing, 40)
    assert again(comparing, 0) == compared and len(compared[1]) == 1


def test_a_resumed_run_reads_on_where_it_is_asked_for_everything(
    stored: EvalResult, tmp_path: Path
) -> None:
    """A text that ended early counts for a run that would have ended there, and for no other."""
    asked = settings()
    rule = verdict.condemned(asked, asked.perplexity_metrics[0], stored, 8)
    counts = []
    for condemned in (rule, rule, None):
        backend = Letters(shift=0.3)
        with Journal(tmp_path / "run.jsonl") as journal:
            found = screen(backend, journal).read_text(TEXT, CONTENT, condemned)
        counts.append((len(backend.read_windows), len(found.window_nll)))
    assert counts == [(16, 16), (0, 16), (40, 40)]


def test_older_perplexities_are_read() -> None:
    """Without the fields that say which windows were read."""
    old = results.perplexity([1.0, 2.0]).model_dump(exclude={"window_ids", "early_stop"})
    assert PerplexityResult.model_validate(old).window_ids == ()
