"""Peak memory of a whole evaluation process against the size of the decoded model.

Run: python benchmarks/memory.py TEXT EXPORT [EXPORT...]

Each checkpoint is loaded and its perplexity measured in a process of its own.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path

from gate import drift
from gate.backends.hf import Hf
from gate.checkpoint import open_checkpoint
from gate.containers import CONTAINERS
from gate.formats import FORMATS
from gate.quantization import identify
from gate.settings import DEFAULT, PerplexityText
from gate.size import decoded_bytes

FACTOR, FIXED_GB = 1.3, 2.5


def measure(path: Path, text: PerplexityText) -> None:
    """Print decoded size and peak resident memory in GB, of this process."""
    checkpoint = open_checkpoint(path, CONTAINERS)
    form = identify(checkpoint, FORMATS)
    with Hf(checkpoint, form, harness=None, settings=DEFAULT) as backend:
        windows = drift.text_windows(backend, text, drift.read_text(text, Path()))
        backend.read(windows, top=DEFAULT.top_tokens)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(decoded_bytes(checkpoint, form) / 1e9, peak / 1e9)


def main() -> None:
    """One row a checkpoint; exit code 1 if one is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("text", type=Path)
    parser.add_argument("exports", nargs="+", type=Path)
    arguments = parser.parse_args()
    if arguments.only:
        text = PerplexityText(file=str(arguments.text.absolute()), windows=8)
        measure(arguments.exports[0], text)
        return
    print("| checkpoint | decoded GB | peak GB | limit GB |\n|---|--:|--:|--:|")
    within = True
    for path in arguments.exports:
        command = [sys.executable, __file__, "--only", str(arguments.text), str(path)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        decoded, peak = map(float, out.split()[-2:])
        limit = decoded * FACTOR + FIXED_GB
        within &= peak <= limit
        print(f"| {path.name} | {decoded:.2f} | {peak:.2f} | {limit:.2f} |")
    raise SystemExit(not within)


if __name__ == "__main__":
    main()
