"""Whether a checkpoint is, byte for byte, the one that a statement calls good enough.

Everything that is wrong is told, each with what to do; nothing wrong is the only way to pass. What
a statement says is believed as far as the file that holds it is, unless it is asked who signed it.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, Self

from gate import attest, digests, policy, settings, signature, statements
from gate.errors import SettingsError
from gate.records import Policy, Resource, Statement
from gate.settings import Settings
from gate.signature import Signer
from gate.statements import Refusal

OF_THE_MACHINE = frozenset({"batch_size", "publish_text", "command"})
"""Settings that change no figure's meaning."""

CLOCK_SKEW = timedelta(minutes=5)
NAMED = 20
"""Files that are named one by one."""


class Requirement(NamedTuple):
    """A least retention, or a largest perplexity ratio: `ifeval>=0.95`.

    Attributes:
        metric: A task, or a task and its metric with a space between.
        limit: As it was written.
    """

    metric: str
    at_least: bool
    limit: Decimal

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one.

        Raises:
            SettingsError: It is written otherwise.
        """
        match = re.fullmatch(r"\s*(.+?)\s*(>=|<=)\s*([0-9]+(?:\.[0-9]+)?)\s*", text)
        if match is None:
            raise SettingsError(
                f"{text!r} is no requirement", 'Write for example --require "ifeval>=0.95".'
            )
        return cls(" ".join(match[1].split()), match[2] == ">=", Decimal(match[3]))

    def met_by(self, value: object) -> bool:
        """Whether a figure keeps the limit; what is no number does not."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        # NaN keeps neither limit; a Decimal would raise.
        if not math.isfinite(value):
            return False
        return value >= self.limit if self.at_least else value <= self.limit


class Demands(NamedTuple):
    """What is asked beside a passed verdict about these bytes.

    Attributes:
        settings: By which the verdict must have been reached, with the policy that holds them;
            None where any will do.
        signer: Who must have signed the statement; None where it is believed as it is.
    """

    requirements: Sequence[Requirement] = ()
    max_age: timedelta | None = None
    settings: tuple[Settings, Policy] | None = None
    signer: Signer | None = None


def verify(
    checkpoint: Path, statement: Path, demands: Demands, known: digests.Known | None = None
) -> tuple[Statement | None, list[Refusal]]:
    """The statement, and everything that is wrong; nothing for the bytes that were attested.

    Args:
        checkpoint: A directory; every file of it is read.
        statement: As `gate attest` writes it, in a DSSE envelope, or in a Sigstore bundle; a file
            may have one of these on each line.
        known: See `digests.of`.

    Raises:
        CheckpointError: A file cannot be read.
        BackendUnavailableError: A signer is asked for, and what checks signatures is missing.
    """
    found = _stated(statement, demands.signer)
    if isinstance(found, Refusal):
        return None, [found]
    files = digests.of(checkpoint, digests.shipped(checkpoint), known)
    return found, [
        *different(found, files),
        *_result(found),
        *_policy(found, demands.settings),
        *_age(found, demands.max_age, datetime.now(UTC)),
        *_requirements(found, demands.requirements),
    ]


def expected(file: Path | None) -> tuple[Settings, Policy] | None:
    """The settings that must have decided: those named, else quant-gate.yaml here, if there is one.

    Raises:
        SettingsError: They cannot be read.
    """
    if file is None and not Path(settings.DEFAULT_FILE).is_file():
        return None
    loaded, root = settings.load(file)
    return loaded, policy.working(loaded, file, root)


def unasked(demands: Demands) -> list[str]:
    """What was not compared, in sentences."""
    sentences = []
    if demands.signer is None:
        sentences.append(
            "Anybody may have written the statement: no signature was checked (--repository)."
        )
    if demands.settings is None:
        sentences.append("Any settings would do: there is no quant-gate.yaml here (--settings).")
    if demands.max_age is None:
        sentences.append("Any age would do (--max-age).")
    return sentences


def _stated(path: Path, signer: Signer | None) -> Statement | Refusal:
    """The first statement about a test in a file, if it must be signed, by whom it must be."""

    def read(content: bytes) -> Statement | Refusal:
        if signer is None:
            return statements.unsigned(content, path)
        signed = signature.check(content, path, signer)
        # What was signed, and nothing else that the file says.
        return signed if isinstance(signed, Refusal) else statements.parsed(signed.payload, path)

    content = statements.content(path)
    if isinstance(content, Refusal):
        return content
    found = [read(document) for document in statements.documents(content)]
    return next((each for each in found if isinstance(each, Statement)), found[0])


