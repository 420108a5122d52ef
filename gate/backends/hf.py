"""The reference: transformers on exactly decoded weights, inputs rounded as a runtime does it."""

import contextlib
import gc
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from gate import devices
from gate.backends import hf_inputs, hf_memory, hf_model
from gate.backends.hf_model import LoadProgress
from gate.checkpoint import Checkpoint
from gate.errors import NonFiniteLogitsError
from gate.quantization import Format
from gate.records import RoundingFloor, ScoredDocument, TaskSetup
from gate.settings import Settings

if TYPE_CHECKING:
    from gate.harness import Harness


class Hf:
    """Runs a checkpoint with transformers; see `evaluate.Backend`.

    Args:
        checkpoint: What to run.
        form: How its quantized weights are stored; None for an unquantized checkpoint.
        harness: The tasks; None where only texts are measured.
        settings: `activations`, `batch_size` and `trust_remote_code` are read.
        progress: Told how many tensors are loaded.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        form: Format | None,
        harness: "Harness | None",
        settings: Settings,
        progress: LoadProgress | None = None,
    ) -> None:
        self.checkpoint, self.form, self.settings = checkpoint, form, settings
        self.progress = progress
        self.device = self.dtype = self.kernel = ""
        self.versions = {name: version(name) for name in ("torch", "transformers", "lm_eval")}
        self.model: Any = None
        self.rounding = hf_inputs.Rounding()
        self.quantizers: dict[str, hf_inputs.InputQuantizer] = {}
        self._harness = harness
        self._language_model: Any = None
        self._reserved = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as reserved:
            self._load(lambda needed: reserved.enter_context(devices.reserved(needed)))
            self._reserved = reserved.pop_all()
        return self

    def _load(self, reserve: hf_memory.Reserve) -> None:
        import torch

        self.model = hf_model.load(
            self.checkpoint,
            self.form,
            reserve=reserve,
            trust_remote_code=self.settings.trust_remote_code,
            progress=self.progress,
        )
        skipped: tuple[str, ...] = ()
        if self.settings.activations == "emulate":
            layers = hf_model.quantized_layers(self.checkpoint, self.form)
            self.quantizers, skipped = hf_inputs.attach(self.model, layers, self.rounding)
        cuda = self.model.device.type == "cuda"
        self.device = torch.cuda.get_device_name(self.model.device) if cuda else "cpu"
        self.dtype = str(self.model.dtype).removeprefix("torch.")
        self.kernel = self._kernel(skipped)

    def __exit__(self, *_: object) -> None:
        import torch

        self.model = self._language_model = None
        self.quantizers = {}
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._reserved.close()

    def setups(self) -> tuple[TaskSetup, ...]:
        """See `Backend.setups`."""
        return self._harness.setups() if self._harness else ()

    def doc_ids(self, task: str) -> Sequence[int]:
        """See `Backend.doc_ids`."""
        return self._tasks.doc_ids(task)

    def prompt(self, task: str, doc_id: int) -> str:
        """See `Backend.prompt`."""
        return self._tasks.prompt(task, doc_id)

    def higher_is_better(self, task: str, metric: str) -> bool:
        """See `Backend.higher_is_better`."""
        return self._tasks.higher_is_better(task, metric)

    def score(self, task: str, doc_ids: Sequence[int]) -> list[ScoredDocument]:
        """See `Backend.score`."""
        if self._language_model is None:
            self._language_model = self._tasks.language_model(self.model, self.settings.batch_size)
        with hf_memory.guarded(f"answering {len(doc_ids)} documents of {task} together"):
            return self._tasks.score(self._language_model, task, doc_ids)

    @property
    def bos(self) -> int | None:
        """The token that the tokenizer puts before every text; None if it puts none."""
        first = self.tokenizer("a")["input_ids"][:1]
        return first[0] if first == [self.tokenizer.bos_token_id] else None

    def token_ids(self, text: str) -> np.ndarray:
        """See `Backend.token_ids`."""
        found = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return np.asarray(found, dtype=np.int64)

    def logprobs(self, token_ids: np.ndarray) -> np.ndarray:
        """See `Backend.logprobs`."""
        out = np.empty((token_ids.shape[0], token_ids.shape[1] - 1), dtype=np.float32)
        with hf_memory.guarded(f"reading {len(token_ids)} windows together"):
            logits = self._logits(token_ids)
            # One window at a time: float32 logits take twice the room of the model's own.
            for row, ids in enumerate(token_ids):
                out[row] = _logprobs(logits[row], ids)
        return out

    def rounding_floor(self, token_ids: np.ndarray) -> RoundingFloor | None:
        """See `Backend.rounding_floor`."""
        if not self.quantizers:
            return None
        total = 0.0
        state = self.rounding
        state.changed = state.codes = 0
        try:
            for window in token_ids:
                with hf_memory.guarded("measuring the rounding floor"):
                    state.order, state.counting = "runtime", True
                    runtime = self._logits(window[None])[0]
                    state.order, state.counting = "modelopt", False
                    total += kl_divergence(runtime, self._logits(window[None])[0])
        finally:
            state.order, state.counting = "runtime", False
        return RoundingFloor(
            kl=total / token_ids.size,
            codes_changed=state.changed / state.codes,
            tokens=token_ids.size,
        )

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's own."""
        if self._harness is not None:
            return self._harness.tokenizer
        from gate.harness import load_tokenizer

        return load_tokenizer(self.checkpoint.path, self.settings.trust_remote_code)

    @property
    def _tasks(self) -> "Harness":
        assert self._harness is not None, "tasks need a harness"
        return self._harness

    def _logits(self, token_ids: np.ndarray) -> Any:
        """Shape (windows, window, vocabulary), in the model's dtype, on its device."""
        import torch

        with torch.inference_mode():
            ids = torch.from_numpy(np.ascontiguousarray(token_ids)).to(self.model.device)
            return self.model(input_ids=ids, use_cache=False).logits

    def _kernel(self, skipped: Sequence[str]) -> str:
        if self.form is None:
            return f"unquantized, {self.dtype}"
        if not self.quantizers:
            return f"weights decoded to {self.dtype}, inputs not quantized"
        schemes = {
            f"{'FP8' if s.num_bits == 8 else 'NVFP4'} {'dynamic' if s.dynamic else 'static'}"
            for s in (quantizer.scheme for quantizer in self.quantizers.values())
        }
        kernel = (
            f"weights decoded to {self.dtype}, inputs rounded to {' and '.join(sorted(schemes))}"
        )
        if any(found.kv_cache_quant_algo for found in self.form.declarations(self.checkpoint)):
            kernel += "; KV cache not quantized"
        if skipped:
            kernel += f"; inputs of the experts in {len(skipped)} modules not quantized"
        return kernel


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


def _logprobs(logits: Any, ids: np.ndarray) -> np.ndarray:
    """Log-probability of every token but the first; logits of shape (window, vocabulary)."""
    import torch

    with torch.inference_mode():
        scores = logits[:-1].float()
        # A row's largest: entries that a model masks with -inf are no error.
        if not scores.amax(-1).isfinite().all():
            raise NonFiniteLogitsError(
                "the model computed logits that are NaN or infinite",
                "Look for scales that are zero, infinite or NaN: gate lint CHECKPOINT",
            )
        targets = torch.from_numpy(ids[1:].copy()).to(scores.device)
        chosen = scores.gather(-1, targets[:, None])[:, 0]
        found: np.ndarray = (chosen - scores.logsumexp(-1)).cpu().numpy()
    return found
