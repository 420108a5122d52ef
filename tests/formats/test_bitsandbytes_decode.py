"""Decoded weights are bitsandbytes' own dequantization on the CPU, bit for bit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from checkpoints import Tensor
from hypothesis import given, settings
from hypothesis import strategies as st
from quantizers import tensor
from tiny_models import opened

from gate.errors import CheckpointError, GateError, UnknownFormatError
from gate.quantization import QuantizedLayer

UP = "model.layers.0.mlp.up_proj"


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    """Odd shapes and large blocks as the library defines them, without half a minute to compile."""
    import torch

    with torch.compiler.set_stance("force_eager"):
        yield


def layer_of(path: Path, stored: dict[str, Tensor], **declared: Any) -> tuple[Any, QuantizedLayer]:
    """A checkpoint of one quantized layer: its format, and that layer."""
    named = {f"{UP}.{suffix}": value for suffix, value in stored.items()}
    checkpoints.write_safetensors(path / "model.safetensors", named)
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True} | declared
    checkpoints.write_json(path / "config.json", {"quantization_config": config})
    checkpoint, form = opened(path)
    assert form is not None
    (layer,) = form.layers(checkpoint)
    return form, layer


def as_stored(value: Any) -> Tensor:
    """A torch tensor as safetensors holds it."""
    import torch

    if value.dtype == torch.bfloat16:
        return "BF16", tuple(value.shape), value.contiguous().view(torch.uint8).numpy().tobytes()
    return tensor(value.numpy())


def four_bits(weight: Any, kind: str = "nf4", **options: Any) -> tuple[dict[str, Tensor], Any]:
    """What bitsandbytes stores of a weight, and its own values of it."""
    from bitsandbytes import functional

    codes, state = functional.quantize_4bit(weight, quant_type=kind, **options)
    stored = {f"weight.{key}": as_stored(v) for key, v in state.as_dict(packed=True).items()}
    return stored | {"weight": as_stored(codes)}, functional.dequantize_4bit(codes, state)


def weight(shape: tuple[int, int], dtype: str = "float32") -> Any:
    """Random values with a row of zeros: a block of them has scale zero."""
    import torch

    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.02
    values[1] = 0
    return values.to(getattr(torch, dtype))


def assert_decodes(path: Path, stored: dict[str, Tensor], theirs: Any, **declared: Any) -> None:
    """With numpy and with torch; what the library rounds to its dtype is rounded here too."""
    import torch

    form, layer = layer_of(path, stored, **declared)
    assert all(form.algorithms(layer.checkpoint).values())
    assert layer.shape == theirs.shape
    bits = torch.int32 if theirs.dtype == torch.float32 else torch.int16
    for xp in (np, torch):
        ours = torch.as_tensor(form.dequantize(layer, xp))
        assert (ours.dtype, ours.shape) == (torch.float32, theirs.shape)
        # Of FP4's second zero the library's loops for whole vectors and for the rest disagree in
        # the sign: adding zero takes it away.
        pair = [(values + 0.0).view(bits) for values in (ours.to(theirs.dtype), theirs)]
        assert torch.equal(*pair)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("blocksize", [32, 64, 128, 256, 512, 1024, 2048, 4096])
def test_four_bits(tmp_path: Path, kind: str, blocksize: int, nested: bool) -> None:
    """Every block size; the last block is a part of one, also of the scales' blocks."""
    stored, theirs = four_bits(
        weight((96, 200)), kind, blocksize=blocksize, compress_statistics=nested
    )
    assert_decodes(tmp_path, stored, theirs, bnb_4bit_quant_type=kind)


