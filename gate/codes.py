"""Numbers stored in few bits: tables of their values, and how tensors of them are read."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from gate.checkpoint import Checkpoint, TensorInfo


def _e4m3(code: int) -> float:
    sign = -1.0 if code & 0x80 else 1.0
    exponent, mantissa = code >> 3 & 0xF, code & 0x7
    if exponent == 0xF and mantissa == 0x7:
        return float("nan")
    if exponent == 0:
        return sign * mantissa * 2.0**-9
    return sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7)


E4M3 = tuple(_e4m3(code) for code in range(256))
"""Value of each FP8 code. Source: arXiv 2209.05433, table 1 (E4M3: no infinities)."""


def _e5m2(code: int) -> float:
    sign = -1.0 if code & 0x80 else 1.0
    exponent, mantissa = code >> 2 & 0x1F, code & 0x3
    if exponent == 0x1F:
        return float("nan") if mantissa else sign * float("inf")
    if exponent == 0:
        return sign * mantissa * 2.0**-16
    return sign * (1 + mantissa / 4) * 2.0 ** (exponent - 15)


E5M2 = tuple(_e5m2(code) for code in range(256))
"""Value of each FP8 code. Source: arXiv 2209.05433, table 1 (E5M2, with infinities)."""

E2M3 = tuple(
    sign * (mantissa / 8 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 1))
    for sign in (1.0, -1.0)
    for exponent in range(4)
    for mantissa in range(8)
)
"""Value of each FP6 code. Source: OCP Microscaling Formats 1.0, table 4."""

E2M1 = tuple(
    # Code 8 is minus zero; ModelOpt decodes it as plus zero, and adding 0.0 does the same.
    sign * value + 0.0
    for sign in (1.0, -1.0)
    for value in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
)
"""Value of each FP4 code. Source: OCP Microscaling Formats 1.0, table 6."""

E8M0 = (*(2.0 ** (code - 127) for code in range(255)), float("nan"))
"""Value of each MX scale code. Source: OCP Microscaling Formats 1.0, section 5.4.1."""

E2M1_PAIRS = tuple((E2M1[byte & 0xF], E2M1[byte >> 4]) for byte in range(256))
"""The two values in one byte, the low nibble first."""

INT4_PAIRS = tuple(
    tuple(float(code - 16 if code > 7 else code) for code in (byte & 0xF, byte >> 4))
    for byte in range(256)
)
"""The two signed values in one byte, two's complement, the low nibble first."""

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip
"""Value of each NF4 code. Source: arXiv 2305.14314, appendix E."""

FP4 = tuple(
    sign * value / 12 + 0.0
    for sign in (1.0, -1.0)
    for value in (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)
)
"""Value of each code of bitsandbytes' FP4, which is not E2M1: the largest is 1.

Source: https://github.com/bitsandbytes-foundation/bitsandbytes (`functional.py`, `get_4bit_type`).
"""

NF4_PAIRS, FP4_PAIRS = (
    tuple((table[byte >> 4], table[byte & 0xF]) for byte in range(256)) for table in (NF4, FP4)
)
"""The two values in one byte, the high nibble first."""

LOOKUP_CHUNK = 1 << 18
"""Codes decoded at a time: few enough for the processor's cache (see benchmarks/decode.py)."""


def lookup(table: Sequence[Any], codes: "np.ndarray", xp: Any) -> Any:
    """Decode by table: float32, shape `codes.shape` + the shape of a table entry.

    Args:
        table: The value of each code.
        codes: uint8, any shape, as a container reads them.
        xp: numpy or torch.
    """
    values = xp.asarray(table, dtype=xp.float32)
    flat = codes.reshape(-1)
    out = xp.empty((flat.shape[0], *values.shape[1:]), dtype=xp.float32)
    for begin in range(0, flat.shape[0], LOOKUP_CHUNK):
        chunk = flat[begin : begin + LOOKUP_CHUNK].astype("int64")
        out[begin : begin + LOOKUP_CHUNK] = values[xp.asarray(chunk)]
    return out.reshape((*codes.shape, *values.shape[1:]))


