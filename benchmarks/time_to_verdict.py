"""How long a verdict takes, beside the `lm_eval` command on the same prompts.

Judges four candidates with `gate check` and runs `lm_eval` on each, in turn, on one machine:

- `garbage`: the FP8 export whose layers have each other's weight scales; no rule finds that;
- `nvfp4`: the NVFP4 export, whose perplexity is too high;
- `bf16`: the original itself, measured to the end;
- `fp8`: the FP8 export with its inputs rounded as a runtime would, measured to the end.

lm_eval cannot load such exports: it runs a BF16 copy of the same decoded weights. Each figure is
stored in FILE as soon as it is there, and what FILE holds is not measured again::

    python benchmarks/time_to_verdict.py --json FILE [--documents FILE] [--text FILE]

--documents are IFEval's prompts as JSON Lines, --text is that of the perplexity; left out, both are
taken from the hub's cache. --checkpoints holds `bf16`, `fp8` and `nvfp4`, made where absent.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_eval_process
from lm_eval_process import TASK, timed

CASES = ("garbage", "nvfp4", "bf16", "fp8")
TO_THE_END = ("bf16", "fp8")
ALIKE = ("prompts", "tokens", "batch", "device")
"""What both commands are given."""
HERE = Path(__file__).parent
METRIC = "inst_level_strict_acc"
RETENTION = 0.95
SMALLEST_BUDGET = 5
WIKITEXT = {"dataset": "Salesforce/wikitext", "name": "wikitext-2-raw-v1"}
WINDOWS = {"window": 512, "windows": 56}
Row = dict[str, Any]


class Workplace:
    """Checkpoints, baseline and settings that the commands of all cases share.

    Args:
        options: Of the command line.
        directory: A temporary one, gone when the program ends.
    """

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.options, self.directory = options, directory
        self.documents = directory / "documents.jsonl"
        lm_eval_process.first(_documents(options, directory), options.prompts, self.documents)
        self.environment = {} if options.device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}

    def checkpoint(self, case: str) -> Path:
        """The candidate of a case, made where it is absent."""
        from gate import demo

        if case == "garbage":
            return exchange_scales(self.checkpoint("fp8"), self.directory / case)
        path: Path = self.options.checkpoints / case
        if not (path / "config.json").is_file():
            if case == "bf16":
                demo.make_reference(path)
            else:
                demo.quantize(self.checkpoint("bf16"), path, case)  # type: ignore[arg-type]
        return path

    def settings(self, name: str, early_stop: str, gates: bool) -> Path:
        """Write the settings; IFEval gates where the baseline has points enough."""
        task: dict[str, Any] = {"task": TASK, "documents": str(self.documents), "metric": METRIC}
        task |= {"max_gen_toks": self.options.tokens}
        text = self.options.text
        source = ({"file": str(text.resolve())} if text else WIKITEXT) | WINDOWS
        stated = {
            "version": 1,
            "batch_size": self.options.batch,
            "early_stop": early_stop,
            "publish_text": True,  # the answers' tokens are counted
            "metrics": [
                task | ({"min_retention": RETENTION} if gates else {}),
                {"perplexity": source, "max_ratio": "by-weight-bits"},
            ],
        }
        path = self.directory / f"{name}.yaml"
        path.write_text(json.dumps(stated), encoding="utf-8")
        return path

    def baseline(self) -> Path:
        """The original's stored result, made where it is absent; nobody waits for that."""
        options = self.options
        path: Path = options.baseline or options.json.with_suffix(".baseline.json")
        if not path.is_file():
            print(f"making the baseline {path}", file=sys.stderr)
            settings = self.settings("baseline", "off", gates=False)
            cache = {"QUANT_GATE_CACHE": str(path.with_suffix(".cache").resolve())}
            line = [*(sys.executable, "-m", "gate", "eval", str(self.checkpoint("bf16").resolve()))]
            line += ["--settings", str(settings), "-o", str(path.resolve())]
            timed(line, environment=self.environment | cache)
        return path.resolve()

    def gate(self, case: str) -> Row:
        """Judge a candidate; what the report and the stopwatch say."""
        baseline, report = self.baseline(), self.directory / f"{case}.json"
        seconds = self.directory / f"{case}.seconds"
        early_stop = "off" if case in TO_THE_END else "auto"
        settings = self.settings(case, early_stop, gates=_points(baseline) >= self._enough())
        line = [sys.executable, str(HERE / "model_time.py"), str(seconds), "check"]
        line += [str(self.checkpoint(case).resolve()), "--settings", str(settings)]
        line += ["--baseline", str(baseline), "--report", f"json={report}"]
        line += ["--full"] if case in TO_THE_END else []
        wall_s, _ = timed(line, (0, 1), environment=self.environment)
        found = json.loads(report.read_text(encoding="utf-8"))
        model_s = json.loads(seconds.read_text(encoding="utf-8"))["model_s"]
        evaluation = found["evaluation"] or {"answers": {}, "device": None}
        answers = [answer["text"] for answer in evaluation["answers"].get(TASK, ())]
        return {
            "gate_s": round(wall_s, 2),
            "prompts_used": len(answers),
            "outcome": found["verdict"]["outcome"],
            "reason": (found["verdict"]["reasons"] or [""])[0],
            "gate_model_s": round(model_s, 2),
            "gate_other_share": round(1 - model_s / wall_s, 4),
            "gate_tokens_per_s": round(self._tokens(answers) / wall_s, 1),
            "machine": evaluation["device"],
        }

    def lm_eval(self, case: str) -> Row:
        """Run the `lm_eval` command on the same weights and prompts."""
        source, out = self.checkpoint(case), self.directory / f"{case}-lm_eval"
        copy = source if case == "bf16" else self.directory / f"{case}-decoded"
        out.mkdir()
        if copy != source:
            timed([sys.executable, str(HERE / "decoded_copy.py"), str(source), str(copy)])
        asked = {name: getattr(self.options, name) for name in ALIKE}
        line = lm_eval_process.command(copy.resolve(), self.documents, out, **asked)
        wall_s, _ = timed(line, environment=self.environment)
        answers = [sample["resps"][0][0] for sample in lm_eval_process.samples(out)]
        if copy != source:
            shutil.rmtree(copy)
        return {
            "lm_eval_s": round(wall_s, 2),
            "lm_eval_tokens_per_s": round(self._tokens(answers) / wall_s, 1),
        }

    def _enough(self) -> float:
        return SMALLEST_BUDGET / (1 - RETENTION)

    def _tokens(self, answers: list[str]) -> int:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.checkpoint("bf16"))
        return sum(len(tokenizer(answer)["input_ids"]) for answer in answers)


