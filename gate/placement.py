"""How much of a model is in memory at a time, and what a part of it leaves undone."""

from dataclasses import dataclass

from gate import preflight, size
from gate.checkpoint import Checkpoint
from gate.errors import BackendUnavailableError
from gate.quantization import Format
from gate.settings import Settings


@dataclass(frozen=True)
class Placement:
    """Where a model's weights are while it runs.

    Attributes:
        decoded_bytes: The decoded model.
        part_bytes: Its largest layer, decoded.
        streamed: Whether one layer is in memory at a time. Such a model reads: it gives the
            probabilities of texts that are there already, and writes no answers.
    """

    decoded_bytes: int = 0
    part_bytes: int = 0
    streamed: bool = False

    def __str__(self) -> str:
        whole = f"{self.decoded_bytes / 2**30:.1f} GiB decoded"
        if not self.streamed:
            return f"{whole}, loaded as a whole"
        largest = f"{self.part_bytes / 2**30:.1f} GiB"
        return (
            f"{whole}, streams layer by layer ({largest} at a time): texts are read, tasks need "
            "the whole model"
        )

    def require_answers(self, settings: Settings, *, advisory: bool = False) -> tuple[str, ...]:
        """What is left out of a streamed run: a sentence each.

        Args:
            settings: Whose tasks and speed take a model that writes.
            advisory: Whether what decides nothing is needed, too.

        Raises:
            BackendUnavailableError: Something that is needed takes the whole model.
        """
        if not self.streamed:
            return ()
        gating = {metric.task for metric in settings.task_metrics if metric.gates}
        tasks = dict.fromkeys(metric.task for metric in settings.task_metrics)
        if settings.combine == "mean" or advisory:
            gating |= tasks.keys()
        needed = [task for task in tasks if task in gating]
        if settings.speed is not None and (settings.speed.gates or advisory):
            needed.append("speed")
        if needed:
            passed = "" if advisory else "what is read from texts shows no damage; "
            raise BackendUnavailableError(
                f"{passed}{', '.join(needed)} cannot be measured while the model is streamed "
                f"layer by layer: {preflight.need(self.decoded_bytes)}",
                "Run on a machine whose memory holds the whole model, or leave only limits on "
                "perplexity and drift in quant-gate.yaml.",
            )
        left = [*tasks, *(["speed"] if settings.speed is not None else [])]
        return tuple(f"{name}: the model was streamed layer by layer" for name in left)


def place(settings: Settings, checkpoint: Checkpoint, form: Format | None) -> Placement:
    """Where a model will be, by the header's arithmetic.

    Raises:
        BackendUnavailableError: Neither the model nor its largest layer fits.
    """
    if settings.backend == "server":  # its weights are where the server is
        return Placement()
    decoded = size.decoded_bytes(checkpoint, form)
    part = size.part_bytes(checkpoint, form)
    return Placement(decoded, part, preflight.streams(settings.memory, decoded, part))
