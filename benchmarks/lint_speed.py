"""How long `gate lint` takes on the layouts of real models, and how its cost grows.

The weight files are sparse: headers and sizes are those of the model, the data is zero, but for the
scales of the 8B model. Every figure is of a whole process, the median of three.

python benchmarks/lint_speed.py
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import layouts  # noqa: E402

REPEATS = 3


def measured(path: Path, *options: str) -> tuple[float, float]:
    """Seconds and megabytes of one process, the median of `REPEATS`."""
    seconds, megabytes = [], []
    for _ in range(REPEATS):
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "gate", "lint", str(path), *options, "--exit-zero"],
            stdout=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds.append(time.perf_counter() - started)
        megabytes.append(usage.ru_maxrss / 1000)
        assert os.waitstatus_to_exitcode(status) == 0, f"gate lint {path} failed"
    return statistics.median(seconds), statistics.median(megabytes)


def rows(directory: Path) -> Iterator[tuple[str, int, float, float]]:
    """What was judged, its tensors, seconds, megabytes."""
    models = {
        "MoE, 742 GB, 160 shards, headers": (layouts.MOE_700GB, 160),
        "dense, 16 GB, headers": (layouts.DENSE_16GB, 4),
    }
    for name, (model, shards) in models.items():
        path = directory / name
        tensors = layouts.write(path, model, shards)
        yield name, tensors, *measured(path, "--headers-only")
    path = directory / "8b"
    tensors = layouts.write(path, layouts.LLAMA_8B, 4, scales=True)
    yield "dense 8B NVFP4, headers", tensors, *measured(path, "--headers-only")
    yield "dense 8B NVFP4, headers and scales", tensors, *measured(path)
    for experts in (13, 135, 1365):
        model = layouts.MOE_700GB._replace(experts=experts)
        path = directory / str(experts)
        tensors = layouts.write(path, model, 160)
        yield (
            f"MoE of {experts:,} experts a layer, headers",
            tensors,
            *measured(path, "--headers-only"),
        )


def main() -> None:
    """Print the table."""
    print("python benchmarks/lint_speed.py\n")
    print("| checkpoint | tensors | seconds | MB | microseconds a tensor |")
    print("|---|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as directory:
        for name, tensors, seconds, megabytes in rows(Path(directory)):
            each = 1e6 * seconds / tensors
            print(f"| {name} | {tensors:,} | {seconds:.2f} | {megabytes:.0f} | {each:.1f} |")
        print(f"\nscales: {scale_rate(Path(directory) / '8b'):.2f} GB/s from the page cache")


def scale_rate(path: Path) -> float:
    """Gigabytes of scales judged in a second, by every rule that reads them, in this process."""
    import judging

    evidence = judging.gather(path)
    scales = [
        info
        for layer in evidence.layers
        for role, info in layer.tensors.items()
        if role.endswith("scale")
    ]
    from gate.lint import lint
    from gate.rules import RULES

    data = [rule for rule in RULES if rule.needs == "data"]
    started = time.perf_counter()
    lint(evidence, data, {})
    return sum(info.nbytes for info in scales) / (time.perf_counter() - started) / 1e9


if __name__ == "__main__":
    main()
