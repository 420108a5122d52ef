"""Block FP8 and its relatives: sound layouts are silent, and what is broken in them is found."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from checkpoints import Tensor, edit_json, edit_tensors
from judging import errors, flagged, gather, judge

K, OUT = (f"model.layers.0.self_attn.{kind}_proj" for kind in "ko")
Change = Callable[[Path], None]
Stored = dict[str, Tensor]

BLOCK = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
DEEPSEEK = BLOCK | {"weight_block_size": [32, 32]}
PER_TENSOR = {"quant_method": "fp8", "activation_scheme": "dynamic"}
STATIC = {"quant_method": "fp8", "activation_scheme": "static"}


def e8m0(shape: tuple[int, ...], dtype: str = "F8_E8M0") -> Tensor:
    size = 1
    for part in shape:
        size *= part
    return dtype, shape, b"\x70" * size


def by_block(shape: tuple[int, int], size: int = 32) -> tuple[int, int]:
    return -(-shape[0] // size), -(-shape[1] // size)


def stored(path: Path, config: Mapping[str, Any], parts: Any, **options: Any) -> Path:
    """A tiny checkpoint whose linear layers are made of `parts(shape)`, suffix to tensor."""
    checkpoints.build(path, None, **options)

    def change(tensors: Stored) -> None:
        for name in [name for name in tensors if name.endswith("_proj.weight")]:
            module, shape = name.removesuffix(".weight"), tensors.pop(name)[1]
            made = {"weight": checkpoints.fp8(shape)} | parts(shape)
            tensors.update({f"{module}.{suffix}": tensor for suffix, tensor in made.items()})

    edit_tensors(path, change)
    edit_json(path, "config.json", lambda c: c.update(quantization_config=dict(config)))
    return path


def deepseek(path: Path, **options: Any) -> Path:
    return stored(
        path,
        DEEPSEEK,
        lambda shape: {"weight_scale_inv": checkpoints.f32(by_block(shape))},
        **options,
    )


LAYOUTS: dict[str, tuple[Mapping[str, Any], Any, str]] = {
    "DeepSeek-V3": (
        DEEPSEEK,
        lambda shape: {"weight_scale_inv": checkpoints.f32(by_block(shape))},
        "fp8 32x32",
    ),
    "scales of bytes": (
        DEEPSEEK | {"scale_fmt": "ue8m0"},
        lambda shape: {"weight_scale_inv": e8m0(by_block(shape), "U8")},
        "fp8 32x32",
    ),
    "DeepSeek-V4": (
        DEEPSEEK | {"scale_fmt": "ue8m0"},
        lambda shape: {"scale": e8m0(by_block(shape))},
        "fp8 32x32",
    ),
    "MXFP8": (
        BLOCK | {"weight_block_size": [1, 32], "scale_fmt": "ue8m0"},
        lambda shape: {"weight_scale_inv": e8m0((shape[0], shape[1] // 32), "U8")},
        "fp8 1x32",
    ),
    "one scale": (
        PER_TENSOR | {"weight_block_size": None},
        lambda shape: {"weight_scale_inv": checkpoints.f32(())},
        "fp8 tensor",
    ),
    "one scale, vLLM": (
        STATIC,
        lambda shape: {
            "weight_scale": checkpoints.f32((1,)),
            "input_scale": checkpoints.f32((1,)),
        },
        "fp8 tensor static",
    ),
    "static": (
        STATIC | {"weight_block_size": None},
        lambda shape: {
            "weight_scale_inv": checkpoints.f32(()),
            "activation_scale": checkpoints.f32(()),
        },
        "fp8 tensor static",
    ),
    "Mistral": (
        STATIC | {"weight_block_size": None},
        lambda shape: {"qscale_weight": checkpoints.f32(()), "qscale_act": checkpoints.f32(())},
        "fp8 tensor static",
    ),
    "fbgemm": (
        {"quant_method": "fbgemm_fp8", "modules_to_not_convert": ["lm_head"]},
        lambda shape: {
            "weight_scale": checkpoints.f32((shape[0], 1)),
            "input_scale_ub": checkpoints.f32((1,), 1200.0),
        },
        "fbgemm_fp8 channel",
    ),
}


@pytest.mark.parametrize("experts", [0, 2])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_sound_one_is_silent(name: str, experts: int, tmp_path: Path) -> None:
    config, parts, algo = LAYOUTS[name]
    path = stored(tmp_path / "m", config, parts, experts=experts, tied=False)
    result = judge(path)
    assert result.findings == ()
    assert (result.format, result.algorithms) == (config["quant_method"], (algo,))
    assert not any("only in part" in skipped.reason for skipped in result.skipped)
    assert all(layer.declared and layer.expected for layer in gather(path).layers)


def fp4_experts(path: Path) -> Path:
    """DeepSeek-V4: experts in FP4, everything else in block FP8."""
    deepseek(path, experts=2)

    def change(tensors: Stored) -> None:
        for name in [name for name in tensors if ".experts." in name and name.endswith("weight")]:
            rows, columns = tensors[name][1]
            tensors[name] = ("I8", (rows, columns // 2), bytes(range(32)) * (rows * columns // 64))
            tensors[f"{name}_scale_inv"] = e8m0((rows, columns // 32))

    edit_tensors(path, change)
    fields = {"expert_dtype": "fp4", "scale_fmt": "ue8m0"}
    edit_json(path, "config.json", lambda c: c["quantization_config"].update(fields))
    return path


def test_a_missing_scale_is_called_as_the_others_are(tmp_path: Path) -> None:
    config, parts, _ = LAYOUTS["DeepSeek-V4"]
    path = stored(tmp_path / "m", config, parts)
    edit_tensors(path, lambda t: t.pop(f"{K}.scale"))
    assert [f.tensor for f in judge(path).findings] == [f"{K}.scale"]


def test_fp4_experts_are_sound(tmp_path: Path) -> None:
    path = fp4_experts(tmp_path / "m")
    assert errors(path) == set()
    assert judge(path).algorithms == ("fp8 32x32", "fp8 FP4 experts")
    shapes = {layer.name.rpartition(".")[2]: layer.shape for layer in gather(path).layers}
    assert shapes["down_proj"] == (64, 128)


def test_all_experts_in_one_tensor(tmp_path: Path) -> None:
    path = deepseek(tmp_path / "m")
    experts = "model.layers.0.mlp.experts"
    edit_tensors(
        path,
        lambda t: t.update(
            {
                f"{experts}.gate_up_proj": checkpoints.fp8((4, 64, 64)),
                f"{experts}.gate_up_proj_scale_inv": checkpoints.f32((4, 2, 2)),
                f"{experts}.down_proj": checkpoints.fp8((4, 64, 33)),
                f"{experts}.down_proj_scale_inv": checkpoints.f32((4, 2, 2)),
            }
        ),
    )
    found = {layer.name: layer for layer in gather(path).layers}
    assert found[f"{experts}.gate_up_proj"].shape == (4, 64, 64)
    assert not {"scale-shape", "missing-scale", "orphan-scale"} & errors(path)
    edit_tensors(path, lambda t: t.pop(f"{experts}.down_proj_scale_inv"))
    missing = [found.tensor for found in judge(path).findings if found.rule == "missing-scale"]
    assert missing == [f"{experts}.down_proj_scale_inv"]


def tensors(change: Callable[[Stored], object]) -> Change:
    return lambda path: edit_tensors(path, change)


def declared(**fields: object) -> Change:
    return lambda path: edit_json(
        path, "config.json", lambda c: c["quantization_config"].update(fields)
    )


def plain(path: Path) -> None:
    def change(stored: Stored) -> None:
        for name in [name for name in stored if name.startswith(f"{OUT}.")]:
            del stored[name]
        stored[f"{OUT}.weight"] = checkpoints.bf16((64, 64))

    edit_tensors(path, change)


SOUND: dict[str, Change] = {
    "a layer that is not converted": lambda path: [
        plain(path),
        declared(modules_to_not_convert=["lm_head", OUT])(path),
    ],
    "a layer that is not converted, by its last part": lambda path: [
        plain(path),
        declared(ignored_layers=["self_attn.o_proj"])(path),
        tensors(lambda t: [t.pop(name) for name in list(t) if ".1.self_attn.o" in name])(path),
        tensors(
            lambda t: t.update({OUT.replace("0", "1") + ".weight": checkpoints.bf16((64, 64))})
        )(path),
    ],
    "a name that is the beginning of another's": declared(
        modules_to_not_convert=["model.layers.0.mlp.gate", "lm_head"]
    ),
    "a word that stands in other names": declared(modules_to_not_convert=["gate", "lm_head"]),
    "KV scales": tensors(
        lambda t: t.update(
            {
                f"model.layers.{layer}.self_attn.{kind}_scale": checkpoints.f32((1,))
                for layer in (0, 1)
                for kind in "kv"
            }
        )
    ),
    "an embedding that is converted as well": lambda path: [
        declared(modules_to_convert=["embed_tokens"])(path),
        tensors(
            lambda t: t.update(
                {
                    "model.embed_tokens.weight": checkpoints.fp8((96, 64)),
                    "model.embed_tokens.weight_scale": checkpoints.f32((1,)),
                }
            )
        )(path),
    ],
    "a learnt scale": tensors(
        lambda t: t.update({"model.layers.0.l2_clip.scale": checkpoints.f32((64,))})
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_what_is_sound_stays_so(name: str, tmp_path: Path) -> None:
    path = deepseek(tmp_path / "m")
    SOUND[name](path)
    assert errors(path) == set()


BROKEN: dict[str, tuple[Change, str]] = {
    "no scale": (tensors(lambda t: t.pop(f"{K}.weight_scale_inv")), "missing-scale"),
    "no weight": (tensors(lambda t: t.pop(f"{K}.weight")), "orphan-scale"),
    "no input scale": (declared(activation_scheme="static"), "missing-scale"),
    "another block size": (declared(weight_block_size=[16, 16]), "scale-shape"),
    "no block size": (declared(weight_block_size=None), "scalar-scale-shape"),
    "another dtype": (
        tensors(lambda t: t.update({f"{K}.weight": ("I8", (32, 64), bytes(2048))})),
        "weight-dtype",
    ),
    "a scale of another dtype": (
        tensors(lambda t: t.update({f"{K}.weight_scale_inv": ("I8", (1, 2), bytes(2))})),
        "scale-shape",
    ),
    "plain and not listed": (plain, "unquantized-not-excluded"),
    "listed and quantized": (declared(modules_to_not_convert=[K]), "excluded-but-quantized"),
    "a scale that is no power of two": (declared(scale_fmt="ue8m0"), "scale-not-power-of-two"),
    "a scale that is not finite": (
        tensors(lambda t: t.update({f"{K}.weight_scale_inv": checkpoints.f32((1, 2), -1e400)})),
        "scale-not-finite",
    ),
    "a scheme that does not exist": (declared(activation_scheme="dynamc"), "unknown-algo"),
    "a scale format that does not exist": (declared(scale_fmt="e8m0"), "unknown-algo"),
    "scales without a declaration": (
        lambda path: edit_json(path, "config.json", lambda c: c.pop("quantization_config")),
        "quantized-but-undeclared",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str, tmp_path: Path) -> None:
    path = deepseek(tmp_path / "m")
    change, rule = BROKEN[name]
    change(path)
    assert rule in flagged(path)


def test_a_raw_cast_is_quantized_and_undeclared(tmp_path: Path) -> None:
    path = checkpoints.build(tmp_path / "m", None)
    tensors(
        lambda t: t.update(
            {
                name: checkpoints.fp8(tensor[1])
                for name, tensor in t.items()
                if name.endswith("_proj.weight")
            }
        )
    )(path)
    assert errors(path) == {"quantized-but-undeclared"}


@pytest.mark.parametrize("size", [[], "128", [128], [0, 128], [1e3, 1], [True, 1], {}, [2**63] * 2])
def test_an_absurd_block_size_is_no_crash(size: object, tmp_path: Path) -> None:
    path = deepseek(tmp_path / "m", layers=1)
    declared(weight_block_size=size)(path)
    judge(path)