class Figures:
    """What was measured so far, by case; every change is written to the file.

    Args:
        path: The file; read where it exists.
        conditions: Under which the figures are taken; those of others are not mixed in.
    """

    def __init__(self, path: Path, conditions: Row) -> None:
        self.path, self.conditions = path, conditions
        kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        self.rows: dict[str, Row] = {row["case"]: row for row in kept}
        for row in kept:
            if any(row[name] != value for name, value in conditions.items()):
                sys.exit(f"{path} holds figures of other options: name another file")

    def measure(self, case: str, figure: str, run: Callable[[str], Row]) -> None:
        """Take a figure that is not there yet, with what else comes with it."""
        row = self.rows.setdefault(case, {"case": case, **self.conditions})
        if figure in row:
            return
        row |= run(case)
        if "gate_s" in row and "lm_eval_s" in row:
            row["ratio"] = round(row["gate_s"] / row["lm_eval_s"], 4)
        written = self.path.with_suffix(".part")
        written.write_text(json.dumps(list(self.rows.values()), indent=1), encoding="utf-8")
        written.replace(self.path)


def exchange_scales(source: Path, path: Path) -> Path:
    """A copy in which, of each projection, the layers with the largest and smallest scales swap."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    if path.exists():
        return path
    shutil.copytree(source, path)
    file = path / "model.safetensors"
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    alike: dict[str, list[str]] = {}
    for name in tensors:
        if name.endswith(".weight_scale"):
            alike.setdefault(name.split(".layers.")[1].split(".", 1)[1], []).append(name)
    for names in alike.values():
        names.sort(key=lambda name: float(tensors[name]))
        found = [tensors[name] for name in reversed(names)]
        tensors |= dict(zip(names, found, strict=True))
    save_file(tensors, file, metadata)
    return path


def _documents(options: argparse.Namespace, directory: Path) -> Path:
    if options.documents:
        return Path(options.documents)
    from datasets import load_dataset

    path = directory / "ifeval.jsonl"
    load_dataset("google/IFEval", split="train").to_json(path)
    return path


def _points(baseline: Path) -> float:
    """The points of the baseline in the metric that gates."""
    tasks = json.loads(baseline.read_text(encoding="utf-8"))["tasks"]
    (samples,) = (task["samples"] for task in tasks if task["metric"] == METRIC)
    return float(sum(sample["score"] for sample in samples))


def table(rows: list[Row]) -> str:
    """The figures as Markdown."""
    head = "case", "gate", "lm_eval", "ratio", "prompts", "outcome", "not the model"
    lines = [" | ".join(head), " | ".join(["---", *["--:"] * 4, "---", "--:"])]
    for row in rows:
        cells = [row["case"], f"{row['gate_s']:,.0f} s", f"{row['lm_eval_s']:,.0f} s"]
        cells += [f"{row['ratio']:.3f}", f"{row['prompts_used']} of {row['prompts']}"]
        cells += [row["outcome"], f"{row['gate_other_share']:.1%}"]
        lines.append(" | ".join(cells))
    speeds = [
        f"{row['case']}: gate {row['gate_tokens_per_s']}, lm_eval {row['lm_eval_tokens_per_s']}"
        for row in rows
    ]
    return "\n".join([*(f"| {line} |" for line in lines), "", "tokens/s: " + "; ".join(speeds)])


def main() -> None:
    """Measure what is missing and print the table."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--checkpoints", type=Path, default=Path("demo/checkpoints"))
    parser.add_argument("--documents", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--baseline", type=Path, help="the original's stored result")
    parser.add_argument("--prompts", type=int, default=541)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    conditions = {name: getattr(options, name) for name in ALIKE}
    conditions["threads"] = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    figures = Figures(options.json, conditions)
    with tempfile.TemporaryDirectory() as directory:
        workplace = Workplace(options, Path(directory))
        for case in options.cases:
            figures.measure(case, "gate_s", workplace.gate)
            figures.measure(case, "lm_eval_s", workplace.lm_eval)
    print(table([figures.rows[case] for case in options.cases]))
    print(f"command: {shlex.join(['python', *sys.argv])}")


if __name__ == "__main__":
    main()
