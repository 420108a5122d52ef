"""The reference backend, on real exports of random models."""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import VOCABULARY, export, gpt_oss, llama, opened, qwen3_moe, vision_language

from gate import activations
from gate.backends.hf import Hf, kl_divergence
from gate.errors import (
    BackendError,
    BackendUnavailableError,
    CheckpointError,
    NonFiniteLogitsError,
    OutOfMemoryError,
)
from gate.quantization import Role
from gate.settings import DEFAULT

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

MODELS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "llama": (llama, {}),
    "moe": (qwen3_moe, {"max_shard_size": 100_000}),
    "vlm": (vision_language, {}),
    "stacked": (gpt_oss, {}),
}
RENAMED = [name for name in MODELS if name != "stacked"]
WINDOWS = (np.arange(96, dtype=np.int64).reshape(3, 32) * 11) % VOCABULARY


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """ModelOpt's export of a random model, made once; copy it before changing it."""
    root = tmp_path_factory.mktemp("exports")

    def make(model: str, recipe: str) -> Path:
        path = root / f"{model}-{recipe}"
        if not path.exists():
            build, options = MODELS[model]
            export(build(), recipe, path, **options)
        return path

    return make


@pytest.fixture
def changed(exported: Callable[[str, str], Path], tmp_path: Path) -> Path:
    """A copy of the FP8 Llama that a test may spoil."""
    return shutil.copytree(exported("llama", "FP8_DEFAULT"), tmp_path / "changed")


def backend(path: Path, activations: str = "off", **options: Any) -> Hf:
    settings = DEFAULT.model_copy(update={"activations": activations})
    return Hf(*opened(path), harness=None, settings=settings, **options)


def decoded_copy(path: Path, to: Path) -> Path:
    """The same checkpoint unquantized: every weight decoded to bfloat16, no companions."""
    import torch
    from safetensors.torch import load_file, save_file

    checkpoint, form = opened(path)
    assert form is not None
    to.mkdir()
    tensors: dict[str, Any] = {}
    for shard in path.glob("*.safetensors"):
        stored = load_file(shard)
        tensors |= {name: t for name, t in stored.items() if not form.is_companion(name)}
    for layer in form.layers(checkpoint):
        decoded = torch.from_numpy(form.dequantize(layer, np)).to(torch.bfloat16)
        decoded = decoded.mT.contiguous() if layer.transposed else decoded
        tensors[layer.tensors[Role.WEIGHT].name] = decoded
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    config.pop("quantization_config")
    config.get("text_config", {}).pop("quantization_config", None)
    (to / "config.json").write_text(json.dumps(config))
    return to


def logits(loaded: Hf, windows: np.ndarray = WINDOWS) -> Any:
    return next(loaded._forward([windows]))


@pytest.mark.parametrize("recipe", ["FP8_DEFAULT", "NVFP4_DEFAULT"])
@pytest.mark.parametrize("model", MODELS)
def test_agrees_with_its_decoded_original(
    model: str, recipe: str, exported: Any, tmp_path: Path
) -> None:
    """Dense, sharded MoE with fused experts, vision-language with renamed modules, all in one.

    The last holds all experts of a layer in one tensor, its inputs first.
    """
    import torch

    path = exported(model, recipe)
    assert len(list(path.glob("*.safetensors"))) >= (3 if model == "moe" else 1)
    with backend(path) as ours, backend(decoded_copy(path, tmp_path / "plain")) as plain:
        assert type(ours.model) is type(plain.model)
        assert torch.equal(logits(ours), logits(plain))
        assert plain.kernel == "unquantized, bfloat16"
        assert ours.kernel == "weights decoded to bfloat16, inputs not quantized"


@pytest.mark.parametrize("model", RENAMED)
def test_every_quantized_input_is_rounded(model: str, exported: Any) -> None:
    """Renamed and fused modules included; each with the stored scale."""
    path = exported(model, "FP8_DEFAULT")
    checkpoint, form = opened(path)
    assert form is not None
    with backend(path, "emulate") as loaded:
        names = {name.replace("model.language_model.", "model.") for name in loaded.quantizers}
        fused = {"gate_proj", "up_proj", "down_proj"}
        for layer in form.layers(checkpoint):
            parent, _, name = layer.name.rpartition(".")
            if ".experts." in parent:
                parent = parent.rpartition(".")[0]
                name = "down_proj" if name == "down_proj" else "gate_up_proj"
                assert f"{parent}.{name}" in names and layer.name.rpartition(".")[2] in fused
            else:
                assert f"{layer.name}.weight" in names
        assert loaded.kernel.endswith("inputs rounded to FP8 static")
        floor = loaded.rounding_floor(WINDOWS)
        assert floor is not None and floor.tokens == WINDOWS.size
        assert loaded.rounding.codes > WINDOWS.size * len(names) * 64, "every module was counted"
        assert 0 <= floor.codes_changed < 0.005 and -1e-9 < floor.kl < 0.05


