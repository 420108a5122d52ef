"""Every value that is written to disk.

A record is frozen, refuses unknown fields and is written atomically. Stored documents carry
`schema_version`: an older one is read, a newer one is refused.
"""

from gate.records.answering import AnswerStats, Lost, Prompting
from gate.records.attesting import Resource, Statement, TestResult
from gate.records.bundling import Bundle
from gate.records.calibrating import Calibration, CalibrationRun, Rate, Spread
from gate.records.diagnosing import (
    Diagnosis,
    Exclusion,
    InputClipping,
    KindDamage,
    LayerDamage,
    ModuleSensitivity,
)
from gate.records.drifting import Distributions, Drift, Source
from gate.records.evaluating import EvalResult
from gate.records.explaining import DiagnosisReport
from gate.records.judging import (
    BaselineInfo,
    CanaryAnswer,
    Comparison,
    Concern,
    Flip,
    InstructionChange,
    Outcome,
    Previous,
    Report,
    SuiteOutcome,
    Verdict,
)
from gate.records.keeping import Entry, Kind, Label
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
from gate.records.reading import Agreement, PerplexityResult, RoundingFloor, Targeted
from gate.records.repeating import Rerun
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
from gate.records.serving import Engine, Served
from gate.records.sharding import MOST_SHARDS, Shard
from gate.records.speeding import BatchSpeed, Repeated, Throughput
from gate.records.storing import (
    SCHEMA_VERSION,
    Record,
    decode,
    now,
    parse,
    read,
    violation,
    write,
    write_bytes,
    write_text,
)
from gate.records.trusting import Policy, ReferencePin
from gate.records.weighing import Size, SizeBucket

__all__ = [
    "MOST_SHARDS",
    "SCHEMA_VERSION",
    "Agreement",
    "Answer",
    "AnswerStats",
    "BaselineInfo",
    "BatchSpeed",
    "Bundle",
    "Calibration",
    "CalibrationRun",
    "CanaryAnswer",
    "ChangedCheckpoint",
    "Comparison",
    "ComputePath",
    "Concern",
    "Detection",
    "Diagnosis",
    "DiagnosisReport",
    "Difference",
    "Distributions",
    "Drift",
    "EarlyStop",
    "Engine",
    "Entry",
    "EvalResult",
    "Exclusion",
    "Execution",
    "Failure",
    "Finding",
    "Fit",
    "Flip",
    "GateRun",
    "InputClipping",
    "InstructionChange",
    "Kind",
    "KindDamage",
    "Label",
    "LayerDamage",
    "LayerError",
    "LintResult",
    "Lost",
    "MemoryNeed",
    "ModuleSensitivity",
    "Outcome",
    "Part",
    "PerplexityResult",
    "Points",
    "Policy",
    "Previous",
    "Prompting",
    "Rate",
    "Record",
    "ReferencePin",
    "ReferenceResult",
    "Repeated",
    "Report",
    "Rerun",
    "Resource",
    "RoundingFloor",
    "RuleInfo",
    "SampleScore",
    "ScoredDocument",
    "Served",
    "Severity",
    "Shard",
    "Size",
    "SizeBucket",
    "Skipped",
    "Source",
    "Spread",
    "Statement",
    "Status",
    "SuiteOutcome",
    "Target",
    "Targeted",
    "TaskResult",
    "TaskSetup",
    "TestResult",
    "Throughput",
    "Undivided",
    "Verdict",
    "Waiver",
    "decode",
    "now",
    "parse",
    "read",
    "violation",
    "write",
    "write_bytes",
    "write_text",
]
