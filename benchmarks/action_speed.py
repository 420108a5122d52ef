"""How long the action takes, from the start of scripts/action.sh to its end.

python benchmarks/action_speed.py

A pull request in a repository of 20,000 files with 500 checkpoints in Git LFS; the action's Python
environment is made first. Prints a Markdown table: what changed, status, seconds.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "benchmarks"))

import detect_speed  # noqa: E402
import github_repository  # noqa: E402
import histories  # noqa: E402

REPEATS = 5


def step(work: Path, repository: Path, payload: object, **inputs: str) -> tuple[str, float]:
    """The step's status and seconds."""
    output, event = work / "output", work / "event.json"
    output.write_text("")
    event.write_text(json.dumps(payload))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    environment = {
        "GITHUB_EVENT_NAME": "pull_request",
        "GITHUB_EVENT_PATH": str(event),
        "GITHUB_OUTPUT": str(output),
        "RUNNER_TEMP": str(work),
        "RUNNER_TOOL_CACHE": str(work / "tools"),
        "QUANT_GATE_INPUT_PYTHON": sys.executable,
    }
    started = time.perf_counter()
    subprocess.run(
        [ROOT / "scripts" / "action.sh"],
        cwd=repository, env=kept | environment | inputs, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    lines = output.read_text().splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith("status<<"))
    return lines[last + 1] or "found", seconds


def main() -> None:
    """Build the repository, measure, print."""
    print("python benchmarks/action_speed.py\n")
    print("| 20,000 files, 500 checkpoints; what changed | status | seconds |")
    print("|---|---|--:|")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        history = histories.History(work / "repository")
        first = dict(detect_speed.files("a", detect_speed.CHECKPOINTS))
        left = detect_speed.FILES - len(first)
        base = history.commit(
            {**first, **{f"src/part-{n % 200}/{n}.py": str(n) for n in range(left)}}
        )
        step(work, history.root, _pull_request(base, base))
        for what, change, inputs in (
            ("a line of the README", {"README.md": "# Other"}, {}),
            (
                "one checkpoint, `command: detect`",
                dict(detect_speed.files("b", 1)),
                {"QUANT_GATE_INPUT_COMMAND": "detect"},
            ),
        ):
            head = history.commit(change)
            runs = [
                step(work, history.root, _pull_request(base, head), **inputs)
                for _ in range(REPEATS)
            ]
            seconds = statistics.median(seconds for _, seconds in runs)
            print(f"| {what} | {runs[0][0]} | {seconds:.2f} |")
            base = head


def _pull_request(base: str, head: str) -> object:
    return github_repository.pull_request(github_repository.Change(base, head))


if __name__ == "__main__":
    main()
