"""The manual of the rules on a terminal, and as JSON."""

import json
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gate.lint import require_known
from gate.reports.console import headed_table, rendered
from gate.reports.text import SEVERITY_STYLE
from gate.rule import Rule, sections, summary

READS = {
    "headers": "configuration and headers",
    "data": "the data of scales",
    "reference": "the checkpoint that --reference names",
    "target": "what --runtime, --gpu and --memory say",
}


def page(rules: Sequence[Rule], name: str, *, color: bool = False, width: int = 100) -> str:
    """The manual page of one rule.

    Raises:
        SettingsError: There is no rule of that name; with the nearest.
    """
    require_known([name], rules, "gate explain")
    (rule,) = (rule for rule in rules if rule.id == name)
    facts = Table.grid(padding=(0, 2))
    facts.add_row("severity", Text(rule.severity, SEVERITY_STYLE[rule.severity]))
    facts.add_row("reads", READS[rule.needs])
    if rule.formats:
        facts.add_row("formats", ", ".join(sorted(rule.formats)))
    if rule.complete:
        facts.add_row("needs", "all files of the checkpoint")
    parts: list[RenderableType] = [Text(rule.id, "bold"), Text(summary(rule)), Text(), facts]
    for title, text in sections(rule).items():
        parts += [Text(), Text(title, "bold"), Padding(Text(text), (0, 0, 0, 2))]
    return rendered(Group(*parts), color, width)


def table(rules: Sequence[Rule], *, color: bool = False, width: int = 100) -> str:
    """One row a rule."""
    listed = headed_table()
    listed.add_column("rule", no_wrap=True)
    listed.add_column("severity")
    listed.add_column("reads")
    listed.add_column("what it finds", overflow="fold")
    for rule in rules:
        severity = Text(rule.severity, SEVERITY_STYLE[rule.severity])
        listed.add_row(rule.id, severity, rule.needs, Text(summary(rule).rstrip(".")))
    return rendered(listed, color, width)


def as_json(rules: Sequence[Rule]) -> str:
    """One object a rule, with its manual page's sections."""
    listed = [
        {
            "id": rule.id,
            "severity": rule.severity,
            "needs": rule.needs,
            "formats": sorted(rule.formats),
            "complete": rule.complete,
            "summary": summary(rule),
            **{title.lower(): text for title, text in sections(rule).items()},
        }
        for rule in rules
    ]
    return json.dumps(listed, indent=1, ensure_ascii=False) + "\n"
