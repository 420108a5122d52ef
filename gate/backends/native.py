"""transformers' own quantized layers, computed by the library that defines the format."""

import contextlib
import copy
import logging
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from gate import patterns, placement
from gate.backends import hf_class, hf_linear, hf_memory, hf_model
from gate.backends.hf import Hf
from gate.backends.hf_model import LoadProgress
from gate.checkpoint import Checkpoint
from gate.errors import (
    BackendError,
    BackendUnavailableError,
    CheckpointError,
    GateError,
)
from gate.quantization import Format, declared_method, require_unquantized
from gate.settings import RuntimeQuantization, Settings

if TYPE_CHECKING:
    from gate.harness import Harness

LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed-tensors",),
    "gptq": ("gptqmodel", "optimum"),
    "awq": ("gptqmodel",),
    "fp8": ("kernels",),
    "mxfp4": ("kernels",),
}
"""Format to the packages with which transformers computes it.

Source: https://github.com/huggingface/transformers (`quantizers/`, `validate_environment`).
"""

UNABLE = {
    "modelopt": "transformers does not know ModelOpt: it would load codes and drop their scales",
    "quanto": "transformers quantizes with quanto but does not load what quanto saved",
    "gguf": "transformers computes GGUF blocks only with kernels that it downloads as it runs",
}
"""Format to why `native` does not run it; transformers 5.23 fills quanto's weights at random."""


