"""What a diagnosis says, and what hostile names make of it."""

import ast
import math
import re
from json import loads
from typing import Any

import pytest
from diagnosis_data import DIAGNOSES, EXCLUSION, HOSTILE, NVFP4, diagnosis, module, report
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from reports_data import REPORTS
from run_data import RUNS
from test_reports import same_as_snapshot

from gate.records import DiagnosisReport, Finding, LayerDamage, LintResult
from gate.reports import comment, depth, diagnosed, json, junit, markdown, recipe, text
from gate.reports.diagnosis import sentences

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


@pytest.mark.parametrize("name", ["few", "hostile"])
def test_looks_as_it_did(name: str) -> None:
    same_as_snapshot(f"diagnosis-{name}.txt", diagnosed.text(report(name)))
    same_as_snapshot(f"diagnosis-{name}.md", diagnosed.markdown(report(name)))


SAID = {
    "few": (
        "down_proj of layers 3 and 5 carry 73 % of the damage",
        "down_proj of layer 5: its weights are rounded worse than others",
        "Leave 2 modules unquantized: measured on this text, perplexity ×1.583 becomes ×1.121",
    ),
    "scale": (
        "down_proj of layer 3 carries 98 %",
        "its weights are 4 times too large",
        "Export model.layers.3.mlp.down_proj.weight again: its scale is 4 times too large",
    ),
    "codes": (
        "down_proj of layer 3 carries 98 %",
        "do not resemble the reference's",
        "its codes are in another order",
    ),
    "small": (
        "o_proj of layer 3 carries 9.2 %",
        "do not resemble the reference's",
        "its codes are in another order",
    ),
    "clipped": (
        "down_proj of layer 3",
        "2.3 % of its inputs are beyond what its input scale can hold",
        "Recalibrate on text like this one: inputs of down_proj of layer 3",
    ),
    "head": ("lm_head carries 98 %", "lm_head: its weights", "Leave lm_head unquantized"),
    "spread": ("The damage is spread over 3 modules", "No module stands out", "more bits"),
    "kept": ("The damage is spread", "No module stands out", "limit of 1.6 is kept; where tasks"),
    "lost": ("The damage is spread", "No module stands out", "limit of 1.15 is kept"),
    "kind": ("The 6 down_proj modules carry 75 %", "No module stands out", "more bits"),
    "layer": ("Layer 3 carries 75 %", "No module stands out", "more bits"),
    "not finite": ("down_proj of layer 3", "not finite", "again: it is not finite"),
    "equal": ("No module differs", "not in the weights", "gate lint"),
}


@pytest.mark.parametrize("name", SAID)
def test_where_then_why_then_what_to_do(name: str) -> None:
    said = sentences(DIAGNOSES[name])
    for sentence, part in zip(said, SAID[name], strict=True):
        assert part in sentence
    lines = diagnosed.text(report(name), width=1000).splitlines()
    assert lines[:3] == [said[0], said[1], f"Fix: {said[2]}"]
    blocks = diagnosed.markdown(report(name)).split("\n\n")
    assert blocks[0].startswith("## ") and blocks[2].startswith("**Fix:**")


def test_a_broken_module_is_mended_and_not_left_out() -> None:
    found = DIAGNOSES["scale"].model_copy(update={"exclusion": EXCLUSION})
    assert "unquantized" not in sentences(found)[2]
    told = report("few").model_copy(update={"diagnosis": found})
    assert "mtq" not in diagnosed.text(told) and "mtq" not in diagnosed.markdown(told)


def test_an_error_of_lint_is_told_first() -> None:
    error = Finding(
        rule="scale-zero", severity="error", message="a scale is 0", fix="Export again."
    )
    told = report("few", NVFP4.model_copy(update={"findings": (error,)}))
    first = "Static validation found 1 error, which may be the cause: a scale is 0. Export again."
    assert diagnosed.text(told, width=200).splitlines()[0] == first
    assert first in diagnosed.markdown(told).split("\n\n")[0]


def test_all_of_it_can_be_read_back() -> None:
    for name in DIAGNOSES:
        told = report(name)
        again = DiagnosisReport.model_validate_json(diagnosed.FORMATS["json"](told))
        # What is no number equals nothing, itself included.
        assert repr(again) == repr(told)


def code_of(found: Any, lint: LintResult = NVFP4) -> str:
    return dict(recipe.ways(found, lint))["Quantize again with ModelOpt, and export:"]


def entries(found: Any, lint: LintResult = NVFP4) -> list[str]:
    """The names of the quantizers that the code turns off, as Python reads it."""
    (added,) = [node for node in ast.walk(ast.parse(code_of(found, lint))) if
                isinstance(node, ast.AugAssign)]  # fmt: skip
    listed = ast.literal_eval(added.value)
    assert all(entry["enable"] is False for entry in listed)
    return [entry["quantizer_name"] for entry in listed]


def test_the_recipe_names_quantizers() -> None:
    assert entries(EXCLUSION) == [f"{pattern}.*" for pattern in EXCLUSION.patterns]
    assert "copy.deepcopy(mtq.NVFP4_DEFAULT_CFG)" in code_of(EXCLUSION)


def test_a_multimodal_models_names_match_in_memory_too() -> None:
    patterns = ("model.language_model.layers.3.mlp.down_proj",)
    found = EXCLUSION.model_copy(update={"patterns": patterns})
    assert entries(found) == ["*layers.3.mlp.down_proj.*"]


