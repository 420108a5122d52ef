"""The contract `Rule`: one way in which a checkpoint can be wrong, and its manual page."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

from gate.architecture import Architecture
from gate.checkpoint import Checkpoint, TensorInfo
from gate.codes import ScaleValues
from gate.quantization import SCALE_DTYPES, Format, QuantizedLayer
from gate.records import Finding, Fit, ReferenceResult, Severity

MOST_CHARACTERS = 600
"""Of a message: names come from the checkpoint and may have any length."""

KV_SCALES = (".k_scale", ".v_scale", ".kv_scale")

SECTIONS = ("Flags", "Why", "Repair", "Source")

Needs = Literal["headers", "data", "reference", "target"]


@dataclass(frozen=True)
class Evidence:
    """What rules may look at.

    Attributes:
        layers: What `Format.layers` describes; empty where it cannot be walked.
        reference: The comparison with the unquantized checkpoint; None where none was named.
        fit: How it would run on the target; None where none was named.
    """

    checkpoint: Checkpoint
    form: Format | None
    layers: tuple[QuantizedLayer, ...] = ()
    reference: ReferenceResult | None = None
    fit: Fit | None = None

    @cached_property
    def architecture(self) -> Architecture:
        """What config.json says of the model."""
        return Architecture(self.checkpoint.config)

    @cached_property
    def layer_of(self) -> Mapping[str, QuantizedLayer]:
        """Module to its quantized layer."""
        return {layer.name: layer for layer in self.layers}


class Rule:
    """One way in which a checkpoint can be wrong.

    A rule lies in a file of its own, whose name is the rule's id; its docstring is its manual
    page. It overrides one of the hooks, and yields nothing for a sound checkpoint.

    Attributes:
        severity: Of its findings, unless one says otherwise; only errors decide.
        needs: What it reads: configuration and headers, the scales' data, the reference, or the
            runtime and hardware that are meant.
        formats: Names of the formats that it is about; empty for all, and for no format at all.
        complete: Whether it makes sense only where all of the checkpoint's files are looked at.
    """

    severity: ClassVar[Severity] = "error"
    needs: ClassVar[Needs] = "headers"
    formats: ClassVar[frozenset[str]] = frozenset()
    complete: ClassVar[bool] = False

    @property
    def id(self) -> str:
        """The file's name with dashes."""
        return type(self).__module__.rpartition(".")[2].replace("_", "-")

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the checkpoint as a whole, or at its layers together."""
        yield from ()

    def check_layer(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """Look at what one layer declares and stores.

        A sound layer vouches for all that are declared and stored alike and have the same leaf
        name: they are not looked at. A rule that needs more of the name, or the data, is none for
        this hook.
        """
        yield from ()

    def check_weights(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """Look at one layer's data."""
        yield from ()

    def finding(
        self,
        message: str,
        fix: str,
        *,
        tensor: str | None = None,
        file: str | None = None,
        pointer: str | None = None,
        severity: Severity | None = None,
    ) -> Finding:
        """A finding of this rule, its text made fit to be printed anywhere."""
        return Finding(
            rule=self.id,
            severity=severity or self.severity,
            message=printable(message),
            fix=printable(fix),
            tensor=printable(tensor) if tensor is not None else None,
            file=printable(file) if file is not None else None,
            pointer=printable(pointer) if pointer is not None else None,
        )


class OpeningRule(Rule):
    """A rule for what is seen while opening: it reports the problems of its own name."""

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """Every problem of this name."""
        for found in evidence.checkpoint.problems:
            if found.rule == self.id:
                yield self.finding(found.message, found.fix, tensor=found.tensor, file=found.file)


class ScaleRule(Rule):
    """A rule for the values of scales: of weights, inputs and the KV cache."""

    needs: ClassVar[Needs] = "data"

    def check_scale(self, info: TensorInfo, scale: ScaleValues) -> Iterator[Finding]:
        """Look at one scale."""
        raise NotImplementedError

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """The KV cache's scales, which belong to no layer."""
        for info in kv_scales(evidence.checkpoint):
            yield from self.check_scale(info, ScaleValues(evidence.checkpoint, info))

    def check_weights(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """The layer's scales."""
        for role, scale in layer.scales.items():
            yield from self.check_scale(layer.tensors[role], scale)


def kv_scales(checkpoint: Checkpoint) -> list[TensorInfo]:
    """The KV cache's scales that can be read."""
    return [
        info
        for info in checkpoint.tensors.values()
        if info.name.endswith(KV_SCALES)
        and info.dtype in SCALE_DTYPES
        and info.file not in checkpoint.broken_files
    ]


def manual(rules: Sequence[Rule]) -> str:
    """Every rule's manual page, as one Markdown document."""
    lines = ["# Rules", "", "| rule | severity | reads | what it finds |", "|---|---|---|---|"]
    for rule in rules:
        text = summary(rule).rstrip(".").replace("|", "\\|")
        lines.append(f"| [{rule.id}](#{rule.id}) | {rule.severity} | {rule.needs} | {text} |")
    lines += [
        "",
        "A rule is silenced, with a reason, in the settings: `ignore: {rule: reason}`, or "
        "`ignore: {'rule:tensor-glob': reason}` for some tensors only.",
    ]
    for rule in rules:
        lines += ["", f"## {rule.id}", "", summary(rule)]
        for name, text in _sections(rule).items():
            lines += ["", f"**{name}.** {text}"]
    return "\n".join(lines) + "\n"


def summary(rule: Rule) -> str:
    """What the rule finds, in one sentence."""
    return inspect.cleandoc(rule.__doc__ or "").partition("\n")[0]


def _sections(rule: Rule) -> dict[str, str]:
    """The docstring's sections, each as one paragraph."""
    parts = re.split(
        rf"^({'|'.join(SECTIONS)}):$", inspect.cleandoc(rule.__doc__ or ""), flags=re.M
    )
    return {
        name: " ".join(text.split()) for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def printable(text: str) -> str:
    """`text` without control characters and lone surrogates, and of bounded length."""
    if len(text) > MOST_CHARACTERS:
        text = f"{text[: MOST_CHARACTERS - 1]}…"
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
