"""Rounding of inputs against its definition, worked out value by value in float64."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gate import activations
from gate.codes import E2M1, E4M3
from gate.quantization import Scheme

pytestmark = pytest.mark.model

FP8 = Scheme(8, "float", "tensor")
PER_TOKEN = Scheme(8, "float", "token", dynamic=True)
NVFP4 = Scheme(4, "float", "tensor_group", group_size=16, dynamic=True)
FP8_GROUPS = Scheme(8, "float", "group", group_size=128, dynamic=True)
FP8_DYNAMIC = Scheme(8, "float", "tensor", dynamic=True)
INT8 = Scheme(8, "int", "tensor")
INT8_TOKEN = Scheme(8, "int", "token", dynamic=True)
MXFP8 = Scheme(8, "float", "group", group_size=32, dynamic=True)
MXFP4 = Scheme(4, "float", "group", group_size=32, dynamic=True)
EVERY = [FP8, PER_TOKEN, NVFP4, FP8_GROUPS, FP8_DYNAMIC, INT8, INT8_TOKEN, MXFP8, MXFP4]

E4M3_GRID = sorted({value for value in E4M3 if value == value})
E2M1_GRID = sorted(set(E2M1))

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=True)
INPUTS = st.lists(st.floats(-1e4, 1e4, width=32, allow_subnormal=False), min_size=16, max_size=16)
SCALES = st.floats(2.0**-20, 10, width=32, allow_subnormal=False)


def nearest(value: float, grid: Sequence[float]) -> float:
    """The nearest of a grid; of two that are as near, the one with the even code; saturating.

    Within one sign, codes count upwards from zero, so the even code is the even place.
    """
    places = [v for v in grid if v >= 0]
    size = abs(value)
    best = min(range(len(places)), key=lambda i: (abs(places[i] - size), i % 2))
    return float(np.copysign(places[best], value))


def tensor(values: float | Sequence[float]) -> Any:
    import torch

    return torch.tensor(values, dtype=torch.float32)


@settings(deadline=None)
@given(FLOATS)
def test_rounds_to_the_nearest_e4m3(value: float) -> None:
    assert float(activations.round_e4m3(tensor([value]))) == nearest(
        min(max(value, -448), 448), E4M3_GRID
    )


@settings(deadline=None)
@given(FLOATS)
def test_rounds_to_the_nearest_e2m1(value: float) -> None:
    assert float(activations.round_e2m1(tensor([value]))) == nearest(
        min(max(value, -6), 6), E2M1_GRID
    )


def test_ties_go_to_the_even_code() -> None:
    """All seven of E2M1, both signs; and values just beside them."""
    ties = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0]
    even = [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0]
    above = [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    assert activations.round_e2m1(tensor(ties)).tolist() == even
    assert activations.round_e2m1(-tensor(ties)).tolist() == [-value for value in even]
    assert (
        activations.round_e2m1(tensor(np.nextafter(np.float32(ties), 9).tolist())).tolist() == above
    )


@settings(deadline=None)
@given(INPUTS, SCALES)
def test_fp8_is_divided_saturated_rounded_and_multiplied(values: list[float], scale: float) -> None:
    """q = E4M3(x / s), then q * s, each step in float32."""
    x, s = np.float32(values), np.float32(scale)
    expected = [np.float32(nearest(float(v), E4M3_GRID)) * s for v in np.clip(x / s, -448, 448)]
    ours = activations.fake_quantize(tensor(values), FP8, tensor(scale))
    assert ours.tolist() == np.float32(expected).tolist()


@settings(deadline=None)
@given(INPUTS)
def test_fp8_per_token_scales_each_row_by_its_own_largest(values: list[float]) -> None:
    """Rows are independent; the largest becomes 448 codes; a row of zeros stays."""
    import torch

    assume(max(map(abs, values)) > 1e-30)
    rows = torch.stack([tensor(values), tensor(values) / 64, torch.zeros(16)])
    codes, scale = activations.dynamic(rows, PER_TOKEN)
    amax = np.abs(np.float32(values)).max()
    assert float(scale[0]) == amax / np.float32(448)
    assert codes[0].abs().max() == 448
    assert torch.equal(codes[0], codes[1])
    assert not activations.fake_quantize(rows, PER_TOKEN, None)[2].any()


@settings(deadline=None)
@given(INPUTS, SCALES)
def test_nvfp4_is_the_kernels_arithmetic(values: list[float], scale: float) -> None:
    """s = E4M3(g * amax / 6), codes E2M1(x * 1 / (s * 1 / g)), with g = 1 / input_scale."""
    f = np.float32
    x, input_scale = f(values), f(scale)
    g = f(1) / input_scale
    s = f(nearest(float(min(g * (np.abs(x).max() * f(1 / 6)), f(448))), E4M3_GRID))
    codes = activations.nvfp4(tensor(values), tensor(scale), 16)
    assert codes[1].tolist() == [[s * input_scale]]
    if s == 0:
        assert not codes[0].any()
        return
    factor = f(1) / (s * (f(1) / g))
    expected = [nearest(float(np.clip(v * factor, -6, 6)), E2M1_GRID) for v in x]
    assert codes[0].tolist() == [expected]


@settings(deadline=None)
@given(INPUTS)
def test_nvfp4_is_near_the_exact_definition(values: list[float]) -> None:
    """Without any float32 in between: the exact nearest code, except next to a tie."""
    x = np.float64(values)
    amax = np.abs(x).max()
    assume(amax > 1e-3)
    input_scale = float(np.float32(amax / 2688))
    s = nearest(min(amax / 6 / input_scale, 448.0), E4M3_GRID)
    codes, _ = activations.nvfp4(tensor(values), tensor(input_scale), 16)
    for ours, value in zip(codes[0].tolist(), x / (s * input_scale), strict=True):
        near = {nearest(min(max(value * (1 + e), -6), 6), E2M1_GRID) for e in (-1e-6, 0, 1e-6)}
        assert ours in near


def test_blocks_are_independent_and_zero_blocks_stay_zero() -> None:
    """A block's largest value is 6 codes; zeros and values below the smallest scale are zero."""
    import torch

    x = torch.cat([torch.linspace(-3, 3, 16), torch.zeros(16), torch.full((16,), 1e-12)])
    scale = torch.tensor(3 / 2688)
    codes, _ = activations.nvfp4(x, scale, 16)
    assert codes[0].abs().max() == 6 and codes[0, 0] == -6
    assert not codes[1:].any()
    rounded = activations.fake_quantize(x.to(torch.bfloat16), NVFP4, scale)
    assert rounded.dtype == torch.bfloat16 and rounded.shape == x.shape
    assert torch.isfinite(rounded).all()


