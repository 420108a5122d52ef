"""One commit to a model repository of the Hugging Face hub: all of it, as it was approved, or none.

Large files go up first, each under its SHA-256, where nobody sees them: what arrived in an earlier
try is not sent again. Then one commit on top of the commit that was looked at names them all. What
the hub holds is read back.
"""

import hashlib
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

from gate.errors import PublishError, SettingsError
from gate.plain import plain

OF_THE_HUB = frozenset({".gitattributes"})
"""Files of a repository that the hub writes itself."""

SMALL_BYTES = 16 * 2**20
"""Up to here a file is read once and sent from memory; the hub keeps larger ones by SHA-256."""

PAUSES_S = (1, 4, 16)
"""Before a commit is tried again that the hub was too busy for."""

BUSY = frozenset({408, 429, 500, 502, 503, 504})
MOVED = frozenset({409, 412})
NAMED = 5

Content = Path | bytes


class Target(NamedTuple):
    """Where a checkpoint goes.

    Attributes:
        repository: `org/name`.
        revision: A branch, made if need be; None for the main one.
        public: Whether everybody may see it; a repository is made so, never changed.
        delete: Whether files of the repository that are not among the new ones go.
    """

    repository: str
    revision: str | None = None
    public: bool = False
    delete: bool = False


def require_name(repository: str) -> None:
    """Refuse what cannot be a repository, before anything is read.

    Raises:
        SettingsError: It is not `org/name`.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise SettingsError(f"{repository} is no repository: {error}", "Name org/name.") from error
    if repository.count("/") != 1:
        raise SettingsError(f"{repository} is no repository", "Name it with its owner: org/name.")


def publish(
    files: Mapping[str, Content],
    target: Target,
    approve: Callable[[Mapping[str, str]], None],
    message: str,
) -> str:
    """Upload files and commit them; the commit's address.

    Args:
        files: Content by path in the repository.
        target: Where.
        approve: Is given the SHA-256 of all that was uploaded, and raises where it must not be
            published.
        message: The commit's.

    Raises:
        SettingsError: The repository is not as public as was asked, or holds other files.
        PublishError: The hub cannot be reached, or refuses.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    require_name(target.repository)
    with _reaching(target.repository):
        api = HfApi()
        head = _head(api, target)
        gone = _others(api, target, head, files)
        added = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
        # An empty list of patterns: a .gitignore among the files would leave some of them out.
        api.preupload_lfs_files(
            target.repository,
            added,
            revision=target.revision,
            free_memory=False,
            gitignore_content="",
        )
        sent = {file.path_in_repo: file.upload_info.sha256.hex() for file in added}
        approve(sent)
        operations = [*added, *map(CommitOperationDelete, gone)]
        return _committed(api, target, operations, head, message, sent, files)


def fetched(target: Target, name: str) -> bytes | None:
    """A small file of the repository; None where there is none.

    Raises:
        PublishError: The hub cannot be reached, or refuses.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    require_name(target.repository)
    with _reaching(target.repository), TemporaryDirectory() as place:
        try:
            found = hf_hub_download(
                target.repository, name, revision=target.revision, local_dir=place
            )
        except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError):
            return None
        return Path(found).read_bytes()


def _head(api: Any, target: Target) -> str:
    """The commit on which the new one will stand; the repository and the branch are made.

    Raises:
        SettingsError: The repository is there and not as public as was asked.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        found = api.model_info(target.repository)
    except RepositoryNotFoundError:
        api.create_repo(target.repository, private=not target.public, exist_ok=True)
        found = api.model_info(target.repository)
    if target.public and found.private is not False:
        raise SettingsError(
            f"{target.repository} is private, and gate push changes that in no repository",
            "Leave out --public, or make it public in its settings on the hub.",
        )
    if not target.public and found.private is not True:
        raise SettingsError(
            f"{target.repository} is public: everybody would see the checkpoint",
            "Say so with --public, or name another repository.",
        )
    if target.revision is None:
        return str(found.sha)
    api.create_branch(target.repository, branch=target.revision, exist_ok=True)
    return str(api.model_info(target.repository, revision=target.revision).sha)


