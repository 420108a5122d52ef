"""How fast quantized weights are decoded, with numpy and with torch, on one thread.

Run: python benchmarks/decode.py EXPORT [EXPORT...]
"""

import argparse
import time
from pathlib import Path

import numpy as np

from gate.checkpoint import open_checkpoint
from gate.containers import CONTAINERS
from gate.formats import FORMATS
from gate.quantization import identify

ROUNDS = 3


def main() -> None:
    """Decode every layer of each checkpoint; print the best of three rounds."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("exports", nargs="+", type=Path)
    torch.set_num_threads(1)
    print("| checkpoint | library | million weights | seconds | million weights per second |")
    print("|---|---|--:|--:|--:|")
    for path in parser.parse_args().exports:
        checkpoint = open_checkpoint(path, CONTAINERS)
        form = identify(checkpoint, FORMATS)
        assert form is not None, f"{path} is not quantized"
        layers = [layer for layer in form.layers(checkpoint) if layer.packed]
        for xp in (np, torch):
            seconds, weights = float("inf"), 0
            for _ in range(ROUNDS):
                started = time.perf_counter()
                weights = sum(int(np.prod(form.dequantize(layer, xp).shape)) for layer in layers)
                seconds = min(seconds, time.perf_counter() - started)
            millions = weights / 1e6
            print(
                f"| {path.name} | {xp.__name__} | {millions:.0f} | {seconds:.2f} "
                f"| {millions / seconds:.0f} |"
            )


if __name__ == "__main__":
    main()
