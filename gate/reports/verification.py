"""What became of a verification, on a terminal."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from gate.records import Statement
from gate.reports.console import rendered
from gate.reports.wording import count, plain


def render(
    checkpoint: str,
    statement: Statement | None,
    refusals: Sequence[tuple[str, str]],
    unasked: Sequence[str] = (),
    signer: str | None = None,
    *,
    color: bool = False,
    width: int = 100,
) -> str:
    """Verdict, reason, what to do.

    Args:
        checkpoint: As the user named it.
        statement: Which was compared; None where there is none.
        refusals: What is wrong and what to do about it; none for a checkpoint that may be released.
        unasked: What was not compared, in sentences.
        signer: Whose signature was checked, if anybody's.
    """
    word, style = ("BLOCKED", "bold red") if refusals else ("VERIFIED", "bold green")
    lines: list[RenderableType] = [
        Text.assemble((word, style), f"  {plain(checkpoint)}"),
        *(Text(plain(message)) for message, _ in refusals),
        *(Text(f"Fix: {plain(fix)}") for fix in dict.fromkeys(fix for _, fix in refusals)),
    ]
    if statement is not None and not refusals:
        tests = plain(", ".join(statement.predicate.passed_tests))
        lines.append(Text(f"{count(len(statement.subject), 'file')} as judged; passed: {tests}"))
        if signer is not None:
            lines.append(Text(f"Signed by {plain(signer)}"))
    if statement is not None:
        lines += [Text(plain(sentence)) for sentence in unasked]
    return rendered(Group(*lines), color, width)
