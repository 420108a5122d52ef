"""Exclusions: what they name, and that no pattern can run away."""

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.formats.modelopt_algorithms import ALGORITHMS
from gate.formats.modelopt_config import ALGORITHM_NAMES
from gate.patterns import Exclusions

Q = "model.layers.12.self_attn.q_proj"


@pytest.mark.parametrize(
    ("pattern", "module", "excluded"),
    [
        ("lm_head", "lm_head", True),
        ("lm_head", "model.lm_head", False),
        ("model.layers.1", Q, False),
        ("model.layers.12", Q, True),
        ("model.layers.12.self_attn*", Q, True),
        ("model.layers.1.self_attn*", Q, False),
        ("model.layers.12.*", "model.layers.12", True),
        ("*.attn.*", "layers.0.attn.wo_a", True),
        ("*.ffn.shared_experts.*", "layers.0.ffn.shared_experts.w1", True),
        ("*.ffn.shared_experts.*", "layers.0.ffn.experts.0.w1", False),
        ("*layers.1?.self_attn", Q, True),
        ("*", "anything", True),
        ("model.layers.0.mlp.gate", "model.layers.0.mlp.gate_proj", False),
        ("re:.*self_attn.*", Q, True),
        ("re:.*lm_head", "lm_head", True),
        ("re:.*mlp.gate$", "model.layers.1.mlp.gate", True),
        ("re:.*mlp.gate$", "model.layers.1.mlp.gate_proj", False),
        (r"re:.*layers\.\d+\.mlp\.experts\.\d+\..*", "m.layers.3.mlp.experts.12.up", True),
        (r"re:model\.layers\.(0|12|13)\.self_attn", Q, True),
        (r"re:model\.layers\.(0|1|2)\.self_attn", Q, False),
        (r"re:model\.layers\.[^.]+\.self_attn.*", Q, True),
        ("re:(", "(", False),
        ("LM_HEAD", "lm_head", False),
        ("", "lm_head", False),
    ],
)
def test_which_modules_an_entry_names(pattern: str, module: str, excluded: bool) -> None:
    assert (module in Exclusions([pattern])) is excluded


@pytest.mark.parametrize(
    "pattern",
    [
        "re:(a+)+$",
        "re:(a|a)*b",
        "re:" + "a?" * 60 + "a" * 60,
        "re:" + "(a|a)" * 60 + "b",
        "re:(?=a)a",
        "re:" + ".*a" * 60 + "b",
        "re:" + r"\d+" * 60 + "b",
        "re:" + "(" * 190 + ")" * 190,
        "re:a{1,99}{1,99}{1,99}",
        "*a" * 150 + "b",
        "[" * 300,
        "x" * 100_000,
    ],
    ids=range(12),
)
def test_no_pattern_runs_away(pattern: str) -> None:
    # Each of these takes longer than the age of the universe, or is near to it, when tried naively.
    assert "a" * 200 not in Exclusions([pattern])
    assert "1" * 200 not in Exclusions([pattern])


def test_many_patterns_and_modules_are_no_burden() -> None:
    names = [f"model.layers.{layer}.mlp.experts.{e}.up" for layer in range(60) for e in range(200)]
    exclusions = Exclusions([f"model.layers.{n}.self_attn*" for n in range(5000)] + ["lm_head"] * 9)
    assert not any(name in exclusions for name in names)


NAME = st.lists(st.sampled_from(["a", "b", "ab", "0", "12"]), min_size=1, max_size=6).map(".".join)
PIECE = st.sampled_from([".*", "a", "b", r"\.", r"\d+", "(a|b)", "0", "1", "."])


@given(pieces=st.lists(PIECE, min_size=1, max_size=7), name=NAME)
def test_expressions_mean_what_they_say(pieces: list[str], name: str) -> None:
    expression = "".join(pieces)
    # A run of digits, or a choice, directly before what it could give back is read greedily.
    if re.search(r"\\d\+(\\d|0|1|\.)|\.\*\.\*", expression):
        return
    parts = name.split(".")
    ancestors = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    wanted = any(re.fullmatch(expression, ancestor) for ancestor in ancestors)
    assert (name in Exclusions([f"re:{expression}"])) is wanted


@given(glob=st.text("ab.*?[]!", max_size=8), name=NAME)
def test_globs_mean_what_they_say(glob: str, name: str) -> None:
    parts = name.split(".")
    ancestors = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    globs = [glob, glob[:-2]] if glob.endswith(".*") else [glob]
    wanted = any(fnmatch.fnmatchcase(ancestor, one) for ancestor in ancestors for one in globs)
    assert (name in Exclusions([glob])) is wanted


def test_every_described_algorithm_is_known() -> None:
    assert ALGORITHMS.keys() <= ALGORITHM_NAMES
