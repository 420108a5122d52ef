"""Write what is derived from the code: schemas, the manual of the rules, README's tables.

python scripts/generate.py           writes the files
python scripts/generate.py --check   exits 1, naming them, when any is out of date
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import format_table
import yaml
from pydantic import BaseModel

from gate import cli, records, rule, settings
from gate.rules import RULES

ROOT = Path(__file__).parent.parent

SCHEMAS: dict[str, tuple[type[BaseModel], str]] = {
    "settings": (settings.Settings, "quant-gate.yaml"),
    "eval-result": (records.EvalResult, "quant-gate evaluation result (a stored baseline)"),
    "report": (records.Report, "quant-gate report"),
    "diagnosis": (records.DiagnosisReport, "quant-gate diagnosis: which modules are hurt"),
    "calibration": (records.Calibration, "quant-gate calibration: the gate's own rates"),
    "run": (records.GateRun, "quant-gate run: what the GitHub action stores"),
}
"""Schema name to its model and title."""

VERBS = (
    "check", "eval", "lint", "compare", "diagnose", "calibrate", "init", "detect", "publish",
    "bundle", "report", "attest", "verify", "push", "baseline", "history", "dashboard", "import",
    "explain", "list rules", "list suites", "doctor", "demo",
)  # fmt: skip


def generated() -> Iterator[tuple[Path, str]]:
    """Every derived file with the text that it must have."""
    for name, (model, title) in SCHEMAS.items():
        yield ROOT / "schemas" / f"{name}.schema.json", schema(model, title)
    yield ROOT / "docs" / "rules.md", rule.manual(RULES)
    yield ROOT / "docs" / "formats.md", format_table.page()
    readme = ROOT / "README.md"
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    yield readme, with_inputs(with_help(readme.read_text(encoding="utf-8")), action)


def schema(model: type[BaseModel], title: str) -> str:
    """The model as a JSON Schema of draft 2020-12."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    body = {**head, **model.model_json_schema(), "title": title}
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


def with_help(text: str) -> str:
    """The text with the list of commands between its markers."""
    rows = ["| command | what it does |", "|---|---|"]
    for verb in VERBS:
        command: click.Command = cli.cli
        for name in verb.split():
            assert isinstance(command, click.Group)
            command = command.commands[name]
        usage = command.get_usage(click.Context(command, info_name=f"gate {verb}"))
        summary = (command.help or "").splitlines()[0]
        rows.append(f"| `{usage.removeprefix('Usage: ')}` | {summary} |")
    return between(text, "commands", rows)


def with_inputs(text: str, action: dict[str, Any]) -> str:
    """The text with the tables of the action's inputs and outputs between their markers."""
    rows = ["| input | default | what it says |", "|---|---|---|"]
    for name, entry in action["inputs"].items():
        default = f"`{entry['default']}`" if entry["default"] else ""
        rows.append(f"| `{name}` | {default} | {entry['description']} |")
    text = between(text, "inputs", rows)
    rows = ["| output | what it says |", "|---|---|"]
    rows += [f"| `{name}` | {each['description']} |" for name, each in action["outputs"].items()]
    return between(text, "outputs", rows)


def between(text: str, marker: str, rows: list[str]) -> str:
    """The text with these lines between `<!-- marker -->` and `<!-- /marker -->`."""
    return re.sub(
        rf"(?<=<!-- {marker} -->\n).*?(?=<!-- /{marker} -->)",
        lambda _: "".join(f"{row}\n" for row in rows),
        text,
        flags=re.DOTALL,
    )


def main() -> int:
    """Write the files, or say which are out of date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="only say what is out of date")
    check = parser.parse_args().check
    stale = [
        (path, text)
        for path, text in generated()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    for path, text in stale:
        if check:
            print(f"{path.relative_to(ROOT)} is out of date: run make generate")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
