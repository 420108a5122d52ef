"""What a change touches, as text.

It often is part of a workflow's log, where `::` at the start of a line and `##[` anywhere are
commands to the runner: no line begins with a name, and the latter is broken up.
"""

from collections.abc import Sequence

from gate.records import ChangedCheckpoint, Detection
from gate.reports.wording import count, plain

MOST_LINES = 200
MOST_NAMES = 10


def render(detection: Detection) -> str:
    """One line a checkpoint, then what else changed and what was left out."""
    lines = [_headline(detection)]
    changes = detection.base is not None
    lines += [f"  {_line(found, changes)}" for found in detection.checkpoints[:MOST_LINES]]
    more = len(detection.checkpoints) - MOST_LINES
    lines += [f"  and {more:,} more"] if more > 0 else []
    failed = detection.failures[:MOST_LINES]
    lines += [f"Not judged: {plain(found.message)}. {found.hint}" for found in failed]
    if detection.left_out:
        left = count(len(detection.left_out), "changed checkpoint")
        lines.append(f"Left out by the path filters, {left}: {_names(detection.left_out)}")
    if detection.submodules:
        lines.append(f"Submodules are not looked into: {_names(detection.submodules)}")
    if detection.policy_files:
        lines.append(
            f"Changed settings, baselines or tasks: {_names(detection.policy_files)}. That alone "
            "judges no checkpoint again."
        )
    return "\n".join(lines).replace("##[", "# #[") + "\n"


def _headline(detection: Detection) -> str:
    head = (detection.head or "")[:12]
    number = len(detection.checkpoints)
    what = count(number, "checkpoint") if number else "no checkpoint"
    if detection.base is None:
        return f"{what} in {head or 'no commit'} ({detection.source})"
    what = (
        count(len(detection.checkpoints), "checkpoint")
        if detection.checkpoints
        else "no checkpoint"
    )
    return f"{what} changed from {detection.base[:12]} to {head} ({detection.source})"


def _line(checkpoint: ChangedCheckpoint, changes: bool) -> str:
    notes = [count(len(checkpoint.files), "file")] if checkpoint.files else []
    if checkpoint.previous:
        notes.insert(0, f"was {plain(checkpoint.previous)}")
    if checkpoint.pointers:
        notes.append(f"{checkpoint.pointers:,} in Git LFS")
    about = f" ({', '.join(notes)})" if notes else ""
    change = f"{checkpoint.change:<8} " if changes else "-"
    return f"{change} {plain(checkpoint.path)}{about}"


def _names(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(map(plain, names[:MOST_NAMES])) + (f" and {more:,} more" if more > 0 else "")