def different(statement: Statement, files: Mapping[str, str]) -> Iterator[Refusal]:
    """Every file that differs, is missing or was added; a published card is as good as the judged.

    Args:
        files: SHA-256 of each file by its name.
    """
    published = attest.published(statement)
    attested = {
        **statement.digests,
        **{name: sha for name, sha in published.items() if files.get(name) == sha},
    }
    wrong = digests.different(attested, files)
    for name in wrong[:NAMED]:
        if name not in files:
            what = "is missing"
        elif name in published and name not in attested:
            what = "is not what was attested for publication"
        elif name not in attested:
            what = "was added after the verdict"
        else:
            what = f"changed: SHA-256 {attested[name][:12]} when judged, {files[name][:12]} now"
        yield Refusal(f"{name} {what}", "Release what was judged, or judge what is to be released.")
    if len(wrong) > NAMED:
        yield Refusal(f"{len(wrong) - NAMED} more files differ", "Judge this checkpoint.")


def _result(statement: Statement) -> Iterator[Refusal]:
    """Only PASSED will do; a waiver lets a change be merged, not a checkpoint be released."""
    predicate = statement.predicate
    waiver = _figures(statement).get("waiver")
    if predicate.result == "PASSED" and not predicate.failed_tests and not waiver:
        return
    failed = ", ".join(predicate.failed_tests or predicate.warned_tests) or "no test is named"
    if waiver:
        by = waiver.get("by") if isinstance(waiver, dict) else waiver
        yield Refusal(
            f"the verdict was waived by {by}: {failed}", "Mend the checkpoint and judge it again."
        )
    else:
        yield Refusal(
            f"the verdict is {predicate.result}: {failed}",
            "Mend the checkpoint and judge it again.",
        )


def _policy(statement: Statement, expected: tuple[Settings, Policy] | None) -> Iterator[Refusal]:
    """The settings that decided, key by key, then the files that they name."""
    if expected is None:
        return
    wanted, files = expected
    again = "Judge the checkpoint by these settings: gate check CHECKPOINT --full"
    here = wanted.model_dump(mode="json")
    # A key that the statement does not know yet says nothing where it is at its default.
    used = Settings().model_dump(mode="json") | dict(_annotations(statement, attest.SETTINGS))
    keys = sorted((used.keys() | here.keys()) - OF_THE_MACHINE)
    differing = [key for key in keys if used.get(key) != here.get(key)]
    if differing:
        yield Refusal(f"it was judged by other settings: {', '.join(differing)} differ", again)
        return
    decided = statement.predicate.resource(attest.POLICY)
    if decided is None or decided.digest.get("sha256") != files.digest:
        yield Refusal("it was judged by other baselines, tasks or settings files", again)


def _age(statement: Statement, longest: timedelta | None, now: datetime) -> Iterator[Refusal]:
    """No older than asked, and not from the future."""
    date = _figures(statement).get("date")
    try:
        age = now - datetime.fromisoformat(str(date)).astimezone(UTC)
    except (ValueError, OverflowError):
        yield Refusal(f"the verdict has no date: {date!r}", "Make the statement again.")
        return
    if age < -CLOCK_SKEW:
        yield Refusal(f"the verdict is from the future: {date}", "Check both machines' clocks.")
    elif longest is not None and age > longest:
        yield Refusal(
            f"the verdict is {age.days} days old; at most {longest.days or 1} are allowed",
            "Judge the checkpoint again: gate check CHECKPOINT --full --fresh",
        )


def _requirements(statement: Statement, asked: Sequence[Requirement]) -> Iterator[Refusal]:
    """Each limit against the figures of the report."""
    metrics = _figures(statement).get("metrics")
    metrics = metrics if isinstance(metrics, dict) else {}
    for requirement in asked:
        sign = ">=" if requirement.at_least else "<="
        wanted = f"{requirement.metric} {sign} {requirement.limit}"
        values = {
            name: found.get("retention")
            for name, found in metrics.items()
            if isinstance(found, dict) and _means(requirement.metric, name, found, metrics)
        }
        if not values:
            known = ", ".join(sorted(metrics)) or "none"
            yield Refusal(f"{wanted}: not measured; the statement has {known}", "Measure it.")
        for name, value in values.items():
            if not requirement.met_by(value):
                figure = "has no figure" if value is None else f"is {value}"
                yield Refusal(f"{wanted} is asked, and {name} {figure}", "Mend the checkpoint.")


def _means(asked: str, name: str, found: Mapping[str, Any], metrics: Mapping[str, Any]) -> bool:
    """A metric by its full name; a task means its metrics that gate, or all where none does."""
    if asked == name:
        return True
    task, _, _ = name.partition(" ")
    if asked != task:
        return False
    of_task = [m for n, m in metrics.items() if n.partition(" ")[0] == task and isinstance(m, dict)]
    return found.get("outcome") is not None or all(m.get("outcome") is None for m in of_task)


def _figures(statement: Statement) -> Mapping[str, Any]:
    return _annotations(statement, attest.REPORT)


def _annotations(statement: Statement, name: str) -> Mapping[str, Any]:
    found = statement.predicate.resource(name) or Resource(name=name)
    return found.annotations
