"""Rule duplicate-tensor."""

from typing import ClassVar

from gate.records import Severity
from gate.rule import OpeningRule


class DuplicateTensor(OpeningRule):
    """Two weight files hold a tensor of the same name.

    Flags:
        A name that stands in more than one of the files that are read. The one that the index
        names is judged; without an index, the first.
    Why:
        Runtimes load the files one after the other, and which of the two they keep depends on
        the order: with quantized weights, codes of one export under scales of another.
    Repair:
        Keep the file that belongs to this export, and rebuild the index from the headers.
    Source:
        https://huggingface.co/docs/safetensors/index#format
    """

    severity: ClassVar[Severity] = "warning"
