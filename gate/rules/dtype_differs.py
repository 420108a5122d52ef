"""Rule dtype-differs."""

from typing import ClassVar

from gate.records import Severity
from gate.rule import DifferenceRule


class DtypeDiffers(DifferenceRule):
    """The model computes in another dtype than the reference.

    Flags:
        dtype (torch_dtype) in config.json differs, float16 for a bfloat16 model in particular.
    Why:
        Activations of a model trained in bfloat16 can exceed float16's largest number, 65,504:
        answers become exclamation marks, or NaN.
    Repair:
        Export again in the reference's dtype.
    Source:
        https://github.com/vllm-project/vllm/issues/14126
    """

    severity: ClassVar[Severity] = "warning"
    about: ClassVar[str] = "dtype"
    fix: ClassVar[str] = "Export again in the reference's dtype."
