"""Which way each quantized layer takes through a runtime, by the table of support."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

from gate.checkpoint import Checkpoint
from gate.fit.support import UNVERIFIED, Cell, Gpu, Runtime, table
from gate.quantization import Format, QuantizedLayer, Scheme
from gate.records import Execution

UNQUANTIZED = "unquantized weights"
"""The method under which a checkpoint without quantization is looked up."""

Kinds = Sequence[tuple[QuantizedLayer, int]]
"""The first layer of each kind, and how many are stored like it."""

LONGEST_NAME = 80
"""Characters of an algorithm's name: it may be anything that a configuration says."""


def executions(
    checkpoint: Checkpoint,
    form: Format | None,
    kinds: Kinds,
    runtime: Runtime | None,
    gpu: Gpu | None,
) -> tuple[Execution, ...]:
    """One entry an algorithm, in the order of its first layer; none where nothing was named.

    Args:
        checkpoint: What is loaded.
        form: Its format.
        kinds: Of all layers that the format describes; empty where they cannot be walked.
        runtime: None where none was named.
        gpu: None where none was named.
    """
    if runtime is None and gpu is None:
        return ()
    method = _method(checkpoint, form)
    found = []
    for (algo, scheme), count in _algorithms(checkpoint, form, kinds).items():
        names = tuple(name for name in (algo.upper(), scheme) if name)
        cells = runtime.cells(method, names) if runtime else ()
        found.append(_execution(shown(algo or method), count, cells, runtime, gpu))
    if method == UNQUANTIZED:
        # Nothing to compute in a special way: worth an entry only where it is not loaded at all.
        return tuple(entry for entry in found if entry.path == "not loaded")
    return tuple(found)


@lru_cache(maxsize=256)
def shown(algo: str) -> str:
    """The name of an algorithm, made fit to be printed."""
    return "".join(char if char.isprintable() else "?" for char in algo[:LONGEST_NAME])


def _method(checkpoint: Checkpoint, form: Format | None) -> str:
    """The format's name, or what the configuration calls an undescribed one."""
    container = checkpoint.container
    if container is not None and container.suffix == ".gguf":
        return "gguf"
    if form is not None:
        return form.name
    declared = checkpoint.quantization_config
    if declared is None:
        return UNQUANTIZED
    method = declared.get("quant_method")
    return method if isinstance(method, str) else "unnamed"


def _algorithms(
    checkpoint: Checkpoint, form: Format | None, kinds: Kinds
) -> Mapping[tuple[str, str], int]:
    """Algorithm and what its scheme comes to, with the layers that are stored so."""
    counts: Counter[tuple[str, str]] = Counter()
    for layer, count in kinds:
        if layer.declared:
            counts[layer.algo, _name(layer.scheme, layer.input_scheme)] += count
    if kinds:
        return counts
    return {(name, ""): 0 for name in (form.algorithms(checkpoint) if form else ("",))}


def _name(scheme: Scheme | None, input_scheme: Scheme | None) -> str:
    """What the table calls a scheme, for example `W4A16-INT4`; "" where there is none."""
    if scheme is None:
        return ""
    bits = f"W{scheme.num_bits}A{input_scheme.num_bits if input_scheme else 16}"
    if scheme.type == "int":
        return f"{bits}-INT{scheme.num_bits}"
    if scheme.num_bits == 4:
        return f"{bits}-{'NVFP4' if scheme.strategy == 'tensor_group' else 'MXFP4'}"
    families = {"block": "FP8-BLOCK", "group": "MXFP8"}
    return f"{bits}-{families.get(scheme.strategy, f'FP{scheme.num_bits}')}"


def _execution(
    algo: str, count: int, cells: tuple[Cell, ...], runtime: Runtime | None, gpu: Gpu | None
) -> Execution:
    cell = next((cell for cell in cells if cell.applies(gpu)), None)
    if cell is None or cell.path == "not known":
        reason = cell.why if cell else _unknown(cells, runtime, gpu)
        return Execution(algorithm=algo, layers=count, path="not known", reason=reason)
    blocked_by: Literal["runtime", "hardware"] | None = None
    if cell.path == "not loaded":
        blocked_by = "hardware" if cell.about_hardware else "runtime"
    return Execution(
        algorithm=algo,
        layers=count,
        path=cell.path,
        reason=cell.why,
        source=table().sources.get(cell.source) if cell.source != UNVERIFIED else None,
        blocked_by=blocked_by,
    )


def _unknown(cells: tuple[Cell, ...], runtime: Runtime | None, gpu: Gpu | None) -> str:
    if runtime is None:
        formats = gpu.formats.value if gpu and gpu.formats else ()
        able = f"; {gpu.name} computes in {', '.join(formats)}" if gpu and formats else ""
        return f"No runtime was named{able}."
    if gpu is None and cells:
        return "It depends on the GPU, and none was named."
    where = f" on {gpu.name}" if gpu else ""
    return f"The table of support does not say what {runtime.name} does with it{where}."
