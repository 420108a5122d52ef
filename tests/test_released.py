"""What passed last beside what is judged now: shown in every report, and a limit to its loss."""

import copy
import html
import math
import re
import shutil
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import github_repository as github
import pytest
from github_repository import DOCUMENTS, Repository
from releases import MODEL, Releases, on_github
from results import perplexity, result, setup, task
from scipy.stats import binom

from gate import attest, history, records, verdict
from gate.errors import BaselineError, StoreError
from gate.records import EarlyStop, EvalResult, GateRun, Policy, Report
from gate.reports import REPORTS, comment
from gate.settings import PerplexityMetric, PerplexityText, Settings, TaskMetric
from gate.stats import paired
from gate.store import Store


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    made = Repository(tmp_path_factory.mktemp("template") / "models")
    made.change(sound=[MODEL])
    return made


@pytest.fixture
def releases(tmp_path: Path, template: Repository, monkeypatch: pytest.MonkeyPatch) -> Releases:
    """A checkpoint with a history that is still empty."""
    own = copy.copy(template)
    own.root = Path(shutil.copytree(template.root, tmp_path / "models"))
    monkeypatch.setenv("QUANT_GATE_CACHE", str(tmp_path / "cache"))
    for name in ("CI", "GITHUB_EVENT_NAME", "GITHUB_EVENT_PATH", "GITHUB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(own.root)
    return Releases(own, str(tmp_path / "store"))


def first(report: Report) -> Any:
    """The first figure beside that of what passed last."""
    assert report.previous is not None
    return report.previous.comparisons[0]


def test_every_report_shows_the_change_since_what_passed_last(releases: Releases) -> None:
    before, entry = releases.release(0)
    assert before.previous is None
    releases.release(40, code=1)
    releases.version(4)
    report = releases.check()
    assert report.previous is not None and report.previous.content == entry.content
    assert before.evaluation is not None
    assert report.previous.weights_digest == before.evaluation.weights_digest
    assert (first(report).net_loss, first(report).n, first(report).outcome) == (4, DOCUMENTS, None)
    assert first(report).delta == pytest.approx(-0.02) and first(report).retention == 0.98
    run = GateRun(gate_version="1", key="default", reports=(report,), date=report.date)
    pages = [REPORTS[name](report) for name in ("text", "markdown", "html")]
    for page in map(html.unescape, [*pages, comment.render(run)]):
        assert "Against what passed last" in page and "-0.020" in page


def test_the_same_weights_are_measured_against_what_passed_before_them(releases: Releases) -> None:
    _, entry = releases.release(0)
    releases.version(2)
    report = releases.check()
    history.add(releases.store, report)
    again = releases.check()
    assert again.previous is not None and again.previous.content == entry.content


def test_without_a_store_or_with_a_broken_checkpoint_there_is_no_change_to_show(
    releases: Releases,
) -> None:
    releases.release(0)
    releases.version(1)
    (releases.root / "quant-gate.yaml").write_text(github.SETTINGS)
    assert releases.check().previous is None
    releases.settings()
    config = releases.root / MODEL / "config.json"
    config.write_text("{")
    assert releases.check(code=1).previous is None


class TestLimit:
    def test_a_larger_drop_fails_though_the_baseline_allows_it(self, releases: Releases) -> None:
        releases.settings(max_drop_vs_released=0.03)
        releases.release(0)
        releases.version(6)
        assert releases.check().verdict.outcome == "pass"
        releases.version(7)
        report = releases.check(code=1)
        assert all(found.outcome == "pass" for found in report.verdict.comparisons)
        assert report.verdict.reasons[0] == (
            "ifeval inst_level_strict_acc: may lose 6 net, lost 7 (7 lost, 0 gained); "
            "0.965 of what passed last"
        )
        assert "max_drop_vs_released" in (report.verdict.fix or "")
        assert first(report).threshold == Decimal("0.97") and first(report).outcome == "fail"
        assert 'classname="quant-gate.released"' in REPORTS["junit"](report)
        stated = attest.attest(releases.root.parent / "report.json", releases.root / MODEL)
        failed = ("ifeval inst_level_strict_acc against what passed last",)
        assert tuple(stated.predicate.failed_tests) == failed

    def test_many_small_losses_add_up_without_it_and_not_with_it(self, releases: Releases) -> None:
        for lost in (0, 5, 9):
            releases.release(lost)
        releases.settings(max_drop_vs_released=0.03)
        releases.version(10)
        assert releases.check().verdict.outcome == "pass"

    def test_nothing_that_passed_is_told_and_decides_nothing(self, releases: Releases) -> None:
        releases.settings(max_drop_vs_released=0.03)
        report, _ = releases.release(0)
        (concern,) = (c for c in report.verdict.concerns if c.kind == "nothing-released")
        assert "nothing that passed" in concern.message and "gate history add" in concern.fix

    def test_so_few_points_are_refused_before_anything_runs(self, releases: Releases) -> None:
        releases.release(0)
        releases.settings(max_drop_vs_released=0.02)
        releases.version(0)
        with pytest.raises(BaselineError, match=r"200 points, of which 0\.02 may be lost; under 5"):
            releases.check()

    def test_an_unreadable_history_is_no_pass(self, releases: Releases) -> None:
        releases.release(0)
        for file in (Path(releases.address) / "objects").glob("*/*"):
            file.write_bytes(b"damaged")
        releases.version(1)
        (concern,) = (c for c in releases.check().verdict.concerns if "history" in c.kind)
        assert "damaged" in concern.message
        releases.settings(max_drop_vs_released=0.03)
        with pytest.raises(StoreError, match="damaged"):
            releases.check()


def test_a_kept_verdict_is_measured_anew_where_another_passed_meanwhile(
    releases: Releases,
) -> None:
    releases.settings(max_drop_vs_released=0.03)
    releases.release(4)
    releases.version(8)
    assert releases.check("--reuse").verdict.outcome == "pass"
    assert releases.check("--reuse").reused_from is not None
    kept = (releases.root / MODEL, releases.root / "answers.json")
    aside = releases.root.parent / "aside"
    shutil.copytree(kept[0], aside / MODEL)
    shutil.copy(kept[1], aside)
    releases.release(0)
    shutil.copytree(aside / MODEL, kept[0], dirs_exist_ok=True)
    shutil.copy(aside / "answers.json", kept[1])
    report = releases.check("--reuse", code=1)
    assert report.reused_from is None and first(report).net_loss == 8


@pytest.fixture
def change() -> github.Change:
    return github.Change("b" * 40, "c" * 40)


PUSHED = {"ref": "refs/heads/main", **github.schedule()}


@pytest.mark.parametrize(
    ("name", "changes", "counts"),
    [
        ("push", {"ref": "refs/heads/main"}, True),
        ("schedule", {"ref": "refs/heads/main"}, True),
        ("workflow_dispatch", {"ref": "refs/heads/main"}, True),
        ("push", {"ref": "refs/heads/change"}, False),
        ("push", {"ref": "refs/tags/main"}, False),
        ("pull_request", {"ref": "refs/heads/main"}, False),
        ("pull_request_target", {"ref": "refs/heads/main"}, False),
        ("workflow_run", {"ref": "refs/heads/main"}, False),
        ("merge_group", {"ref": "refs/heads/main"}, False),
    ],
)
def test_on_github_only_what_the_default_branch_judged_counts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: github.Change,
    name: str,
    changes: Mapping[str, str],
    counts: bool,
) -> None:
    payload = github.schedule() | {
        "pull_request": github.pull_request(change)["pull_request"],
        "workflow_run": github.workflow_run(change)["workflow_run"] | {"head_branch": "main"},
        "merge_group": {"head_ref": "main", "base_ref": "main", "head_sha": "c" * 40},
    }
    payload["pull_request"]["head"]["ref"] = "main"
    store = Store(str(tmp_path / "store"))
    for key, value in on_github(tmp_path, name, payload | dict(changes)).items():
        monkeypatch.setenv(key, value)
    history.add(store, passed())
    for key, value in on_github(tmp_path, "pull_request", github.pull_request(change), 78).items():
        monkeypatch.setenv(key, value)
    found = history.released(store, "models/m", "f" * 64)
    assert (found is not None) is counts
    monkeypatch.delenv("GITHUB_EVENT_NAME")
    assert history.released(store, "models/m", "f" * 64) is not None


