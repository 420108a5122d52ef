"""The contract `Rule`: one way in which a checkpoint can be wrong, and its manual page."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

from gate.architecture import Architecture, architecture, fused
from gate.checkpoint import Checkpoint, TensorInfo
from gate.codes import ScaleValues
from gate.inventory import Inventory
from gate.quantization import SCALE_DTYPES, Declaration, Format, QuantizedLayer, Role
from gate.records import Finding, Fit, ReferenceResult, Severity

MOST_CHARACTERS = 600
"""Of a message: names come from the checkpoint and may have any length."""

KV_SCALES = (".k_scale", ".v_scale", ".kv_scale")

SECTIONS = ("Flags", "Why", "Repair", "Source")

Needs = Literal["headers", "data", "weights", "reference", "target"]


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
        """What config.json, or a GGUF file, says of the model."""
        return architecture(self.checkpoint)

    @cached_property
    def kv_scales(self) -> tuple[tuple[TensorInfo, ScaleValues], ...]:
        """The KV cache's scales, which belong to no layer; read once."""
        return tuple(
            (info, ScaleValues(self.checkpoint, info)) for info in kv_scales(self.checkpoint)
        )

    @cached_property
    def inventory(self) -> Inventory:
        """Which modules are stored, by layer and expert."""
        return Inventory(self.checkpoint.tensors)

    @cached_property
    def siblings(self) -> tuple[tuple[QuantizedLayer, ...], ...]:
        """Quantized layers that runtimes join into one."""
        return tuple(fused(self.layer_of))

    @cached_property
    def declarations(self) -> tuple[Declaration, ...]:
        """What each configuration file declares; see `Format.declarations`."""
        return tuple(self.form.declarations(self.checkpoint)) if self.form else ()

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
        needs: What it reads: configuration and headers, the scales' data, also weights (of local
            checkpoints only), the reference, or the runtime and hardware that are meant.
        formats: Names of the formats that it is about; empty for all, and for no format at all.
        complete: Whether it makes sense only where all of the checkpoint's files are looked at.
        reads: Whose data it looks at beside the scales; a remote store fetches them together.
    """

    severity: ClassVar[Severity] = "error"
    needs: ClassVar[Needs] = "headers"
    formats: ClassVar[frozenset[str]] = frozenset()
    complete: ClassVar[bool] = False
    reads: ClassVar[frozenset[Role]] = frozenset()

    @property
    def id(self) -> str:
        """The file's name with dashes."""
        return type(self).__module__.rpartition(".")[2].replace("_", "-")

    def limit(self, evidence: Evidence) -> str | None:
        """Why it looks at a part of the checkpoint only; None where it looks at all."""
        return None

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


class DifferenceRule(Rule):
    """A rule for what differs from the reference in configuration or tokenizer.

    Attributes:
        about: Which differences are meant; see `gate.records.Difference`.
        fix: What to do about each.
    """

    needs: ClassVar[Needs] = "reference"
    about: ClassVar[str]
    fix: ClassVar[str]

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding a difference."""
        for found in evidence.reference.differences if evidence.reference else ():
            if found.about == self.about:
                yield self.finding(
                    f"{found.name}: {found.candidate} here, {found.reference} in the reference",
                    self.fix,
                )


class ScaleRule(Rule):
    """A rule for the values of scales: of weights, inputs and the KV cache."""

    needs: ClassVar[Needs] = "data"

    def check_scale(self, info: TensorInfo, scale: ScaleValues) -> Iterator[Finding]:
        """Look at one scale."""
        raise NotImplementedError

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """The KV cache's scales, which belong to no layer."""
        for info, scale in evidence.kv_scales:
            yield from self.check_scale(info, scale)

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
        lines += ["", f"## {rule.id}", "", page(rule)]
    return "\n".join(lines) + "\n"


def page(rule: Rule) -> str:
    """The manual page of one rule, as Markdown without its heading."""
    parts = [summary(rule), *(f"**{name}.** {text}" for name, text in sections(rule).items())]
    return "\n\n".join(parts)


def summary(rule: Rule) -> str:
    """What the rule finds, in one sentence."""
    return inspect.cleandoc(rule.__doc__ or "").partition("\n")[0]


def sections(rule: Rule) -> dict[str, str]:
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
