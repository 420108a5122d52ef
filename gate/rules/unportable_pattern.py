"""Rule unportable-pattern."""

from collections.abc import Iterator
from typing import ClassVar

from gate.architecture import NOT_QUANTIZED
from gate.modules import ModuleNames, is_wild, with_ancestors
from gate.quantization import FLOAT_DTYPES
from gate.records import Finding, Severity
from gate.rule import Evidence, Rule


class UnportablePattern(Rule):
    """An excluded module is another one for another runtime.

    Flags:
        Entries of exclude_modules or ignore by which runtimes leave out different modules:
        expressions after `re:`; a `*` before the end in a multimodal model, or where it names only
        the parent of a layer; the bare name of such a parent; a name that stands inside the name
        of a quantized module.
    Why:
        TensorRT-LLM matches a module or any module around it; vLLM also looks for the entry inside
        the name and rewrites names of multimodal models, but no patterns; SGLang matches the whole
        name or one part of it. One loads what another refuses.
    Repair:
        Name each module exactly, or end the entry with `*`.
    Source:
        https://github.com/vllm-project/vllm/issues/28072
        and https://github.com/NVIDIA/TensorRT-LLM/pull/17551
    """

    severity: ClassVar[Severity] = "note"
    formats: ClassVar[frozenset[str]] = frozenset({"modelopt"})

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding an entry."""
        declared = evidence.declarations
        listed = {entry: file.file for file in declared for entry in file.exclude_modules or ()}
        if not listed or not evidence.layers:
            return
        readings = _Readings(evidence)
        for entry, file in listed.items():
            if found := readings.differ(entry):
                module, effect = found
                yield self.finding(
                    f"{file} excludes {entry}: {effect} {module}",
                    "Name each module exactly, or end the entry with *.",
                    tensor=module,
                    file=file,
                )


class _Readings:
    """How runtimes read one entry, held against what is stored."""

    def __init__(self, evidence: Evidence) -> None:
        layers = evidence.layer_of
        excluded = {
            module
            for name, info in evidence.checkpoint.tensors.items()
            if name.endswith(".weight") and len(info.shape) == 2 and info.dtype in FLOAT_DTYPES
            if (module := name[: -len(".weight")]) not in layers
            and not NOT_QUANTIZED.search(module)
        }
        self._excluded = ModuleNames(excluded)
        self._around = ModuleNames(with_ancestors(excluded))
        self._quantized = ModuleNames(
            layer.name for layer in evidence.layers if layer.packed and layer.declared
        )
        self._multimodal = "text_config" in evidence.checkpoint.config

    def differ(self, entry: str) -> tuple[str, str] | None:
        """A module, and the runtime that does something else with it than TensorRT-LLM."""
        if is_wild(entry.removesuffix("*")):
            return self._differ_on_pattern(entry)
        if not entry.endswith("*") and "." in entry:
            below = self._excluded.beginning(f"{entry}.")
            if below is not None:
                return below, "SGLang matches whole names only and quantizes"
        held = self._held(entry)
        return (held, "vLLM looks for it inside names and leaves out") if held else None

    def _differ_on_pattern(self, entry: str) -> tuple[str, str] | None:
        named = self._around.matching(entry)
        if named is None:
            return None
        module = named if named in self._excluded else self._excluded.beginning(f"{named}.")
        if module is None:
            return None
        if entry.startswith("re:"):
            return module, "vLLM and SGLang know no expressions and quantize"
        if self._multimodal:
            return (
                module,
                "vLLM translates names of multimodal models, but no patterns, and quantizes",
            )
        if module != named:
            return module, "vLLM and SGLang match whole names only and quantize"
        return None

    def _held(self, entry: str) -> str | None:
        """A quantized module whose name holds the entry, though not as itself or its parent."""
        text = entry.removesuffix("*").removesuffix(".")
        if not text:
            return None
        found = None if entry.endswith("*") else self._quantized.beginning(text)
        if found is None and not any(map(str.isdecimal, text)):
            found = self._quantized.holding(text)
        return found