def test_another_repositorys_history_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path / "store"))
    for key, value in on_github(tmp_path, "push", PUSHED).items():
        monkeypatch.setenv(key, value)
    history.add(store, passed())
    assert history.released(store, "models/m", "f" * 64) is not None
    other = PUSHED | {"repository": PUSHED["repository"] | {"full_name": "else/where"}}
    for key, value in on_github(tmp_path, "push", other, 78).items():
        monkeypatch.setenv(key, value)
    assert history.released(store, "models/m", "f" * 64) is None


def passed(**changes: object) -> Report:
    """A report that passed."""
    old = records.read(Path(__file__).parent / "fixtures" / "report-v1.json", Report)
    update = {
        "checkpoint": "models/m",
        "verdict": old.verdict.model_copy(update={"outcome": "pass"}),
    }
    return old.model_copy(update=update | changes)


def test_what_decided_nothing_is_no_measure(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    advisory = Policy(commit="a" * 40, digest="b" * 64, advisory=True)
    history.add(store, passed(policy=advisory))
    history.add(store, passed(evaluation=None))
    assert history.released(store, "models/m", "f" * 64) is None


def test_an_entry_that_lies_about_its_report_is_passed_over(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    good = history.add(store, passed(date="2026-01-01T00:00:00Z"))
    for lie in (
        passed(checkpoint="models/other", date="2026-01-02T00:00:00Z"),
        passed(verdict=passed().verdict.model_copy(update={"outcome": "fail"})),
        passed(policy=Policy(commit="a", digest="b", advisory=True)),
    ):
        store.put(good, lie.model_dump_json().encode())
        claim = good.model_copy(update={"date": "2026-02-01T00:00:00Z"})
        store.put(claim, lie.model_dump_json().encode())
    found = history.released(store, "models/m", "f" * 64)
    assert found is not None and found.content == good.content


# ---- the comparison itself


GATING = TaskMetric(task="ifeval", metric="inst_level_strict_acc", min_retention=Decimal("0.9"))
LIMITED = Settings(store="s", max_drop_vs_released=Decimal("0.1"), metrics=(GATING,))
STOPPED = EarlyStop(reason="FAIL", n_planned=541, outcome="fail", certain=False)


def measured(scores: Mapping[int, float] | int, **changes: object) -> EvalResult:
    """A result in which these documents were asked."""
    given = dict.fromkeys(range(scores), 1.0) if isinstance(scores, int) else scores
    whole = task([given.get(i, 0.0) for i in range(max(given) + 1)])
    kept = tuple(sample for sample in whole.samples if sample.doc_id in given)
    return result(whole.model_copy(update={"samples": kept}), **changes)


def compare(
    before: EvalResult, now: EvalResult, settings: Settings = LIMITED
) -> tuple[Any, tuple[str, ...]]:
    found, missing = verdict.compare_released(settings, before, now)
    return (found[0] if found else None), missing


def test_stopped_runs_are_compared_on_what_both_were_asked() -> None:
    before = measured(dict.fromkeys(range(0, 200), 1.0))
    now = measured({i: float(i % 4 > 0) for i in range(100, 300)})
    for each in (before, now):
        stopped = each.tasks[0].model_copy(update={"early_stop": STOPPED})
        found, missing = compare(
            before.model_copy(update={"tasks": (stopped,)}) if each is before else before,
            now.model_copy(update={"tasks": (stopped,)}) if each is now else now,
        )
        assert missing == ()
        assert (found.n, found.net_loss, found.budget, found.outcome) == (100, 25, 10, "fail")


def test_documents_that_changed_are_left_out() -> None:
    now = measured(100)
    samples = [
        s.model_copy(update={"prompt_hash": "f" * 64} if s.doc_id < 20 else {})
        for s in now.tasks[0].samples
    ]
    changed = now.tasks[0].model_copy(update={"samples": tuple(samples)})
    found, _ = compare(measured(100), now.model_copy(update={"tasks": (changed,)}))
    assert found.n == 80


def test_too_few_shared_documents_do_not_gate() -> None:
    found, missing = compare(measured(100), measured(dict.fromkeys(range(60, 200), 0.0)))
    assert found.outcome is None and found.n == 40
    assert "does not gate: on the 40 documents" in missing[0]


def test_nothing_in_common_is_told() -> None:
    found, missing = compare(measured(50), measured(dict.fromkeys(range(50, 90), 1.0)))
    assert found is None and missing == (
        "ifeval inst_level_strict_acc: no document was asked of both",
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"setups": (setup(num_fewshot=5),)}, "num_fewshot is 5"),
        ({"setups": ()}, "it has no task ifeval"),
        ({"backend": "server"}, "backend is server"),
        ({"chat_template_sha": "0" * 64}, "chat template"),
        ({"tokenizer_digest": "0" * 64}, "tokenizer"),
    ],
)
def test_what_was_measured_otherwise_is_no_measure(changes: dict[str, Any], why: str) -> None:
    found, missing = compare(measured(100, **changes), measured(100))
    assert found is None and why in missing[0]


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_never_passes(score: float) -> None:
    found, _ = compare(measured(100), measured({i: score if i == 7 else 1.0 for i in range(100)}))
    assert found.outcome == "fail"
    found, missing = compare(
        measured({i: score if i == 7 else 1.0 for i in range(100)}), measured(100)
    )
    assert found is None and "not a number" in missing[0]


