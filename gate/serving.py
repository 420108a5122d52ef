"""What a server that runs the model leaves undone, and what a reader should know of its answers."""

from collections.abc import Iterator, Sequence

from gate.errors import BackendUnavailableError
from gate.records import Concern, Served, TaskSetup
from gate.settings import Metric, PerplexityMetric, Settings

DRIFT = "a server does not tell how likely other tokens than the text's own are"
SPEED = "a server's speed is that of its machine and of all who use it"


def able(
    settings: Settings, setups: Sequence[TaskSetup], untold: str | None, context: int
) -> tuple[Settings, tuple[str, ...]]:
    """The settings without what a server cannot be asked for, and what is left out of them.

    Args:
        settings: What is to be measured.
        setups: The tasks that it can be asked for.
        untold: Why it gives no log-probabilities of a prompt; None where it gives them.
        context: Tokens of prompt and answer that it takes.

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
            why = _unreadable(metric, untold, context)
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
    if settings.speed is not None:
        if settings.speed.gates:
            raise _cannot("speed", SPEED)
        left["speed"] = SPEED
    if settings.top_tokens:
        left["drift from the baseline"] = DRIFT
    possible = {"metrics": tuple(kept), "speed": None, "top_tokens": 0}
    return settings.model_copy(update=possible), tuple(f"{n}: {why}" for n, why in left.items())


def concerns(served: Served | None) -> Iterator[Concern]:
    """That nobody but the server knows which bytes it served."""
    if served is not None:
        yield Concern(
            kind="as-served",
            message=(
                f"the answers are those of {served.model} at {served.host}: whether it serves "
                "these files is the server's word, and the gate has not seen it"
            ),
            fix="Judge the files themselves before they are released: backend: hf.",
        )


def _unreadable(metric: PerplexityMetric, untold: str | None, context: int) -> str | None:
    if untold is not None:
        return untold
    if metric.limits_drift:
        return DRIFT
    if metric.perplexity.window >= context:
        return (
            f"its windows of {metric.perplexity.window:,} tokens leave no room for one more in "
            f"the {context:,} that the server takes"
        )
    return None


def _cannot(name: str, why: str) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"{name} cannot be measured: {why}",
        "Use a server that offers it, backend: hf, or make this metric advisory in "
        "quant-gate.yaml.",
    )