def _others(api: Any, target: Target, head: str, files: Mapping[str, Content]) -> list[str]:
    """Files of the repository that are not among the new ones, and are to go.

    Raises:
        SettingsError: There are some, and nobody said so.
    """
    others = sorted(_tree(api, target, head).keys() - files.keys() - OF_THE_HUB)
    if others and not target.delete:
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        raise SettingsError(
            f"{target.repository} holds files that were not judged: "
            f"{', '.join(others[:NAMED])}{more}",
            "Have the same commit remove them with --delete, or push to another repository.",
        )
    return others


def _tree(api: Any, target: Target, commit: str) -> dict[str, tuple[str, str | None]]:
    """Each file of a commit: git's digest of what lies there, and the SHA-256 of a large one."""
    entries = api.list_repo_tree(target.repository, revision=commit, recursive=True)
    return {
        entry.path: (entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
        for entry in entries
        if hasattr(entry, "blob_id")
    }


def _committed(
    api: Any,
    target: Target,
    operations: list[Any],
    head: str,
    message: str,
    sent: Mapping[str, str],
    files: Mapping[str, Content],
) -> str:
    """Commit, and read back what the hub holds; the commit's address.

    Raises:
        PublishError: Somebody else committed meanwhile, or the hub holds something else.
    """
    from huggingface_hub.errors import HfHubHTTPError

    for pause in (*PAUSES_S, None):
        try:
            made = api.create_commit(
                target.repository,
                operations,
                commit_message=message,
                revision=target.revision,
                parent_commit=head,
            )
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status in MOVED:
                # It may be our own commit, whose answer was lost.
                commit = str(api.model_info(target.repository, revision=target.revision).sha)
                if not _unlike(_tree(api, target, commit), sent, files):
                    return _address(api, target, commit)
                raise PublishError(
                    f"somebody else committed to {target.repository} meanwhile; nothing was "
                    "published",
                    "Run the same command again; what was uploaded is not sent twice.",
                ) from error
            if status not in BUSY or pause is None:
                raise
            time.sleep(pause)
            continue
        if wrong := _unlike(_tree(api, target, made.oid), sent, files):
            raise PublishError(
                f"{target.repository} now holds other bytes than were verified: "
                f"{', '.join(wrong[:NAMED])}",
                f"Revert commit {plain(made.oid)} and look at the repository.",
            )
        return _address(api, target, made.oid)
    raise AssertionError("unreachable: the last try returns or raises")


def _address(api: Any, target: Target, commit: str) -> str:
    return f"{api.endpoint}/{target.repository}/commit/{plain(commit)}"


def _unlike(
    tree: Mapping[str, tuple[str, str | None]],
    sent: Mapping[str, str],
    files: Mapping[str, Content],
) -> list[str]:
    """Files that the hub does not hold as they were sent, holds beside them, or lacks."""
    wrong = set(tree.keys() - sent.keys() - OF_THE_HUB)
    for name, digest in sent.items():
        blob, large = tree.get(name, ("", None))
        content = files[name]
        if large is not None:
            same = large == digest
        else:
            same = isinstance(content, bytes) and blob == _git_digest(content)
        if not same:
            wrong.add(name)
    return sorted(wrong)


def _git_digest(content: bytes) -> str:
    """Git's name of a file's content."""
    header = b"blob %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


@contextmanager
def _reaching(repository: str) -> Iterator[None]:
    """What the hub or the way to it does wrong, without the signatures of upload addresses."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import disable_progress_bars, logging

    # OSError, and the error of the HTTP library: which library that is, depends on the version.
    library = cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__)
    errors: tuple[type[Exception], ...] = (*library, ValueError, RuntimeError)
    before = logging.get_verbosity()
    # A log is often public, and an upload's address is all that is needed to upload.
    logging.set_verbosity(logging.ERROR)
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except errors as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        said = re.sub(r"\?[^\s'\"]*", "", f"{error}: {cause}" if cause is not error else f"{error}")
        raise PublishError(
            f"{repository} cannot be uploaded: {plain(said)}",
            "Check the name, the network and that HF_TOKEN may write there; run the same command "
            "again: what was uploaded is not sent twice.",
        ) from error
    finally:
        logging.set_verbosity(before)
