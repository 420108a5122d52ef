"""Verdicts that runs about a change share in the store, and who believes them."""

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import github_repository as github
import pytest
from github_repository import Change, Repository
from releases import MODEL, Releases, on_github

from gate import records
from gate.errors import BaselineError
from gate.records import Report

CHANGE = Change("b" * 40, "c" * 40)
PULL_REQUEST = ("pull_request", github.pull_request(CHANGE))
LABEL = ("pull_request", github.pull_request(CHANGE, action="labeled"))
QUEUE = ("merge_group", github.merge_group(CHANGE))
PUSH = ("push", {"ref": "refs/heads/main", **github.schedule()})
SCHEDULE = ("schedule", {"ref": "refs/heads/main", **github.schedule()})
RELEASE = ("push", github.tag_push(CHANGE))
FORK = ("pull_request", github.pull_request(CHANGE, fork=True))
TARGET = ("pull_request_target", github.pull_request(CHANGE))
Started = tuple[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    made = Repository(tmp_path_factory.mktemp("template") / "models")
    made.change(sound=[MODEL])
    return made


class Machines(Releases):
    """Runs about one change, each on a machine of its own.

    Attributes:
        base: The commit by whose settings a change is judged.
    """

    def __init__(self, repository: Repository, store: str, patch: pytest.MonkeyPatch) -> None:
        super().__init__(repository, store)
        self.patch, self.runs, self.repository = patch, 0, repository
        self.base = repository.commit("Share verdicts")

    def judge(self, started: Started | None, *options: str, code: int = 0) -> Report:
        """The report of a run that has nothing but the store from those before."""
        self.runs += 1
        self.patch.setenv("QUANT_GATE_CACHE", str(self.root.parent / f"cache-{self.runs}"))
        for name in ("CI", "GITHUB_EVENT_NAME", "GITHUB_EVENT_PATH", "GITHUB_RUN_ID"):
            self.patch.delenv(name, raising=False)
        if started is not None:
            for name, value in on_github(self.root.parent, *started, run=100 + self.runs).items():
                self.patch.setenv(name, value)
        return self.check("--reuse", *options, code=code)

    def by_base(self, started: Started, *options: str) -> Report:
        """The same by the settings of the base commit, as the action does it."""
        return self.judge(started, "--policy-commit", self.base, *options)


@pytest.fixture
def machines(tmp_path: Path, template: Repository, monkeypatch: pytest.MonkeyPatch) -> Machines:
    own = copy.copy(template)
    own.root = Path(shutil.copytree(template.root, tmp_path / "models"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.chdir(own.root)
    return Machines(own, str(tmp_path / "store"), monkeypatch)


def test_a_pull_request_a_label_and_the_queue_judge_once(machines: Machines) -> None:
    first = machines.by_base(PULL_REQUEST)
    assert (first.reused_from, first.run_id) == (None, 101)
    for started in (LABEL, QUEUE):
        again = machines.by_base(started)
        assert (again.reused_from, again.reused_run) == (first.date, 101)
        assert again.verdict == first.verdict and again.evaluation == first.evaluation
        assert again.run_id == 100 + machines.runs
    (entry,) = machines.store.entries("candidate")
    assert entry.facts["event"] == "pull_request" and entry.facts["branch"] == "change"
    assert entry.facts["run"] == "101"
    fresh = machines.by_base(LABEL, "--fresh")
    assert fresh.reused_from is None


def test_reports_say_from_which_run(machines: Machines, capsys: pytest.CaptureFixture[str]) -> None:
    first = machines.by_base(PULL_REQUEST)
    capsys.readouterr()
    machines.by_base(LABEL)
    assert f"from run 101 of {first.date}" in " ".join(capsys.readouterr().out.split())


def test_without_the_option_or_a_store_nothing_is_shared(machines: Machines) -> None:
    machines.check()
    machines.check("--policy-commit", machines.base)
    assert machines.store.entries("candidate") == ()


def test_what_a_pull_request_says_is_believed_nowhere_else(machines: Machines) -> None:
    machines.by_base(PULL_REQUEST)
    for started in (PUSH, SCHEDULE, RELEASE, FORK, TARGET):
        assert machines.by_base(started).reused_from is None, started
    assert machines.by_base(LABEL).reused_from is not None


def test_others_share_nothing_with_pull_requests(machines: Machines) -> None:
    for started in (PUSH, RELEASE, FORK, TARGET):
        machines.by_base(started)
        assert machines.store.entries("candidate") == (), started


def test_another_pipeline_believes_nothing(machines: Machines) -> None:
    machines.judge(None)
    assert machines.judge(None).reused_from is not None
    machines.patch.setenv("CI", "true")
    machines.patch.setenv("QUANT_GATE_CACHE", str(machines.root.parent / "cache-ci"))
    assert machines.check("--reuse").reused_from is None


def test_a_queue_believes_only_what_the_base_decided(machines: Machines) -> None:
    machines.judge(PULL_REQUEST)
    assert machines.judge(LABEL).reused_from is not None
    assert machines.judge(QUEUE).reused_from is None


def test_a_queue_whose_base_has_other_limits_judges_anew(machines: Machines) -> None:
    machines.by_base(PULL_REQUEST)
    file = machines.root / "quant-gate.yaml"
    file.write_text(file.read_text().replace("0.95", "0.96"))
    stricter = machines.repository.commit("Allow less")
    assert machines.judge(QUEUE, "--policy-commit", stricter).reused_from is None


def test_another_repositorys_verdict_is_not_believed(machines: Machines) -> None:
    name, payload = PULL_REQUEST
    other = json.loads(json.dumps(payload).replace(github.NAME, "else/where"))
    machines.by_base((name, other))
    assert machines.by_base(PULL_REQUEST).reused_from is None


FORGED: dict[str, Callable[[Report], Report]] = {
    "other weights": lambda r: evaluated(r, weights_digest="0" * 64),
    "other files": lambda r: r.model_copy(update={"digests": {"config.json": "0" * 64}}),
    "other settings": lambda r: r.model_copy(
        update={"settings": r.settings | {"early_stop": "off"}}
    ),
    "another policy": lambda r: r.model_copy(update={"policy_digest": "0" * 64}),
    "nothing measured": lambda r: r.model_copy(update={"evaluation": None}),
    "a newer version": lambda r: r.model_copy(update={"schema_version": 99}),
}


def evaluated(report: Report, **changes: object) -> Report:
    assert report.evaluation is not None
    return report.model_copy(update={"evaluation": report.evaluation.model_copy(update=changes)})


def test_a_verdict_about_anything_else_is_not_believed(machines: Machines) -> None:
    honest = machines.by_base(PULL_REQUEST)
    (entry,) = machines.store.entries("candidate")
    machines.store.remove(entry)
    for what, forge in FORGED.items():
        forged = machines.store.put(entry, forge(honest).model_dump_json().encode())
        assert machines.by_base(LABEL).reused_from is None, what
        for kept in machines.store.entries("candidate"):
            machines.store.remove(kept)
        assert forged.content != entry.content


@pytest.mark.parametrize("content", [b"{", b'{"schema_version": 1}'])
def test_what_is_no_report_is_passed_over(machines: Machines, content: bytes) -> None:
    first = machines.by_base(PULL_REQUEST)
    (entry,) = machines.store.entries("candidate")
    later = entry.model_copy(update={"date": "2099-01-01T00:00:00Z"})
    machines.store.put(later, content)
    assert machines.by_base(LABEL).verdict == first.verdict


def test_a_store_that_cannot_be_reached_costs_no_verdict(machines: Machines) -> None:
    for kind in ("entries", "objects"):
        path = Path(machines.address) / kind
        path.parent.mkdir(exist_ok=True)
        path.write_text("in the way")
    assert machines.by_base(PULL_REQUEST).verdict.outcome == "pass"


def test_a_verdict_by_a_baseline_that_is_too_old_now_is_not_returned(machines: Machines) -> None:
    machines.settings(max_age="9000d")
    assert machines.judge(None).verdict.outcome == "pass"
    assert machines.judge(None).reused_from is not None
    (entry,) = machines.store.entries("candidate")
    kept = records.decode(machines.store.document(entry), Report, Path("kept"))
    assert kept.baseline is not None
    old = kept.model_copy(
        update={"baseline": kept.baseline.model_copy(update={"date": "1999-01-01T00:00:00Z"})}
    )
    machines.store.remove(entry)
    machines.store.put(entry, old.model_dump_json().encode())
    assert machines.judge(None).reused_from is None


def test_a_baseline_beyond_its_age_is_refused_with_the_command_that_refreshes(
    machines: Machines,
) -> None:
    base = machines.root / "baselines" / "base.json"
    stored = records.read(base, records.EvalResult)
    machines.settings(max_age="30d")
    for date, why in (
        ("2020-01-01T00:00:00Z", "days old"),
        ("2999-01-01T00:00:00Z", "still to come"),
        ("once", "does not say when"),
    ):
        records.write(base, stored.model_copy(update={"date": date}))
        with pytest.raises(BaselineError, match=why) as raised:
            machines.judge(None)
        assert "gate eval" in raised.value.hint and "gate baseline push" in raised.value.hint
    records.write(base, stored.model_copy(update={"date": records.now()}))
    assert machines.judge(None).baseline is not None
