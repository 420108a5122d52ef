"""What changed in the answers: kinds of instruction, documents, and both texts side by side."""

from collections.abc import Iterator

from gate.records import CanaryAnswer, Flip, InstructionChange, Report
from gate.reports import wording
from gate.reports.markup import code, escape, escape_lines, fold, left_table, table
from gate.reports.shorten import Detail

MOST_INSTRUCTIONS = 5
MAX_PROMPT_CHARS = 600
INSTRUCTIONS = ("instruction type", "given", "baseline followed", "candidate followed", "change")


def instructions(report: Report) -> Iterator[str]:
    """The kinds of instruction that it follows less often."""
    worse = [change for change in report.instructions if change.candidate < change.baseline]
    if not worse:
        return
    cells = [instruction(change) for change in worse[:MOST_INSTRUCTIONS]]
    rows = [[code(kind), *figures] for kind, *figures in cells]
    shown = [f"**Instructions that it follows less often** ({code(worse[0].metric)})"]
    shown.append(table(INSTRUCTIONS, rows))
    if report.verdict.outcome == "fail":
        yield from shown
    else:
        yield from fold("Instructions that it follows less often", iter(shown[1:]))


def instruction(change: InstructionChange) -> tuple[str, ...]:
    """One row below `INSTRUCTIONS`, not yet escaped."""
    moved = f"{change.candidate - change.baseline:+,.0f}".replace("-", "\N{MINUS SIGN}")
    before, after = wording.points(change.baseline), wording.points(change.candidate)
    return change.kind, f"{change.n:,}", before, after, moved


def documents(report: Report) -> int:
    """How many documents a report shows with a text."""
    canary = report.verdict.canary[: wording.MAX_CANARY]
    return sum(map(_has_text, report.flips)) + sum(map(_has_text, canary))


def canary(report: Report, detail: Detail) -> Iterator[str]:
    """Prompts on which the candidate no longer speaks."""
    answers = report.verdict.canary
    for answer in answers[: wording.MAX_CANARY]:
        yield f"**{escape(answer.task)} document {answer.doc_id}:** {escape(answer.defect)}"
        yield from _texts(answer, detail)
    left = len(answers) - wording.MAX_CANARY
    if left > 0:
        yield f"and {wording.count(left, 'more prompt')}"


def flips(report: Report, detail: Detail) -> Iterator[str]:
    """A few documents with another score, both answers side by side."""
    if report.flips:
        yield from fold(flips_title(report), _listed_flips(report, detail))


def flips_title(report: Report) -> str:
    """For example: "10 of 81 documents that are scored differently"."""
    total = sum(_moved(report, *key) for key in dict.fromkeys(map(_key, report.flips)))
    shown = len(report.flips)
    return f"{shown} of {max(total, shown):,} documents that are scored differently"


def _key(flip: Flip) -> tuple[str, str]:
    return flip.task, flip.metric


def _moved(report: Report, task: str, metric: str) -> int:
    """How many documents of a metric changed their score."""
    for c in report.verdict.comparisons:
        if (c.task, c.metric) == (task, metric) and c.flips is not None:
            return round(c.flips * c.n)
    return 0


def _listed_flips(report: Report, detail: Detail) -> Iterator[str]:
    silent = [flip for flip in report.flips if not detail.answer_chars or not _has_text(flip)]
    for flip in report.flips:
        if flip not in silent:
            yield f"**{escape(flip.task)} document {flip.doc_id}** {_what(flip)}"
            yield from _texts(flip, detail)
    if silent:
        yield "\n".join(f"- {escape(f.task)} document {f.doc_id} {_what(f)}" for f in silent)
    private = dict.fromkeys(flip.task for flip in silent if flip.task in report.private_tasks)
    if private:
        yield (
            f"Prompts and answers of your own tasks ({', '.join(map(code, private))}) are not "
            "shown; `publish_text: true` in the settings shows them."
        )


def _what(flip: Flip) -> str:
    did = "gained" if flip.gained else "lost"
    return f"{did} {', '.join(map(code, flip.parts))}" if flip.parts else did


def _has_text(shown: Flip | CanaryAnswer) -> bool:
    return any(text is not None for text in (shown.prompt, shown.baseline, shown.candidate))


def _texts(shown: Flip | CanaryAnswer, detail: Detail) -> Iterator[str]:
    """The prompt, whose end is what is asked, and both answers."""
    chars = detail.answer_chars
    if not chars:
        return
    if shown.prompt is not None:
        kept = min(chars, MAX_PROMPT_CHARS)
        prompt = shown.prompt if len(shown.prompt) <= kept else f"…{shown.prompt[-kept:]}"
        yield f"> {escape_lines(prompt, kept + 1)}"
    if shown.baseline is not None and shown.candidate is not None:
        cells = [escape_lines(t, chars) or "(empty)" for t in (shown.baseline, shown.candidate)]
        yield left_table(["baseline", "candidate"], [cells])