@pytest.mark.parametrize("storage", ["uint8", "int8", "float16", "bfloat16", "float32"])
def test_words_of_any_dtype_hold_the_codes(tmp_path: Path, storage: str) -> None:
    """`quant_storage`, which FSDP needs to be that of the other weights."""
    import torch

    options = {"quant_storage": getattr(torch, storage), "compress_statistics": True}
    stored, theirs = four_bits(weight((64, 128), "bfloat16"), "nf4", **options)
    assert_decodes(
        tmp_path, stored, theirs, bnb_4bit_quant_type="nf4", bnb_4bit_quant_storage=storage
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_halves_are_rounded_once(tmp_path: Path, kind: str, dtype: str) -> None:
    stored, theirs = four_bits(weight((64, 192), dtype), kind)
    assert_decodes(tmp_path, stored, theirs, bnb_4bit_quant_type=kind)


def test_an_odd_number_of_weights(tmp_path: Path) -> None:
    """The last byte holds one."""
    stored, theirs = four_bits(weight((33, 65)), "nf4")
    assert_decodes(tmp_path, stored, theirs, bnb_4bit_quant_type="nf4")


def test_eight_bits(tmp_path: Path) -> None:
    import torch
    from bitsandbytes import functional

    codes, scale, _ = functional.int8_vectorwise_quant(weight((96, 200)))
    stored = {
        "weight": as_stored(codes),
        "SCB": as_stored(scale),
        "weight_format": as_stored(torch.tensor(0, dtype=torch.uint8)),
    }
    theirs = functional.int8_vectorwise_dequant(codes, scale)
    assert_decodes(tmp_path, stored, theirs, load_in_8bit=True, load_in_4bit=False)


def test_eight_bits_laid_out_for_a_gpu_are_refused(tmp_path: Path) -> None:
    """As versions before 0.43 saved them: no row is where it seems to be."""
    stored = {
        "weight": tensor(np.ones((32, 64), np.int8)),
        "SCB": tensor(np.ones(32, np.float32)),
        "weight_format": tensor(np.array(2, np.uint8)),
    }
    form, layer = layer_of(tmp_path, stored, load_in_8bit=True)
    with pytest.raises(CheckpointError, match="weight_format"):
        form.dequantize(layer, np)


def generated(nested: bool, kind: str) -> Any:
    """A layer of bitsandbytes after its CPU kernels repacked it."""
    import torch
    from bitsandbytes import functional, nn

    layer = nn.Linear4bit(
        256, 128, bias=False, compute_dtype=torch.bfloat16, compress_statistics=nested,
        quant_type=kind,
    )  # fmt: skip
    layer.weight.data = weight((128, 256), "bfloat16")
    layer = layer.to("cpu").eval()
    # On a CPU with AVX512-BF16 the first forward pass does the same.
    codes, state = functional._convert_weight_packed_for_cpu(
        layer.weight.data, layer.weight.quant_state
    )
    layer.weight.data, layer.weight.quant_state = codes, state
    return layer


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_saved_after_generating_with_nested_scales(tmp_path: Path, kind: str) -> None:
    """The scales were rounded twice more and are where they belong: decoded as the library does."""
    from bitsandbytes import functional

    saved = generated(nested=True, kind=kind).state_dict()
    stored = {name: as_stored(value) for name, value in saved.items()}
    state = json.loads(stored[f"weight.quant_state.bitsandbytes__{kind}"][2])
    assert state["nested_dtype"] == "bfloat16"
    parts = {name.removeprefix("weight."): value for name, value in saved.items()}
    codes = parts.pop("weight")
    own = functional.QuantState.from_dict(parts, device=codes.device)
    theirs = functional.dequantize_4bit(codes, own)
    assert_decodes(tmp_path, stored, theirs, bnb_4bit_quant_type=kind)


def test_saved_after_generating_with_plain_scales(tmp_path: Path) -> None:
    """They are left transposed and nothing says so: the library reads them in the wrong order."""
    saved = generated(nested=False, kind="nf4").state_dict()
    stored = {name: as_stored(value) for name, value in saved.items()}
    assert stored["weight.absmax"][:2] == ("BF16", (4, 128))
    form, layer = layer_of(tmp_path, stored, bnb_4bit_quant_type="nf4")
    with pytest.raises(CheckpointError, match=r"weight.absmax is BF16 of shape \(4, 128\)"):
        form.dequantize(layer, np)


def test_codes_in_the_order_of_the_cpu_kernels_are_refused(tmp_path: Path) -> None:
    """Rows of more than one word, as whoever saves the parameter itself writes them."""
    layer = generated(nested=True, kind="nf4")
    repacked = as_stored(layer.weight.data)
    stored = {name: as_stored(value) for name, value in layer.state_dict().items()}
    form, found = layer_of(tmp_path, stored | {"weight": repacked}, bnb_4bit_quant_type="nf4")
    with pytest.raises(CheckpointError, match=rf"{UP}.weight has the shape \(128, 128\)"):
        form.dequantize(found, np)


def edited(stored: dict[str, Tensor], **changes: Any) -> dict[str, Tensor]:
    """With another state."""
    name = "weight.quant_state.bitsandbytes__nf4"
    raw = json.dumps(json.loads(stored[name][2]) | changes).encode()
    return stored | {name: ("U8", (len(raw),), raw)}


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [64, 192]},
        {"shape": [64]},
        {"shape": [-64, -128]},
        {"shape": [2**40, 2**40]},
        {"blocksize": 128},
        {"blocksize": 0},
        {"blocksize": 64.0},
        {"quant_type": "fp4"},
        {"quant_type": "int4"},
        {"nested_blocksize": 256},
        {"nested_blocksize": 256, "nested_offset": float("nan")},
        {"nested_blocksize": 256, "nested_dtype": "float8"},
    ],
)
def test_a_state_that_says_something_else_is_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    stored, _ = four_bits(weight((64, 128)), "nf4")
    form, layer = layer_of(tmp_path, edited(stored, **changes), bnb_4bit_quant_type="nf4")
    with pytest.raises(CheckpointError, match=UP):
        form.dequantize(layer, np)


