"""What each path of the GitHub of the tests does to its state, and replies."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from github_description import Description
from github_state import Comment, Pull, Request, State, Status

MOST_OF_A_COMMENT = 65_536
MOST_OF_A_STATUS = 140
REPOSITORY_ID = 1296269
READ_COMMENTS = ("issues", "pull_requests")
WRITE_COMMENTS = ("pull_requests",)
"""On a pull request, though the header of the refusal names `issues` too."""
DOCUMENTATION = "https://docs.github.com/rest"


class Reply(NamedTuple):
    """A reply; `links` become its Link header."""

    status: int
    content: Any = None
    headers: Mapping[str, str] = {}
    links: Mapping[str, Mapping[str, str]] = {}


class Call(NamedTuple):
    """A request that may take effect."""

    state: State
    description: Description
    url: str
    request: Request
    parts: Mapping[str, str]


class Route(NamedTuple):
    """A path; any one of `permissions` at that level opens it."""

    method: str
    pattern: re.Pattern[str]
    permissions: tuple[str, ...]
    act: Callable[[Call], Reply]


def refusal(status: int, message: str, **more: Any) -> Reply:
    """GitHub's body of an error."""
    content = {"message": message, "documentation_url": DOCUMENTATION, "status": str(status)}
    return Reply(status, content | more)


def invalid(resource: str, code: str, field: str, message: str) -> Reply:
    """GitHub's refusal of a request's content."""
    error = {"resource": resource, "code": code, "field": field, "message": message}
    return refusal(422, "Validation Failed", errors=[error])


def unpermitted(state: State, method: str, permissions: Sequence[str]) -> Reply | None:
    """The refusal of a token that lacks every one of the permissions, and its header."""
    level = "read" if method == "GET" else "write"
    levels = {"read": ("read", "write"), "write": ("write",)}[level]
    if not permissions or any(state.granted.get(one) in levels for one in permissions):
        return None
    named = READ_COMMENTS if permissions == WRITE_COMMENTS and level == "write" else permissions
    accepted = "; ".join(f"{one}={level}" for one in named)
    reply = refusal(403, "Resource not accessible by integration")
    return reply._replace(headers={"x-accepted-github-permissions": accepted})


