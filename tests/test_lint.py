"""The driver: what it runs, what it leaves out and says so, and how much it says."""

from collections.abc import Iterator
from pathlib import Path

import checkpoints
import pytest
from checkpoints import edit_tensors
from judging import judge

from gate.checkpoint import Checkpoint, open_checkpoint
from gate.containers import CONTAINERS
from gate.errors import SettingsError
from gate.formats import FORMATS
from gate.lint import MOST_PER_RULE, lint, walk
from gate.quantization import Format, identify
from gate.records import Finding, LintResult
from gate.rule import SECTIONS, Evidence, Rule, manual
from gate.rules import RULES

LAYER_RULES = {
    "excluded-but-quantized",
    "unquantized-not-excluded",
    "weight-dtype",
    "missing-scale",
    "scale-shape",
    "scale-not-finite",
    "scale-zero",
}


def why_skipped(result: LintResult) -> dict[str, str]:
    """Rules that look at layers, and why they could not."""
    return {s.rule: s.reason for s in result.skipped if s.rule in LAYER_RULES}


def without_input_scales(path: Path) -> None:
    def change(tensors: dict[str, checkpoints.Tensor]) -> None:
        for name in [name for name in tensors if name.endswith(".input_scale")]:
            del tensors[name]

    edit_tensors(path, change)


def test_many_findings_are_counted_and_few_are_listed(tmp_path: Path) -> None:
    without_input_scales(checkpoints.build(tmp_path, "NVFP4", layers=5))
    result = judge(tmp_path)
    assert len(result.findings) == MOST_PER_RULE + 1
    last = result.findings[-1]
    assert (last.rule, last.severity, last.tensor) == ("missing-scale", "error", None)
    assert last.message.startswith(f"{5 * 7 - MOST_PER_RULE} more")
    assert len(result.errors) == MOST_PER_RULE + 1


