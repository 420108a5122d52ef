"""Judge a checkpoint without running it: the contract `Rule` and its driver."""

import difflib
import fnmatch
import inspect
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from gate.checkpoint import Checkpoint, TensorInfo
from gate.errors import SettingsError
from gate.quantization import SCALE_DTYPES, Format, QuantizedLayer, count_values
from gate.records import Finding, LintResult, RuleInfo, Severity, Skipped

if TYPE_CHECKING:
    import numpy as np

MOST_PER_RULE = 20
"""Findings of one rule that are listed; one more counts the rest."""
MOST_CHARACTERS = 600
"""Of a message: names come from the checkpoint and may have any length."""

KV_SCALES = (".k_scale", ".v_scale", ".kv_scale")

SECTIONS = ("Flags", "Why", "Repair", "Source")


class Rule:
    """One way in which a checkpoint can be wrong.

    A rule lies in a file of its own, whose name is the rule's id; its docstring is its manual
    page. It overrides one of the hooks, and yields nothing for a sound checkpoint.

    Attributes:
        severity: Of its findings; only errors decide.
        needs: What it reads: configuration and headers, the scales' data, or the reference.
    """

    severity: ClassVar[Severity] = "error"
    needs: ClassVar[Literal["headers", "data", "reference"]] = "headers"

    @property
    def id(self) -> str:
        """The file's name with dashes."""
        return type(self).__module__.rpartition(".")[2].replace("_", "-")

    def check_checkpoint(self, checkpoint: Checkpoint, form: Format | None) -> Iterator[Finding]:
        """Look at the checkpoint as a whole; `form` is None where it is not quantized."""
        yield from ()

    def check_layer(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """Look at what one layer declares and stores."""
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
    ) -> Finding:
        """A finding of this rule, its text made fit to be printed anywhere."""
        return Finding(
            rule=self.id,
            severity=self.severity,
            message=_printable(message),
            fix=_printable(fix),
            tensor=_printable(tensor) if tensor is not None else None,
            file=_printable(file) if file is not None else None,
            pointer=_printable(pointer) if pointer is not None else None,
        )


class OpeningRule(Rule):
    """A rule for what is seen while opening: it reports the problems of its own name."""

    def check_checkpoint(self, checkpoint: Checkpoint, form: Format | None) -> Iterator[Finding]:
        """Every problem of this name."""
        for found in checkpoint.problems:
            if found.rule == self.id:
                yield self.finding(found.message, found.fix, tensor=found.tensor, file=found.file)


