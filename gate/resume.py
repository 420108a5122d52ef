"""Where an unfinished run is kept: one that is started again goes on from there."""

import hashlib
import json
import os
from pathlib import Path

from gate import baseline, preflight
from gate.evaluate import Backend
from gate.journal import cache_directory
from gate.readings import Readings
from gate.request import Request, Subject


def journal_path(request: Request, subject: Subject, backend: Backend, readings: Readings) -> Path:
    """Named by everything on which a batch's scores depend."""
    checkpoint, settings = subject.checkpoint, readings.settings
    key = [
        subject.weights_digest,
        baseline.config_digest(checkpoint),
        checkpoint.quantization_config,
        checkpoint.hf_quant_config,
        checkpoint.generation_config,
        baseline.tokenizer_digest(checkpoint),
        [setup.model_dump(mode="json") for setup in backend.setups()],
        [metric.perplexity.model_dump(mode="json") for metric in readings.metrics],
        [hashlib.sha256(text.encode()).hexdigest() for text in readings.contents.values()],
        settings.backend,
        backend.served.model_dump() if backend.served else None,
        backend.versions,
        settings.vllm.model_dump(),
        subject.quantized,
        settings.activations,
        settings.weights,
        settings.target.model_dump() if settings.target else None,
        settings.batch_size,
        settings.top_tokens,
        settings.trust_remote_code,
        preflight.versions(),
        os.environ.get("CUDA_VISIBLE_DEVICES"),
        str(request.shard),
    ]
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_directory() / "journal" / f"{name[:32]}.jsonl"
