"""The one place that calls lm-evaluation-harness: its requests, its scoring, its model class."""

from gate.harness.loading import load_tokenizer
from gate.harness.suite import Harness, probe, sources

__all__ = ["Harness", "load_tokenizer", "probe", "sources"]
