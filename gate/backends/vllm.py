"""vLLM in this process: its scheduler, its kernels, on the weights as they are stored."""

import contextlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Self

import numpy as np

from gate import serving
from gate.architecture import architecture
from gate.backends import vllm_engine, vllm_machine, vllm_outputs, vllm_speed
from gate.backends.documents import Documents
from gate.checkpoint import Checkpoint
from gate.drift import Reading
from gate.errors import BackendError, BackendUnavailableError
from gate.harness import Asked, Told, Written
from gate.quantization import Format, require_unquantized
from gate.records import Engine, RoundingFloor, ScoredDocument, Served
from gate.settings import Settings
from gate.speed import Clock, Generated, Workload

if TYPE_CHECKING:
    from gate.harness import Harness

AHEAD = 1024
"""Documents that are asked for together: vLLM makes its own batches of them, and what is finished
is kept whenever so many are."""

CONTEXT = 2048
"""Tokens for prompt and answer where the checkpoint does not say how many it was made for."""


class Vllm(Documents):
    """Runs a checkpoint with vLLM; see `evaluate.Backend`.

    Args:
        checkpoint: What to run.
        form: How its quantized weights are stored; None for an unquantized checkpoint.
        harness: The tasks; None where only texts are measured.
        settings: `vllm`, `runtime_quantization` and `trust_remote_code` are read.
        unused: What those take that decode weights.

    Attributes:
        engine: What ran the model; None before entering.

    Raises:
        BackendUnavailableError: vLLM or a GPU is missing, or it does not read such files.
        SettingsError: A task asks for more tokens than there are, or what is quantized is to be
            quantized at load.
    """

    served: Served | None = None
    emulated = False

    def __init__(
        self,
        checkpoint: Checkpoint,
        form: Format | None,
        harness: "Harness | None",
        settings: Settings,
        **unused: object,
    ) -> None:
        super().__init__(checkpoint, harness, settings)
        if settings.runtime_quantization is not None:
            require_unquantized(checkpoint, form)
        self.versions = {name: version(name) for name in ("torch", "transformers", "lm_eval")}
        self.versions["vllm"] = vllm_machine.require()
        if (why := vllm_machine.unread(checkpoint)) is not None:
            raise BackendUnavailableError(why, "Use backend: hf.")
        vllm_machine.require_gpus(settings.vllm)
        self.device = self.dtype = self.kernel = ""
        self.engine: Engine | None = None
        known = (settings.vllm.max_model_len, architecture(checkpoint).context)
        self.context = min(filter(None, known), default=CONTEXT)
        self._engines: vllm_engine.Engines | None = None
        self._exit = contextlib.ExitStack()
        # Made twice: here for what can be refused before the model is loaded.
        self._language_model = harness.remote_model(self, self.context) if harness else None
        self._penalty = vllm_outputs.repetition_penalty(checkpoint.generation_config)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            chosen = stack.enter_context(vllm_machine.gpus(self.settings.vllm))
            engines = vllm_engine.Engines(self.checkpoint, self.settings, chosen)
            stack.callback(engines.stop)
            self.engine = engines.facts(self.settings)
            self.device = vllm_machine.named(chosen, self.settings.vllm)
            self._exit = stack.pop_all()
        self._engines, self.dtype = engines, engines.dtype
        if engines.context < self.context:
            self.context = engines.context
            if self._harness is not None:
                self._language_model = self._harness.remote_model(self, self.context)
        self.kernel = vllm_engine.described(self.engine, self.settings.vllm)
        return self

    def __exit__(self, *_: object) -> None:
        self._engines = self._language_model = None
        self._exit.close()

    def able(self) -> tuple[Settings, tuple[str, ...]]:
        """The settings without what it cannot be asked for; see `serving.able`."""
        return serving.able(self.settings, self.setups(), self.context)

    def fitting(self) -> int:
        """Documents that keep the engine busy; it has its own way to put them into batches."""
        return AHEAD

    def score(self, task: str, doc_ids: Sequence[int]) -> list[ScoredDocument]:
        """See `Backend.score`."""
        assert self._language_model is not None, "tasks need a harness"
        return self._tasks.score(self._language_model, task, doc_ids)

    def write(self, asked: Sequence[Asked]) -> list[Written]:
        """See `harness.remote.Remote`; a prompt without room for its answer loses its beginning."""
        prompts = [one.token_ids[-(self.context - one.max_tokens) :] for one in asked]
        params = [vllm_outputs.answering(one, self._penalty) for one in asked]
        outputs = self._loaded.generate(prompts, params)
        return [vllm_outputs.written(output, self.tokenizer) for output in outputs]

    def tell(self, sequences: Sequence[Sequence[int]]) -> list[Told]:
        """See `harness.remote.Remote`."""
        found: list[Told] = []
        size = vllm_outputs.together(max(map(len, sequences), default=1), values=2)
        params = vllm_outputs.reading(top=1)
        for start in range(0, len(sequences), size):
            part = sequences[start : start + size]
            outputs = self._loaded.generate(part, [params] * len(part))
            found += map(vllm_outputs.told, outputs, part)
        return found

    def read(
        self,
        windows: np.ndarray,
        *,
        top: int = 0,
        at: np.ndarray | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Reading:
        """See `Backend.read`."""
        k = 0 if at is None else at.shape[2]
        top = self._require_known(windows, top, at)
        reading = Reading.empty(len(windows), windows.shape[1], top, k)
        size = vllm_outputs.together(windows.shape[1], values=1 + top + k)
        for start in range(0, len(windows), size):
            part = range(start, min(start + size, len(windows)))
            params = [
                vllm_outputs.reading(top, at[i] if k and at is not None else None) for i in part
            ]
            outputs = self._loaded.generate([windows[i].tolist() for i in part], params)
            for index, output in zip(part, outputs, strict=True):
                vllm_outputs.fill(reading, index, output, windows[index])
            if progress:
                progress(len(part))
        return reading

    def generate(self, workload: Workload, clock: Clock) -> Generated:
        """See `Backend.generate`."""
        return vllm_speed.generate(self._loaded, self.tokenizer, self.device, workload, clock)

    def rounding_floor(self, token_ids: np.ndarray) -> RoundingFloor | None:
        """The kernels round as they do."""
        return None

    @property
    def _loaded(self) -> vllm_engine.Engines:
        assert self._engines is not None, "entering loads the model"
        return self._engines

    def _require_known(self, windows: np.ndarray, top: int, at: np.ndarray | None) -> int:
        """As many likely tokens as there are; tokens of a stored file may be of another vocabulary.

        Raises:
            BackendError: The model has no such token.
        """
        vocabulary = architecture(self.checkpoint).vocabulary
        if vocabulary is None:
            return top
        asked = windows if at is None or not at.size else np.append(windows, [at.min(), at.max()])
        if not 0 <= asked.min() <= asked.max() < vocabulary:
            raise BackendError(
                f"the baseline knows tokens beyond this model's {vocabulary:,}",
                "Make the baseline again from this model's reference: "
                "gate eval REFERENCE -o BASELINE",
            )
        return min(top, vocabulary)
