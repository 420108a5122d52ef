"""Whether evaluation can run here: everything that must hold before a model is loaded."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from gate import baseline, check, choice, drift, harness, hub, placement, preflight
from gate.backends import server_client, server_probe, vllm_machine
from gate.checkpoint import open_checkpoint
from gate.containers import CONTAINERS
from gate.formats import FORMATS
from gate.plain import plain
from gate.quantization import identify
from gate.request import Request
from gate.settings import PerplexityText, Server, Settings


def doctor(request: Request) -> Iterator[preflight.Check]:
    """Every check of this machine and of the settings, one a line."""
    settings, root = request.settings, request.root

    def characters(text: PerplexityText) -> str:
        return f"{len(drift.read_text(text, root)):,} characters"

    def extra() -> Iterator[preflight.Check]:
        for run in settings.task_runs:
            probe = partial(
                harness.probe, run, root, settings.include_path, settings.allow_unsafe_tasks
            )
            yield preflight.attempt(f"task {run.task}", probe)
        for metric in settings.perplexity_metrics:
            text = metric.perplexity
            yield preflight.attempt(f"text {text.label}", partial(characters, text))
        if settings.server is not None and settings.backend == "server":
            yield preflight.attempt("server", partial(_served, settings.server))
        if settings.backend == "vllm":
            yield preflight.attempt("vllm", partial(_engine, settings))
        if settings.backend == "auto" and request.checkpoint:
            yield preflight.attempt("backend", lambda: str(choice.settled(request).chosen))
        if request.checkpoint:
            if settings.backend in {"hf", "native"}:
                yield preflight.attempt("memory", partial(_placed, request))
            yield preflight.attempt("baseline", partial(_prepared, request))
            return
        for path in dict.fromkeys(rule.baseline for rule in settings.checkpoints if rule.baseline):
            yield preflight.attempt(f"baseline {path}", partial(_described, root / path))

    return preflight.doctor(extra)


def _described(path: Path) -> str:
    """A stored baseline, in words."""
    stored = baseline.load(path)
    return f"of {stored.model}, made {stored.date}"


def _served(asked: Server) -> str:
    """The model that a server serves, in words."""
    client = server_client.Client(asked)
    return f"{plain(server_probe.identity(client, asked).name)} at {client.host}"


def _engine(settings: Settings) -> str:
    """Which vLLM there is, and the GPUs that it may use."""
    version, found = vllm_machine.require(), vllm_machine.require_gpus(settings.vllm)
    return f"{version}, {', '.join(map(str, found)) or 'a Ray cluster'}"


def _placed(request: Request) -> str:
    """Whether the model is loaded as a whole."""
    checkpoint = open_checkpoint(hub.resolve(request.checkpoint).path, CONTAINERS)
    form = identify(checkpoint, FORMATS)
    return str(placement.place(request.settings, checkpoint, form))


def _prepared(request: Request) -> str:
    """Everything up to the model: the baseline's file if all of it holds."""
    _, _, info = check.prepared(request)
    return f"{info.path}, made {info.date}"
