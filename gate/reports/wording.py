"""What reports say, the same in every form: sentences and table cells, not yet escaped."""

import re
from collections.abc import Iterator
from datetime import datetime

from gate.plain import MAX_MESSAGE_CHARS as MAX_MESSAGE_CHARS
from gate.plain import plain as plain
from gate.records import (
    Agreement,
    EvalResult,
    LintResult,
    Policy,
    Report,
    Size,
    Targeted,
    Verdict,
)
from gate.reports import counts, drifts

VERDICTS = {"pass": "PASS", "fail": "FAIL", "inconclusive": "INCONCLUSIVE"}

MAX_ANSWER_CHARS = 1500
MAX_CANARY = 3
MAX_CONCERNS = 10
MOST_CHANGED = 10
MAX_ALGORITHMS = 6

_COMMAND = re.compile(r"([^:]*:) ((?:gate|git|pip|python|export) .+)")


def verdict_word(report: Report) -> str:
    """PASS, FAIL or INCONCLUSIVE."""
    return VERDICTS[report.verdict.outcome]


def concerns(verdict: Verdict) -> list[str]:
    """What a reader should know beside the verdict: a sentence each, and what to do."""
    told = [f"{concern.message}. {concern.fix}" for concern in verdict.concerns[:MAX_CONCERNS]]
    rest = len(verdict.concerns) - MAX_CONCERNS
    return [*told, f"and {count(rest, 'more warning')}"] if rest > 0 else told


def advice(text: str) -> tuple[str, str]:
    """What to do, and the command at its end; empty where it ends with none."""
    found = _COMMAND.fullmatch(text)
    return (found[1], found[2]) if found else (text, "")


def name(report: Report) -> str:
    """What the user named, with all that limits or changes what of it was judged."""
    named = f"{report.checkpoint}@{report.revision}" if report.revision else report.checkpoint
    if len(report.files) == 1:
        named = f"{named}/{report.files[0]}"
    elif report.files:
        named += f" ({', '.join(report.files[:3])}{', …' if len(report.files) > 3 else ''})"
    loaded = report.runtime_quantization
    return f"{named}, quantized at load: {loaded}" if loaded else named


def format_sentence(result: LintResult) -> str:
    """The format's name, and the algorithms that it declares."""
    names = ", ".join(plain(name) for name in result.algorithms[:MAX_ALGORITHMS])
    more = len(result.algorithms) - MAX_ALGORITHMS
    return f"{result.format}: {names}" + (f" and {more} more" if more > 0 else "")


def size_sentence(size: Size) -> str:
    """Bytes, parameters, bits per weight, compression."""
    logical = large(size.parameters)
    elements = large(size.stored_elements or size.parameters)
    parts = [stored(size.stored_bytes), f"{logical} parameters"]
    if elements != logical:
        parts[-1] += f" in {elements} stored elements"
    parts.append(f"{size.bits_per_weight:.2f} bits per weight")
    if size.linear_bits_per_weight is not None:
        parts[-1] += f" ({size.linear_bits_per_weight:.2f} in quantized layers)"
    if size.compression is not None:
        parts.append(f"{size.compression:.2f} times smaller than the reference")
    return ", ".join(parts)


def large(number: int) -> str:
    """With two decimals, for example: "8.03 B", "134.51 M"."""
    for unit, name in ((10**9, "B"), (10**6, "M")):
        if number >= unit:
            return f"{number / unit:,.2f} {name}"
    return f"{number:,}"


def stored(nbytes: int) -> str:
    """Decimal, for example: "116.4 MB", "15.8 GB"."""
    return f"{nbytes / 1e9:,.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:,.1f} MB"


def facts(report: Report) -> list[tuple[str, str]]:
    """Name and sentence of what else a reader wants to know, in order."""
    found: list[tuple[str, str]] = []
    if report.reused_from is not None:
        which = f"run {report.reused_run} of" if report.reused_run else "the run of"
        sentence = f"from {which} {report.reused_from}: the same bytes under the same settings"
        found.append(("Reused", sentence))
    if report.policy is not None:
        found += policy_sentences(report.policy)
    if report.lint.format is not None:
        found.append(("Format", format_sentence(report.lint)))
    if report.size is not None:
        found.append(("Size", size_sentence(report.size)))
    result = report.evaluation
    if missing := not_run(report):
        sentence = f"{missing}: the verdict was settled before; --full measures everything"
        found.append(("Not run", sentence))
    found += counts.facts(report)
    if report.private_tasks:
        names = ", ".join(report.private_tasks)
        sentence = f"prompts and answers of {names} are left out; publish_text: true shows them"
        found.append(("Private", sentence))
    if result is not None:
        found += [*_numerics(result), *drifts.facts(result)]
    if report.baseline is not None:
        base = report.baseline
        name = f"{base.model}@{base.revision}" if base.revision else base.model
        old = age(base.date, report.date)
        made = f"{base.date} ({old})" if old else base.date
        found.append(("Baseline", f"{name}, {made}, {base.device}; {base.path}"))
        found += [("Warning", warning) for warning in base.warnings]
    found += _last(report)
    if result is not None:
        found.append(("Run", run_sentence(result)))
    found.append(
        ("Took", f"{duration(report.duration_s)}; quant-gate {report.gate_version}, {report.date}")
    )
    return found