@pytest.mark.parametrize("scheme", EVERY)
def test_nan_stays_nan(scheme: Scheme) -> None:
    """A broken model is not repaired by rounding."""
    import torch

    x = torch.ones(2, 32)
    x[0, 3] = torch.nan
    rounded = activations.fake_quantize(x, scheme, torch.tensor(0.01))
    assert rounded[0, 3].isnan() and torch.isfinite(rounded[1]).all()
    x[0, 3] = torch.nan
    unscaled = scheme.dynamic and scheme is not NVFP4
    if unscaled and scheme is not FP8_DYNAMIC:
        rounded = activations.fake_quantize(x, scheme, None)
        assert rounded[0, 3].isnan() and torch.isfinite(rounded[1]).all()


@pytest.mark.parametrize("scheme", EVERY)
def test_the_other_order_differs_only_in_the_last_bit(scheme: Scheme) -> None:
    """Few codes change, and none by more than one step."""
    import torch

    torch.manual_seed(0)
    x = torch.randn(256, 512).to(torch.bfloat16)
    largest = 127 if scheme.type == "int" else 448 if scheme.num_bits == 8 else 2688
    scale = torch.tensor(4.7 / largest)
    ours, _ = activations.quantize(x, scheme, scale)
    theirs, _ = activations.quantize(x, scheme, scale, "modelopt")
    changed = ours != theirs
    assert float(changed.float().mean()) < 0.005
    assert ((ours - theirs).abs() <= 0.34 * torch.maximum(ours.abs(), theirs.abs()) + 0.5).all()


