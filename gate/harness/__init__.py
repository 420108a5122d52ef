"""The one place that calls lm-evaluation-harness: its requests, its scoring, its model class."""

from gate.harness.loading import load_tokenizer
from gate.harness.remote import Asked, Told, Written
from gate.harness.suite import Harness, probe, sources

__all__ = ["Asked", "Harness", "Told", "Written", "load_tokenizer", "probe", "sources"]
