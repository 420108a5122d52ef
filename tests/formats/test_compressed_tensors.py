"""compressed-tensors: what the library writes is sound, and what is broken in it is found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from checkpoints import edit_json, edit_tensors
from compressed_checkpoints import compressed, compressed_linear
from judging import errors, flagged, gather, judge

from gate.formats.compressed_tensors_targets import Targets, spellings

INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
INT8 = {"num_bits": 8, "type": "int", "strategy": "channel"}
FP8 = {"num_bits": 8, "type": "float", "strategy": "tensor"}
TOKEN = {"num_bits": 8, "strategy": "token", "dynamic": True}
BLOCK = {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [32, 32]}
NVFP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
MX = {"type": "float", "strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}

SCHEMES: dict[str, dict[str, Any]] = {
    "pack-quantized W4A16 g32": {"weights": INT4},
    "pack-quantized W4A16 g32 asym": {"weights": INT4 | {"symmetric": False}},
    "pack-quantized W3A16 g32": {"weights": INT4 | {"num_bits": 3}},
    "pack-quantized W2A16 g16": {"weights": INT4 | {"num_bits": 2, "group_size": 16}},
    "pack-quantized W7A16 channel asym": {"weights": INT8 | {"num_bits": 7, "symmetric": False}},
    "pack-quantized W8A16 channel": {"weights": INT8},
    "int-quantized W8A8 channel": {"weights": INT8, "input_activations": TOKEN},
    "int-quantized W8A8 tensor asym": {
        "weights": INT8 | {"strategy": "tensor", "symmetric": False},
        "input_activations": {"num_bits": 8, "strategy": "tensor", "symmetric": False},
    },
    "float-quantized W8A8 tensor": {"weights": FP8, "input_activations": FP8},
    "float-quantized W8A8 channel": {
        "weights": FP8 | {"strategy": "channel"},
        "input_activations": TOKEN | {"type": "float"},
    },
    "float-quantized W8A8 32x32": {
        "weights": BLOCK,
        "input_activations": FP8 | {"strategy": "group", "group_size": 128, "dynamic": True},
    },
    "naive-quantized W8A16 channel": {"weights": FP8 | {"strategy": "channel"}},
    "nvfp4-pack-quantized W4A16 g16": {"weights": NVFP4},
    "nvfp4-pack-quantized W4A4 g16": {
        "weights": NVFP4,
        "input_activations": NVFP4 | {"dynamic": "local"},
    },
    "mxfp4-pack-quantized W4A16 g32": {"weights": MX | {"num_bits": 4}},
    "mxfp6-pack-quantized W6A16 g32": {"weights": MX | {"num_bits": 6}},
    "mxfp8-quantized W8A8 g32": {
        "weights": MX | {"num_bits": 8},
        "input_activations": MX | {"num_bits": 8, "dynamic": True},
    },
}


@pytest.mark.parametrize("name", SCHEMES)
def test_what_the_library_writes_is_sound(name: str, tmp_path: Path) -> None:
    path = compressed(tmp_path / "m", SCHEMES[name], layers=1)
    result = judge(path)
    assert result.findings == ()
    assert (result.format, result.algorithms) == ("compressed-tensors", (name,))
    assert not any("only in part" in skipped.reason for skipped in result.skipped)
    for layer in gather(path).layers:
        assert layer.expected.keys() == layer.tensors.keys()


def test_schemes_may_differ_from_layer_to_layer(tmp_path: Path) -> None:
    others = {"down_proj": {"weights": NVFP4}, "o_proj": SCHEMES["float-quantized W8A8 channel"]}
    path = compressed(tmp_path / "m", {"weights": INT4}, others=others)
    result = judge(path)
    assert errors(path) == set()
    assert result.algorithms == (
        "float-quantized W8A8 channel",
        "nvfp4-pack-quantized W4A16 g16",
        "pack-quantized W4A16 g32",
    )
    assert {layer.algo for layer in gather(path).layers} == set(result.algorithms)


@pytest.mark.parametrize("bits", [2, 3, 5, 6, 7])
def test_the_last_word_of_a_row_may_be_filled_in_part(bits: int, tmp_path: Path) -> None:
    scheme = {"weights": INT4 | {"num_bits": bits, "group_size": 8}}
    path = compressed(tmp_path / "m", scheme, layers=1)
    narrow = compressed_linear(
        checkpoints.bf16((32, 40)), json.dumps(scheme | {"targets": ["Linear"]})
    )
    edit_tensors(path, lambda t: t.update({f"{K}.{name}": value for name, value in narrow.items()}))
    assert errors(path) == {"dims-vs-config"}
    assert gather(path).layer_of[K].shape == (32, 40)


def test_embeddings_have_a_class_of_their_own(tmp_path: Path) -> None:
    path = compressed(tmp_path / "m", {"weights": INT4})
    scheme = {"weights": INT8, "targets": ["Embedding"]}
    embedding = compressed_linear(checkpoints.bf16((96, 64)), json.dumps(scheme))

    def change(stored: dict[str, checkpoints.Tensor]) -> None:
        del stored["model.embed_tokens.weight"]
        stored |= {f"model.embed_tokens.{name}": value for name, value in embedding.items()}

    edit_tensors(path, change)
    declared(lambda c: c["config_groups"].update(group_1=scheme))(path)
    assert errors(path) == set()
    assert gather(path).layer_of["model.embed_tokens"].algo == "pack-quantized W8A16 channel"


def test_experts_are_layers(tmp_path: Path) -> None:
    path = compressed(tmp_path / "m", {"weights": INT4}, experts=2, layers=1)
    assert errors(path) == set()
    assert len(gather(path).layers) == 4 + 2 * 3


K, OUT = (f"model.layers.0.self_attn.{kind}_proj" for kind in "ko")
Change = Callable[[Path], None]


def tensors(change: Callable[[dict[str, checkpoints.Tensor]], object]) -> Change:
    return lambda path: edit_tensors(path, change)


def declared(change: Callable[[dict[str, Any]], object]) -> Change:
    return lambda path: edit_json(path, "config.json", lambda c: change(c["quantization_config"]))


def group(**fields: object) -> Change:
    return declared(lambda c: c["config_groups"]["group_0"].update(fields))


def weights(**fields: object) -> Change:
    return declared(lambda c: c["config_groups"]["group_0"]["weights"].update(fields))


def both(*changes: Change) -> Change:
    return lambda path: [change(path) for change in changes] and None


def plain(module: str, shape: tuple[int, int]) -> Change:
    """Store one layer unquantized."""

    def change(stored: dict[str, checkpoints.Tensor]) -> None:
        for name in [name for name in stored if name.startswith(f"{module}.")]:
            del stored[name]
        stored[f"{module}.weight"] = checkpoints.bf16(shape)

    return tensors(change)


def older(path: Path) -> None:
    """Before version 0.6 the declaration had another name."""
    edit_json(
        path,
        "config.json",
        lambda c: c.update(compression_config=c.pop("quantization_config")),
    )


def nested(path: Path) -> None:
    edit_json(
        path,
        "config.json",
        lambda c: c.update(text_config={**c, "quantization_config": c.pop("quantization_config")}),
    )


def renamed(old: str, new: str) -> Change:
    def change(stored: dict[str, checkpoints.Tensor]) -> None:
        for name in list(stored):
            stored[name.replace(old, new)] = stored.pop(name)

    return tensors(change)


def ordered(last: int = 0) -> Change:
    """Store the order of every layer's inputs, backwards; `last` is added to one group."""

    def change(stored: dict[str, checkpoints.Tensor]) -> None:
        for name in [name for name in stored if name.endswith("weight_scale")]:
            groups = np.repeat(np.arange(stored[name][1][1], dtype="<i4"), 32)[::-1].copy()
            groups[-1] += last
            stored[name.replace("weight_scale", "weight_g_idx")] = (
                "I32",
                groups.shape,
                groups.tobytes(),
            )

    return both(tensors(change), weights(actorder="group"))


