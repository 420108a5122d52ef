"""What a server or an engine leaves undone, and what a reader should know of its answers."""

from collections.abc import Iterator, Sequence

from gate.errors import BackendUnavailableError
from gate.records import Concern, Engine, Served, TaskSetup
from gate.settings import Metric, PerplexityMetric, Settings

DRIFT = "a server does not tell how likely other tokens than the text's own are"
SPEED = "a server's speed is that of its machine and of all who use it"

WAYS = {
    "attention": "attention is computed by",
    "tensor_parallel_size": "tensor_parallel_size is",
    "pipeline_parallel_size": "pipeline_parallel_size is",
}
"""What of an engine is alike for a model and its quantized copy, and moves the last bits."""


def able(
    settings: Settings,
    setups: Sequence[TaskSetup],
    context: int,
    *,
    untold: str | None = None,
    drift: str | None = None,
    speed: str | None = None,
) -> tuple[Settings, tuple[str, ...]]:
    """The settings without what a backend cannot be asked for, and what is left out of them.

    Args:
        settings: What is to be measured.
        setups: The tasks that it can be asked for.
        context: Tokens of prompt and answer that it takes.
        untold: Why it gives no log-probabilities of a prompt; None where it gives them.
        drift: Why it gives those of no other tokens; None where it gives them.
        speed: Why its speed is not measured; None where it is.

    Returns:
        What can be measured, and a sentence for each thing that cannot.

    Raises:
        BackendUnavailableError: Something that decides is among it, or nothing is left.
    """
    asked = {setup.task for setup in setups}
    left: dict[str, str] = {}
    kept: list[Metric] = []
    for metric in settings.metrics:
        if isinstance(metric, PerplexityMetric):
            name, decides = f"perplexity on {metric.perplexity.label}", not metric.advisory
            why = untold or _unreadable(metric, drift, context)
        else:
            name, decides = metric.task, metric.gates or settings.combine == "mean"
            why = None if metric.task in asked else untold
        if why is None:
            kept.append(metric)
        elif decides:
            raise _cannot(name, why)
        else:
            left[name] = why
    if not kept:
        raise _cannot(*next(iter(left.items())))
    changes = {"metrics": tuple(kept), **_without(settings, drift, speed, left)}
    return settings.model_copy(update=changes), tuple(f"{n}: {why}" for n, why in left.items())


def _without(
    settings: Settings, drift: str | None, speed: str | None, left: dict[str, str]
) -> dict[str, object]:
    """The settings of drift and speed that change; what is left out is added to `left`."""
    changes: dict[str, object] = {}
    if settings.speed is not None and speed is not None:
        if settings.speed.gates:
            raise _cannot("speed", speed)
        left["speed"], changes["speed"] = speed, None
    if settings.top_tokens and drift is not None:
        left["drift from the baseline"], changes["top_tokens"] = drift, 0
    return changes


def concerns(
    served: Served | None, before: Engine | None = None, here: Engine | None = None
) -> Iterator[Concern]:
    """That nobody but a server knows which bytes it served, or that an engine ran otherwise.

    Args:
        served: Who answered, where that was a server.
        before: The baseline's engine.
        here: The candidate's.
    """
    if served is not None:
        yield Concern(
            kind="as-served",
            message=(
                f"the answers are those of {served.model} at {served.host}: whether it serves "
                "these files is the server's word, and the gate has not seen it"
            ),
            fix="Judge the files themselves before they are released: backend: hf.",
        )
    ways = [
        f"{what} {_shown(getattr(before, name))} for the baseline and {_shown(ours)} here"
        for name, what in WAYS.items()
        if before and here and (ours := getattr(here, name)) != getattr(before, name)
    ]
    if ways:
        yield Concern(
            kind="engine-differs",
            message=f"part of the difference may be the engine's own: {'; '.join(ways)}",
            fix="Make the baseline again on this machine, by the same settings.",
        )


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _unreadable(metric: PerplexityMetric, drift: str | None, context: int) -> str | None:
    if metric.limits_drift and drift is not None:
        return drift
    if metric.perplexity.window >= context:
        return (
            f"its windows of {metric.perplexity.window:,} tokens leave no room for one more in "
            f"the {context:,} that the model is served with"
        )
    return None


def _cannot(name: str, why: str) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"{name} cannot be measured: {why}",
        "Use a server that offers it, backend: hf, or make this metric advisory in "
        "quant-gate.yaml.",
    )
