"""A checkpoint on the Hugging Face hub, only if it is, byte for byte, what was judged and passed.

What goes up is what `gate verify` accepts and nothing else. A card with the results is another
file than the card that was judged: `gate attest` states the digests of both, so that whoever
downloads the repository verifies it with the same statement.

Between verification and commit a file may change. Small ones are read once and sent from memory;
large ones are hashed again by what uploads them and must not have been touched meanwhile. Then
`verify` judges the digests of what was sent, and only then does a commit make it visible.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from gate import attest, card, digests, upload, verify
from gate.errors import ChangedError, SettingsError
from gate.records import Statement, write_text
from gate.report import stored
from gate.statements import Refusal
from gate.upload import Content, Target
from gate.verify import Demands

AGAIN = "Leave the checkpoint alone while it is pushed, and run the same command again."

Stamp = tuple[int, ...]


class Release(NamedTuple):
    """What is published: verified, and put together.

    Attributes:
        statement: Which speaks of it.
        files: Content by path in the repository, the statement's file among them.
        stamps: When each file of the checkpoint was written to last, before it was verified.
        card: As it was judged and as it is published; None where it is left alone.
    """

    checkpoint: Path
    statement: Statement
    files: Mapping[str, Content]
    stamps: Mapping[str, Stamp]
    card: tuple[str, str] | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in sorted(self.files.items())
        }


def prepared(
    checkpoint: Path, statement: Path | None, report: Path | None, demands: Demands
) -> tuple[Statement | None, Release | None, list[Refusal]]:
    """Verify a checkpoint and put together what is published; nothing leaves the machine.

    Args:
        checkpoint: A directory.
        statement: See `verify.verify`; None to make one of the report.
        report: Whose figures go into the card; None to leave the card alone.
        demands: See `verify.verify`.

    Returns:
        The statement that was found, the release, and why there is none.

    Raises:
        AttestError: The report is about other bytes, or the card cannot take the results.
        SettingsError: There is neither a statement nor a report.
    """
    with _statement(checkpoint, statement, report) as path:
        # Before the first byte is read: whatever changes later is seen.
        stamps = {name: _stamp(checkpoint / name) for name in digests.shipped(checkpoint)}
        found, refusals = verify.verify(checkpoint, path, demands)
        if found is None or refusals:
            return found, None, refusals
        files: dict[str, Content] = {name: _content(checkpoint / name) for name in stamps}
        files[digests.STATEMENT] = path.read_bytes()
    shown = None
    if report is not None:
        about = attest.about(stored(report).reports, report, found.digests)
        published = card.published(about, checkpoint)
        refusals = list(_unattested(found, published))
        shown = _text(files.get(card.CARD, b"")), _text(published[card.CARD])
        files |= published
    release = Release(checkpoint, found, files, stamps, shown)
    return found, None if refusals else release, refusals


def push(release: Release, target: Target) -> str:
    """Publish what was prepared, in one commit; its address.

    Raises:
        SettingsError: The repository is not as public as was asked, or holds other files.
        ChangedError: A file changed after it was verified; nothing was published.
        PublishError: The hub cannot be reached, or refuses.
    """

    def approve(sent: Mapping[str, str]) -> None:
        attested = {name: sha for name, sha in sent.items() if name != digests.STATEMENT}
        wrong = [refusal.message for refusal in verify.different(release.statement, attested)]
        for name, content in release.files.items():
            if isinstance(content, Path) and _stamp(content) != release.stamps[name]:
                wrong.append(f"{name} was written to")
        if wrong:
            raise ChangedError(
                f"{release.checkpoint} changed while it was uploaded, and nothing was published: "
                f"{wrong[0]}",
                AGAIN,
            )

    if release.card is not None and not release.card[0] and not target.delete:
        theirs = upload.fetched(target, card.CARD)
        if theirs is not None and not card.is_ours(theirs):
            raise SettingsError(
                f"{target.repository} has a model card and {release.checkpoint} has none",
                "Put it into the checkpoint, then judge and attest that, or drop it with --delete.",
            )
    message = f"Publish a checkpoint that quant-gate verified: {release.checkpoint.name}"
    return upload.publish(release.files, target, approve, message)


@contextmanager
def _statement(checkpoint: Path, statement: Path | None, report: Path | None) -> Iterator[Path]:
    """The statement's file; made of the report where none was named."""
    if statement is not None:
        yield statement
        return
    if report is None:
        raise SettingsError(
            "nothing says that this checkpoint was judged",
            "Name what gate attest wrote, or the report: --statement FILE or --report FILE",
        )
    made = attest.attest(report, checkpoint)
    with TemporaryDirectory() as directory:
        path = Path(directory) / "statement.json"
        write_text(path, attest.text(made))
        yield path


def _unattested(statement: Statement, published: Mapping[str, bytes]) -> Iterator[Refusal]:
    """Files of ours that the statement does not know as they would be published."""
    known = attest.published(statement)
    for name, content in published.items():
        if hashlib.sha256(content).hexdigest() not in {
            known.get(name),
            statement.digests.get(name),
        }:
            yield Refusal(
                f"the statement does not speak of {name} as this report would have it published",
                "Make the statement of this report, with this version of quant-gate: gate attest "
                "REPORT --checkpoint CHECKPOINT -o statement.json",
            )


def _content(path: Path) -> Content:
    """A small file's bytes, which nobody can change any more; a large one where it lies."""
    path = path.absolute()
    return path if path.stat().st_size > upload.SMALL_BYTES else path.read_bytes()


def _stamp(path: Path) -> Stamp:
    """What any write changes: the time of a change is the system's own, unlike that of a file."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _text(content: Content) -> str:
    return content.decode("utf-8", "replace") if isinstance(content, bytes) else ""
