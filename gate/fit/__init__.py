"""Will a runtime load a checkpoint on some GPU, which way will it take, and does it fit there?"""

from collections import Counter
from collections.abc import Hashable, Sequence

from gate.architecture import architecture
from gate.checkpoint import Checkpoint
from gate.errors import SettingsError
from gate.fit.memory import memory
from gate.fit.paths import Kinds, executions
from gate.fit.split import undivided
from gate.fit.support import table
from gate.fit.units import gigabytes, parse_bytes
from gate.quantization import Format, QuantizedLayer
from gate.records import Fit, Target

__all__ = ["GPUS", "RUNTIMES", "fit", "gigabytes", "layer_kinds", "parse_bytes"]

GPUS: tuple[str, ...]
"""Every GPU of the table of support, by the name that the command line takes."""
RUNTIMES: tuple[str, ...]
"""Every runtime of the table of support."""


def __getattr__(name: str) -> tuple[str, ...]:
    """`GPUS` and `RUNTIMES`, for which the table is read when they are first asked for."""
    if name == "GPUS":
        return tuple(table().gpus)
    if name == "RUNTIMES":
        return tuple(table().runtimes)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def fit(
    checkpoint: Checkpoint,
    form: Format | None,
    layers: Sequence[QuantizedLayer],
    target: Target,
) -> Fit:
    """How a checkpoint would run on a target, told by its headers and the table of support.

    Args:
        checkpoint: What is to run.
        form: Its format; None where it is unquantized or of a format that is not described.
        layers: All that the format describes; empty where they cannot be walked.
        target: Where it is meant to run.

    Raises:
        SettingsError: The target names a runtime or a GPU that the table does not have.
    """
    known = table()
    for name, names, what in (
        (target.runtime, known.runtimes, "runtime"),
        (target.gpu, known.gpus, "GPU"),
    ):
        if name is not None and name not in names:
            raise SettingsError(
                f"{name!r} is no {what} that the table of support has",
                f"Name one of: {', '.join(names)}.",
            )
    runtime = known.runtimes[target.runtime] if target.runtime else None
    gpu = known.gpus[target.gpu] if target.gpu else None
    kinds = layer_kinds(layers)
    ways = executions(checkpoint, form, kinds, runtime, gpu)
    decoded = {entry.algorithm for entry in ways if entry.path == "dequantized"}
    return Fit(
        target=target,
        runtime=f"{runtime.name} {runtime.version}" if runtime else None,
        device=gpu.name if gpu else None,
        executions=ways,
        undivided=undivided(
            form.name if form else None,
            kinds,
            architecture(checkpoint),
            target.tensor_parallel,
            runtime,
        ),
        memory=memory(checkpoint, form, layers, target, runtime, gpu, decoded)
        if checkpoint.tensors
        else None,
    )


def layer_kinds(layers: Sequence[QuantizedLayer]) -> Kinds:
    """Layers that are declared and stored alike behave alike: one of them is looked at."""
    first: dict[Hashable, QuantizedLayer] = {}
    counts: Counter[Hashable] = Counter()
    for layer in layers:
        first.setdefault(layer.alike, layer)
        counts[layer.alike] += 1
    return tuple((layer, counts[alike]) for alike, layer in first.items())