def paged(call: Call, items: Sequence[Any], wrap: Callable[[list[Any]], Any] = list) -> Reply:
    """One page, and the addresses of the others."""
    asked = call.request.query
    size = min(int(asked.get("per_page", 30)), 100, call.state.page_size)
    page, last = int(asked.get("page", 1)), max(1, -(-len(items) // size))
    links = {}
    if page > 1:
        links |= {"prev": asked | {"page": str(page - 1)}, "first": asked | {"page": "1"}}
    if page < last:
        links |= {"next": asked | {"page": str(page + 1)}, "last": asked | {"page": str(last)}}
    return Reply(200, wrap(list(items[(page - 1) * size : page * size])), links=links)


def link_header(call: Call, links: Mapping[str, Mapping[str, str]]) -> str:
    """The Link header; like GitHub's, it names the repository by its number."""
    repository = f"/repos/{call.state.repository}"
    path = call.request.path.replace(repository, f"/repositories/{REPOSITORY_ID}", 1)
    return ", ".join(
        f'<{call.url}{path}?{urlencode(query)}>; rel="{relation}"'
        for relation, query in links.items()
    )


def user(call: Call, login: str) -> dict[str, Any]:
    kind = "Bot" if login.endswith("[bot]") else "User"
    return {**call.description.minimal("simple-user"), "login": login, "type": kind}


def comment(call: Call, stored: Comment) -> dict[str, Any]:
    page = f"{call.url}/{call.state.repository}/pull/{stored.issue}"
    made = call.description.minimal("issue-comment") | {
        "id": stored.id,
        "body": stored.body,
        "user": user(call, stored.author),
        "created_at": stored.created_at,
        "updated_at": stored.updated_at,
        "html_url": f"{page}#issuecomment-{stored.id}",
        "author_association": "NONE",
    }
    if stored.app is not None:
        app = call.description.minimal("nullable-integration")
        made["performed_via_github_app"] = app | {"slug": stored.app, "name": stored.app}
    return made


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def too_long(body: str) -> Reply | None:
    if len(body) <= MOST_OF_A_COMMENT:
        return None
    message = f"Body is too long (maximum is {MOST_OF_A_COMMENT} characters)"
    return invalid("IssueComment", "unprocessable", "data", message)


def list_comments(call: Call) -> Reply:
    issue = int(call.parts["number"])
    found = [one for one in call.state.comments if one.issue == issue]
    return paged(call, [comment(call, one) for one in sorted(found, key=lambda one: one.id)])


def create_comment(call: Call) -> Reply:
    issue, body = int(call.parts["number"]), call.request.body["body"]
    if call.state.pulls and issue not in call.state.pulls:
        return refusal(404, "Not Found")
    if (refused := too_long(body)) is not None:
        return refused
    state, moment = call.state, now()
    made = Comment(
        id=state.next_id(),
        issue=issue,
        body=body,
        author=state.viewer,
        app=state.app,
        created_at=moment,
        updated_at=moment,
    )
    state.comments.append(made)
    return Reply(201, comment(call, made))


def update_comment(call: Call) -> Reply:
    stored = find_comment(call)
    body = call.request.body["body"]
    if stored is None:
        return refusal(404, "Not Found")
    if (refused := too_long(body)) is not None:
        return refused
    stored.body, stored.updated_at = body, now()
    return Reply(200, comment(call, stored))


def delete_comment(call: Call) -> Reply:
    stored = find_comment(call)
    if stored is None:
        return refusal(404, "Not Found")
    call.state.comments.remove(stored)
    return Reply(204)


def find_comment(call: Call) -> Comment | None:
    wanted = int(call.parts["id"])
    return next((one for one in call.state.comments if one.id == wanted), None)


def set_status(call: Call) -> Reply:
    asked, sha, state = call.request.body, call.parts["sha"], call.state
    if state.commits is not None and sha not in state.commits:
        return refusal(422, f"No commit found for SHA: {sha}")
    if len(asked.get("description") or "") > MOST_OF_A_STATUS:
        message = f"description is too long (maximum is {MOST_OF_A_STATUS} characters)"
        return invalid("Status", "custom", "description", message)
    made = Status(sha=sha, creator=state.viewer, **asked)
    state.statuses.append(made)
    shown = made.model_dump(include={"state", "context", "description", "target_url"})
    moment = {"created_at": now(), "updated_at": now()}
    return Reply(201, call.description.minimal("status") | shown | moment)


def pull(call: Call, stored: Pull, kind: str) -> dict[str, Any]:
    made = call.description.minimal(kind)
    labels = [
        {"id": 1, "node_id": "x", "url": call.url, "name": name, "color": "ededed"}
        | {"description": "", "default": False}
        for name in stored.labels
    ]
    own = call.state.repository
    head = own if stored.head_repository is None else stored.head_repository
    return made | {
        "number": stored.number,
        "state": stored.state,
        "user": user(call, stored.author),
        "labels": labels,
        "head": side(call, made["head"], head, stored.head_ref, stored.head_sha),
        "base": side(call, made["base"], own, stored.base_ref, stored.base_sha),
    }


def side(call: Call, made: dict[str, Any], repository: str, ref: str, sha: str) -> dict[str, Any]:
    owner = repository.partition("/")[0] or "unknown"
    shown = repository_of(call, repository) if repository else None
    return made | {"ref": ref, "sha": sha, "label": f"{owner}:{ref}", "repo": shown}


def repository_of(call: Call, name: str, kind: str = "repository") -> dict[str, Any]:
    fork, (owner, _, last) = name != call.state.repository, name.partition("/")
    shown = {"full_name": name, "name": last, "fork": fork, "owner": user(call, owner)}
    return call.description.minimal(kind) | shown


def get_pull(call: Call) -> Reply:
    stored = call.state.pulls.get(int(call.parts["number"]))
    if stored is None:
        return refusal(404, "Not Found")
    return Reply(200, pull(call, stored, "pull-request"))


def pulls_that(call: Call, wanted: Callable[[Pull], bool]) -> Reply:
    found = [one for one in call.state.pulls.values() if wanted(one)]
    return paged(call, [pull(call, one, "pull-request-simple") for one in found])


def list_pulls(call: Call) -> Reply:
    asked = call.request.query
    wanted = asked.get("state", "open")
    owner, _, branch = asked.get("head", "").partition(":")

    def fits(one: Pull) -> bool:
        head = call.state.repository if one.head_repository is None else one.head_repository
        # As on GitHub, what is not `owner:branch` filters nothing.
        named = not branch or (head.partition("/")[0], one.head_ref) == (owner, branch)
        return named and wanted in ("all", one.state)

    return pulls_that(call, fits)


def pulls_of_commit(call: Call) -> Reply:
    sha, own = call.parts["sha"], call.state.repository
    # GitHub lists no pull requests from forks here, unless their commit is in the base.
    return pulls_that(call, lambda one: one.head_sha == sha and one.head_repository in (None, own))


def label_events(call: Call) -> Reply:
    events = []
    for number, one in enumerate(call.state.label_events):
        if one.issue == int(call.parts["number"]):
            kind = "labeled" if one.added else "unlabeled"
            shown = {
                "id": number,
                "event": kind,
                "created_at": one.at,
                "actor": user(call, one.actor),
            }
            shown["label"] = {"name": one.label, "color": "ededed"}
            events.append(call.description.minimal(f"{kind}-issue-event") | shown)
    return paged(call, events)


def permission(call: Call) -> Reply:
    login = call.parts["user"]
    role = call.state.permissions.get(login)
    if role is None:
        return refusal(404, f"{login} is not a user")
    level = {"maintain": "write", "triage": "read"}.get(role, role)
    shown = {"permission": level, "role_name": role, "user": None}
    return Reply(200, call.description.minimal("repository-collaborator-permission") | shown)


def tree(call: Call) -> Reply:
    sha = call.parts["sha"]
    stored = call.state.trees.get(sha)
    if stored is None:
        return refusal(404, "Not Found")
    listed = [
        one for one in stored.entries if "recursive" in call.request.query or "/" not in one.path
    ]
    entries = [
        one.model_dump(exclude_none=True) | {"url": f"{call.url}/git/{one.type}s/{one.sha}"}
        for one in listed
    ]
    url = f"{call.url}/repos/{call.state.repository}/git/trees/{sha}"
    content = {"sha": sha, "url": url, "tree": entries, "truncated": stored.truncated}
    return Reply(200, content)


def compare(call: Call) -> Reply:
    found = call.state.merge_bases.get(call.parts["basehead"])
    if found is None:
        return refusal(404, "Not Found")
    made = call.description.minimal("commit-comparison")
    return Reply(200, made | {"merge_base_commit": made["merge_base_commit"] | {"sha": found}})


def workflow_run(call: Call) -> Reply:
    stored = call.state.runs.get(int(call.parts["id"]))
    if stored is None:
        return refusal(404, "Not Found")
    made = call.description.minimal("workflow-run")
    head = stored.head_repository or call.state.repository
    shown = stored.model_dump(exclude={"head_repository"})
    # GitHub names no pull request of a fork here.
    inside = [one for one in call.state.pulls.values() if one.head_sha == stored.head_sha]
    pulls = [] if head != call.state.repository else [pull_minimal(call, one) for one in inside]
    shown |= {
        "head_repository": repository_of(call, head, "minimal-repository"),
        "repository": repository_of(call, call.state.repository, "minimal-repository"),
        "pull_requests": pulls,
        "html_url": f"{call.url}/{call.state.repository}/actions/runs/{stored.id}",
    }
    return Reply(200, made | shown)


def pull_minimal(call: Call, stored: Pull) -> dict[str, Any]:
    repository = {"id": REPOSITORY_ID, "url": call.url, "name": "models"}
    head = {"ref": stored.head_ref, "sha": stored.head_sha, "repo": repository}
    base = {"ref": stored.base_ref, "sha": stored.base_sha, "repo": repository}
    return {"id": 1, "number": stored.number, "url": call.url, "head": head, "base": base}


def list_artifacts(call: Call) -> Reply:
    run = int(call.parts["id"])
    found = [one for one in call.state.artifacts if one.run_id == run]
    if run not in call.state.runs:
        return refusal(404, "Not Found")
    shown = [
        call.description.minimal("artifact")
        | {"id": one.id, "name": one.name, "expired": one.expired}
        | {"size_in_bytes": len(one.content), "workflow_run": {"id": one.run_id}}
        for one in found
    ]
    return paged(call, shown, lambda page: {"total_count": len(found), "artifacts": page})


def download(call: Call) -> Reply:
    found = [one for one in call.state.artifacts if one.id == int(call.parts["id"])]
    if not found:
        return refusal(404, "Not Found")
    if found[0].expired:
        return refusal(410, "Artifact has expired")
    return Reply(302, headers={"Location": f"artifact/{found[0].id}"})


def viewer(call: Call) -> Reply:
    if call.state.app is not None:
        return refusal(403, "Resource not accessible by integration")
    made = call.description.minimal("private-user") | user(call, call.state.viewer)
    return Reply(200, made | {"user_view_type": "private"})


def routes() -> Iterable[Route]:
    repository = "/repos/(?P<owner>[^/]+)/(?P<repo>[^/]+)"
    table = [
        ("GET", r"/issues/(?P<number>\d+)/comments", READ_COMMENTS, list_comments),
        ("POST", r"/issues/(?P<number>\d+)/comments", WRITE_COMMENTS, create_comment),
        ("PATCH", r"/issues/comments/(?P<id>\d+)", WRITE_COMMENTS, update_comment),
        ("DELETE", r"/issues/comments/(?P<id>\d+)", WRITE_COMMENTS, delete_comment),
        ("GET", r"/issues/(?P<number>\d+)/events", READ_COMMENTS, label_events),
        ("POST", r"/statuses/(?P<sha>[^/]+)", ("statuses",), set_status),
        ("GET", r"/pulls", ("pull_requests",), list_pulls),
        ("GET", r"/pulls/(?P<number>\d+)", ("pull_requests",), get_pull),
        ("GET", r"/commits/(?P<sha>[^/]+)/pulls", ("pull_requests",), pulls_of_commit),
        ("GET", r"/collaborators/(?P<user>[^/]+)/permission", ("metadata",), permission),
        ("GET", r"/git/trees/(?P<sha>[^/]+)", ("contents",), tree),
        ("GET", r"/compare/(?P<basehead>.+)", ("contents",), compare),
        ("GET", r"/actions/runs/(?P<id>\d+)", ("actions",), workflow_run),
        ("GET", r"/actions/runs/(?P<id>\d+)/artifacts", ("actions",), list_artifacts),
        ("GET", r"/actions/artifacts/(?P<id>\d+)/zip", ("actions",), download),
    ]
    yield Route("GET", re.compile("/user"), (), viewer)
    for method, pattern, permissions, act in table:
        yield Route(method, re.compile(repository + pattern), permissions, act)


ROUTES = tuple(routes())
