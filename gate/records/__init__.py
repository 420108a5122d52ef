"""Every value that is written to disk.

A record is frozen, refuses unknown fields and is written atomically. Stored documents carry
`schema_version`: an older one is read, a newer one is refused.
"""

from gate.records.bundling import Bundle
from gate.records.evaluating import EvalResult
from gate.records.judging import (
    BaselineInfo,
    CanaryAnswer,
    Comparison,
    Flip,
    InstructionChange,
    Outcome,
    Report,
    Verdict,
)
from gate.records.linting import (
    ComputePath,
    Difference,
    Execution,
    Finding,
    Fit,
    LayerError,
    LintResult,
    MemoryNeed,
    ReferenceResult,
    RuleInfo,
    Severity,
    Skipped,
    Target,
    Undivided,
)
from gate.records.reading import PerplexityResult, RoundingFloor
from gate.records.running import (
    ChangedCheckpoint,
    Detection,
    Failure,
    GateRun,
    Status,
    Waiver,
)
from gate.records.scoring import (
    Answer,
    EarlyStop,
    Part,
    Points,
    SampleScore,
    ScoredDocument,
    TaskResult,
    TaskSetup,
)
from gate.records.storing import (
    SCHEMA_VERSION,
    Record,
    now,
    read,
    write,
    write_text,
)
from gate.records.trusting import Policy, ReferencePin
from gate.records.weighing import Size, SizeBucket

__all__ = [
    "SCHEMA_VERSION",
    "Answer",
    "BaselineInfo",
    "Bundle",
    "CanaryAnswer",
    "ChangedCheckpoint",
    "Comparison",
    "ComputePath",
    "Detection",
    "Difference",
    "EarlyStop",
    "EvalResult",
    "Execution",
    "Failure",
    "Finding",
    "Fit",
    "Flip",
    "GateRun",
    "InstructionChange",
    "LayerError",
    "LintResult",
    "MemoryNeed",
    "Outcome",
    "Part",
    "PerplexityResult",
    "Points",
    "Policy",
    "Record",
    "ReferencePin",
    "ReferenceResult",
    "Report",
    "RoundingFloor",
    "RuleInfo",
    "SampleScore",
    "ScoredDocument",
    "Severity",
    "Size",
    "SizeBucket",
    "Skipped",
    "Status",
    "Target",
    "TaskResult",
    "TaskSetup",
    "Undivided",
    "Verdict",
    "Waiver",
    "now",
    "read",
    "write",
    "write_text",
]
