"""Runs of the gate to render: each way in which one can end, small and very large."""

from reports_data import (
    CANARY,
    COMPLETE,
    NVFP4,
    REPORTS,
    evaluated,
    linted,
    make,
)
from results import size

from gate.records import (
    ChangedCheckpoint,
    Detection,
    Failure,
    Flip,
    GateRun,
    InstructionChange,
    Policy,
    ReferencePin,
    Report,
    Waiver,
)

BASE = "4fb2f5e2a0c61d24a1e8f7c3b9d05e6f7a8b9c0d"
HEAD = "9c1e7d3b5f20486a8d7e6c5b4a3f2e1d0c9b8a76"
URL = "https://github.example/acme/models/actions/runs/4711"
METRIC = "inst_level_strict_acc"

INSTRUCTIONS = tuple(
    InstructionChange(
        task="ifeval", metric=METRIC, kind=kind, n=n, baseline=before, candidate=after
    )
    for kind, n, before, after in (
        ("punctuation:no_comma", 66, 41, 22),
        ("length_constraints:number_words", 52, 27, 18),
        ("keywords:forbidden_words", 49, 34, 29),
        ("detectable_format:number_bullet_lists", 31, 17, 14),
        ("startend:quotation", 41, 12, 10),
        ("combination:two_responses", 24, 8, 7),
        ("detectable_content:postscript", 26, 20, 22),
    )
)  # fmt: skip

PROMPT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    "Write a letter to a friend who moved to another city. Do not use any commas, and end with "
    "a postscript that starts with P.S.<|im_end|>\n<|im_start|>assistant\n"
)
GOOD = (
    "Dear Maya\n\nThe town is quieter without you. I walk past your old door each morning and "
    "think of our long talks over tea.\n\nWrite soon.\n\nP.S. The cat misses you too."
)
BAD = (
    "Dear Maya,\n\nI hope you are well, and that the new city is kind to you, as it should be, "
    "since you are kind, too, and since you are kind, too, and since you are kind, too.\n\n"
    "Best, J."
)


def flip(doc_id: int, gained: bool = False, parts: tuple[str, ...] = ()) -> Flip:
    texts = (GOOD, BAD) if not gained else (BAD, GOOD)
    return Flip(
        task="ifeval", metric=METRIC, doc_id=doc_id, gained=gained, parts=parts, prompt=PROMPT,
        baseline=texts[0], candidate=texts[1],
    )  # fmt: skip


FLIPS = (
    flip(12, parts=("punctuation:no_comma", "detectable_content:postscript")),
    flip(31, parts=("punctuation:no_comma",)),
    flip(3, gained=True, parts=("startend:quotation",)),
)
NO_TEXTS = {"prompt": None, "baseline": None, "candidate": None}


def with_evidence(report: Report, **changes: object) -> Report:
    """The report with flips, instructions and a baseline's fingerprint."""
    assert report.baseline is not None
    info = {"fingerprint": "8d2f6a1b9c3e" + "0" * 52, "date": "2026-11-09T10:00:00Z"}
    known = {
        "flips": FLIPS,
        "instructions": INSTRUCTIONS,
        "baseline": report.baseline.model_copy(update=info),
    }
    return report.model_copy(update=known | changes)


FAIL = with_evidence(REPORTS["fail"])
PASS = with_evidence(REPORTS["pass"], flips=FLIPS[1:], instructions=INSTRUCTIONS[4:])
BORDERLINE = with_evidence(
    make(
        "models/int4",
        evaluated(3.0, 26, 4, format="gptq", size=size(116_500_000, 6.93, 269_000_000)),
        linted("INT4"),
    )
)
PRIVATE = FAIL.model_copy(
    update={
        "flips": tuple(flip.model_copy(update=NO_TEXTS) for flip in FLIPS),
        "private_tasks": ("ifeval",),
    }
)
LOOPS = tuple(CANARY.model_copy(update={"doc_id": doc_id}) for doc_id in (12, 40, 77, 91))
SILENT = with_evidence(
    make("models/nvfp4", NVFP4, linted("NVFP4"), LOOPS), flips=(), instructions=()
)
POLICY = Policy(commit=BASE, digest="0" * 64)


def changed(*reports: Report) -> Detection:
    return Detection(
        base=BASE,
        head=HEAD,
        source="git",
        checkpoints=tuple(
            ChangedCheckpoint(
                path=report.checkpoint,
                change="modified",
                files=("config.json", "hf_quant_config.json", "model.safetensors", "README.md"),
                pointers=1,
            )
            for report in reports
        ),
    )


def run(*reports: Report, **changes: object) -> GateRun:
    """A run over these reports, on pull request 7."""
    stated = {
        "gate_version": "0.1.0",
        "key": "default",
        "repository": "acme/models",
        "event": "pull_request",
        "run_id": 4711,
        "run_url": URL,
        "head_sha": HEAD,
        "pull_request": 7,
        "detection": changed(*reports),
        "policy": POLICY,
        "reports": reports,
        "date": "2026-11-21T11:00:00Z",
    }
    return GateRun.model_validate(stated | changes)


NO_BASELINE = Failure(
    checkpoint="models/awq",
    exit_code=3,
    message="baselines holds no baseline of acme/model",
    hint="Make it: gate eval acme/model@0e9e39f249a1 -o baselines/model.json",
)
WAIVER = Waiver(
    label="quant-gate-waiver", by="kim", at="2026-11-21T10:30:00Z", expires="2026-11-24T10:30:00Z"
)
EDITED = POLICY.model_copy(
    update={
        "changed": ("quant-gate.yaml", "baselines/model.json"),
        "references": (
            ReferencePin(path="models/nvfp4", base="acme/model@0e9e39f", head="acme/model@77aa01b"),
        ),
    }
)
MANY = tuple(
    report.model_copy(update={"checkpoint": f"models/{name}"})
    for report, name in (
        (FAIL, "8b-instruct/nvfp4"), (PASS, "8b-instruct/fp8"), (BORDERLINE, "8b-instruct/int4"),
        (REPORTS["lint"], "70b-instruct/fp8"), (PASS, "1b-draft/fp8"),
    )
)  # fmt: skip

RUNS = {
    "pass": run(PASS),
    "fail": run(FAIL),
    "borderline": run(BORDERLINE),
    "lint": run(REPORTS["lint"]),
    "static": run(make("models/fp8", None, COMPLETE)),
    "canary": run(SILENT),
    "private": run(PRIVATE),
    "error": run(failures=(NO_BASELINE,)),
    "waived": run(FAIL, waiver=WAIVER, policy=EDITED),
    "advisory": run(FAIL, policy=POLICY.model_copy(update={"advisory": True})),
    "skipped": run(policy=EDITED.model_copy(update={"references": ()})),
    "many": run(*MANY, failures=(NO_BASELINE,)),
}