@pytest.mark.parametrize("recipe", ["FP8_DEFAULT", "NVFP4_DEFAULT"])
def test_rounds_the_inputs_of_a_linear_layer(recipe: str, exported: Any) -> None:
    """What the layer computes is its weight times the input rounded by definition."""
    import torch

    path = exported("llama", recipe)
    checkpoint, form = opened(path)
    assert form is not None
    layer = next(iter(form.layers(checkpoint)))
    assert layer.input_scheme is not None
    scale = torch.from_numpy(np.array(layer.read(Role.INPUT_SCALE)))
    x = torch.randn(5, layer.expected and form.dequantize(layer, np).shape[1]).to(torch.bfloat16)
    with backend(path, "emulate") as loaded, torch.inference_mode():
        module = loaded.model.get_submodule(layer.name)
        rounded = activations.fake_quantize(x, layer.input_scheme, scale)
        assert not torch.equal(rounded, x)
        assert torch.equal(module(x), torch.nn.functional.linear(rounded, module.weight))


@pytest.mark.parametrize("recipe", ["FP8_DEFAULT", "NVFP4_DEFAULT"])
def test_rounds_both_inputs_of_fused_experts(recipe: str, exported: Any) -> None:
    """Against a loop over experts that rounds by the largest scale of all of them."""
    import torch
    from torch.nn.functional import linear, silu

    path = exported("moe", recipe)
    checkpoint, form = opened(path)
    assert form is not None
    experts = [layer for layer in form.layers(checkpoint) if "layers.0.mlp.experts" in layer.name]
    scheme = experts[0].input_scheme
    assert scheme is not None

    def largest(*projections: str) -> Any:
        scales = [
            float(layer.read(Role.INPUT_SCALE).reshape(()))
            for layer in experts
            if layer.name.endswith(projections)
        ]
        return torch.tensor(max(scales), dtype=torch.float32)

    x = torch.randn(6, 128).to(torch.bfloat16)
    chosen, shares = torch.tensor([[e % 4, (e + 1) % 4] for e in range(6)]), torch.full((6, 2), 0.5)
    with backend(path, "emulate") as loaded, torch.inference_mode():
        module = loaded.model.model.layers[0].mlp.experts
        ours = module(x, chosen, shares.to(torch.bfloat16))
        rounded = activations.fake_quantize(x, scheme, largest("gate_proj", "up_proj"))
        expected = torch.zeros(6, 128)
        for token, expert in ((t, e) for t in range(6) for e in chosen[t].tolist()):
            gate, up = linear(rounded[token], module.gate_up_proj[expert]).chunk(2)
            hidden = activations.fake_quantize(
                (silu(gate) * up)[None], scheme, largest("down_proj")
            )
            expected[token] += 0.5 * linear(hidden, module.down_proj[expert])[0].float()
    assert torch.allclose(
        ours.float(), expected, rtol=0.02, atol=2e-3 * float(expected.abs().max())
    )


@pytest.mark.parametrize("recipe", ["FP8_DEFAULT", "FP8_DEFAULT+FP8_KV", "W4A8_NVFP4_FP8"])
def test_equals_modelopts_model_in_memory(recipe: str, tmp_path: Path) -> None:
    """Same weights, amax and order of rounding as ModelOpt's own fake quantization: same logits."""
    import torch

    path = tmp_path / "export"
    theirs = export(llama(), recipe, path)
    with backend(path, "emulate") as ours, torch.inference_mode():
        share(ours, theirs)
        ours.rounding.order = "modelopt"
        assert kl_divergence(logits(ours)[0], theirs(torch.from_numpy(WINDOWS[:1])).logits[0]) == 0
        ours.rounding.order = "runtime"
        assert kl_divergence(logits(ours)[0], theirs(torch.from_numpy(WINDOWS[:1])).logits[0]) > 0


