"""quant-gate.yaml: what is measured, on what, and what it may lose."""

from gate.settings.choices import Borderline, EarlyStopping, Memory
from gate.settings.file import load, parse, read, require_trusted_server
from gate.settings.metrics import (
    BY_WEIGHT_BITS,
    Metric,
    PerplexityMetric,
    PerplexityText,
    Scorer,
    TaskMetric,
    TaskOptions,
    TaskRun,
)
from gate.settings.rules import PIN, CheckpointRule, covers
from gate.settings.runtime import AT_LOAD, RuntimeQuantization
from gate.settings.server import Server
from gate.settings.sets import PACKAGED, located
from gate.settings.speed import Speed
from gate.settings.suites import Suite
from gate.settings.target import Target
from gate.settings.vllm import Vllm
from gate.settings.whole import (
    BASELINES,
    DEFAULT,
    DEFAULT_FILE,
    Settings,
)

__all__ = [
    "AT_LOAD",
    "BASELINES",
    "BY_WEIGHT_BITS",
    "DEFAULT",
    "DEFAULT_FILE",
    "PACKAGED",
    "PIN",
    "Borderline",
    "CheckpointRule",
    "EarlyStopping",
    "Memory",
    "Metric",
    "PerplexityMetric",
    "PerplexityText",
    "RuntimeQuantization",
    "Scorer",
    "Server",
    "Settings",
    "Speed",
    "Suite",
    "Target",
    "TaskMetric",
    "TaskOptions",
    "TaskRun",
    "Vllm",
    "covers",
    "load",
    "located",
    "parse",
    "read",
    "require_trusted_server",
]
