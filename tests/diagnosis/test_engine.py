"""Faults that are planted into real exports of small models, and what is said of them."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import Tensor, edit_tensors, f32
from planted_faults import plant
from tiny_models import VOCABULARY, export, llama, opened, qwen3_moe

from gate import diagnosis, reference
from gate.backends.hf_shelf import Shelf
from gate.diagnosis.estimates import estimates
from gate.diagnosis.loading import loaded
from gate.diagnosis.passes import Passes
from gate.diagnosis.suspects import suspects
from gate.errors import CheckpointError, NonFiniteLogitsError
from gate.records import Diagnosis
from gate.settings import DEFAULT, PerplexityText

pytestmark = pytest.mark.model

DOWN = "model.layers.1.mlp.down_proj"
Made = Callable[[str], Path]
Copied = Callable[[str], tuple[Path, Path]]
Tensors = dict[str, Tensor]
TEXT = PerplexityText(file="words.txt", window=32, windows=8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`fp8`, `nvfp4` or `experts`: an export, beside its reference with the ending `-plain`."""
    root, known = tmp_path_factory.mktemp("small"), dict[str, Path]()

    def make(name: str) -> Path:
        if name not in known:
            path = known[name] = root / name
            model = sharpened(qwen3_moe() if name == "experts" else llama(128, 256))
            export(model, "NVFP4_DEFAULT" if name == "nvfp4" else "FP8_DEFAULT", path)
            for directory in (path, reference_of(path)):
                tokenizer().save_pretrained(directory)
            (path / TEXT.label).write_text(told_by(reference_of(path)))
        return known[name]

    return make


def reference_of(path: Path) -> Path:
    """Where the unquantized model of an export lies."""
    return path.with_name(f"{path.name}-plain")


def sharpened(model: Any) -> Any:
    """With weights large enough for its predictions to differ."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(4)
    return model


def tokenizer() -> Any:
    """One token for each number below the vocabulary's size."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({str(n): n for n in range(VOCABULARY)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words)