def test_another_type_than_declared_is_refused(tmp_path: Path) -> None:
    stored, _ = four_bits(weight((64, 128)), "nf4")
    form, layer = layer_of(tmp_path, stored, bnb_4bit_quant_type="fp4")
    with pytest.raises(CheckpointError, match="quant_state"):
        form.dequantize(layer, np)


def test_another_table_is_refused(tmp_path: Path) -> None:
    """Kernels for one token take it from the file, the others have their own."""
    stored, _ = four_bits(weight((64, 128)), "nf4")
    dtype, shape, data = stored["weight.quant_map"]
    halved = (np.frombuffer(data, "<f4") / 2).tobytes()
    for table in (halved, np.full(16, np.nan, "<f4").tobytes()):
        changed = stored | {"weight.quant_map": (dtype, shape, table)}
        form, layer = layer_of(tmp_path, changed, bnb_4bit_quant_type="nf4")
        with pytest.raises(CheckpointError, match="quant_map"):
            form.dequantize(layer, np)


@pytest.mark.parametrize(
    "declared", [{"bnb_4bit_quant_type": "af4"}, {"bnb_4bit_quant_storage": "float64"}]
)
def test_what_is_not_described_is_refused(tmp_path: Path, declared: dict[str, Any]) -> None:
    stored, _ = four_bits(weight((64, 128)), "nf4")
    form, layer = layer_of(tmp_path, stored, **{"bnb_4bit_quant_type": "nf4"} | declared)
    assert not any(form.algorithms(layer.checkpoint).values())
    with pytest.raises(UnknownFormatError, match=UP):
        form.dequantize(layer, np)


DTYPES = {"F32": 4, "U8": 1, "I8": 1, "BF16": 2}
ANY_TENSOR = st.tuples(
    st.sampled_from(sorted(DTYPES)),
    st.lists(st.sampled_from([0, 1, 2, 16, 32, 64, 256, 4096]), max_size=2),
    st.integers(0, 255),
)
ODD = st.one_of(st.none(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=3))


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from(
            ["weight", "weight.absmax", "weight.quant_map", "weight.nested_absmax",
             "weight.nested_quant_map", "SCB", "weight_format"]
        ),
        ANY_TENSOR,
        max_size=2,
    ),
    st.dictionaries(
        st.sampled_from(["shape", "blocksize", "nested_blocksize", "nested_offset", "dtype"]),
        ODD | st.lists(ODD, max_size=3),
        max_size=2,
    ),
    st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_whatever_is_stored_is_decoded_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    found: dict[str, tuple[str, list[int], int]],
    changes: dict[str, Any],
    nested: bool,
    eight: bool,
) -> None:
    """A sound layer of which some parts are anything: values of the right shape, or an error."""
    stored, _ = four_bits(weight((64, 128)), "nf4", compress_statistics=nested)
    stored = edited(stored, **changes) | {
        suffix: (dtype, tuple(shape), bytes([fill]) * (DTYPES[dtype] * int(np.prod(shape))))
        for suffix, (dtype, shape, fill) in found.items()
    }
    path = tmp_path_factory.mktemp("any")
    form, layer = layer_of(path, stored, bnb_4bit_quant_type="nf4", load_in_8bit=eight)
    try:
        values = form.dequantize(layer, np)
    except GateError:
        return
    assert (values.dtype, values.shape) == (np.float32, layer.shape)


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("threshold", [6.0, 0.0])
def test_inputs_of_eight_bits(tmp_path: Path, threshold: float, rows: int) -> None:
    """Rounded as the library does, a whole column left alone where one of its values is large."""
    import torch
    from bitsandbytes import functional

    from gate.activations import fake_quantize

    stored = {"weight": tensor(np.ones((32, 64), np.int8)), "SCB": tensor(np.ones(32, "<f4"))}
    _, layer = layer_of(tmp_path, stored, load_in_8bit=True, llm_int8_threshold=threshold)
    assert layer.input_scheme is not None and layer.scheme is not None
    x = torch.randn((rows, 64), generator=torch.Generator().manual_seed(0)) * 2
    x[0, 5], x[-1, 9] = 9.0, -6.0
    codes, amax, columns = functional.int8_vectorwise_quant(x.clone(), threshold=threshold)
    theirs = codes * (amax[:, None] / 127)
    if columns is not None:
        theirs[:, columns] = x[:, columns]
        assert {5, 9} <= set(columns.tolist())
    ours = fake_quantize(x, layer.input_scheme, None)
    assert torch.equal(ours, theirs)
    assert torch.equal(fake_quantize(x[None], layer.input_scheme, None)[0], ours)
