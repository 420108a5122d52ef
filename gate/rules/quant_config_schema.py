"""Rule quant-config-schema."""

from collections.abc import Hashable, Iterator, Mapping
from itertools import islice
from typing import Any

from gate import schema
from gate.quantization import Format
from gate.records import Finding
from gate.rule import Evidence, Rule

MOST_VIOLATIONS = 1000


class QuantConfigSchema(Rule):
    """ModelOpt's configuration does not have the form that runtimes read.

    Flags:
        A violation of schemas/hf_quant_config.schema.json in hf_quant_config.json, or in
        config.json's quantization_config where that is ModelOpt's: a field that is missing or of
        another type. Fields that the schema does not know are welcome; of layers that are declared
        alike, the first is named.
    Why:
        Runtimes stop with an error, or silently leave the field out.
    Repair:
        Export again, or mend the field that the JSON pointer names.
    Source:
        https://github.com/NVIDIA/Model-Optimizer
        (`modelopt/torch/export/convert_hf_config.py`)
    """

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding a violation."""
        if evidence.checkpoint.hf_quant_config is not None:
            yield from self._check("hf_quant_config.json", "", evidence.checkpoint.hf_quant_config)
        in_config = evidence.checkpoint.quantization_config
        if in_config is not None and _is_modelopt(in_config, evidence.form):
            yield from self._check(
                "config.json", evidence.checkpoint.quantization_pointer, in_config
            )

    def _check(self, file: str, root: str, config: Mapping[str, Any]) -> Iterator[Finding]:
        from jsonschema import Draft202012Validator
        from referencing import Registry

        # An empty registry: nothing is ever fetched.
        validator = Draft202012Validator(schema.load("hf_quant_config"), registry=Registry())
        for error in islice(validator.iter_errors(_thinned(config)), MOST_VIOLATIONS):
            parts = (
                str(part).replace("~", "~0").replace("/", "~1") for part in error.absolute_path
            )
            pointer = "/".join([root, *parts])
            yield self.finding(
                f"{file} at {pointer or 'its root'}: {error.message}",
                f"Export again, or mend {pointer or file}: see hf_quant_config.schema.json.",
                file=file,
                pointer=pointer,
            )


def _thinned(value: Any, depth: int = 4) -> Any:
    """The same without what repeats itself: validating 20,000 layers alike takes seconds."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value[:1]
    if not isinstance(value, dict) or not depth:
        return value
    layers = value.get("quantized_layers")
    if isinstance(layers, dict):
        firsts = {_content(entry, name): name for name, entry in reversed(layers.items())}
        value = {**value, "quantized_layers": {name: layers[name] for name in firsts.values()}}
    return {name: _thinned(entry, depth - 1) for name, entry in value.items()}


def _content(entry: Any, name: str) -> Hashable:
    """What tells one layer's declaration from another's: its scalars, or else its name."""
    if not isinstance(entry, dict) or not all(map(_is_scalar, entry.values())):
        return name
    return tuple((field, type(value), value) for field, value in entry.items())


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_modelopt(config: Mapping[str, Any], form: Format | None) -> bool:
    """Whether it is meant to be ModelOpt's; one without a method may be another format's."""
    method = config.get("quant_method")
    unnamed = method is None and (form is None or form.name == "modelopt")
    return "quant_algo" in config or unnamed or str(method).startswith("modelopt")
