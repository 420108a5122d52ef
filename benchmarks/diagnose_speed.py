"""How long a diagnosis takes, beside one run of the perplexity that it explains.

Each runs in a process of its own, in turns; the shortest of each counts. The perplexity is nothing
but reading: the checkpoint is loaded, and the windows of the text are read once::

    python benchmarks/diagnose_speed.py CHECKPOINT --reference ORIGINAL --text FILE [--rounds 2]
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

from gate import diagnosis, drift
from gate.checkpoint import open_checkpoint
from gate.containers import CONTAINERS
from gate.formats import FORMATS
from gate.quantization import identify
from gate.settings import DEFAULT, PerplexityText

PARTS = ("perplexity", "diagnosis")


def main() -> None:
    """Time both, and print their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=56, help="of the perplexity")
    parser.add_argument("--limit", type=float, default=1.15)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--part", choices=PARTS)
    options = parser.parse_args()
    if options.part:
        run(options)
        return
    best = {part: (float("inf"), float("inf")) for part in PARTS}
    for _ in range(options.rounds):
        for part in PARTS:
            best[part] = min(best[part], timed(*sys.argv[1:], "--part", part))
    (wall, cpu), (all_wall, all_cpu) = best.values()
    print("| checkpoint | windows | perplexity, s | diagnosis, s | ratio | ratio of CPU time |")
    print("|---|--:|--:|--:|--:|--:|")
    print(
        f"| {options.checkpoint.name} | {diagnosis.WINDOWS} of {options.windows} | {wall:.1f} "
        f"| {all_wall:.1f} | {all_wall / wall:.2f} | {all_cpu / cpu:.2f} |"
    )


def run(options: argparse.Namespace) -> None:
    """One of the two, in this process."""
    checkpoint = open_checkpoint(options.checkpoint, CONTAINERS)
    form = identify(checkpoint, FORMATS)
    text = PerplexityText(file=str(options.text), windows=options.windows)
    content = options.text.read_text(encoding="utf-8")
    if options.part == "diagnosis":
        original = open_checkpoint(options.reference, CONTAINERS)
        diagnosis.diagnose(checkpoint, form, original, DEFAULT, text, content, limit=options.limit)
        return
    from gate.backends.hf import Hf

    with Hf(checkpoint, form, None, DEFAULT) as backend:
        backend.read(drift.text_windows(backend, text, content))


def timed(*words: str) -> tuple[float, float]:
    """Seconds of the clock, and of all processors, that this program took with these arguments."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, __file__, *words], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, cpu


if __name__ == "__main__":
    main()
