"""Write a GGUF file again with its matrices in another type.

    python examples/gguf_requantize.py model-F16.gguf model-Q8_0.gguf --type Q8_0

The package `gguf` writes Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, MXFP4, TQ1_0 and TQ2_0; llama.cpp's
`llama-quantize` writes K- and I-quants, too.
"""

import argparse
from pathlib import Path

import gguf
import numpy as np

LAYOUT = {"general.architecture", "GGUF.version", "GGUF.tensor_count", "GGUF.kv_count"}
"""What the writer says itself."""


def main() -> None:
    """Copy the keys, and every tensor through its values."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--type", default="Q8_0", dest="kind")
    options = parser.parse_args()

    reader = gguf.GGUFReader(options.source)
    kind = gguf.GGMLQuantizationType[options.kind]
    writer = gguf.GGUFWriter(options.output, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name not in LAYOUT:
            inside = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], inside)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        matrix = values.ndim > 1 and values.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0
        own = kind if matrix else gguf.GGMLQuantizationType.F32
        stored = gguf.quants.quantize(values.astype(np.float32), own)
        writer.add_tensor(tensor.name, stored, raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