@pytest.mark.parametrize("recipe", ["INT8_DEFAULT", "INT8_SMOOTHQUANT"])
def test_is_near_modelopts_model_in_memory(recipe: str, tmp_path: Path) -> None:
    """Nearer than rounding the inputs moves it: weights, smoothing and inputs."""
    import torch

    path = tmp_path / "export"
    theirs = export(llama(), recipe, path)
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(WINDOWS)).logits
    with backend(path) as unrounded, backend(path, "emulate") as ours:
        without, with_rounding = logits(unrounded), logits(ours)
    distance = [float((found - expected).float().norm()) for found in (with_rounding, without)]
    assert distance[0] < 0.75 * distance[1]


def share(ours: Hf, theirs: Any) -> None:
    """Give ModelOpt's model our decoded weights and the stored amax of its inputs."""
    for parameter, quantizer in ours.quantizers.items():
        module = theirs.get_submodule(parameter.removesuffix(".weight"))
        module.weight_quantizer.disable()
        module.weight.copy_(ours.model.get_parameter(parameter))
        # Its own setter would round to the model's bfloat16.
        module.input_quantizer._amax = quantizer.input_scale * activations.E4M3_MAX
    for name, module in ours.model.named_modules():
        for kind, quantizer in zip("kv", getattr(module, "rounded_cache", ()), strict=False):
            own = getattr(theirs.get_submodule(name), f"{kind}_bmm_quantizer")
            own._amax = quantizer.input_scale * activations.E4M3_MAX


def test_reads_windows_like_the_model(exported: Any) -> None:
    """Log-probabilities of every token but the first, float32, windows independent."""
    with backend(exported("llama", "NVFP4_DEFAULT"), "emulate") as loaded:
        ours = loaded.read(WINDOWS).logprobs
        assert (ours.dtype, ours.shape) == (np.float32, (3, 31))
        full = logits(loaded).float().log_softmax(-1).cpu()
        for row, column in ((0, 0), (1, 7), (2, 30)):
            expected = full[row, column, WINDOWS[row, column + 1]]
            assert ours[row, column] == pytest.approx(float(expected), abs=1e-5)


def test_nothing_to_round_has_no_floor(exported: Any) -> None:
    """Weight-only formats, and activations that are off."""
    for path, mode in (
        (exported("llama", "W4A16_NVFP4"), "emulate"),
        (exported("llama", "FP8_DEFAULT"), "off"),
    ):
        with backend(path, mode) as loaded:
            assert loaded.rounding_floor(WINDOWS) is None


def test_dynamic_inputs_need_no_stored_scale(exported: Any) -> None:
    with backend(exported("llama", "FP8_PER_CHANNEL_PER_TOKEN"), "emulate") as loaded:
        assert len(loaded.quantizers) == 14 and loaded.kernel.endswith("FP8 dynamic")
        assert np.isfinite(loaded.read(WINDOWS).logprobs).all()


def test_generation_config_is_the_checkpoints(changed: Path, tmp_path: Path) -> None:
    """As a plain load of the directory has it, with the file and without."""
    from transformers import AutoModelForCausalLM

    plain = decoded_copy(changed, tmp_path / "plain")
    for content in (
        {"eos_token_id": [2, 7], "bos_token_id": 1, "temperature": 0.6, "do_sample": True},
        None,
    ):
        for path in (changed, plain):
            file = path / "generation_config.json"
            file.unlink(missing_ok=True)
            if content:
                file.write_text(json.dumps(content))
        expected = AutoModelForCausalLM.from_pretrained(plain).generation_config.to_dict()
        with backend(changed) as loaded:
            assert loaded.model.generation_config.to_dict() == expected
            assert not content or expected["eos_token_id"] == [2, 7]


def test_reports_progress_and_stays_silent(
    exported: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[int, int]] = []
    with backend(exported("llama", "FP8_DEFAULT"), progress=lambda *done: seen.append(done)):
        pass
    assert seen == [(i, len(seen)) for i in range(1, len(seen) + 1)] and len(seen) == 21
    assert capfd.readouterr() == ("", "")


def edit_weights(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path / "model.safetensors")
    edit(tensors)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def edit_config(path: Path, **changes: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))


NORM = "model.layers.1.input_layernorm.weight"


