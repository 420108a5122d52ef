"""How fast `gate verify` reads a checkpoint, beside `sha256sum` on all cores.

Writes random files that look like shards, attests them, and reads them by both programs in turn,
twice each, from the page cache or from the disk as the machine's memory has it::

    python benchmarks/verify_speed.py [--gigabytes 16] [--shards 8] [--directory DIR]
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BLOCK = 1 << 24


def shards(directory: Path, n: int, size: int) -> None:
    """Random files; nothing of them repeats within a file."""
    for number in range(n):
        with (directory / f"model-{number + 1:05}-of-{n:05}.safetensors").open("wb") as file:
            for _ in range(0, size, BLOCK):
                file.write(os.urandom(BLOCK))


def statement(directory: Path, file: Path) -> None:
    """What `gate attest` would have written about these files."""
    from gate import digests
    from gate.records import Resource, Statement, TestResult, now

    found = digests.of(directory, digests.shipped(directory))
    report = Resource(name="report", annotations={"date": now()})
    stated = Statement(
        subject=tuple(Resource(name=n, digest={"sha256": sha}) for n, sha in found.items()),
        predicate=TestResult(result="PASSED", configuration=(report,)),
    )
    file.write_text(stated.model_dump_json(by_alias=True, exclude_none=True), encoding="utf-8")


def seconds(command: list[str], directory: Path) -> float:
    """Wall-clock time of a whole process that must succeed."""
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True, cwd=directory)
    return time.monotonic() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=16)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--directory", type=Path, help="on the disk that is to be read")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        root = Path(name)
        model = root / "model"
        model.mkdir()
        shards(model, options.shards, int(options.gigabytes * 1e9 / options.shards))
        size = sum(path.stat().st_size for path in model.iterdir())
        statement(model, root / "statement.json")
        verify = [*(sys.executable, "-m", "gate", "verify", "model"), "--statement=statement.json"]
        every = ["sh", "-c", f"ls model/* | xargs -P {os.cpu_count()} -n 1 sha256sum"]
        times = {"gate verify": [0.0] * 2, "sha256sum, all cores": [0.0] * 2}
        for turn in range(2):
            for who, command in zip(times, (verify, every), strict=True):
                times[who][turn] = seconds(command, root)
    theirs = min(times["sha256sum, all cores"])
    print(f"| {size / 1e9:.1f} GB, {options.shards} files | seconds | GB/s | of sha256sum |")
    print("| --- | --: | --: | --: |")
    for who, found in times.items():
        best = min(found)
        print(f"| {who} | {best:.1f} | {size / 1e9 / best:.2f} | {theirs / best:.2f} |")
    print(f"each turn: {json.dumps(times)}")
    print(f"command: {shlex.join(['python', *sys.argv])}")


if __name__ == "__main__":
    main()