def test_an_ignored_rule_is_reported_and_decides_nothing(tmp_path: Path) -> None:
    checkpoints.build(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    result = judge(tmp_path, {"tokenizer-missing": "weights only, on purpose"})
    assert [f.ignored for f in result.findings] == ["weights only, on purpose"]
    assert result.errors == ()


def test_ignoring_some_tensors_leaves_the_others(tmp_path: Path) -> None:
    without_input_scales(checkpoints.build(tmp_path, "NVFP4", layers=2))
    result = judge(tmp_path, {"missing-scale:model.layers.0.*": "to be recalibrated"})
    left = {f.tensor for f in result.errors}
    assert len(left) == 7
    assert all(tensor and tensor.startswith("model.layers.1.") for tensor in left)
    assert sum(f.ignored == "to be recalibrated" for f in result.findings) == 7


def test_what_is_ignored_never_crowds_out_what_decides(tmp_path: Path) -> None:
    without_input_scales(checkpoints.build(tmp_path, "NVFP4", layers=5))
    result = judge(tmp_path, {"missing-scale:model.layers.[0-3].*": "known"})
    assert {f.tensor.split(".")[2] for f in result.errors if f.tensor} == {"4"}
    assert len(result.errors) == 7


@pytest.mark.parametrize("entry", ["tokeniser-missing", "scale", "no-such:model.*", ""])
def test_ignoring_an_unknown_rule_is_refused(tmp_path: Path, entry: str) -> None:
    checkpoints.build(tmp_path)
    with pytest.raises(SettingsError, match="no rule") as caught:
        judge(tmp_path, {entry: "because"})
    assert any(rule.id in caught.value.hint for rule in RULES)


def test_a_truncated_file_stops_the_layers_rules_and_says_why(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "NVFP4", shards=3)
    shard = tmp_path / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    result = judge(tmp_path)
    assert {f.rule for f in result.findings} == {"shard-truncated"}
    reason = f"{shard.name} is incomplete or unreadable"
    assert why_skipped(result) == dict.fromkeys(LAYER_RULES, reason)
    assert not LAYER_RULES & {rule.id for rule in result.rules_run}


def test_a_pointer_for_the_tokenizer_leaves_the_layers_to_be_judged(tmp_path: Path) -> None:
    checkpoints.build(tmp_path)
    (tmp_path / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    result = judge(tmp_path)
    assert [f.rule for f in result.findings] == ["lfs-pointer"]
    assert why_skipped(result) == {}


def test_an_unknown_method_is_named(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, None)
    checkpoints.edit_json(
        tmp_path, "config.json", lambda c: c.update(quantization_config={"quant_method": "made-up"})
    )
    result = judge(tmp_path)
    reasons = why_skipped(result)
    assert reasons.keys() == LAYER_RULES
    assert all("'made-up'" in reason for reason in reasons.values())


def test_an_algorithm_without_a_described_layout_is_named(tmp_path: Path) -> None:
    checkpoints.build(tmp_path)
    checkpoints.edit_declarations(tmp_path, lambda body: body.update(quant_algo="FP8_PB"))
    result = judge(tmp_path)
    assert any("FP8_PB is not described" in skipped.reason for skipped in result.skipped)
    assert result.algorithms == ("FP8_PB",)


def test_text_from_the_checkpoint_is_fit_to_print(tmp_path: Path) -> None:
    checkpoints.build(tmp_path)
    hostile = "FP8\x1b[31m\n::error::\ud800" + "x" * 10_000
    checkpoints.edit_declarations(tmp_path, lambda body: body.update(quant_algo=hostile))
    result = judge(tmp_path)
    texts = [f"{f.message}{f.fix}{f.tensor}" for f in result.findings] + list(result.algorithms)
    assert {f.rule for f in result.findings} == {"unknown-algo"}
    assert all(text.isprintable() and len(text) < 3000 for text in texts)
    result.model_dump_json()


def test_each_layer_is_walked_once(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(checkpoints.build(tmp_path, "NVFP4"), CONTAINERS)

    class Walks:
        """The format, counting."""

        def __init__(self, form: Format) -> None:
            self.form, self.walks = form, 0

        def __getattr__(self, name: str) -> object:
            return getattr(self.form, name)

        def layers(self, checkpoint: Checkpoint) -> Iterator[object]:
            self.walks += 1
            return self.form.layers(checkpoint)

    form = Walks(identify(checkpoint, FORMATS))
    lint(Evidence(checkpoint, form, walk(checkpoint, form)), RULES, {})
    assert form.walks == 1


def test_findings_come_in_the_order_of_the_rules(tmp_path: Path) -> None:
    checkpoints.build(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    without_input_scales(tmp_path)
    (tmp_path / "generation_config.json").write_text("[")
    found = [f.rule for f in judge(tmp_path).findings]
    ranks = [[rule.id for rule in RULES].index(rule) for rule in found]
    assert ranks == sorted(ranks)
    assert len(set(found)) == 3


def test_a_warning_decides_nothing(tmp_path: Path) -> None:
    checkpoints.build(tmp_path)
    (tmp_path / "generation_config.json").write_text("[")
    result = judge(tmp_path)
    assert [f.severity for f in result.findings] == ["warning"]
    assert result.errors == ()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_the_docstring_is_a_manual_page(rule: Rule) -> None:
    page = manual([rule])
    assert f"## {rule.id}" in page
    for section in SECTIONS:
        text = page.split(f"**{section}.** ")[1].partition("\n")[0]
        assert len(text) > 15
    assert "https://" in page.split("**Source.** ")[1]


def test_the_manual_has_one_row_a_rule() -> None:
    page = manual(RULES)
    rows = [line for line in page.splitlines() if line.startswith("| [")]
    assert [row.split("]")[0][3:] for row in rows] == [rule.id for rule in RULES]


def test_a_rule_takes_its_name_from_its_file() -> None:
    class Nameless(Rule):
        """Nothing."""

        def check_checkpoint(
            self, checkpoint: Checkpoint, form: Format | None
        ) -> Iterator[Finding]:
            yield self.finding("x", "y")

    assert Nameless().id == __name__.replace("_", "-")