KV_SCALES = {
    f"model.layers.{layer}.self_attn.{kind}_scale": ("BF16", (1,), b"\x00\x3c")
    for layer in (0, 1)
    for kind in "kv"
}
W4, ASYM, ACTIVE = (
    "pack-quantized W4A16 g32",
    "pack-quantized W4A16 g32 asym",
    "float-quantized W8A8 tensor",
)
SOUND: dict[str, tuple[str, Change]] = {
    "the older name of the declaration": (W4, older),
    "a declaration inside text_config": (W4, nested),
    "no method named": (W4, declared(lambda c: c.pop("quant_method"))),
    "status frozen": (W4, declared(lambda c: c.update(quantization_status="frozen"))),
    "numbers in quotes": (W4, weights(num_bits="4", group_size="32")),
    "capital letters": (W4, weights(type="INT", strategy="GROUP")),
    "no strategy": (W4, weights(strategy=None)),
    "format by group only": (
        W4,
        declared(
            lambda c: [
                c["config_groups"]["group_0"].update(format=c["format"]),
                c.update(format="mixed-precision"),
            ]
        ),
    ),
    "format inferred": (W4, both(declared(lambda c: c.pop("format")), group(format=None))),
    "an ignored layer": (
        W4,
        both(plain(OUT, (64, 64)), declared(lambda c: c["ignore"].append(OUT))),
    ),
    "an ignored layer, by expression": (
        W4,
        both(plain(OUT, (64, 64)), declared(lambda c: c["ignore"].append("re:.*layers.0.*o_proj"))),
    ),
    "an ignored layer, by an expression without end": (
        W4,
        both(
            plain(OUT, (64, 64)),
            declared(lambda c: c["ignore"].append("re:model.layers.0.self_attn.o_")),
        ),
    ),
    "an ignored layer, by an expression that is not evaluated": (
        W4,
        both(plain(OUT, (64, 64)), declared(lambda c: c["ignore"].append("re:(.*)+(o_proj)*"))),
    ),
    "targets by name": (W4, group(targets=["re:.*(self_attn|mlp)\\..*_proj$"])),
    "targets by what they are not": (W4, group(targets=["re:^(?!.*lm_head).*_proj"])),
    "targets of fused names": (
        W4,
        group(targets=["re:.*[o]_proj", "re:.*down_proj$", "re:.*qkv_proj", "re:.*gate_up_proj"]),
    ),
    "targets of another class": (W4, group(targets=["LlamaDecoderLayer"])),
    "KV scales": (
        W4,
        both(
            tensors(lambda t: t.update(KV_SCALES)),
            declared(lambda c: c.update(kv_cache_scheme=FP8)),
        ),
    ),
    "an attention group beside": (
        W4,
        declared(
            lambda c: c["config_groups"].update(
                group_1={"targets": ["LlamaAttention"], "input_activations": FP8}
            )
        ),
    ),
    "an order that is not stored": (W4, weights(actorder="weight")),
    "an order of the inputs": (W4, ordered()),
    "scalars without a dimension": (
        ACTIVE,
        tensors(lambda t: t.update({f"{K}.weight_scale": checkpoints.f32(())})),
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_what_is_sound_stays_so(name: str, tmp_path: Path) -> None:
    scheme, change = SOUND[name]
    path = compressed(tmp_path / "m", SCHEMES[scheme])
    change(path)
    assert errors(path) == set()
    assert judge(path).format == "compressed-tensors"


BROKEN: dict[str, tuple[str, Change, str]] = {
    "no scale": (W4, tensors(lambda t: t.pop(f"{K}.weight_scale")), "missing-scale"),
    "no shape": (W4, tensors(lambda t: t.pop(f"{K}.weight_shape")), "missing-scale"),
    "no zero point": (ASYM, tensors(lambda t: t.pop(f"{K}.weight_zero_point")), "missing-scale"),
    "no input scale": (ACTIVE, tensors(lambda t: t.pop(f"{K}.input_scale")), "missing-scale"),
    "no order": (W4, weights(actorder="group"), "missing-scale"),
    "an order beyond the groups": (W4, ordered(99), "g-idx-out-of-range"),
    "no weight": (W4, tensors(lambda t: t.pop(f"{K}.weight_packed")), "orphan-scale"),
    "no global scale": (
        "nvfp4-pack-quantized W4A4 g16",
        tensors(lambda t: t.pop(f"{K}.weight_global_scale")),
        "missing-scale",
    ),
    "no input's global scale": (
        "nvfp4-pack-quantized W4A4 g16",
        tensors(lambda t: t.pop(f"{K}.input_global_scale")),
        "missing-scale",
    ),
    "the weight under another name": (
        "nvfp4-pack-quantized W4A16 g16",
        renamed("k_proj.weight_packed", "k_proj.weight"),
        "orphan-scale",
    ),
    "another group size": (W4, weights(group_size=16), "scale-shape"),
    "another width": (W4, weights(num_bits=8), "scale-shape"),
    "a group that does not divide": (W4, weights(group_size=48), "group-does-not-divide"),
    "per channel instead of per tensor": (
        ACTIVE,
        tensors(lambda t: t.update({f"{K}.weight_scale": checkpoints.f32((32, 1))})),
        "scalar-scale-shape",
    ),
    "zero points of another shape": (
        ASYM,
        tensors(lambda t: t.update({f"{K}.weight_zero_point": ("I32", (32, 2), bytes(256))})),
        "scale-shape",
    ),
    "ignored and quantized": (
        W4,
        declared(lambda c: c["ignore"].append(K)),
        "excluded-but-quantized",
    ),
    "in no group": (W4, group(targets=["re:.*mlp.*"]), "excluded-but-quantized"),
    "plain and not ignored": (W4, plain(OUT, (64, 64)), "unquantized-not-excluded"),
    "another dtype": (
        ACTIVE,
        tensors(lambda t: t.update({f"{K}.weight": ("I8", (32, 64), bytes(2048))})),
        "weight-dtype",
    ),
    "a label of another format": (W4, both(group(format="int-quantized")), "orphan-scale"),
    "a NaN in the block scales": (
        "nvfp4-pack-quantized W4A16 g16",
        tensors(lambda t: t.update({f"{K}.weight_scale": ("F8_E4M3", (32, 4), b"\x7f" * 128)})),
        "scale-not-finite",
    ),
    "a KV cache without its scales": (
        W4,
        declared(lambda c: c.update(kv_cache_scheme=FP8)),
        "kv-scale-partial",
    ),
    "KV scales of one layer only": (
        W4,
        tensors(lambda t: t.update(dict(list(KV_SCALES.items())[:2]))),
        "kv-scale-partial",
    ),
    "a format that does not exist": (
        W4,
        declared(lambda c: c.update(format="pack-quantised")),
        "unknown-algo",
    ),
    "a strategy that does not exist": (W4, weights(strategy="groups"), "unknown-algo"),
    "a type that does not exist": (W4, weights(type="integer"), "unknown-algo"),
    "a group's format that does not exist": (W4, group(format="packed"), "unknown-algo"),
    "a KV cache type that does not exist": (
        W4,
        declared(lambda c: c.update(kv_cache_scheme={"type": "fp8"})),
        "unknown-algo",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str, tmp_path: Path) -> None:
    scheme, change, rule = BROKEN[name]
    path = compressed(tmp_path / "m", SCHEMES[scheme])
    change(path)
    assert rule in flagged(path)


@pytest.mark.parametrize("form", ["sparse-24-bitmask", "marlin-24", "sparse-bitmask"])
def test_older_formats_are_named_and_not_judged(form: str, tmp_path: Path) -> None:
    path = compressed(tmp_path / "m", {"weights": INT4}, layers=1)
    group(format=form)(path)
    declared(lambda c: c.update(format=form))(path)
    result = judge(path)
    assert not result.errors
    assert result.algorithms == (f"{form} W4A16 g32",)
    reasons = {skipped.rule: skipped.reason for skipped in result.skipped}
    assert form in reasons["scale-shape"]


def test_what_is_sparse_only_is_named(tmp_path: Path) -> None:
    path = checkpoints.build(tmp_path / "m", None)
    sparse = {"quant_method": "compressed-tensors", "sparsity_config": {"format": "sparse-bitmask"}}
    edit_json(path, "config.json", lambda c: c.update(quantization_config=sparse))
    renamed("_proj.weight", "_proj.weight.compressed")(path)

    def beside(stored: dict[str, checkpoints.Tensor]) -> None:
        for name in [name for name in stored if name.endswith(".compressed")]:
            module = name.removesuffix(".compressed")
            stored[f"{module}.shape"] = ("I64", (2,), bytes(16))
            stored[f"{module}.bitmask"] = ("U8", (32, 8), bytes(256))

    tensors(beside)(path)
    result = judge(path)
    assert not result.errors
    assert any("sparse-bitmask" in skipped.reason for skipped in result.skipped)


Q = "model.layers.12.self_attn.q_proj"


@pytest.mark.parametrize(
    ("entry", "module", "named"),
    [
        ("lm_head", "lm_head", True),
        ("model.layers.12", Q, False),
        ("re:model.layers.12", Q, True),
        ("re:model.layers.1$", Q, False),
        ("re:layers", Q, False),
        (r"re:.*layers\.\d+\.self_attn", Q, True),
        (r"re:.*self_attn\.(q|k)_proj$", Q, True),
        (r"re:.*self_attn\.(k|v)_proj$", Q, False),
        ("re:^(?!.*self_attn).*", Q, False),
        ("re:^(?!.*mlp).*_proj", Q, True),
        ("re:^(?!.*mlp)", Q, True),
        ("re:(?!.*(self_attn|mlp)$)", Q, True),
        ("Linear", "Linear", False),
    ],
)
def test_which_modules_a_target_names(entry: str, module: str, named: bool) -> None:
    assert (module in Targets([entry])) is named
    assert not Targets([entry]).refused


@pytest.mark.parametrize("entry", ["re:(a+)+$", "re:(a|aa)*b", "re:(?!(a+)+b)", "re:(", "re:(?!"])
def test_no_target_runs_away(entry: str) -> None:
    assert Targets([entry]).refused
    assert "a" * 200 not in Targets([entry])


@pytest.mark.parametrize(
    ("stored", "listed"),
    [
        ("language_model.model.layers.0.o_proj", "model.language_model.layers.0.o_proj"),
        ("model.language_model.layers.0.o_proj", "language_model.model.layers.0.o_proj"),
        ("language_model.lm_head", "lm_head"),
        ("vision_tower.proj", "model.vision_tower.proj"),
        ("layers.0.k_proj", "layers.0.qkv_proj"),
    ],
)
def test_the_names_of_a_multimodal_model(stored: str, listed: str) -> None:
    assert Targets([listed]).name_any(spellings(stored, multimodal=True))
    assert Targets(["model.other"]).name_any(spellings(stored, multimodal=True)) is False


def test_an_expression_that_is_not_evaluated_leaves_layers_undescribed(tmp_path: Path) -> None:
    others = {"down_proj": {"weights": NVFP4}}
    path = compressed(tmp_path / "m", {"weights": INT4}, others=others)
    group(targets=["re:(.*)+(down_proj)*"])(path)
    result = judge(path)
    assert not result.errors
    assert any("by expression is not described" in skipped.reason for skipped in result.skipped)
