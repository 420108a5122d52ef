"""How long `gate detect` takes, from the start of its process to its end.

python benchmarks/detect_speed.py

A repository of 20,000 files with 500 checkpoints, each with its weights in Git LFS. Prints a
Markdown table: what changed, checkpoints found, seconds, megabytes.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))

import histories  # noqa: E402 (the tests' builder of repositories)

FILES, CHECKPOINTS, REPEATS = 20_000, 500, 5


def files(seed: str, checkpoints: int) -> Iterator[tuple[str, str]]:
    """Path and content of the files of so many checkpoints."""
    for number in range(checkpoints):
        directory = f"models/family-{number % 20}/{number}"
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "README.md"):
            yield f"{directory}/{name}", f"{name} {number}"
        for shard in range(4):
            oid = f"{number * 10 + shard:064x}".replace("0" * 8, seed * 8, 1)
            name = f"{directory}/model-{shard + 1:05}-of-00004.safetensors"
            yield name, histories.pointer(oid)


def timed(directory: Path, *arguments: str) -> tuple[int, float, float]:
    """Checkpoints found, seconds and megabytes: the median of `REPEATS` processes."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("GITHUB_")}
    seconds, megabytes, found = [], [], 0
    for _ in range(REPEATS):
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "gate", "detect", "--format", "json", *arguments],
            cwd=directory,
            env=inherited,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds.append(time.perf_counter() - started)
        megabytes.append(usage.ru_maxrss / 1000)
        assert os.waitstatus_to_exitcode(status) == 0, "gate detect failed"
        found = len(json.loads(output)["checkpoints"])
    return found, statistics.median(seconds), statistics.median(megabytes)


def main() -> None:
    """Build the repository, measure, print."""
    print("python benchmarks/detect_speed.py\n")
    print("| 20,000 files, 500 checkpoints; what changed | found | seconds | MB |")
    print("|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as name:
        history = histories.History(Path(name) / "repository")
        first = dict(files("a", CHECKPOINTS))
        rest = {f"src/part-{n % 200}/{n}.py": str(n) for n in range(FILES - len(first))}
        history.commit({**first, **rest})
        changes = {
            "a line of the README": {"README.md": "# Other"},
            "one checkpoint": dict(list(files("b", 1))),
            "every checkpoint": dict(files("c", CHECKPOINTS)),
        }
        for what, change in changes.items():
            history.commit(change)
            row = timed(history.root, "--base", "main~1", "--head", "main")
            print(f"| {what} | {row[0]} | {row[1]:.2f} | {row[2]:.0f} |")
        row = timed(history.root, "--head", "main")
        print(f"| nothing to compare with: all it holds | {row[0]} | {row[1]:.2f} | {row[2]:.0f} |")


if __name__ == "__main__":
    main()
