"""What GitHub replies, as far as it is read: checked before it is believed."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AliasPath, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from gate import records
from gate.errors import PublishError
from gate.github.refusal import Call, Reply

T = TypeVar("T")
Permission = Literal["admin", "write", "read", "none"]
Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")]

# What is not named is not read; a wrong type is an error and never converted.
_CHECKED = ConfigDict(strict=True, extra="ignore", populate_by_name=True)


@dataclass(frozen=True, config=_CHECKED)
class Comment:
    """A comment on an issue or a pull request.

    Attributes:
        author: Login; None where the account is gone.
        app: Slug of the App that wrote it, if one did.
    """

    id: int
    body: str = ""
    author: str | None = Field(default=None, validation_alias=AliasPath("user", "login"))
    app: str | None = Field(
        default=None, validation_alias=AliasPath("performed_via_github_app", "slug")
    )
    created_at: str = ""
    html_url: str = ""


def _names(labels: Any) -> Any:
    """Names of GitHub's labels, which it describes by many fields."""
    if not isinstance(labels, list):
        return labels
    return tuple(label.get("name") if isinstance(label, dict) else label for label in labels)


@dataclass(frozen=True, config=_CHECKED)
class PullRequest:
    """A pull request.

    Attributes:
        head_repository: `owner/name`; None where the fork is gone.
    """

    number: int
    state: Literal["open", "closed"]
    head_sha: Sha = Field(validation_alias=AliasPath("head", "sha"))
    head_ref: str = Field(validation_alias=AliasPath("head", "ref"))
    base_sha: Sha = Field(validation_alias=AliasPath("base", "sha"))
    base_ref: str = Field(validation_alias=AliasPath("base", "ref"))
    head_repository: str | None = Field(
        default=None, validation_alias=AliasPath("head", "repo", "full_name")
    )
    author: str | None = Field(default=None, validation_alias=AliasPath("user", "login"))
    labels: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()


@dataclass(frozen=True, config=_CHECKED)
class LabelEvent:
    """A label set on or taken off a pull request.

    Attributes:
        at: ISO 8601.
        actor: Login; None where the account is gone.
    """

    label: str
    actor: str | None
    at: str
    added: bool


@dataclass(frozen=True, config=_CHECKED)
class IssueEvent:
    """An event in the life of an issue; most kinds have no label."""

    event: str
    created_at: str = ""
    label: str | None = Field(default=None, validation_alias=AliasPath("label", "name"))
    actor: str | None = Field(default=None, validation_alias=AliasPath("actor", "login"))


@dataclass(frozen=True, config=_CHECKED)
class TreeEntry:
    """A file, directory or submodule of a commit.

    Attributes:
        path: From the repository's root.
        type: `blob`, `tree` or `commit`.
        sha: Of the object, not of the commit.
        size: Bytes of a blob.
    """

    path: str
    mode: str
    type: str
    sha: Sha
    size: int | None = None


@dataclass(frozen=True, config=_CHECKED)
class Tree:
    """All entries of a commit, or the first of them."""

    tree: list[TreeEntry]
    truncated: bool


@dataclass(frozen=True, config=_CHECKED)
class WorkflowRun:
    """A run of a workflow.

    Attributes:
        conclusion: None while it runs.
        head_repository: `owner/name`; None where the fork is gone.
        path: Of the workflow's file.
    """

    id: int
    event: str
    head_sha: Sha
    status: str | None = None
    conclusion: str | None = None
    head_branch: str | None = None
    head_repository: str | None = Field(
        default=None, validation_alias=AliasPath("head_repository", "full_name")
    )
    run_attempt: int = 1
    path: str = ""
    html_url: str = ""


@dataclass(frozen=True, config=_CHECKED)
class Artifact:
    """An archive that a run stored."""

    id: int
    name: str
    expired: bool
    size_bytes: int = Field(validation_alias="size_in_bytes")


@dataclass(frozen=True, config=_CHECKED)
class ArtifactPage:
    """Some of the archives that a run stored."""

    artifacts: list[Artifact]


@dataclass(frozen=True, config=_CHECKED)
class User:
    """An account."""

    login: str


@dataclass(frozen=True, config=_CHECKED)
class Role:
    """What an account may do with a repository."""

    permission: Permission


@dataclass(frozen=True, config=_CHECKED)
class CommitComparison:
    """Two commits and where they parted."""

    merge_base: Sha = Field(validation_alias=AliasPath("merge_base_commit", "sha"))


def read(kind: TypeAdapter[T], call: Call, reply: Reply) -> T:
    """The content of a reply.

    Raises:
        PublishError: It is not what GitHub's API describes.
    """
    try:
        return kind.validate_json(reply.content)
    except ValidationError as error:
        raise PublishError(
            f"GitHub was asked to {call.doing}; its reply is not what its API describes: "
            f"{records.violation(error)}",
            "Check that GITHUB_API_URL is the address of GitHub's API.",
        ) from error
