"""What can be measured by reading alone: perplexity, and how far distributions have moved."""

from gate.drift import answers, store
from gate.drift.divergence import kl_divergence, measure
from gate.drift.perplexity import perplexity
from gate.drift.reading import Reader, Reading, text_windows, together, tokens_digest, windows
from gate.drift.sources import data_files, fitting, read_text, read_texts
from gate.drift.top_tokens import Sequences, TopTokens

__all__ = [
    "Reader",
    "Reading",
    "Sequences",
    "TopTokens",
    "answers",
    "data_files",
    "fitting",
    "kl_divergence",
    "measure",
    "perplexity",
    "read_text",
    "read_texts",
    "store",
    "text_windows",
    "together",
    "tokens_digest",
    "windows",
]