class ScaleRule(Rule):
    """A rule for the values of scales: of weights, inputs and the KV cache."""

    needs: ClassVar[Literal["headers", "data", "reference"]] = "data"

    def check_scale(
        self, info: TensorInfo, values: "np.ndarray", counts: "np.ndarray"
    ) -> Iterator[Finding]:
        """Look at one scale.

        Args:
            info: Which.
            values: What it holds, float32, shape (values,); a value may come twice.
            counts: How often each, shape (values,).
        """
        raise NotImplementedError

    def check_checkpoint(self, checkpoint: Checkpoint, form: Format | None) -> Iterator[Finding]:
        """The KV cache's scales, which belong to no layer."""
        for info in checkpoint.tensors.values():
            if (
                info.name.endswith(KV_SCALES)
                and info.dtype in SCALE_DTYPES
                and info.file not in checkpoint.broken_files
            ):
                yield from self.check_scale(info, *count_values(checkpoint.read(info), info.dtype))

    def check_weights(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """The layer's scales."""
        for role, (values, counts) in layer.scales.items():
            yield from self.check_scale(layer.tensors[role], values, counts)


def lint(
    checkpoint: Checkpoint, form: Format | None, rules: Sequence[Rule], ignore: Mapping[str, str]
) -> LintResult:
    """Run every rule, walking the layers once.

    Args:
        checkpoint: What is judged.
        form: Its format; None where it is not quantized.
        rules: In the order of the report.
        ignore: Rule, or `rule:tensor-glob`, to the reason why its findings do not decide.

    Raises:
        SettingsError: `ignore` names a rule that does not exist.
    """
    _require_known(ignore, rules)
    collected = _Collected(ignore)
    for rule in rules:
        collected.add(rule.check_checkpoint(checkpoint, form))
    layer_rules = [rule for rule in rules if _reads_layers(rule)]
    skipped = _not_walked(checkpoint, form)
    undescribed: set[str] = set()
    if form is not None and skipped is None:
        for layer in form.layers(checkpoint):
            if layer.algo and layer.scheme is None:
                undescribed.add(layer.algo)
            for rule in layer_rules:
                collected.add(rule.check_layer(layer))
                collected.add(rule.check_weights(layer))
    if undescribed:
        names = ", ".join(_printable(name) for name in sorted(undescribed)[:5])
        skipped = f"only in part: the layout of {names} is not described"
    ran = [rule for rule in rules if rule not in layer_rules or skipped is None or undescribed]
    return LintResult(
        format=form.name if form else None,
        algorithms=tuple(_printable(name) for name in sorted(form.algorithms(checkpoint)))
        if form
        else (),
        findings=collected.findings({rule.id: rank for rank, rule in enumerate(rules)}),
        rules_run=tuple(
            RuleInfo(id=rule.id, severity=rule.severity, summary=_summary(rule)) for rule in ran
        ),
        skipped=tuple(Skipped(rule=rule.id, reason=skipped) for rule in layer_rules)
        if skipped
        else (),
    )


def manual(rules: Sequence[Rule]) -> str:
    """Every rule's manual page, as one Markdown document."""
    lines = ["# Rules", "", "| rule | severity | reads | what it finds |", "|---|---|---|---|"]
    for rule in rules:
        summary = _summary(rule).rstrip(".").replace("|", "\\|")
        lines.append(f"| [{rule.id}](#{rule.id}) | {rule.severity} | {rule.needs} | {summary} |")
    lines += [
        "",
        "A rule is silenced, with a reason, in the settings: `ignore: {rule: reason}`, or "
        "`ignore: {'rule:tensor-glob': reason}` for some tensors only.",
    ]
    for rule in rules:
        lines += ["", f"## {rule.id}", "", _summary(rule)]
        for name, text in _sections(rule).items():
            lines += ["", f"**{name}.** {text}"]
    return "\n".join(lines) + "\n"


def _summary(rule: Rule) -> str:
    return inspect.cleandoc(rule.__doc__ or "").partition("\n")[0]


def _sections(rule: Rule) -> dict[str, str]:
    """The docstring's sections, each as one paragraph."""
    parts = re.split(
        rf"^({'|'.join(SECTIONS)}):$", inspect.cleandoc(rule.__doc__ or ""), flags=re.M
    )
    return {
        name: " ".join(text.split()) for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def _printable(text: str) -> str:
    """`text` without control characters and lone surrogates, and of bounded length."""
    if len(text) > MOST_CHARACTERS:
        text = f"{text[: MOST_CHARACTERS - 1]}…"
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _reads_layers(rule: Rule) -> bool:
    kind = type(rule)
    return kind.check_layer is not Rule.check_layer or kind.check_weights is not Rule.check_weights


def _not_walked(checkpoint: Checkpoint, form: Format | None) -> str | None:
    """Why the layers cannot be judged; None where they can."""
    if checkpoint.broken_files:
        names = sorted(checkpoint.broken_files)
        others = f" and {len(names) - 1} more files are" if len(names) > 1 else " is"
        return f"{_printable(names[0])}{others} incomplete or unreadable"
    if form is not None:
        return None
    if checkpoint.quantization_config is not None:
        method = checkpoint.quantization_config.get("quant_method", "unnamed")
        return f"no format described here stores quantization method {_printable(repr(method))}"
    return "nothing is declared quantized"


def _require_known(ignore: Mapping[str, str], rules: Iterable[Rule]) -> None:
    known = {rule.id for rule in rules}
    for entry in ignore:
        rule = entry.partition(":")[0]
        if rule not in known:
            close = difflib.get_close_matches(rule, known)
            raise SettingsError(
                f"ignore names {rule!r}, which is no rule",
                f"Write one of: {', '.join(close or sorted(known))}.",
            )


class _Collected:
    """Findings, at most `MOST_PER_RULE` of a kind."""

    def __init__(self, ignore: Mapping[str, str]) -> None:
        self._ignore = [(*entry.partition(":")[::2], reason) for entry, reason in ignore.items()]
        self._listed: dict[tuple[str, str | None], list[Finding]] = defaultdict(list)
        self._count: Counter[tuple[str, str | None]] = Counter()

    def add(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            reason = self._reason(finding)
            key = (finding.rule, reason)
            self._count[key] += 1
            if self._count[key] <= MOST_PER_RULE:
                self._listed[key].append(finding.model_copy(update={"ignored": reason}))

    def findings(self, order: Mapping[str, int]) -> tuple[Finding, ...]:
        """All that is listed, by rule, each kind with what was left out."""
        found = []
        for key in sorted(self._listed, key=lambda key: (order[key[0]], key[1] or "")):
            listed = self._listed[key]
            found += listed
            rest = self._count[key] - len(listed)
            if rest:
                found.append(
                    listed[0].model_copy(
                        update={
                            "message": f"{rest:,} more findings of this kind",
                            "tensor": None,
                            "file": None,
                            "pointer": None,
                        }
                    )
                )
        return tuple(found)

    def _reason(self, finding: Finding) -> str | None:
        for rule, glob, reason in self._ignore:
            if rule == finding.rule and (
                not glob or fnmatch.fnmatchcase(finding.tensor or "", glob)
            ):
                return reason
        return None