def _numerics(result: EvalResult) -> Iterator[tuple[str, str]]:
    """What arithmetic alone does to the model."""
    floor, target = result.rounding_floor, result.target
    if floor is not None:
        yield (
            "Rounding floor",
            f"a last-bit change of rounding alone moves the model by KL {floor.kl:.2g} nats "
            f"({100 * floor.codes_changed:.2f} % of activation codes, {floor.tokens:,} tokens)",
        )
    if target is not None and target.requantized:
        yield "Weights", _requantized(target)
    if result.agreement is not None:
        yield "Agreement", agreement_sentence(result.agreement)


def _last(report: Report) -> list[tuple[str, str]]:
    """Name and sentence of what passed last, and of what could not be compared with it."""
    last = report.previous
    if last is None:
        return []
    run = f"run {last.run_id} of " if last.run_id else ""
    whose = f"revision {last.revision}, " if last.revision else ""
    told = f"{run}{last.date}, {whose}weights {last.weights_digest[:12]}"
    return [("Passed last", told), *(("Not compared", said) for said in last.missing)]


def policy_sentences(policy: Policy) -> list[tuple[str, str]]:
    """By whose settings it was judged, and what of a change was not used."""
    commit = (policy.commit or "")[:12]
    if policy.advisory:
        sentence = (
            f"commit {commit} has no settings: those of the change were used, and this verdict "
            "decides nothing"
        )
    else:
        sentence = f"settings, baselines and tasks of commit {commit}"
    found = [("Policy", sentence)]
    if policy.changed and not policy.advisory:
        names = ", ".join(policy.changed[:MOST_CHANGED])
        rest = len(policy.changed) - MOST_CHANGED
        more = f" and {count(rest, 'more file')}" if rest > 0 else ""
        found.append(("Not used", f"{names}{more}, which the change edits"))
    found += [
        ("Reference", f"{pin.path}: {pin.base or 'none'} before, {pin.head or 'none'} now")
        for pin in policy.references
    ]
    return found


def not_run(report: Report) -> str:
    """Tasks, and the speed, that were planned and have no result, separated by commas.

    Without tasks where the table of suites says why they have none.
    """
    result = report.evaluation
    if result is None:
        return ""
    measured = {task.task for task in result.tasks}
    planned = () if report.verdict.suites else result.setups
    missing = [setup.task for setup in planned if setup.task not in measured]
    failed = report.verdict.outcome == "fail"
    if failed and report.settings.get("speed") is not None and result.throughput is None:
        missing.append("speed")
    return ", ".join(missing)


def _requantized(target: Targeted) -> str:
    """What the runtime does to the stored weights, and how far that moves the model."""
    said = f"{count(target.requantized, 'layer')} quantized again, as {target.name} does"
    if target.kl is None:
        return said
    return f"{said}: KL {target.kl:.2g} nats from the stored ones ({target.tokens:,} tokens)"


def agreement_sentence(found: Agreement) -> str:
    """How far a runtime's own computation lies from the decoded weights."""
    if found.kl is None or found.same_top is None:
        return f"none with the decoded weights, which compute NaN or infinity ({found.reference})"
    return (
        f"the runtime lies KL {found.kl:.2g} nats from the decoded weights and has the same top "
        f"token in {100 * found.same_top:.1f} % ({found.tokens:,} tokens; {found.reference})"
    )


def run_sentence(result: EvalResult) -> str:
    """Backend, device, kernel, processes and machines, batches and versions."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(result.versions.items()))
    backend = f"{result.backend} ({result.chosen})" if result.chosen else result.backend
    said = f"{backend} on {result.device}, {result.dtype}, {result.kernel}"
    shared = (
        f"shared by {result.replicas} processes" if result.replicas > 1 else "",
        f"shard {result.shard} of a run" if result.shard is not None else "",
        f"merged from {result.shards} shards" if result.shards > 1 else "",
    )
    return "; ".join(part for part in (said, *shared, result.batch_plan, versions) if part)


def age(made: str, now: str) -> str:
    """For example "12 days old", by the calendar; empty if either is no date."""
    try:
        days = (datetime.fromisoformat(now).date() - datetime.fromisoformat(made).date()).days
    except ValueError:
        return ""
    return "made today" if days <= 0 else f"{count(days, 'day')} old"


def duration(seconds: float) -> str:
    """For example: "4.2 s", "12 min 5 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def moment(date: str) -> str:
    """A date of the records as one reads it: minutes, in UTC."""
    return date[:16].replace("T", " ") + " UTC" if date.endswith(("Z", "+00:00")) else date


def points(value: float) -> str:
    """Whole where it is, for example: "12", "1,250", "0.25"."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def count(number: int, noun: str) -> str:
    """For example: "1 error", "2 errors"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