def test_fewer_errors_are_better_where_less_is() -> None:
    metric = TaskMetric(task="ifeval", metric="wer", min_retention=Decimal("0.9"))
    settings = LIMITED.model_copy(update={"metrics": (metric,)})

    def errors(rate: list[float]) -> EvalResult:
        return result(task(rate, metric="wer", higher_is_better=False))

    for worse, outcome in ((10, "pass"), (11, "fail")):
        now = errors([1.0] * (100 + worse) + [0.0] * (100 - worse))
        found, _ = compare(errors([1.0] * 100 + [0.0] * 100), now, settings)
        assert found.outcome == outcome


def test_texts_are_shown_on_the_windows_that_both_read_and_never_gate() -> None:
    text = PerplexityText(file="domain.txt")
    metric = PerplexityMetric(perplexity=text, max_ratio=Decimal("1.5"))
    settings = LIMITED.model_copy(update={"metrics": (GATING, metric)})
    whole = perplexity([100.0, 200.0, 300.0, 400.0])
    part = perplexity([900.0, 220.0]).model_copy(
        update={"window_ids": (3, 1), "early_stop": STOPPED}
    )
    for pair in ((whole, part), (part, whole)):
        before, now = (result(perplexities=(each,)) for each in pair)
        found, missing = compare(before, now, settings)
        assert (found.task, found.n, found.outcome, missing) == ("perplexity", 2, None, ())
    nothing = perplexity([1.0]).model_copy(update={"window_ids": (2,)})
    _, missing = compare(result(perplexities=(nothing,)), result(perplexities=(part,)), settings)
    assert missing == ("perplexity on domain.txt: no window was read of both",)


