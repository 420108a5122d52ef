"""Rule quant-config-schema."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from gate import schema
from gate.records import Finding
from gate.rule import Evidence, Rule

MOST_VIOLATIONS = 1000


class QuantConfigSchema(Rule):
    """ModelOpt's configuration does not have the form that runtimes read.

    Flags:
        A violation of schemas/hf_quant_config.schema.json in hf_quant_config.json, or in
        config.json's quantization_config where that is ModelOpt's: a field that is missing or of
        another type. Fields that the schema does not know are welcome.
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
        if in_config is not None and _is_modelopt(in_config):
            yield from self._check(
                "config.json", evidence.checkpoint.quantization_pointer, in_config
            )

    def _check(self, file: str, root: str, config: Mapping[str, Any]) -> Iterator[Finding]:
        from jsonschema import Draft202012Validator
        from referencing import Registry

        # An empty registry: nothing is ever fetched.
        validator = Draft202012Validator(schema.load("hf_quant_config"), registry=Registry())
        for error in islice(validator.iter_errors(config), MOST_VIOLATIONS):
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


def _is_modelopt(config: Mapping[str, Any]) -> bool:
    method = config.get("quant_method")
    return "quant_algo" in config or method is None or str(method).startswith("modelopt")
