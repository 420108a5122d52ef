"""Judge a checkpoint without running it: the driver of the rules."""

import difflib
import fnmatch
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from gate.checkpoint import Checkpoint
from gate.errors import SettingsError
from gate.quantization import SCALE_DTYPES, SCALES, Format, QuantizedLayer, Role
from gate.records import Finding, LintResult, RuleInfo, Skipped
from gate.rule import Evidence, Rule, kv_scales, page, printable, summary

MOST_PER_RULE = 20
"""Findings of one rule that are listed; one more counts the rest."""


def lint(
    evidence: Evidence,
    rules: Sequence[Rule],
    ignore: Mapping[str, str],
    *,
    select: Collection[str] = (),
    headers_only: bool = False,
) -> LintResult:
    """Run every rule, walking the layers once.

    Args:
        evidence: What is judged.
        rules: In the order of the report.
        ignore: Rule, or `rule:tensor-glob`, to the reason why its findings do not decide.
        select: Only these rules; empty for all.
        headers_only: Whether to leave out the rules that read data.

    Raises:
        SettingsError: `ignore` or `select` names a rule that does not exist.
    """
    require_known([entry.partition(":")[0] for entry in ignore], rules, "ignore")
    require_known(select, rules, "--select")
    checkpoint, form = evidence.checkpoint, evidence.form
    applicable = [rule for rule in rules if _is_about(rule, form, select)]
    unwalked = not_walked(checkpoint, form)
    skipped = {
        rule.id: reason
        for rule in applicable
        if (reason := _why_skipped(rule, evidence, unwalked, headers_only))
    }
    running = [rule for rule in applicable if rule.id not in skipped]
    if any(rule.needs == "data" for rule in running):
        _read_scales(evidence, {role for rule in running for role in rule.reads})
    collected = _Collected(ignore)
    for rule in running:
        collected.add(rule.check_checkpoint(evidence))
    _check_layers(evidence.layers, running, collected)
    skipped |= _looked_at_in_part(evidence, running, unwalked)
    return LintResult(
        format=form.name if form else None,
        algorithms=tuple(printable(name) for name in sorted(form.algorithms(checkpoint)))
        if form
        else (),
        findings=collected.findings({rule.id: rank for rank, rule in enumerate(rules)}),
        rules_run=tuple(map(_info, running)),
        skipped=tuple(Skipped(rule=rule, reason=reason) for rule, reason in skipped.items()),
        reference=evidence.reference,
        fit=evidence.fit,
    )


def _is_about(rule: Rule, form: Format | None, select: Collection[str]) -> bool:
    """Whether the rule is selected, and concerns checkpoints of this format."""
    concerned = not rule.formats or (form is not None and form.name in rule.formats)
    return concerned and (not select or rule.id in select)


def _info(rule: Rule) -> RuleInfo:
    return RuleInfo(id=rule.id, severity=rule.severity, summary=summary(rule), manual=page(rule))


def _looked_at_in_part(
    evidence: Evidence, running: Iterable[Rule], unwalked: str | None
) -> Mapping[str, str]:
    """Rules that ran and did not see everything, and what they did not see."""
    form, reason = evidence.form, None
    undescribed = {layer.algo for layer in evidence.layers if layer.algo and layer.scheme is None}
    if undescribed:
        names = ", ".join(printable(name) for name in sorted(undescribed)[:5])
        reason = f"only in part: the layout of {names} is not described"
    elif form is not None and not evidence.layers and unwalked is None:
        reason = f"no layer was found that {form.name} quantized"
    partly = {rule.id: reason for rule in running if reason and _reads_layers(rule)}
    limits = ((rule.id, rule.limit(evidence)) for rule in running)
    return partly | {rule: f"only in part: {limit}" for rule, limit in limits if limit}


def _why_skipped(
    rule: Rule, evidence: Evidence, unwalked: str | None, headers_only: bool
) -> str | None:
    """Why a rule cannot run; None where it can."""
    if rule.needs in {"data", "weights"} and headers_only:
        return "--headers-only"
    if rule.needs == "weights" and not evidence.checkpoint.local:
        return "the weights are not downloaded"
    if rule.needs == "reference" and evidence.reference is None:
        return "no reference was named"
    if rule.needs == "target" and evidence.fit is None:
        return "no --runtime, --gpu or --memory was named"
    if rule.complete and not evidence.checkpoint.complete:
        return "only the named files were judged"
    return unwalked if _reads_layers(rule) else None


def _check_layers(
    layers: Iterable[QuantizedLayer], rules: Iterable[Rule], collected: "_Collected"
) -> None:
    header_rules = [rule for rule in rules if type(rule).check_layer is not Rule.check_layer]
    data_rules = [rule for rule in rules if type(rule).check_weights is not Rule.check_weights]
    sound: set[Any] = set()
    for layer in layers:
        if layer.alike not in sound:
            found = [finding for rule in header_rules for finding in rule.check_layer(layer)]
            if not found:
                sound.add(layer.alike)
            collected.add(found)
        for rule in data_rules:
            collected.add(rule.check_weights(layer))


def _read_scales(evidence: Evidence, more: Collection[Role]) -> None:
    """Read every scale, file by file: a remote store is asked once for each file's.

    Args:
        evidence: What is judged.
        more: What rules will read beside the scales.
    """
    ranges: dict[str, list[tuple[int, int]]] = defaultdict(list)
    scales = [
        info
        for layer in evidence.layers
        for role, info in layer.tensors.items()
        if (role in SCALES and info.dtype in SCALE_DTYPES) or role in more
    ]
    for info in [*scales, *kv_scales(evidence.checkpoint)]:
        ranges[info.file].append(info.data_offsets)
    for name, wanted in ranges.items():
        evidence.checkpoint.store.plan(name, wanted)
    for layer in sorted(evidence.layers, key=lambda layer: next(iter(layer.tensors.values())).file):
        layer.scales  # noqa: B018
    evidence.kv_scales  # noqa: B018


def _reads_layers(rule: Rule) -> bool:
    kind = type(rule)
    return kind.check_layer is not Rule.check_layer or kind.check_weights is not Rule.check_weights


def walk(checkpoint: Checkpoint, form: Format | None) -> tuple[QuantizedLayer, ...]:
    """Every layer, where they can be judged."""
    if form is None or not_walked(checkpoint, form) is not None:
        return ()
    return tuple(form.layers(checkpoint))


def not_walked(checkpoint: Checkpoint, form: Format | None) -> str | None:
    """Why the layers cannot be judged; None where they can."""
    if checkpoint.broken_files:
        names = sorted(checkpoint.broken_files)
        others = f" and {len(names) - 1} more files are" if len(names) > 1 else " is"
        return f"{printable(names[0])}{others} incomplete or unreadable"
    if form is not None:
        return None
    if checkpoint.quantization_config is not None:
        method = checkpoint.quantization_config.get("quant_method", "unnamed")
        return f"no format described here stores quantization method {printable(repr(method))}"
    return "nothing is declared quantized"


def require_known(names: Iterable[str], rules: Iterable[Rule], where: str) -> None:
    """Refuse a name that is no rule.

    Raises:
        SettingsError: With the nearest names.
    """
    known = {rule.id for rule in rules}
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known)
            raise SettingsError(
                f"{where} names {name!r}, which is no rule",
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
                            "count": rest,
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