@pytest.mark.parametrize("algorithms", [("FP8", "NVFP4"), ("MIXED_PRECISION",), ()])
def test_mixed_precision_has_no_configuration_of_modelopts_own(algorithms: tuple[str, ...]) -> None:
    lint = NVFP4.model_copy(update={"algorithms": algorithms})
    assert "copy.deepcopy(YOUR_CONFIG)" in code_of(EXCLUSION, lint)


def test_what_was_changed_without_being_quantized_is_given_back() -> None:
    changes = {"modules": (), "restore": ("model.norm",)}
    found = DIAGNOSES["few"].model_copy(update={"exclusion": EXCLUSION.model_copy(update=changes)})
    assert found.exclusion is not None
    assert recipe.ways(found.exclusion, NVFP4) == [
        ("Take from the reference, as it is:", '["model.norm"]')
    ]
    assert "Give 1 unquantized module the reference's values: measured" in sentences(found)[2]


def test_other_formats_have_a_list_alone() -> None:
    lint = LintResult(format="compressed-tensors", algorithms=("FP8",))
    ((_, listed),) = recipe.ways(EXCLUSION, lint)
    assert listed.startswith("ignore += [") and EXCLUSION.modules[0] in listed


@given(st.text(min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_name_is_a_string_in_the_code_and_text_everywhere(name: str) -> None:
    exclusion = EXCLUSION.model_copy(update={"modules": (name,), "patterns": (name,)})
    assert entries(exclusion) == [f"{name}.*"]
    listed = dict(recipe.ways(exclusion, NVFP4))[
        "Add to the list of modules that stay unquantized:"
    ]
    assert loads(listed.removeprefix("exclude_modules += ")) == [name]
    found = diagnosis(
        module(1, name, 0.39, name), exclusion=exclusion, reference=name, notes=[name]
    )
    told = report("few").model_copy(update={"diagnosis": found, "checkpoint": name})
    shown = diagnosed.text(told)
    assert not set("\x1b\u202e\u200b") & set(shown) or "\\u" in shown
    assert not re.search(r"(?m)^\s*::", shown)
    assert_inert(diagnosed.markdown(told))


def assert_inert(source: str) -> None:
    page = MARKDOWN.render(source)
    assert "<a " not in page and "<img" not in page and "<script" not in page


def test_hostile_names_are_inert() -> None:
    shown = diagnosed.text(report("hostile"))
    assert "\x1b" not in shown and "\u202e" not in shown
    assert_inert(diagnosed.markdown(report("hostile")))
    assert HOSTILE in ast.literal_eval(code_of(DIAGNOSES["hostile"].exclusion).split("+= ")[1]
                                       .partition("\nmodel")[0])[0]["quantizer_name"]  # fmt: skip


def test_no_line_is_a_command_to_a_runner() -> None:
    name = "a\n##[error]b"
    exclusion = EXCLUSION.model_copy(update={"modules": (name,), "patterns": (name,)})
    told = report("few").model_copy(update={"diagnosis": diagnosis(
        module(1, name, 0.39, name), exclusion=exclusion
    )})  # fmt: skip
    for written in (diagnosed.text, diagnosed.FORMATS["json"]):
        assert "##[" not in written(told)
    assert entries(exclusion) == [f"{name}.*"]


def test_the_code_is_whole_however_narrow_the_terminal() -> None:
    narrow = diagnosed.text(report("few"), width=60)
    assert code_of(DIAGNOSES["few"].exclusion) in narrow


def test_a_report_of_a_failure_has_the_worst_five() -> None:
    many = diagnosis(*(module(i, "down_proj", 0.1 / (i + 1)) for i in range(9)))
    failed = REPORTS["fail"].model_copy(update={"diagnosis": many})
    for shown in (text.render(failed), markdown.render(failed)):
        assert "Where it hurts" in shown
        assert "model.layers.4.mlp" in shown and "model.layers.5.mlp" not in shown
    assert junit.render(failed) == junit.render(REPORTS["fail"])
    assert '"model.layers.8.mlp.down_proj"' in json.render(failed)


def test_the_comment_has_it_and_folds_the_recipe() -> None:
    run = RUNS["fail"]
    failed = tuple(
        each.model_copy(update={"diagnosis": DIAGNOSES["hostile"], "lint": NVFP4})
        for each in run.reports
    )
    told = comment.render(run.model_copy(update={"reports": failed, "run_url": None}))
    assert "**Where it hurts:**" in told
    assert "<summary>Leave these modules unquantized</summary>" in told
    assert_inert(told)


ERROR = st.one_of(st.floats(min_value=0), st.just(math.nan))


@given(st.lists(ERROR, min_size=1, max_size=200))
@settings(deadline=None)
def test_the_chart_holds_every_error(errors: list[float]) -> None:
    layers = [LayerDamage(layer=i, hidden_error=error) for i, error in enumerate(errors)]
    drawn = depth.chart(layers)
    assert len(drawn) == depth.ROWS + 2
    columns = min(len(errors), -(-len(errors) // -(-len(errors) // depth.MOST_COLUMNS)))
    bars = [line.partition("│")[2] for line in drawn[: depth.ROWS]]
    assert max(map(len, bars)) <= columns
    assert all(len(line) < 80 for line in drawn) and depth.sentence(layers)