def unpack(stored: "np.ndarray", bits: int, count: int) -> "np.ndarray":
    """Codes that lie one after another along the last axis, without a gap, lowest bits first.

    Args:
        stored: Integers of any width, shape (..., elements), that hold at least `count` codes.
        bits: Of one code, 1 to 8.
        count: Of codes in each row.

    Returns:
        uint8, shape (..., count).
    """
    import numpy as np

    # Eight codes fill `bits` bytes.
    eights = -(-count // 8)
    raw = np.ascontiguousarray(stored).view(np.uint8)[..., : eights * bits]
    missing = eights * bits - raw.shape[-1]
    if missing:
        raw = np.pad(raw, [(0, 0)] * (raw.ndim - 1) + [(0, missing)])
    raw = raw.reshape((*raw.shape[:-1], eights, bits))
    codes = np.empty((*raw.shape[:-1], 8), np.uint8)
    for index in range(8):
        byte, shift = divmod(index * bits, 8)
        found = raw[..., byte] >> shift
        if shift + bits > 8:
            found = found | raw[..., byte + 1] << (8 - shift)
        codes[..., index] = found & (2**bits - 1)
    return codes.reshape((*raw.shape[:-2], eights * 8))[..., :count]


class ScaleValues:
    """The values of one scale tensor, read once and not kept.

    Attributes:
        low: Smallest value; NaN if any is NaN.
        high: Largest value; NaN if any is NaN.
    """

    __slots__ = ("_checkpoint", "_info", "high", "low")

    def __init__(self, checkpoint: "Checkpoint", info: "TensorInfo") -> None:
        self._checkpoint, self._info = checkpoint, info
        raw = checkpoint.read(info)
        if not raw.size:
            self.low = self.high = math.nan
        elif raw.dtype.kind == "f":
            # Most scales are one number: nothing is cheaper than to take it.
            one = raw.size == 1
            self.low = raw.item() if one else float(raw.min())
            self.high = self.low if one else float(raw.max())
        elif raw.dtype.itemsize == 1:
            self.low, self.high = self._of_bytes(int(raw.min()), int(raw.max()))
        else:
            self.low, self.high = self._limits()

    def _of_bytes(self, low: int, high: int) -> tuple[float, float]:
        """The limits of the values, from those of their codes."""
        table = E4M3 if self._info.dtype == "F8_E4M3" else E8M0
        # Codes rise with their values up to the first NaN or negative one.
        if high < (0x7F if table is E4M3 else 0xFF):
            return table[low], table[high]
        return self._limits()

    def _limits(self) -> tuple[float, float]:
        values = self.counted[0]
        return float(values.min()), float(values.max())

    @property
    def counted(self) -> "tuple[np.ndarray, np.ndarray]":
        """The values, float32, and how often each, int64; both of shape (values,).

        Codes of one byte are counted, not decoded: a block scale has few of them and many
        elements.
        """
        import numpy as np

        flat = self._checkpoint.read(self._info).reshape(-1)
        if flat.dtype != np.uint8:
            with np.errstate(over="ignore"):  # an F64 above float32's range counts as infinite
                values = decode_float(flat, self._info.dtype, np)
            return values, np.ones(len(values), np.int64)
        counts = np.zeros(256, np.int64)
        for begin in range(0, len(flat), LOOKUP_CHUNK):
            counts += np.bincount(flat[begin : begin + LOOKUP_CHUNK], minlength=256)
        codes = np.flatnonzero(counts).astype(np.uint8)
        return decode_float(codes, self._info.dtype, np), counts[codes]


def decode_float(raw: "np.ndarray", dtype: str, xp: Any) -> Any:
    """Raw codes of a floating-point tensor to float32, same shape.

    Args:
        raw: As a container reads them; copied, since mapped files are read-only.
        dtype: safetensors' name; U8 stands for E8M0, as ModelOpt stores MX scales.
        xp: numpy or torch.

    Raises:
        ValueError: `dtype` is not a floating-point one.
    """
    if dtype == "F8_E4M3":
        return lookup(E4M3, raw, xp)
    if dtype in {"F8_E8M0", "U8"}:
        return lookup(E8M0, raw, xp)
    if dtype == "F8_E5M2":
        return lookup(E5M2, raw, xp)
    if dtype == "BF16":
        # A BF16 is the upper half of a float32.
        return xp.asarray((raw.astype("uint32") << 16).view("float32"))
    if dtype in {"F16", "F32", "F64"}:
        return xp.asarray(raw.astype("float32"))
    raise ValueError(f"{dtype} is not a floating-point dtype")
