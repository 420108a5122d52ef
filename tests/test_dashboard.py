"""The dashboard's content: what counts as releasable, its figures, its files, the command."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from dashboards import MEASURED, METRIC, compared, data, headline, report, seen, several
from hypothesis import given
from hypothesis import strategies as st

from gate import history, records, store
from gate.cli import cli
from gate.dashboard import Built, Seen, dashboard
from gate.dashboard.axes import better_up, linear
from gate.dashboard.charts import Figure, front
from gate.dashboard.families import families, formats
from gate.dashboard.labels import Box, extent, labels
from gate.dashboard.rows import row
from gate.errors import GateError, SettingsError
from gate.records import EarlyStop, GateRun, Policy, Previous

EARLY = EarlyStop(reason="settled", n_planned=541, outcome="pass", certain=True)
ADVISORY = Policy(commit=None, digest="0" * 64, advisory=True)


def build(directory: Path, *reports: Seen, pages: int = 5) -> Built:
    return dashboard(iter(reports), directory, per_checkpoint=pages)


def index(directory: Path) -> str:
    return (directory / "index.html").read_text(encoding="utf-8")


def run(*arguments: str) -> None:
    assert cli.main(list(arguments), standalone_mode=False) == 0


@pytest.mark.parametrize(
    ("newest", "said"),
    [
        (seen(), ""),
        (seen(retention=0.9), "FAIL"),
        (seen(outcome="inconclusive"), "INCONCLUSIVE"),
        (seen(retention=None), "not measured"),
        (seen(policy=ADVISORY), "advisory"),
        (seen(comparison={"early_stop": EARLY}), "ended early"),
        (seen(comparison={"early_stop": EARLY}, settings={"attest": "early"}), ""),
    ],
)
def test_releasable_is_what_could_be_attested(tmp_path: Path, newest: Seen, said: str) -> None:
    assert row(newest).obstacle == said
    build(tmp_path, newest)
    assert headline(tmp_path) == f"The only checkpoint is {'not ' if said else ''}releasable"


def test_the_newest_report_of_each_checkpoint_counts(tmp_path: Path) -> None:
    reports = [
        seen("a", 0.90, day=2), seen("a", 0.99, day=1),
        seen("b", 0.99, day=2), seen("b", 0.90, day=1),
        seen("c", 0.99, day=1), seen("c", 0.90, day=2, proposed=True),
        seen("d", 0.90, day=2, proposed=True),
    ]  # fmt: skip
    made = build(tmp_path, *reports)
    assert (made.reports, made.checkpoints, made.releasable) == (7, 4, 2)
    assert headline(tmp_path) == "2 of 4 checkpoints are releasable"


def test_the_same_report_counts_once(tmp_path: Path) -> None:
    made = build(tmp_path, seen(day=1), seen(day=1), seen(day=2), pages=2)
    assert (made.reports, made.pages) == (2, 2)


def test_a_revision_is_the_same_checkpoint(tmp_path: Path) -> None:
    pins = [seen(f"acme/fp8@{pin}", revision=pin, day=day) for day, pin in enumerate("abc")]
    assert build(tmp_path, *pins).checkpoints == 1


def test_every_figure_is_there(tmp_path: Path) -> None:
    build(tmp_path, *several())
    value = data(tmp_path)
    assert value["texts"]["checkpoint"] == [
        "models/70b-fp8", "models/fp8", "models/int4", "models/linted", "models/nvfp4"
    ]  # fmt: skip
    assert len(value["rows"]) == 20
    first = value["rows"][0]
    assert first[0] == "2026-04-20 12:00"
    assert value["texts"]["checkpoint"][first[1]] == "models/linted"
    page = index(tmp_path)
    assert page.index(">acme/large</h2>") > page.index(">acme/model</h2>")
    for text in ("0.970", "≥ 0.95", "163.0 MB", "1.65×", "modelopt: NVFP4", "70.5 GB"):
        assert text in page


def test_a_family_that_is_too_large_for_a_page_is_cut(tmp_path: Path) -> None:
    """The front is on the chart, what cannot be released in the table, all in the last one."""
    many = [row(seen())._replace(checkpoint=f"models/{i:03}") for i in range(150)]
    small = row(seen(megabytes=9))._replace(checkpoint="models/small", moment=-1e9)
    (family,) = families([*many, small, row(seen("models/zzz", 0.9))])
    assert len(family.charts[0].points) == 100 and family.elsewhere == 52
    assert [p.row.checkpoint for p in family.charts[0].points if p.front][-1] == "models/small"
    assert (len(family.checkpoints), family.more) == (60, 92)
    assert family.checkpoints[0].newest.checkpoint == "models/zzz"
    wide = [row(seen())._replace(format=f"f{i}") for i in range(250)]
    assert len(formats([*wide, wide[-1]])) == 200
    assert "f249" in {found.format for found in formats([*wide, wide[-1]])}


def test_formats_have_their_medians(tmp_path: Path) -> None:
    rates = [0.9, 0.96, 0.98]
    build(tmp_path, *(seen("a", rate, day=day) for day, rate in enumerate(rates)))
    (line,) = re.findall(r"<th scope=\"row\">modelopt: FP8</th>.*?</tr>", index(tmp_path), re.S)
    cells = [cell.strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", line)]
    assert cells == [
        "acme/model", "3", "2 (67 %)", "0.960", "ifeval inst_level_strict_acc", "2.31×"
    ]  # fmt: skip


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_no_figure(tmp_path: Path, value: float) -> None:
    size = report().size
    assert size is not None
    odd = size.model_copy(update={"bits_per_weight": value, "stored_bytes": 0})
    shown = report().model_copy(update={"size": odd})
    verdict = shown.verdict.model_copy(update={"comparisons": (compared(value, "fail"),)})
    broken = Seen(shown.model_copy(update={"verdict": verdict}))
    build(tmp_path, broken, seen("b"))
    assert [found[8] for found in data(tmp_path)["rows"]].count(None) == 1
    build(tmp_path, broken)
    assert '<svg viewBox="0 0 576' not in index(tmp_path)


@pytest.mark.parametrize("stored", [0, -1, 10**400])
def test_what_is_no_size_is_not_drawn(stored: int) -> None:
    size = report().size
    assert size is not None
    found = row(
        seen(size=size.model_copy(update={"stored_bytes": stored, "reference_bytes": None}))
    )
    assert found.stored_bytes is None


def test_a_ratio_that_must_stay_low_is_upside_down(tmp_path: Path) -> None:
    ratio = {"task": "perplexity", "metric": "text", "higher_is_better": False, "budget": None,
             "threshold": "1.10"}  # fmt: skip
    names = {"good": 1.02, "bad": 1.3}
    build(
        tmp_path,
        *(seen(name, value, outcome="pass", comparison=ratio) for name, value in names.items()),
    )
    heights = dict(
        re.findall(r'aria-label="(good|bad): .*?translate\(\S+ (\S+)\)', index(tmp_path), re.S)
    )
    assert float(heights["good"]) < float(heights["bad"])
    assert "×1.020" in index(tmp_path) and "≤ 1.1" in index(tmp_path)


def test_what_decided_is_said_where_the_figure_does_not_tell(tmp_path: Path) -> None:
    """A checkpoint that fails by its perplexity may keep every point of a task."""
    kept = report("a", 1.01, outcome="fail")
    task = kept.verdict.comparisons[0].model_copy(update={"outcome": "pass"})
    guilty = compared(1.3, "fail", task="perplexity", metric="text.txt", budget=None,
                      threshold="1.1", higher_is_better=False)  # fmt: skip
    verdict = kept.verdict.model_copy(update={"comparisons": (task, guilty)})
    known = row(Seen(kept.model_copy(update={"verdict": verdict})))
    assert (known.cause, known.first and known.first.retention) == ("perplexity text.txt", 1.01)
    stopped = kept.verdict.model_copy(update={"comparisons": (guilty,)})
    both = [Seen(kept.model_copy(update={"verdict": verdict})),
            Seen(kept.model_copy(update={"verdict": stopped, "checkpoint": "b"}))]  # fmt: skip
    build(tmp_path, *both)
    page = index(tmp_path)
    assert page.count('<figure class="sizes">') == 2
    assert page.index("<b>perplexity text.txt</b>") < page.index("<b>ifeval")
    assert 'aria-label="a: FAIL by perplexity text.txt, retained 1.010' in page
    assert row(Seen(report("c", None, outcome="fail"))).cause == "lint"
    last = Previous(content="0" * 64, weights_digest="0" * 64, date="2026-02-01T00:00:00Z",
                    comparisons=(compared(0.97, "fail"),))  # fmt: skip
    slow = kept.verdict.model_copy(update={"comparisons": (task,)})
    eroded = kept.model_copy(update={"verdict": slow, "previous": last})
    assert row(Seen(eroded)).cause == f"ifeval {METRIC} against what passed last"


def test_a_report_without_a_date_is_the_oldest(tmp_path: Path) -> None:
    dates = ("<yesterday>\x1b[31m", "0001-01-01T00:00+23:00")
    build(tmp_path, *(seen(date=date) for date in dates), seen(retention=0.9))
    assert headline(tmp_path) == "The only checkpoint is not releasable"
    assert data(tmp_path)["rows"][0][0] == "2026-03-01 12:00"
    assert "<yesterday>" in [found[0] for found in data(tmp_path)["rows"]]


def test_the_newest_few_have_a_page(tmp_path: Path) -> None:
    ours = tmp_path / "reports" / "notes.html"
    ours.parent.mkdir()
    ours.write_text("mine")
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 0, 3, 1]):
        made = build(tmp_path, *(seen(day=day) for day in order), pages=2)
        newest = [found[14] for found in data(tmp_path)["rows"]]
        assert made.pages == 2
        assert all(newest[:2]) and not any(newest[2:])
        there = {file.stem for file in ours.parent.glob("*.html")}
        assert there == {*newest[:2], "notes"}
    build(tmp_path, seen("other"))
    assert len(list(ours.parent.iterdir())) == 2


@pytest.mark.parametrize(
    "evil", ["</script><script>alert(1)</script>", "\u2028\u202e\x1b[31m&<!--"]
)
def test_hostile_names_stay_text(tmp_path: Path, evil: str) -> None:
    build(tmp_path, seen(f"models/{evil}", model=evil, branch=evil))
    page = index(tmp_path)
    assert page.count("</script>") == 3 and "\u2028" not in page and "\u202e" not in page
    (name,) = data(tmp_path)["texts"]["checkpoint"]
    assert name.startswith("models/") and name.isprintable()


def test_every_link_leads_to_a_page(tmp_path: Path) -> None:
    """What says how a checkpoint is now has one, however many pull requests came later."""
    later = [seen(retention=0.9, day=day, proposed=True) for day in range(50, 58)]
    build(tmp_path, *later[:4], *several(), *later[4:], pages=2)
    links = set(re.findall(r'href="(reports/[^"]*)"', index(tmp_path)))
    assert len(links) == 5
    assert all((tmp_path / link).is_file() for link in links)


def test_without_reports_it_says_how_to_keep_one(tmp_path: Path) -> None:
    assert build(tmp_path) == Built(0, 0, 0, 0)
    assert headline(tmp_path) == "No report yet"
    assert "gate history add report.json --store ADDRESS" in index(tmp_path)


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "site").write_text("")
    with pytest.raises(GateError, match="cannot be written"):
        build(tmp_path / "site", seen())


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12),
    st.booleans(),
)
def test_the_front_is_what_nothing_beats(places: Sequence[tuple[int, int]], higher: bool) -> None:
    made = row(seen(comparison={"higher_is_better": higher}))
    (kept,) = made.measures
    figures = [
        Figure(made._replace(checkpoint=str(i)), float(across), kept._replace(retention=up / 10))
        for i, (across, up) in enumerate(places)
    ]

    def beats(one: Figure, other: Figure) -> bool:
        no_worse = one.across <= other.across and one.goodness >= other.goodness
        return no_worse and (one.across, one.goodness) != (other.across, other.goodness)

    best = [f for f in figures if not any(beats(other, f) for other in figures)]
    found = front(figures)
    assert {(f.across, f.goodness) for f in found} == {(f.across, f.goodness) for f in best}
    assert len(found) == len({(f.across, f.goodness) for f in best})


FINITE = st.floats(-1e6, 1e12, allow_nan=False)


@given(st.lists(FINITE, min_size=1, max_size=8))
def test_an_axis_holds_its_figures(values: list[float]) -> None:
    axis = linear(values, 60, 540)
    at = [axis.at(value) for value in sorted(values)]
    assert at == sorted(at) and at[0] >= 60 and at[-1] <= 540
    assert all(60 <= tick.at <= 540 for tick in axis.ticks())
    assert len(axis.ticks()) <= 12


@given(st.lists(st.floats(0, 1.2), min_size=1), st.floats(0.5, 1.0), st.booleans())
def test_a_checkpoint_that_kept_nothing_does_not_flatten_the_others(
    values: list[float], limit: float, higher: bool
) -> None:
    turned = values if higher else [2 - value for value in values]
    held = limit if higher else 2 - limit
    axis = better_up(turned, [held], higher, bottom=290, top=60)
    assert all(60 <= axis.at(value) <= 290 for value in turned)
    assert abs(axis.at(1.0) - axis.at(held)) >= 15 * (abs(1 - limit) > 0.02)
    assert len({tick.text for tick in axis.ticks()}) == len(axis.ticks())


@given(st.lists(st.tuples(st.floats(60, 540), st.floats(60, 290)), max_size=30))
def test_labels_cover_nothing(places: list[tuple[float, float]]) -> None:
    area = Box(60, 50, 560, 292)
    found = [
        extent(label)
        for label in labels(["models/some-checkpoint"] * len(places), places, area, [])
        if label is not None
    ]
    marks = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    for index, box in enumerate(found):
        assert area.holds(box)
        assert not any(box.covers(other) for other in [*found[:index], *marks])


def test_the_command_shows_files_and_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_EVENT_PATH", raising=False)
    kept = store.at("kept", tmp_path)
    history.add(kept, report("models/kept"))
    records.write(tmp_path / "report.json", report("models/filed", 0.9, policy=None))
    stated = GateRun(
        gate_version="0.1.0", key="default", event="pull_request", pull_request=7,
        reports=(report("models/kept", 0.5, day=9),), date=MEASURED.date,
    )  # fmt: skip
    records.write(tmp_path / "run.json", stated)
    run("dashboard", "report.json", "run.json", "--store", "kept", "-o", "site")
    assert "1 of 2 checkpoints releasable, 3 reports, 3 with a page" in capsys.readouterr().out
    assert "pull request 7" in data(tmp_path / "site")["texts"]["branch"]
    run("dashboard", "report.json", "-o", "site")
    assert data(tmp_path / "site")["texts"]["checkpoint"] == ["models/filed"]
    Path("quant-gate.yaml").write_text("store: kept\n")
    run("dashboard", "report.json", "-o", "site")
    assert len(data(tmp_path / "site")["texts"]["checkpoint"]) == 2


def test_the_command_needs_something_to_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="no store is named"):
        run("dashboard", "-o", "site")
    Path("odd.json").write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(GateError, match="schema version 99"):
        run("dashboard", "odd.json", "-o", "site")