def test_a_task_that_was_not_needed_is_not_missed() -> None:
    assert compare(measured(100), result()) == (None, ())


def test_how_often_an_equal_checkpoint_fails_is_told_as_it_is() -> None:
    text = (Path(__file__).parent.parent / "docs" / "history.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) % \|(.*)\|$", text, re.MULTILINE)
    assert len(rows) == 5
    for documents, points, changed, told in rows:
        flips = round(int(documents) * int(changed) / 100)
        cells = [float(cell) for cell in re.findall(r"([0-9.]+) %", told)]
        for drop, cell in zip(("0.01", "0.02", "0.03", "0.05"), cells, strict=True):
            allowed = paired.budget(int(points), 1 - Decimal(drop))
            # Lost less gained is beyond what is allowed: more than half of both together is lost.
            fails = 1 - binom.cdf((allowed + flips) // 2, flips, 0.5)
            assert cell == round(100 * fails, 1), (documents, changed, drop)


@pytest.mark.parametrize("keys", [{"store": None}, {"metrics": ()}, {"max_drop_vs_released": 1}])
def test_a_limit_that_nothing_can_reach_is_a_mistake(keys: dict[str, Any]) -> None:
    value = {"store": "s", "max_drop_vs_released": 0.02, "metrics": [GATING.model_dump()]}
    assert Settings.model_validate(value)
    if keys.get("metrics") == ():
        keys = {"metrics": [{"task": "ifeval"}]}
    with pytest.raises(ValueError, match=r"max_drop_vs_released|less than"):
        Settings.model_validate(value | keys)
