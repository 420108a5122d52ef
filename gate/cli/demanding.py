"""What may be asked of a statement, the same for every command that believes one."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gate.cli.options import SETTINGS

OPTIONS = (
    click.option(
        "--require", multiple=True, metavar="METRIC>=LIMIT", help='For example "ifeval>=0.95".'
    ),
    click.option("--max-age", metavar="14d", help="Oldest verdict that counts, in days or hours."),
    click.option(
        "--repository",
        metavar="ORG/NAME",
        help="A workflow of this GitHub repository must have signed.",
    ),
    click.option(
        "--workflow",
        metavar="PATH[@REF]",
        help="This one, for example .github/workflows/release.yml@refs/tags/v1.",
    ),
    click.option(
        "--signer", metavar="IDENTITY", help="This address or e-mail address must have signed."
    ),
    click.option(
        "--issuer", metavar="URL", help="Who vouches for the signer; left out, GitHub's workflows."
    ),
    click.option(
        "--trusted-root",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Authorities that count, as gh attestation trusted-root prints them.",
    ),
    SETTINGS,
)


def demanding(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command these options, and what they ask as `demands`."""

    @functools.wraps(command)
    def called(
        *,
        require: tuple[str, ...],
        max_age: str | None,
        repository: str | None,
        workflow: str | None,
        signer: str | None,
        issuer: str | None,
        trusted_root: Path | None,
        settings: Path | None,
        **others: Any,
    ) -> int:
        from gate import duration, signature, verify

        demands = verify.Demands(
            requirements=[verify.Requirement.parse(text) for text in require],
            max_age=duration.parse(max_age, "age of a verdict") if max_age else None,
            settings=verify.expected(settings),
            signer=signature.asked(
                identity=signer,
                repository=repository,
                workflow=workflow,
                issuer=issuer,
                trusted_root=trusted_root,
            ),
        )
        return command(demands=demands, **others)

    for option in reversed(OPTIONS):
        called = option(called)
    return called