class Native(Hf):
    """Runs a checkpoint with transformers, its quantized layers as they are; see `Backend`.

    Only how the model is loaded differs from `hf`: prompts, generation and reading are the same.

    Args:
        checkpoint: What to run.
        form: How its quantized weights are stored; None for an unquantized checkpoint.
        harness: The tasks; None where only texts are measured.
        settings: `runtime_quantization` and `trust_remote_code` are read.
        progress: Not told anything: transformers reads the files itself.
        streamed: Never; see `placement.place`.

    Raises:
        SettingsError: A quantized checkpoint is to be quantized at load.
        BackendUnavailableError: transformers cannot run the format, or a package is missing.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        form: Format | None,
        harness: "Harness | None",
        settings: Settings,
        progress: LoadProgress | None = None,
        streamed: bool = False,
    ) -> None:
        assert not streamed, "transformers' own layers are loaded as a whole"
        require_able(checkpoint, form, settings)
        super().__init__(checkpoint, form, harness, settings, progress)
        self.emulated = False
        self.libraries = {name: version(name) for name in packages(checkpoint, form, settings)}
        self.versions |= self.libraries
        self._silenced = contextlib.ExitStack()

    def _load(self, reserve: hf_memory.Reserve) -> None:
        import psutil
        import torch

        with contextlib.ExitStack() as silenced:
            silenced.enter_context(_quiet(self.libraries))
            with hf_model.quiet():
                self.model = self._loaded(reserve)
            self._silenced = silenced.pop_all()
        if not self.libraries:  # the layers of a library compute as it says
            hf_linear.pack(self.model, psutil.virtual_memory().available)
        place = self.model.device
        self.device = torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu"
        self.dtype = str(self.model.dtype).removeprefix("torch.")
        self.kernel = self._computed()

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)
        self._silenced.close()

    def _loaded(self, reserve: hf_memory.Reserve) -> Any:
        """The model as transformers loads it from the directory, quantized.

        Raises:
            BackendError: The library cannot load it, or not all of it.
            BackendUnavailableError: transformers would decode the weights, or not quantize them.
            OutOfMemoryError: Memory ran out.
        """
        checkpoint, settings = self.checkpoint, self.settings
        config = hf_class.config(checkpoint, settings.trust_remote_code)
        model_class = hf_class.model_class(checkpoint, config, settings.trust_remote_code)
        options: dict[str, Any] = {}
        if settings.runtime_quantization is not None:
            options["quantization_config"] = bitsandbytes_config(settings.runtime_quantization)
        elif checkpoint.quantization_config is not None:
            config.quantization_config = copy.deepcopy(dict(checkpoint.quantization_config))
        needed = placement.loaded_bytes(settings, checkpoint, self.form)
        try:
            model, info = model_class.from_pretrained(
                checkpoint.path,
                config=config,
                dtype="auto",
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are reported below, with all others
                **hf_memory.on_devices(needed, reserve),
                **options,
            )
        except (ImportError, MemoryError, *hf_class.MALFORMED) as error:
            raise _load_error(checkpoint, error) from error
        try:
            hf_model.require_complete(checkpoint, model_class.__name__, info)
        except CheckpointError as error:  # the file may be sound, and this loader not know it
            raise BackendError(
                f"transformers does not load all that is stored: {error.message}",
                "Judge the file by itself with backend: hf.",
            ) from error
        if self.libraries:
            _require_quantized(checkpoint, model)
        return model

    def _computed(self) -> str:
        """The kernel in words: what is computed, by which library and with which of its layers."""
        if not self.libraries:
            return f"unquantized, {self.dtype}"
        tops = {name.replace("-", "_") for name in self.libraries}
        layers = [type(m) for m in self.model.modules() if type(m).__module__.split(".")[0] in tops]
        libraries = " and ".join(f"{name} {found}" for name, found in self.libraries.items())
        kinds = ", ".join(sorted({layer.__name__ for layer in layers}))
        by = f"by {libraries}" + (f" ({kinds}, {len(layers)} layers)" if layers else "")
        runtime = self.settings.runtime_quantization
        if runtime is not None:
            if not layers:
                raise BackendError(
                    f"{libraries} quantized no layer of {self.checkpoint.source}",
                    "Leave runtime_quantization out: this model has no linear layers for it.",
                )
            return f"quantized at load: {runtime.label}, {by}"
        assert self.form is not None, "only a known format has a library"
        algorithms = "/".join(sorted(self.form.algorithms(self.checkpoint)))
        return f"{algorithms} computed {by}"


def require_able(checkpoint: Checkpoint, form: Format | None, settings: Settings) -> None:
    """Refuse what transformers does not compute here, before any weight is read.

    Raises:
        SettingsError: A quantized checkpoint is to be quantized at load.
        BackendUnavailableError: transformers cannot run the format, or a package is missing.
    """
    if settings.runtime_quantization is not None:
        require_unquantized(checkpoint, form)
    method = declared_method(checkpoint, form)
    if method is not None and method not in LIBRARIES:
        why = UNABLE.get(method, f"no library is known here with which it computes {method}")
        raise BackendUnavailableError(
            f"backend native does not run {checkpoint.source}: {why}",
            "Judge the decoded weights with backend: hf, or a server that runs them with backend: "
            "server.",
        )
    missing = [name for name in packages(checkpoint, form, settings) if not _installed(name)]
    if missing:
        raise BackendUnavailableError(
            f"backend native needs {', '.join(missing)} for {method or 'this quantization'}: not "
            "installed",
            f"Run: pip install {' '.join(missing)}",
        )
    _require_tame(checkpoint)


def packages(checkpoint: Checkpoint, form: Format | None, settings: Settings) -> tuple[str, ...]:
    """The distributions that compute the quantized layers; none for an unquantized model."""
    if settings.runtime_quantization is not None:
        return LIBRARIES["bitsandbytes"]
    return LIBRARIES[form.name] if form is not None else ()


def bitsandbytes_config(asked: RuntimeQuantization) -> Any:
    """The configuration that transformers takes for it."""
    from transformers import BitsAndBytesConfig

    if asked.load_in_4bit is None:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=asked.load_in_4bit,
        bnb_4bit_use_double_quant=asked.bnb_4bit_use_double_quant,
        bnb_4bit_compute_dtype=asked.bnb_4bit_compute_dtype,
    )


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _require_tame(checkpoint: Checkpoint) -> None:
    """The libraries match the declaration's patterns by themselves: none may run away.

    Raises:
        BackendUnavailableError: Naming the first that might.
    """
    for text in _texts(checkpoint.quantization_config or {}):
        for prefix in ("re:", "+:", "-:"):
            text = text.removeprefix(prefix)
        if len(text) > patterns.MAX_NAME or patterns.compiled(text) is None:
            raise BackendUnavailableError(
                f"backend native does not match the pattern {text[:80]!r} of {checkpoint.source}: "
                "it may take forever",
                "Write the pattern without nested repetition, or use backend: hf.",
            )


def _texts(declared: Any) -> Iterator[str]:
    """Every text in a declaration that a library may read as a pattern: keys, and lists' items."""
    if isinstance(declared, Mapping):
        for key, value in declared.items():
            yield str(key)
            yield from _texts(value)
    elif isinstance(declared, list):
        for item in declared:
            yield from (item,) if isinstance(item, str) else _texts(item)


def _require_quantized(checkpoint: Checkpoint, model: Any) -> None:
    """What a machine cannot compute, transformers decodes or passes over, and says so nowhere.

    Raises:
        BackendUnavailableError: It did.
    """
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is None or getattr(quantizer.quantization_config, "dequantize", False):
        raise BackendUnavailableError(
            f"transformers does not run {checkpoint.source} quantized on this machine: it would "
            "decode the weights",
            "Run on a device that computes the format, or judge the decoded weights with "
            "backend: hf.",
        )


def _load_error(checkpoint: Checkpoint, cause: Exception) -> GateError:
    if isinstance(cause, ImportError):
        return BackendUnavailableError(
            f"transformers cannot load {checkpoint.source}: {' '.join(str(cause).split())}",
            "Install what it names, or use backend: hf.",
        )
    return hf_model.load_error(checkpoint, cause)


@contextlib.contextmanager
def _quiet(libraries: Mapping[str, str]) -> Iterator[None]:
    """Silence what the libraries log for every layer of every pass."""
    loggers = [logging.getLogger(name.replace("-", "_")) for name in libraries]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
