"""How much of a model is in memory at a time, and what a part of it leaves undone."""

from dataclasses import dataclass

from gate import devices, preflight, size
from gate.checkpoint import Checkpoint
from gate.errors import BackendUnavailableError
from gate.quantization import Format
from gate.settings import Settings

AT_LOAD = ("attention", "mlp")
"""Classes of modules, see `size`, whose layers are quantized at load."""

SCALE_BITS = 0.5
"""Of a weight's share in its scales: a float32 for each block of 64."""


@dataclass(frozen=True)
class Placement:
    """Where a model's weights are while it runs.

    Attributes:
        decoded_bytes: Its weights, decoded; as they are stored where nothing decodes them.
        part_bytes: Its largest layer, decoded.
        streamed: Whether one layer is in memory at a time. Such a model reads: it gives the
            probabilities of texts that are there already, and writes no answers.
    """

    decoded_bytes: int = 0
    part_bytes: int = 0
    streamed: bool = False

    @property
    def device_bytes(self) -> int:
        """What the whole model takes of a device, with what is computed beside it."""
        return self.decoded_bytes + size.workspace_bytes(self.decoded_bytes)

    def __str__(self) -> str:
        whole = f"{self.decoded_bytes / 2**30:.1f} GiB of weights"
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
                "Run on a machine whose memory holds the whole model, let the host's memory hold "
                "what GPUs do not (memory: offload), or leave only limits on perplexity and drift "
                "in quant-gate.yaml.",
            )
        left = [*tasks, *(["speed"] if settings.speed is not None else [])]
        return tuple(f"{name}: the model was streamed layer by layer" for name in left)


def place(settings: Settings, checkpoint: Checkpoint, form: Format | None) -> Placement:
    """Where a model will be, by the header's arithmetic.

    Raises:
        BackendUnavailableError: Neither the model nor its largest layer fits.
    """
    if settings.memory == "offload" and settings.backend in {"native", "vllm"}:
        raise BackendUnavailableError(
            f"backend {settings.backend} leaves nothing of the model in the host's memory",
            "Leave memory: offload out, or use backend: hf.",
        )
    if settings.backend in {"server", "vllm"}:  # which have their own ways to place weights
        return Placement()
    if settings.backend == "native":
        return _native(settings, checkpoint, form)
    decoded = size.decoded_bytes(checkpoint, form)
    part = size.part_bytes(checkpoint, form)
    return Placement(decoded, part, preflight.streams(settings.memory, decoded, part))


def _native(settings: Settings, checkpoint: Checkpoint, form: Format | None) -> Placement:
    """The whole model, as transformers' own quantized layers hold it."""
    if settings.memory == "stream":
        raise BackendUnavailableError(
            "backend native loads the whole model: it cannot be streamed layer by layer",
            "Leave memory: stream out, or use backend: hf.",
        )
    loaded = loaded_bytes(settings, checkpoint, form)
    preflight.require_memory(loaded)
    return Placement(loaded)


def loaded_bytes(settings: Settings, checkpoint: Checkpoint, form: Format | None) -> int:
    """Memory that the weights take in transformers' own quantized layers, in bytes.

    compressed-tensors decodes its layers when they are first used; others keep what is stored.
    """
    runtime = settings.runtime_quantization
    if runtime is not None:
        stored = size.size(checkpoint, form).by_class
        bits = runtime.weight_bits + SCALE_BITS
        return sum(
            int(bits * found.parameters / 8) if name in AT_LOAD else found.stored_bytes
            for name, found in stored.items()
        )
    if form is None or form.name == "compressed-tensors":
        return size.decoded_bytes(checkpoint, form)
    return sum(info.nbytes for info in checkpoint.tensors.values())


def replicas(settings: Settings, placed: Placement) -> int:
    """How many processes share the documents, each with the whole model.

    Args:
        placed: Where one of them has it.

    Raises:
        BackendUnavailableError: There is no room for as many as are asked for.
    """
    asked = settings.replicas
    alone = placed.streamed or settings.backend != "hf"
    if asked == 1 or (asked == "auto" and alone):
        return 1
    if alone:
        how = "streams the model layer by layer" if placed.streamed else "has its own processes"
        raise BackendUnavailableError(
            f"replicas: {asked} cannot be had: backend {settings.backend} {how}",
            "Leave replicas out of quant-gate.yaml.",
        )
    found = devices.found()
    holding = sum(device.total_bytes >= placed.device_bytes for device in found)
    if asked == "auto":
        return max(1, holding)
    if not found:
        preflight.require_memory(asked * placed.decoded_bytes)
    elif holding < asked:
        raise BackendUnavailableError(
            f"replicas: {asked} take a GPU of {placed.device_bytes / 2**30:.1f} GiB each, and "
            f"{holding} of {len(found)} GPUs here have that",
            "Write replicas: auto, which takes those that have it.",
        )
    return asked
