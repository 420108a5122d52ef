"""Quantization formats, consulted in order."""

from gate.formats.awq import AWQ
from gate.formats.bitsandbytes import BitsAndBytes
from gate.formats.block_fp8 import BlockFP8
from gate.formats.compressed_tensors import CompressedTensors
from gate.formats.gguf import Gguf
from gate.formats.gptq import GPTQ
from gate.formats.mlx import MLX
from gate.formats.modelopt import ModelOpt
from gate.formats.mxfp4 import MXFP4
from gate.formats.quanto import Quanto
from gate.formats.recognised import METHODS, Recognised
from gate.quantization import Format

FORMATS: tuple[Format, ...] = (
    Gguf(),
    ModelOpt(),
    CompressedTensors(),
    BlockFP8("fp8"),
    BlockFP8("fbgemm_fp8"),
    MXFP4(),
    Quanto(),
    GPTQ(),
    AWQ(),
    BitsAndBytes(),
    MLX(),
    *map(Recognised, METHODS),
)
