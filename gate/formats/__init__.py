"""Quantization formats, consulted in order."""

from gate.formats.modelopt import ModelOpt
from gate.quantization import Format

FORMATS: tuple[Format, ...] = (ModelOpt(),)
