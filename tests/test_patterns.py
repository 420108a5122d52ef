"""Lists of modules that stay unconverted: what an entry names."""

import warnings

import pytest

from gate.patterns import SkippedModules, compiled


@pytest.mark.parametrize(
    ("entry", "module", "named"),
    [
        ("lm_head", "lm_head", True),
        ("lm_head", "language_model.lm_head", True),
        ("model.layers.1", "model.layers.1.mlp.up_proj", True),
        ("model.layers.1", "model.layers.12.mlp.up_proj", False),
        ("mlp.gate", "model.layers.1.mlp.gate", True),
        ("mlp.gate", "model.layers.1.mlp.gate_proj", False),
        ("visual", "model.visual.blocks.0", True),
        ("model.layers.*.self_attn", "model.layers.3.self_attn.q_proj", True),
        ("model.layers.*.self_attn", "model.layers.3.mlp", False),
        ("re:.*lm_head", "a.lm_head", True),
        ("", "lm_head", False),
        ("a" * 100_000, "a" * 100_000, False),
        ("a", ".".join("b" * 100_000) + ".a", False),
    ],
    ids=range(13),
)
def test_which_modules_an_entry_names(entry: str, module: str, named: bool) -> None:
    assert (module in SkippedModules([entry])) is named


@pytest.mark.parametrize("expression", ["a\0b", "\0", "a\0.*b", "[[a]", "x--y[a--b]"])
def test_an_odd_expression_neither_fails_nor_warns(expression: str) -> None:
    with warnings.catch_warnings(action="error"):
        found = compiled(expression)
    assert found is None or found.fullmatch("nothing of the kind") is None
