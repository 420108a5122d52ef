"""The reference: transformers on exactly decoded weights, inputs rounded as a runtime does it."""

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from gate import devices, drift
from gate.architecture import architecture
from gate.backends import (
    hf_cache,
    hf_inputs,
    hf_kernel,
    hf_linear,
    hf_memory,
    hf_model,
    hf_reading,
    hf_rounding,
    hf_speed,
    hf_stream,
)
from gate.backends.documents import Documents
from gate.backends.hf_model import LoadProgress
from gate.checkpoint import Checkpoint
from gate.drift import Reading
from gate.errors import BackendError, OutOfMemoryError
from gate.quantization import Format
from gate.records import RoundingFloor, ScoredDocument, Served
from gate.settings import Settings
from gate.speed import Clock, Generated, Workload

if TYPE_CHECKING:
    from gate.harness import Harness


class Hf(Documents):
    """Runs a checkpoint with transformers; see `evaluate.Backend`.

    Args:
        checkpoint: What to run.
        form: How its quantized weights are stored; None for an unquantized checkpoint.
        harness: The tasks; None where only texts are measured.
        settings: `activations`, `batch_size` and `trust_remote_code` are read.
        progress: Told how many tensors are loaded.
        streamed: Whether one decoder layer is in memory at a time; such a model only reads.
    """

    served: Served | None = None

    def __init__(
        self,
        checkpoint: Checkpoint,
        form: Format | None,
        harness: "Harness | None",
        settings: Settings,
        progress: LoadProgress | None = None,
        streamed: bool = False,
    ) -> None:
        super().__init__(checkpoint, harness, settings)
        self.form, self.progress = form, progress
        self.emulated = form is not None
        self.device = self.dtype = self.kernel = ""
        self.versions = {name: version(name) for name in ("torch", "transformers", "lm_eval")}
        self.model: Any = None
        self.rounding = hf_rounding.Rounding()
        self.quantizers: dict[str, hf_rounding.InputQuantizer] = {}
        self._streamed, self._rounds = streamed, False
        self._stream: hf_stream.Streamed | None = None
        self._language_model: Any = None
        self._reserved = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as reserved:
            held = partial(devices.reserved, partly=self.settings.memory == "offload")
            self._load(lambda needed: reserved.enter_context(held(needed)))
            self._reserved = reserved.pop_all()
        return self

    def _load(self, reserve: hf_memory.Reserve) -> None:
        import psutil
        import torch

        trusted = self.settings.trust_remote_code
        if self._streamed:
            place = hf_memory.device(self.checkpoint, self.form, reserve)
            self._stream = hf_stream.Streamed(self.checkpoint, self.form, place, trusted)
            self.model = self._stream.model
        else:
            self.model = hf_model.load(
                self.checkpoint,
                self.form,
                reserve=reserve,
                trust_remote_code=trusted,
                offload=self.settings.memory == "offload",
                progress=self.progress,
            )
            hf_linear.pack(self.model, psutil.virtual_memory().available)
            place = self.model.device
        skipped: tuple[str, ...] = ()
        cache = None
        if self.form is not None and self.settings.activations == "emulate":
            layers = hf_model.quantized_layers(self.checkpoint, self.form)
            self.quantizers, skipped = hf_inputs.attach(self.model, layers, self.rounding)
            cache = hf_cache.attach(self.model, self.checkpoint, self.form, self.rounding)
        self.device = torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu"
        self.dtype = str(self.model.dtype).removeprefix("torch.")
        self.kernel = f"unquantized, {self.dtype}"
        if self.form is not None:
            quantizers = self.quantizers.values()
            self.kernel = hf_kernel.described(self.dtype, quantizers, cache, len(skipped))
        self.kernel += hf_memory.offloaded(self.model)
        self._rounds = bool(self.quantizers) or bool(cache and cache.modules)

    def __exit__(self, *_: object) -> None:
        import torch

        self.model = self._language_model = self._stream = None
        self.quantizers = {}
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._reserved.close()

    def fitting(self) -> int:
        """See `Backend.fitting`."""
        if self.model.device.type != "cuda":
            return hf_memory.ON_CPU
        asked = [
            (setup, max(self._tasks.doc_ids(setup.task), key=partial(self._length, setup.task)))
            for setup in self.setups()
        ]
        lengths = [
            len(self.token_ids(self.prompt(setup.task, doc_id)))
            + int(setup.generation_kwargs.get("max_gen_toks", 0))
            for setup, doc_id in asked
        ]
        reads_all = any(setup.output_type != "generate_until" for setup, _ in asked)
        return hf_memory.fitting(
            architecture(self.checkpoint),
            max(lengths, default=1),
            hf_memory.free_beside(self.model),
            all_logits=reads_all,
        )

    def _length(self, task: str, doc_id: int) -> int:
        return len(self.prompt(task, doc_id))

    def score(self, task: str, doc_ids: Sequence[int]) -> list[ScoredDocument]:
        """See `Backend.score`."""
        if self._language_model is None:
            self._language_model = self._tasks.language_model(self.model)
            if not self._language_model.decodes:
                self.kernel += "; answers by transformers' own loop"
        with hf_memory.guarded(f"answering {len(doc_ids)} documents of {task} together"):
            return self._tasks.score(self._language_model, task, doc_ids)

    def read(
        self,
        windows: np.ndarray,
        *,
        top: int = 0,
        at: np.ndarray | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Reading:
        """See `Backend.read`."""
        self._require_known(windows)
        size = drift.together(windows.shape[1])
        parts: list[Reading] = []
        done = 0
        while done < len(windows):
            cuts = [slice(i, i + size) for i in range(done, len(windows), size)]
            try:
                with hf_memory.guarded(f"reading windows of {windows.shape[1]:,} tokens"):
                    batches = self._forward([windows[cut] for cut in cuts])
                    for cut, logits in zip(cuts, batches, strict=True):
                        asked = None if at is None else at[cut]
                        parts.append(hf_reading.read(logits, windows[cut], top, asked))
                        done += len(logits)
                        if progress:
                            progress(len(logits))
                        # Else it would stay while the next batch's are computed.
                        del logits
            except OutOfMemoryError:
                size = min(size, len(windows) - done) // 2
                if not size:
                    raise
        return Reading.joined(parts)

    def generate(self, workload: Workload, clock: Clock) -> Generated:
        """See `Backend.generate`."""
        return hf_speed.generate(self.model, self.tokenizer, workload, clock)

    def rounding_floor(self, token_ids: np.ndarray) -> RoundingFloor | None:
        """See `Backend.rounding_floor`."""
        if not self._rounds:
            return None
        total = 0.0
        state = self.rounding
        state.changed = state.codes = 0
        # All windows by one order, then by the other: a streamed model is read twice, no more.
        windows = [window[None] for window in token_ids]
        try:
            with hf_memory.guarded("measuring the rounding floor"):
                state.order, state.counting = "runtime", True
                runtime = list(self._forward(windows))
                state.order, state.counting = "modelopt", False
                for (ours,), (theirs,) in zip(runtime, self._forward(windows), strict=True):
                    total += kl_divergence(ours, theirs)
        finally:
            state.order, state.counting = "runtime", False
        return RoundingFloor(
            kl=total / token_ids.size,
            codes_changed=state.changed / state.codes,
            tokens=token_ids.size,
        )

    def _forward(self, batches: Sequence[np.ndarray]) -> Iterator[Any]:
        """Logits of each batch: shape (windows, window, vocabulary), in the model's dtype."""
        import torch

        if self._stream is not None:
            yield from self._stream.logits(batches)
            return
        for windows in batches:
            with torch.inference_mode():
                ids = torch.from_numpy(np.ascontiguousarray(windows)).to(self.model.device)
                yield self.model(input_ids=ids, use_cache=False).logits

    def _require_known(self, windows: np.ndarray) -> None:
        """Token ids of a stored file may be of another vocabulary.

        Raises:
            BackendError: The model has no such token.
        """
        vocabulary = architecture(self.checkpoint).vocabulary
        if vocabulary is not None and windows.max() >= vocabulary:
            raise BackendError(
                f"token {windows.max():,} is none of this model's {vocabulary:,}",
                "Make the baseline again from this model's reference: "
                "gate eval REFERENCE -o BASELINE",
            )


def kl_divergence(logits: Any, others: Any) -> float:
    """Sum over positions of KL(softmax(logits) || softmax(others)) in nats.

    Args:
        logits: torch, shape (positions, vocabulary).
        others: The same shape.
    """
    import torch

    with torch.inference_mode():
        ours, theirs = logits.double().log_softmax(-1), others.double().log_softmax(-1)
        return float((ours.exp() * (ours - theirs)).sum())
