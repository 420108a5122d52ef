"""Reports to render: a FAIL with everything in it, a borderline PASS, a lint run, a canary."""

from decimal import Decimal

from results import perplexity, result, size, task

from gate import verdict
from gate.batching import order
from gate.records import (
    BaselineInfo,
    CanaryAnswer,
    EarlyStop,
    EvalResult,
    Execution,
    Finding,
    Fit,
    LayerError,
    LintResult,
    MemoryNeed,
    Previous,
    ReferenceResult,
    Report,
    RoundingFloor,
    RuleInfo,
    Skipped,
    Target,
)
from gate.settings import PerplexityMetric, PerplexityText, Settings, TaskMetric

METRICS = ("inst_level_strict_acc", "prompt_level_strict_acc")
SETTINGS = Settings(
    metrics=(
        TaskMetric(task="ifeval", metric=METRICS[0], min_retention=Decimal("0.95")),
        TaskMetric(task="ifeval", metric=METRICS[1]),
        PerplexityMetric(perplexity=PerplexityText(file="domain.txt"), max_ratio=Decimal("1.10")),
    )
)
RULES = tuple(
    RuleInfo(id=name, severity="error", summary=name, manual=f"{name}.\n\n**Why.** It matters.")
    for name in ("missing-scale", "scale-zero")
)


def scores(lost: int = 0, gained: int = 0) -> list[float]:
    return [0.0] * lost + [1.0] * (400 - lost + gained) + [0.0] * (141 - gained)


def evaluated(shift: float = 0.0, lost: int = 0, gained: int = 0, **changes: object) -> EvalResult:
    tasks = (task(scores(lost, gained), metric=name) for name in METRICS)
    nll = [343.0 + shift + window % 3 * (1 + shift / 9) for window in range(56)]
    return result(*tasks, perplexities=[perplexity(nll)], **changes)


BASELINE = evaluated()
FP8 = evaluated(
    3.0, 28, 16, model="models/fp8", format="modelopt", size=size(163_000_000, 9.7, 269_000_000)
)
NVFP4 = evaluated(
    45.5,
    61,
    20,
    model="models/nvfp4",
    revision=None,
    format="modelopt",
    kernel="decoded weights, activations quantized as NVFP4",
    rounding_floor=RoundingFloor(kl=0.0312, codes_changed=0.0021, tokens=3000),
    size=size(116_500_000, 6.93, 269_000_000),
)


def stopped(candidate: EvalResult, asked: int) -> EvalResult:
    """A candidate whose task ended after so many documents of the committed order."""
    seen = set(order(range(541), candidate.seed, "ifeval")[:asked])
    why = EarlyStop(
        reason="FAIL of the whole task, 99 % sure", n_planned=541, outcome="fail", certain=False
    )
    tasks = tuple(
        found.model_copy(
            update={
                "samples": tuple(sample for sample in found.samples if sample.doc_id in seen),
                "early_stop": why,
            }
        )
        for found in candidate.tasks
    )
    return candidate.model_copy(update={"tasks": tasks})


def make(name: str, candidate: EvalResult | None, lint: LintResult, canary=()) -> Report:
    comparisons = ()
    if candidate is not None and not canary:
        comparisons = verdict.compare(SETTINGS, BASELINE, candidate, 4)
    info = BaselineInfo(
        path="baselines/model.json",
        model=BASELINE.model,
        revision=BASELINE.revision,
        weights_digest=BASELINE.weights_digest,
        date=BASELINE.date,
        device=BASELINE.device,
        warnings=("torch is 2.12.0 in the baseline and 2.13.0 here",),
    )
    return Report(
        gate_version="0.1.0",
        checkpoint=name,
        revision=None,
        command=f"gate {'check' if candidate else 'lint'} {name}",
        settings=SETTINGS.model_dump(mode="json"),
        lint=lint,
        size=candidate.size if candidate else size(116_500_000, 6.93),
        evaluation=candidate,
        baseline=info if candidate else None,
        verdict=verdict.decide(lint, comparisons, canary),
        date="2026-11-21T11:00:00Z",
        duration_s=724.5,
    )


def linted(algorithm: str, *findings: Finding) -> LintResult:
    names = ("other-base", "weights-unlike-reference", "tokenizer-differs", "dtype-differs")
    return LintResult(
        format="modelopt",
        algorithms=(algorithm,),
        findings=findings,
        rules_run=RULES,
        skipped=(
            *(Skipped(rule=name, reason="no reference was named") for name in names),
            Skipped(rule="split-incomplete", reason="only the named files were judged"),
        ),
    )


