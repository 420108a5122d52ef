"""What the harness costs beside the `lm_eval` command, and whether both score alike.

Runs IFEval's first prompts through the `lm_eval` command, through `gate.harness` with the batches
composed alike, and through `gate eval`, which composes its own: each in its own process on the same
model. Prints the times, start and scoring included, and how many prompts the harness scored
differently::

    python benchmarks/harness_overhead.py MODEL DOCUMENTS [--prompts 32] [--tokens 256] [--batch 8]
"""

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path

import lm_eval_process
from lm_eval_process import TASK, timed

METRICS = (
    "prompt_level_strict_acc",
    "inst_level_strict_acc",
    "prompt_level_loose_acc",
    "inst_level_loose_acc",
)
Scores = dict[int, list[float]]


def lm_eval_command(options: argparse.Namespace, directory: Path) -> list[str]:
    """The command on the first prompts."""
    asked = {name: getattr(options, name) for name in ("prompts", "tokens", "batch", "device")}
    return lm_eval_process.command(options.model, options.documents, directory, **asked)


def gate_eval_command(options: argparse.Namespace, directory: Path) -> list[str]:
    """The real command on the same prompts, in batches of its own committed order."""
    lm_eval_process.first(options.documents, options.prompts, directory / "first.jsonl")
    asked = {"task": TASK, "documents": "first.jsonl", "max_gen_toks": options.tokens}
    settings = directory / "quant-gate.yaml"
    settings.write_text(json.dumps({"version": 1, "metrics": [asked]}), encoding="utf-8")
    return [
        *(sys.executable, "-m", "gate", "eval", str(options.model.resolve())),
        *("--settings", str(settings), "--batch-size", str(options.batch)),
        *("-o", str(directory / "result.json")),
    ]


def lm_eval_scores(directory: Path) -> Scores:
    """What the command logged, by document."""
    return {
        sample["doc_id"]: [float(sum(_listed(sample[metric]))) for metric in METRICS]
        for sample in lm_eval_process.samples(directory)
    }


def _listed(value: object) -> list[float]:
    return value if isinstance(value, list) else [value]  # type: ignore[list-item]


def harness_scores(options: argparse.Namespace) -> Scores:
    """The same prompts through our harness, in the batches that lm-eval makes of them."""
    from transformers import AutoModelForCausalLM

    from gate.harness import Harness, load_tokenizer
    from gate.settings import TaskMetric, TaskOptions, TaskRun

    asked = TaskOptions(documents=str(options.documents.resolve()), max_gen_toks=options.tokens)
    run = TaskRun(task=TASK, options=asked, metrics=(TaskMetric(task=TASK),))
    tokenizer = load_tokenizer(options.model)
    harness = Harness([run], tokenizer, Path.cwd())
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype="auto").to(options.device)
    lm = harness.language_model(model, options.batch)

    def position(doc_id: int) -> tuple[int, str]:
        prompt = harness.prompt(TASK, doc_id)
        return -len(lm.tok_encode(prompt)), prompt  # type: ignore[attr-defined]

    order = sorted(harness.doc_ids(TASK)[: options.prompts], key=position)
    batches = [order[i : i + options.batch] for i in range(0, len(order), options.batch)]
    scored = [document for batch in batches for document in harness.score(lm, TASK, batch)]
    return {
        document.doc_id: [
            next(points.score for points in document.points if points.metric == metric)
            for metric in METRICS
        ]
        for document in scored
    }


def main() -> None:
    """Run both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("documents", type=Path)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--harness-only", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.harness_only:
        options.harness_only.write_text(json.dumps(harness_scores(options)), encoding="utf-8")
        return
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        ours = [*(sys.executable, *sys.argv), "--harness-only", str(directory / "ours.json")]
        theirs_s, theirs_cpu_s = timed(lm_eval_command(options, directory))
        ours_s, ours_cpu_s = timed(ours)
        gate_s, gate_cpu_s = timed(gate_eval_command(options, directory))
        theirs = lm_eval_scores(directory)
        found = json.loads((directory / "ours.json").read_text(encoding="utf-8"))
    different = sum(found[str(doc_id)] != scores for doc_id, scores in theirs.items())
    print("| process   | seconds | CPU seconds | seconds / lm_eval's | CPU / lm_eval's |")
    print("| --------- | ------: | ----------: | ------------------: | --------------: |")
    for who, wall_s, cpu_s in (
        ("lm_eval", theirs_s, theirs_cpu_s),
        ("harness", ours_s, ours_cpu_s),
        ("gate eval", gate_s, gate_cpu_s),
    ):
        ratios = f"{wall_s / theirs_s:19.3f} | {cpu_s / theirs_cpu_s:15.3f}"
        print(f"| {who:9} | {wall_s:7.1f} | {cpu_s:11.1f} | {ratios} |")
    print(f"{different} of {len(theirs)} prompts scored differently")
    print(f"command: {shlex.join(['python', *sys.argv])}")


if __name__ == "__main__":
    main()