@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize(
    ("what", "edit"),
    [
        ("lacks", lambda tensors: tensors.pop(NORM)),
        ("another shape", lambda tensors: tensors.update({NORM: tensors[NORM][:7].clone()})),
        ("beyond", lambda tensors: tensors.update({NORM + "er": tensors[NORM].clone()})),
    ],
)
def test_no_weight_is_made_up_or_dropped(
    what: str, edit: Any, quantized: bool, changed: Path, tmp_path: Path
) -> None:
    """Missing, of another shape, superfluous: an error that names the tensor, never a warning."""
    path = changed if quantized else decoded_copy(changed, tmp_path / "plain")
    edit_weights(path, edit)
    with pytest.raises(CheckpointError, match=rf"{what}.*{NORM}"), backend(path):
        pass


def test_a_scale_of_the_wrong_shape_is_told(changed: Path) -> None:
    import torch

    scale = "model.layers.0.mlp.up_proj.weight_scale"
    edit_weights(changed, lambda tensors: tensors.update({scale: torch.ones(3)}))
    with pytest.raises(CheckpointError, match=f"{scale} has the shape"), backend(changed):
        pass


def test_a_file_cut_off_after_opening_is_told(changed: Path) -> None:
    file = changed / "model.safetensors"
    loaded = backend(changed)
    file.write_bytes(file.read_bytes()[:-64])
    with pytest.raises(CheckpointError, match="ends before"), loaded:
        pass


def test_an_input_scale_that_is_missing_is_named(changed: Path) -> None:
    edit_weights(changed, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.input_scale"))
    with backend(changed, "off"):
        pass
    with pytest.raises(BackendError, match=r"layers\.1\.mlp\.up_proj"), backend(changed, "emulate"):
        pass


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"architectures": ["NoSuchForCausalLM"]}, "NoSuchForCausalLM"),
        ({"architectures": ["Trainer"]}, "Trainer"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "no language model"),
        ({"architectures": None}, "names no architectures"),
        ({"model_type": "no_such_model"}, "no_such_model"),
        ({"hidden_size": "wide"}, "cannot build"),
        (
            {"architectures": ["Own"], "auto_map": {"AutoModelForCausalLM": "modeling_own.Own"}},
            "the checkpoint's own Python code",
        ),
    ],
)
def test_what_transformers_cannot_build_is_refused(
    changes: dict[str, Any], match: str, changed: Path
) -> None:
    """Each with a message; the checkpoint's own code is never run unasked."""
    (changed / "modeling_own.py").write_text("raise SystemExit('ran')")
    edit_config(changed, **changes)
    with pytest.raises(BackendUnavailableError, match=match), backend(changed):
        pass


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_end_the_run(value: float, changed: Path) -> None:
    """Generated ones are looked at by the harness."""
    edit_weights(changed, lambda tensors: tensors["lm_head.weight"].fill_(value))
    with backend(changed) as loaded, pytest.raises(NonFiniteLogitsError):
        loaded.read(WINDOWS)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"
        ),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_is_told_apart(
    error: Exception, exported: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other errors of the model are not taken for it."""
    with backend(exported("llama", "FP8_DEFAULT")) as loaded:

        def fail(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(loaded.model, "forward", fail)
        with pytest.raises(OutOfMemoryError, match="reading windows of 32 tokens"):
            loaded.read(WINDOWS)
        error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        with pytest.raises(RuntimeError, match="mat1"):
            loaded.read(WINDOWS)


@pytest.fixture
def tokenizer(exported: Any, tmp_path: Path) -> Iterator[Callable[[bool], Path]]:
    """The FP8 Llama with a tokenizer of three words, which adds a BOS or does not."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    def make(adds_bos: bool) -> Path:
        path = shutil.copytree(exported("llama", "FP8_DEFAULT"), tmp_path / str(adds_bos))
        words = {"<s>": 1, "a": 3, "b": 4, "c": 5, "<unk>": 0}
        own = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
        own.pre_tokenizer = pre_tokenizers.Whitespace()
        if adds_bos:
            own.post_processor = processors.TemplateProcessing(
                single="<s> $A", special_tokens=[("<s>", 1)]
            )
        PreTrainedTokenizerFast(tokenizer_object=own, bos_token="<s>").save_pretrained(path)
        return path

    yield make


@pytest.mark.parametrize("adds_bos", [True, False])
def test_bos_as_the_tokenizer_does_it(adds_bos: bool, tokenizer: Any) -> None:
    """Text without special tokens; the BOS only where the tokenizer adds one by default."""
    loaded = backend(tokenizer(adds_bos))
    assert loaded.token_ids("a b c").tolist() == [3, 4, 5]
    assert loaded.bos == (1 if adds_bos else None)