NOTE = Finding(
    rule="tokenizer-missing",
    severity="error",
    message="no tokenizer file",
    fix="Copy the reference's tokenizer files.",
    ignored="weights only, on purpose",
)
WARNING = Finding(
    rule="configs-disagree-exclude",
    severity="warning",
    message="config.json ignores lm_head, hf_quant_config.json does not",
    file="config.json",
    pointer="/quantization_config/ignore",
    fix="Export the checkpoint again.",
)
ERROR = Finding(
    rule="missing-scale",
    severity="error",
    message="q_proj is FP8 and has no weight_scale",
    tensor="model.layers.0.self_attn.q_proj.weight",
    file="model.safetensors",
    fix="Export the checkpoint again with its scales.",
)
CANARY = CanaryAnswer(
    task="ifeval",
    doc_id=12,
    defect="repeats itself without end",
    prompt="Write a poem about rain.\nUse two stanzas.",
    baseline="Soft rain falls\non the old roof\n\nand I listen.",
    candidate="rain rain rain rain rain rain rain rain rain rain rain rain rain rain rain",
)

MORE = ERROR.model_copy(
    update={
        "message": "k_proj is FP8 and has no weight_scale",
        "tensor": "model.layers.0.self_attn.k_proj.weight",
    }
)
REST = ERROR.model_copy(
    update={
        "message": "501 more findings of this kind", "tensor": None, "file": None, "count": 501,
    }
)  # fmt: skip
COMPARED = ReferenceResult(
    source="models/original",
    layers=(
        LayerError(layer="model.layers.0.mlp.down_proj", algo="FP8", relative_rms=0.41, cosine=0.9),
        LayerError(layer="model.layers.1.mlp.up_proj", algo="FP8", relative_rms=0.02, cosine=0.999),
    ),
    equal_tensors=61,
    changed_tensors=("model.norm.weight",),
    skipped=("2 layers: AWQ has no decoder yet",),
)
FITTED = Fit(
    target=Target(runtime="vllm", gpu="h100", tensor_parallel=2, context=4096),
    runtime="vLLM 0.32",
    device="NVIDIA H100",
    executions=(
        Execution(algorithm="FP8", layers=210, path="native FP8", reason="The GPU computes FP8."),
    ),
    memory=MemoryNeed(
        weights=82_000_000_000,
        kv_cache=400_000_000,
        kv_cache_exact=False,
        workspace=2_700_000_000,
        available=80_000_000_000,
        notes=("Vision layers are not counted.",),
    ),
)
COMPLETE = linted("FP8", WARNING).model_copy(
    update={"reference": COMPARED, "fit": FITTED, "skipped": ()}
)


def dropped(report: Report) -> Report:
    """The same where a checkpoint that was nearly the original passed before."""
    limit = {"store": "s3://acme-gate/kept", "max_drop_vs_released": Decimal("0.02")}
    settings = SETTINGS.model_copy(update=limit)
    last = evaluated(1.0, 4, 2, weights_digest="5e" * 32, format="modelopt")
    assert report.evaluation is not None
    comparisons, missing = verdict.compare_released(settings, last, report.evaluation)
    previous = Previous(
        content="0" * 64,
        weights_digest=last.weights_digest,
        date="2026-11-02T10:00:00Z",
        run_id=4711,
        comparisons=comparisons,
        missing=(*missing, "perplexity on code.txt of what passed last is no baseline for this"),
    )
    decided = verdict.with_released(report.verdict, settings, previous)
    again = {"reused_from": "2026-11-20T11:00:00Z", "reused_run": 4712}
    return report.model_copy(update={"verdict": decided, "previous": previous, **again})


REPORTS = {
    "reference": make("models/fp8", None, COMPLETE),
    "pass": make("models/fp8", FP8, linted("FP8")),
    "fail": make("models/nvfp4", NVFP4, linted("NVFP4", WARNING, NOTE)),
    "early": make("models/shuffled", stopped(evaluated(3.0, 390), 24), linted("NVFP4")),
    "lint": make("models/broken", None, linted("FP8", WARNING, ERROR, MORE, REST, NOTE)),
    "canary": make("models/nvfp4", NVFP4, linted("NVFP4"), (CANARY,)),
    "dropped": dropped(make("models/fp8", FP8, linted("FP8"))),
}


def rows():
    """A baseline and the rows of `gate compare`."""
    return BASELINE, [
        (name, candidate, verdict.compare(SETTINGS, BASELINE, candidate, 4))
        for name, candidate in (("fp8", FP8), ("nvfp4", NVFP4))
    ]