def test_a_scheme_without_rounding_is_refused() -> None:
    import torch

    with pytest.raises(ValueError, match="needs a stored input_scale"):
        activations.quantize(torch.ones(16), NVFP4, None)
    for scheme in (
        Scheme(16, "float", "tensor"),
        Scheme(8, "int", "token", dynamic=True, symmetric=False),
        Scheme(8, "float", "token"),
        Scheme(4, "float", "tensor", dynamic=True),
        Scheme(4, "float", "group", group_size=16, dynamic=True),
        Scheme(8, "float", "channel"),
    ):
        assert not activations.implemented(scheme)
        with pytest.raises(ValueError, match="not implemented"):
            activations.quantize(torch.ones(16), scheme, torch.ones(()))
    assert all(map(activations.implemented, EVERY))


@settings(deadline=None)
@given(INPUTS, SCALES)
def test_int8_is_divided_rounded_and_saturated(values: list[float], scale: float) -> None:
    """q = clip(round(x / s)), ties to even, each step in float32; then q * s."""
    x, s = np.float32(values), np.float32(scale)
    codes = np.clip(np.rint(x / s), -128, 127)
    ours = activations.fake_quantize(tensor(values), INT8, tensor(scale))
    assert ours.tolist() == (codes * s).tolist()


@settings(deadline=None)
@given(INPUTS)
def test_int8_per_token_is_the_kernels_arithmetic(values: list[float]) -> None:
    """s = amax / 127, codes round(x * (127 / amax)); a token of zeros stays."""
    f, x = np.float32, np.float32(values)
    amax = np.abs(x).max()
    assume(amax == 0 or amax > 1e-30)
    codes, scale = activations.dynamic(tensor([values, [0.0] * 16]), INT8_TOKEN)
    expected = np.rint(x * (f(127) / amax)) if amax else np.zeros(16)
    assert codes.tolist() == [expected.tolist(), [0.0] * 16]
    assert float(scale[0]) == (amax / f(127) if amax else 1)


@settings(deadline=None)
@given(st.floats(2.0**-110, 2.0**120, width=32), st.sampled_from([MXFP8, MXFP4]))
def test_mx_scales_by_the_smallest_power_of_two_that_holds_the_group(
    largest: float, scheme: Scheme
) -> None:
    """Half of it would not, but for the rounding of amax / 448 to float32."""
    import torch

    held = activations.LARGEST["float", scheme.num_bits]
    x = torch.linspace(-1, 1, 32) * largest
    codes, scale = activations.mx(x, scheme)
    power = float(scale)
    assert np.log2(power) == round(np.log2(power))
    assert power * held * (1 + 1e-6) >= largest > power / 2 * held * (1 - 1e-6)
    grid = E4M3_GRID if scheme is MXFP8 else E2M1_GRID
    expected = [nearest(float(np.clip(v / power, -held, held)), grid) for v in x.tolist()]
    assert codes.tolist() == [expected]


def test_mx_holds_zeros_and_the_smallest_numbers() -> None:
    """A group of zeros stays; no power of two below 2 ** -127 is a scale."""
    import torch

    for scheme in (MXFP8, MXFP4):
        for value in (0.0, 1e-45, 1e-39, 2.0**-126):
            rounded = activations.fake_quantize(torch.full((32,), value), scheme, None)
            assert torch.isfinite(rounded).all() and (rounded[0] == 0 or value > 0)


def test_a_last_group_may_be_shorter() -> None:
    """576 inputs in groups of 128: the last 64 have a scale of their own."""
    import torch

    x = torch.randn(3, 576)
    rounded = activations.fake_quantize(x, FP8_GROUPS, None)
    alone = activations.fake_quantize(x[:, 512:], FP8_GROUPS, None)
    assert rounded.shape == x.shape and torch.equal(rounded[:, 512:], alone)


