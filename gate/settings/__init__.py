"""quant-gate.yaml: what is measured, on what, and what it may lose."""

from gate.settings.file import load, parse, read, require_trusted_server
from gate.settings.metrics import (
    BY_WEIGHT_BITS,
    Metric,
    PerplexityMetric,
    PerplexityText,
    TaskMetric,
    TaskOptions,
    TaskRun,
)
from gate.settings.rules import PIN, CheckpointRule, covers
from gate.settings.server import Server
from gate.settings.speed import Speed
from gate.settings.suites import Suite
from gate.settings.whole import (
    BASELINES,
    DEFAULT,
    DEFAULT_FILE,
    Borderline,
    EarlyStopping,
    Memory,
    Settings,
)

__all__ = [
    "BASELINES",
    "BY_WEIGHT_BITS",
    "DEFAULT",
    "DEFAULT_FILE",
    "PIN",
    "Borderline",
    "CheckpointRule",
    "EarlyStopping",
    "Memory",
    "Metric",
    "PerplexityMetric",
    "PerplexityText",
    "Server",
    "Settings",
    "Speed",
    "Suite",
    "TaskMetric",
    "TaskOptions",
    "TaskRun",
    "covers",
    "load",
    "parse",
    "read",
    "require_trusted_server",
]