def told_by(path: Path) -> str:
    """A text that a model finds likely: each window is drawn from it."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(path)
    drawn = model.generate(
        torch.arange(1, 1 + TEXT.windows)[:, None],
        do_sample=True,
        top_k=0,
        min_length=TEXT.window,
        max_length=TEXT.window,
    )
    return " ".join(map(str, drawn.flatten().tolist()))


def diagnosed(path: Path, reference: Path, **options: Any) -> Diagnosis:
    """The diagnosis of a checkpoint on all windows of the text."""
    checkpoint, form = opened(path)
    original, _ = opened(reference)
    words = (path / TEXT.label).read_text()
    return diagnosis.diagnose(checkpoint, form, original, DEFAULT, TEXT, words, **options)


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Copied:
    """A copy of an export, to be broken, and its reference."""

    def copy(name: str) -> tuple[Path, Path]:
        shutil.copytree(made(name), tmp_path / name)
        return tmp_path / name, reference_of(made(name))

    return copy


@pytest.mark.parametrize(
    ("name", "fault", "gain"), [("fp8", "scale", 4.0), ("nvfp4", "nibbles", 0.0)]
)
def test_a_planted_fault_is_the_first(copied: Copied, name: str, fault: str, gain: float) -> None:
    path, plain = copied(name)
    module = plant(path, fault, seed=1)
    found = diagnosed(path, plain)
    first, second, *_ = found.modules
    assert (first.module, first.measured) == (module, True)
    assert first.returned > 0.5 * found.divergence > 3 * second.returned
    assert first.weight_gain == pytest.approx(gain, abs=0.05)
    assert found.kinds[0].kind == first.kind
    assert max(found.layers, key=lambda layer: layer.returned or 0).layer == first.layer
    assert found.exclusion is None and found.limit is None


def test_the_proposal_is_the_fault_with_all_that_runtimes_join_to_it(
    copied: Copied,
) -> None:
    path, plain = copied("fp8")
    joined = [f"model.layers.0.self_attn.{name}_proj" for name in "kqv"]

    def coarse(tensors: Tensors) -> None:
        tensors[f"{joined[2]}.weight_scale"] = f32((), 1.0)

    edit_tensors(path, coarse)
    found = diagnosed(path, plain, limit=1.02)
    assert found.modules[0].module == joined[2] and found.perplexity_ratio > 1.02
    assert found.exclusion is not None
    assert sorted(found.exclusion.modules) == joined
    assert found.exclusion.perplexity_ratio <= found.exclusion.perplexity_ratio_high <= 1.02
    assert found.exclusion.divergence < 0.1 * found.divergence
    # Two bytes in place of one for each weight, less the two scales of each layer.
    assert found.exclusion.extra_bytes == 128 * (128 + 64 + 64) - 3 * 8


def test_a_checkpoint_under_its_limit_gets_no_proposal(made: Made) -> None:
    path = made("fp8")
    found = diagnosed(path, reference_of(path), limit=1.5)
    assert found.exclusion is None and found.perplexity_ratio < 1.5
    assert (found.windows, found.window, found.tokens) == (8, 32, 8 * 31)
    assert len(found.modules) == 14 and len(found.layers) == 2
    assert [layer.layer for layer in found.layers] == [0, 1]
    assert all(0 < layer.hidden_error < 0.2 for layer in found.layers)
    assert all(0.02 < module.weight_error < 0.04 for module in found.modules)  # type: ignore[operator]
    # To first order, what the modules carry is all of it.
    assert sum(module.returned for module in found.modules) == pytest.approx(
        found.divergence, rel=0.5
    )


def test_what_is_estimated_is_what_is_measured(made: Made) -> None:
    path = made("fp8")
    checkpoint, form = opened(path)
    original, _ = opened(reference_of(path))
    ids = np.array((path / TEXT.label).read_text().split(), np.int64).reshape(2, 4, TEXT.window)
    with loaded(checkpoint, form, original, DEFAULT) as pair, Shelf() as shelf:
        compared = reference.compare(checkpoint, form, pair.packed, original)
        passes = Passes(pair.layers, pair.original, list(ids), shelf)
        found = suspects(checkpoint, pair.packed, compared, pair.layers, pair.original)
        estimated = estimates(passes, found)
        alone = {each.name: passes.base.mean - passes.measured([each]).mean for each in found}
        healed, unharmed = passes.measured(found), passes.measured(())
    pairs = np.array([(estimated[name], alone[name]) for name in alone])
    assert np.corrcoef(pairs.T)[0, 1] > 0.95
    assert pairs[:, 0].sum() == pytest.approx(pairs[:, 1].sum(), rel=0.2)
    # With every module put back, the candidate is the reference; and none stays where it was put.
    assert healed.mean == pytest.approx(0, abs=1e-6)
    assert (healed.nll == np.concatenate([t.nll for t in passes.targets])).all()
    assert (unharmed.nll == passes.base.nll).all()


def test_a_reference_in_another_dtype(made: Made, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    path = made("fp8")
    wide = AutoModelForCausalLM.from_pretrained(reference_of(path), dtype=torch.float32)
    wide.save_pretrained(tmp_path)
    found, same = (diagnosed(path, place) for place in (tmp_path, reference_of(path)))
    assert found.divergence == pytest.approx(same.divergence)
    assert found.modules[0].extra_bytes > 2 * same.modules[0].extra_bytes


def test_a_weight_that_is_not_quantized_and_differs_is_found(
    copied: Copied,
) -> None:
    path, plain = copied("fp8")

    def turned(tensors: Tensors) -> None:
        dtype, shape, raw = tensors["lm_head.weight"]
        tensors["lm_head.weight"] = dtype, shape, raw[-512:] + raw[:-512]

    edit_tensors(path, turned)
    found = diagnosed(path, plain, limit=1.2)
    first = found.modules[0]
    assert (first.module, first.layer, first.quantized, first.measured) == (
        "lm_head", None, False, True,
    )  # fmt: skip
    assert found.exclusion is not None
    assert (found.exclusion.modules, found.exclusion.restore) == ((), ("lm_head",))


@pytest.mark.parametrize("module", [DOWN, "lm_head"])
def test_what_is_no_number_is_named(copied: Copied, module: str) -> None:
    path, plain = copied("fp8")

    def broken(tensors: Tensors) -> None:
        if module == DOWN:
            tensors[f"{DOWN}.weight_scale"] = f32((), math.nan)
        else:
            dtype, shape, raw = tensors["lm_head.weight"]
            tensors["lm_head.weight"] = dtype, shape, b"\xff\xff" * (len(raw) // 2)

    edit_tensors(path, broken)
    with pytest.raises(NonFiniteLogitsError, match=f"^{module} gives"):
        diagnosed(path, plain)


def test_an_input_scale_that_clips_is_told(copied: Copied) -> None:
    path, plain = copied("fp8")

    def tight(tensors: Tensors) -> None:
        dtype, shape, raw = tensors[f"{DOWN}.input_scale"]
        tensors[f"{DOWN}.input_scale"] = dtype, shape, (np.frombuffer(raw, "<f4") / 16).tobytes()

    edit_tensors(path, tight)
    found = diagnosed(path, plain)
    worst, others = found.inputs[0], found.inputs[1:]
    assert worst.module == DOWN and worst.clipped > 0.01 and worst.range_used > 8
    assert len(others) == 13 and all(each.clipped < 0.001 for each in others)
    (told,) = (module for module in found.modules if module.module == DOWN)
    assert told.clipped == worst.clipped and found.modules[0] == told


def test_fused_experts_are_one_module(copied: Copied) -> None:
    path, plain = copied("experts")
    one = "model.layers.1.mlp.experts.2.down_proj"
    edit_tensors(path, lambda tensors: tensors.update({f"{one}.weight_scale": f32((), 1.0)}))
    found = diagnosed(path, plain, limit=1.02)
    first = found.modules[0]
    assert (first.module, first.kind, first.layer) == ("model.layers.1.mlp.experts", "experts", 1)
    assert first.weight_error is not None and first.weight_error > 1
    assert found.exclusion is not None and one in found.exclusion.modules
    assert all(name.startswith(first.module) for name in found.exclusion.modules)
    assert len(found.exclusion.modules) == 12


def test_another_architecture_is_refused(made: Made) -> None:
    with pytest.raises(CheckpointError, match=r"is .* in .*fp8 and .* in .*experts-plain"):
        diagnosed(made("fp8"), reference_of(made("experts")))