PRODUCERS: dict[str, tuple[Scheme, dict[str, Any]]] = {
    "FP8 static": (FP8, {"num_bits": (4, 3)}),
    "INT8 static": (INT8, {"num_bits": 8}),
    "FP8 per token": (PER_TOKEN, {"num_bits": (4, 3), "type": "dynamic", "axis": 0}),
    "INT8 per token": (INT8_TOKEN, {"num_bits": 8, "type": "dynamic", "axis": 0}),
    "FP8 per tensor": (FP8_DYNAMIC, {"num_bits": (4, 3), "type": "dynamic"}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PRODUCERS)
def test_equals_modelopts_quantizer(name: str) -> None:
    """Bit for bit in bfloat16, in ModelOpt's order, over inputs of all sizes.

    INT8 with dynamic scales to the last bit: ModelOpt divides the codes by 127 / amax.
    """
    import torch
    from modelopt.torch.quantization.config import QuantizerAttributeConfig
    from modelopt.torch.quantization.nn import TensorQuantizer

    scheme, config = PRODUCERS[name]
    torch.manual_seed(0)
    x = (torch.randn(64, 256) * torch.logspace(-4, 4, 64)[:, None]).to(torch.bfloat16)
    quantizer = TensorQuantizer(QuantizerAttributeConfig(**config))
    scale = None
    if not scheme.dynamic:
        quantizer.amax = torch.tensor(40.0)
        scale = torch.tensor(40.0) / activations.LARGEST[scheme.type, scheme.num_bits]
    theirs = quantizer(x)
    if scheme is INT8_TOKEN:
        ours = activations.fake_quantize(x, scheme, None)
        assert torch.allclose(ours.float(), theirs.float(), rtol=2**-7, atol=0)
    else:
        assert torch.equal(activations.fake_quantize(x, scheme, scale, "modelopt"), theirs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scheme", [MXFP8, MXFP4])
def test_equals_modelopts_mx_tensors(scheme: Scheme) -> None:
    """Both orders; no value lies between two codes, where ModelOpt's own class rounds down."""
    import torch
    from modelopt.torch.quantization.qtensor import MXFP4QTensor, MXFP8QTensor

    torch.manual_seed(0)
    x = torch.randn(64, 256) * torch.logspace(-4, 4, 64)[:, None]
    if scheme is MXFP8:
        own, scale = MXFP8QTensor.quantize(x)
    else:
        own, scale = MXFP4QTensor.quantize(x, 32)
    theirs = own.dequantize(torch.float32, scale=scale, block_sizes={-1: 32})
    for order in ("runtime", "modelopt"):
        assert torch.equal(activations.fake_quantize(x, scheme, None, order), theirs)


@pytest.mark.parametrize("scheme", [FP8, INT8, PER_TOKEN, INT8_TOKEN, FP8_GROUPS])
def test_equals_the_fake_quantization_of_compressed_tensors(scheme: Scheme) -> None:
    """Bit for bit in float32; INT8 by our scales, since the library's own are amax / 127.5."""
    import torch
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp

    args = QuantizationArgs(
        num_bits=8,
        type=scheme.type,
        strategy=scheme.strategy,
        group_size=scheme.group_size,
        dynamic=scheme.dynamic,
    )
    torch.manual_seed(0)
    x = torch.randn(1, 64, 256) * torch.logspace(-4, 4, 64)[:, None]
    given = None if scheme.dynamic else torch.tensor(0.3)
    if scheme.type == "float" and scheme.dynamic:
        scale, zero = compute_dynamic_scales_and_zp(x, args, torch.nn.Linear(1, 1))
    else:
        _, scale = activations.quantize(
            x, scheme, given, "modelopt" if scheme.dynamic else "runtime"
        )
        zero = torch.zeros_like(scale)
    theirs = fake_quantize(x, scale, zero, args)
    order: activations.Order = "modelopt" if scheme is INT8_TOKEN else "runtime"
    assert torch.equal(activations.fake_quantize(x, scheme, given, order), theirs)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_looked_up_is_what_rounding_gives_for_every_value_of_16_bits(name: str) -> None:
    import torch

    dtype = getattr(torch, name)
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    scale = tensor(0.0123)
    looked_up = activations.look_up(
        every.reshape(4, 2**14), activations.all_rounded(dtype, FP8, scale)
    )
    rounded = activations.fake_quantize(every.reshape(4, 2**14), FP8, scale)
    assert looked_up.dtype == dtype
    assert torch.equal(looked_up.isnan(), rounded.isnan()) and looked_up.isnan().any()
    assert torch.equal(looked_up.nan_to_num(), rounded.nan_to_num())
