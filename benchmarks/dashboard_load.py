"""How long `gate dashboard` takes for many reports, and how soon a browser shows its page.

Keeps reports in a store as `gate history add` does, writes the dashboard of them by the command,
and opens it in a headless Chromium, from a file and without its cache::

    python benchmarks/dashboard_load.py [--reports 5000] [--checkpoints 100] [--documents 541]

*Interactive* is from the start of the navigation until the table of all reports has its rows and
the browser has drawn them.
"""

import argparse
import json
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

FORMATS = (("FP8", 8.6, 0.99), ("NVFP4", 4.9, 0.965), ("INT4", 4.6, 0.955), ("MXFP4", 4.4, 0.94))
FAMILIES = (("acme/small", 1.1e9), ("acme/medium", 8.2e9), ("acme/large", 70.6e9))
OPENED = 5

INTERACTIVE = """
() => new Promise((done) => {
  const look = () => document.querySelector("#reports tbody tr")
    ? requestAnimationFrame(() => setTimeout(() => done(performance.now())))
    : requestAnimationFrame(look);
  look();
})
"""


def evaluation(random_: random.Random, documents: int) -> dict[str, Any]:
    """A stored result on so many documents."""
    bucket = {"stored_bytes": 1, "parameters": 1}
    samples = [
        {"doc_id": i, "doc_hash": f"{i:064x}", "prompt_hash": f"{i:064x}", "score": 1.0}
        for i in range(documents)
    ]
    task = {"task": "ifeval", "filter": "none", "higher_is_better": True, "samples": samples}
    metrics = ("inst_level_strict_acc", "prompt_level_strict_acc")
    return {
        "gate_version": "0", "model": "candidate", "revision": None,
        "weights_digest": f"{random_.getrandbits(256):064x}", "config_digest": "0" * 64,
        "tokenizer_digest": "0" * 64, "chat_template_sha": None, "format": "modelopt",
        "backend": "hf", "device": "cpu", "dtype": "bfloat16", "kernel": "decoded weights",
        "activations": "emulate", "setups": [],
        "tasks": [task | {"metric": metric} for metric in metrics],
        "size": {"stored_bytes": 1, "parameters": 1, "bits_per_weight": 8.0,
                 "linear_bits_per_weight": None, "by_dtype": {"BF16": bucket}, "by_class": {}},
        "seed": "0", "batch_size": 8, "versions": {}, "date": "2026-01-01T00:00:00Z",
        "duration_s": 60.0,
    }  # fmt: skip


def report(random_: random.Random, number: int, checkpoints: int, documents: int) -> dict[str, Any]:
    """One of many reports, each checkpoint's one after the other."""
    checkpoint = number % checkpoints
    family, parameters = FAMILIES[checkpoint % len(FAMILIES)]
    algorithm, bits, mean = FORMATS[checkpoint % len(FORMATS)]
    retained = mean + random_.gauss(0, 0.006)
    outcome = "pass" if retained >= 0.95 else "fail"
    made = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=number * 3)
    comparison = {
        "task": "ifeval", "metric": "inst_level_strict_acc", "baseline": 0.6,
        "candidate": 0.6 * retained, "delta": 0.6 * (retained - 1), "retention": retained,
        "ci_low": retained - 0.02, "ci_high": retained + 0.02, "threshold": Decimal("0.95"),
        "n": documents, "budget": 13, "method": "points", "outcome": outcome,
        "reason": f"ifeval keeps {retained:.3f} of the baseline's score; 0.95 is required",
    }  # fmt: skip
    measured = evaluation(random_, documents)
    size = measured["size"] | {
        "stored_bytes": int(parameters * bits / 8), "parameters": int(parameters),
        "bits_per_weight": bits, "reference_bytes": int(2 * parameters),
    }  # fmt: skip
    return {
        "schema_version": 1, "gate_version": "0", "revision": None, "settings": {},
        "checkpoint": f"models/{family.partition('/')[2]}-{checkpoint}/{algorithm.lower()}",
        "command": "gate check", "lint": {"format": "modelopt", "algorithms": [algorithm]},
        "size": size, "evaluation": measured | {"size": size},
        "baseline": {"path": "baselines", "model": family, "revision": None, "device": "cpu",
                     "weights_digest": "0" * 64, "date": "2025-01-01T00:00:00Z"},
        "verdict": {"outcome": outcome, "reasons": [comparison["reason"]], "fix": None,
                    "stage": "evaluation", "comparisons": [comparison]},
        "date": made.isoformat(), "duration_s": 600.0,
    }  # fmt: skip


def fill(place: Path, options: argparse.Namespace) -> None:
    """Keep the reports in a store."""
    from gate import history, store
    from gate.records import Report

    random_ = random.Random(0)
    for number in range(options.reports):
        stated = report(random_, number, options.checkpoints, options.documents)
        history.add(store.at(str(place), Path.cwd()), Report.model_validate(stated))


def opened(page: Path) -> list[float]:
    """Milliseconds until the page can be used, each time in a browser without a cache."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(chromium_sandbox=False, executable_path=CHROMIUM)
        for _ in range(OPENED):
            context = browser.new_context()
            tab = context.new_page()
            tab.goto(page.as_uri(), wait_until="commit")
            found.append(float(tab.evaluate(INTERACTIVE)))
            context.close()
        browser.close()
    return found


CHROMIUM = "/usr/bin/chromium"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reports", type=int, default=5000)
    parser.add_argument("--checkpoints", type=int, default=100)
    parser.add_argument("--documents", type=int, default=541, help="in each stored result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        fill(root / "store", options)
        started = time.monotonic()
        command = [sys.executable, "-m", "gate", "dashboard", "--store", "store", "-o", "site"]
        subprocess.run(command, check=True, cwd=root, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - started
        index = root / "site" / "index.html"
        pages = list((root / "site" / "reports").iterdir())
        whole = sum(file.stat().st_size for file in pages)
        times = opened(index)
        print(f"| {options.reports:,} reports, {options.checkpoints} checkpoints | |")
        print("| --- | --: |")
        print(f"| written in | {seconds:.1f} s |")
        print(f"| index.html | {index.stat().st_size / 1e6:.2f} MB |")
        print(f"| {len(pages)} pages of reports | {whole / 1e6:.1f} MB |")
        print(f"| interactive, median of {OPENED} | {statistics.median(times):.0f} ms |")
        print(f"each: {json.dumps([round(found) for found in times])}")
    print(f"command: {shlex.join(['python', *sys.argv])}")


if __name__ == "__main__":
    main()
