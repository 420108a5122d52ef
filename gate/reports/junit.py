"""What decided as JUnit XML, which continuous integration shows as tests.

Every rule that ran and every metric with a limit is a test case; a rule that was skipped and a
metric without a limit are skipped cases, with the reason.

Source: https://github.com/testmoapp/junitxml (the fields that readers agree on).
"""

from collections.abc import Iterator
from xml.etree import ElementTree

from gate.records import Finding, Report
from gate.reports import findings
from gate.reports.wording import plain

Element = ElementTree.Element


def render(*reports: Report) -> str:
    """One test suite for each checkpoint."""
    root = ElementTree.Element("testsuites", name="quant-gate")
    root.extend(_suite(report) for report in reports)
    for name in ("tests", "failures", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(report: Report) -> Element:
    cases = [*_rules(report), *_canary(report), *_metrics(report)]
    if report.verdict.outcome != "pass" and not any(_failed(case) for case in cases):
        # What decided is neither rule nor metric: logits that are no numbers, for example.
        cases.append(_case("verdict", "verdict", failure=report.verdict.reasons))
    suite = ElementTree.Element(
        "testsuite",
        name=plain(report.checkpoint),
        tests=str(len(cases)),
        failures=str(sum(map(_failed, cases))),
        errors="0",
        skipped=str(sum(case.find("skipped") is not None for case in cases)),
        time=f"{report.duration_s:.1f}",
        timestamp=report.date,
    )
    suite.extend(cases)
    return suite


def _failed(case: Element) -> bool:
    return case.find("failure") is not None


def _case(
    room: str,
    name: str,
    *,
    failure: tuple[str, ...] = (),
    skipped: str | None = None,
    told: str | None = None,
) -> Element:
    """One test case; of a failure the first line is its message."""
    case = ElementTree.Element("testcase", classname=f"quant-gate.{room}", name=plain(name))
    if failure:
        found = ElementTree.SubElement(case, "failure", message=plain(failure[0]))
        found.text = "\n".join(plain(line) for line in failure)
    elif skipped is not None:
        ElementTree.SubElement(case, "skipped", message=plain(skipped))
    if told is not None:
        ElementTree.SubElement(case, "system-out").text = plain(told)
    return case


def _rules(report: Report) -> Iterator[Element]:
    lint = report.lint
    broken: dict[str, list[Finding]] = {}
    for finding in lint.errors:
        broken.setdefault(finding.rule, []).append(finding)
    for rule in dict.fromkeys([*(rule.id for rule in lint.rules_run), *broken]):
        yield _case("lint", rule, failure=_told(report, broken.get(rule, [])))
    for skipped in lint.skipped:
        yield _case("lint", skipped.rule, skipped=skipped.reason)


def _told(report: Report, found: list[Finding]) -> tuple[str, ...]:
    """The findings of one rule, the first few, and what to do."""
    if not found:
        return ()
    lines = [
        f"{findings.path(report, finding)}: {finding.message}" for finding in found[: findings.MOST]
    ]
    if len(found) > findings.MOST:
        lines.append(f"and {len(found) - findings.MOST:,} more")
    return (found[0].message, *lines, f"Fix: {found[0].fix}")


def _canary(report: Report) -> Iterator[Element]:
    """The canary has a case of its own where it condemned the candidate."""
    if report.verdict.canary:
        fix = (f"Fix: {report.verdict.fix}",) if report.verdict.fix else ()
        yield _case("evaluation", "canary", failure=report.verdict.reasons + fix)


def _metrics(report: Report) -> Iterator[Element]:
    last = report.previous.comparisons if report.previous else ()
    for found in last:
        if found.outcome is not None:
            failure = () if found.outcome == "pass" else (found.reason,)
            name = f"{found.task} {found.metric}"
            yield _case("released", name, failure=failure, told=found.reason)
    for found in report.verdict.comparisons:
        name = f"{found.task} {found.metric}"
        if found.outcome is None:
            yield _case("evaluation", name, skipped="advisory: it has no limit", told=found.reason)
        elif found.outcome == "pass":
            yield _case("evaluation", name, told=found.reason)
        else:
            yield _case("evaluation", name, failure=(found.reason,))
