"""GitHub's own description of its API: checks requests and replies, and makes minimal replies."""

import functools
import json
import re
from pathlib import Path
from typing import Any

from openapi_core import OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.templating.responses.exceptions import ResponseFinderError
from openapi_core.testing import MockRequest, MockResponse

FIXTURES = Path(__file__).parent / "fixtures" / "github-api"
MOMENT = "2026-01-02T03:04:05Z"
FORMATS = {"date-time": MOMENT, "uri": "https://github.invalid/x", "email": "nobody@github.invalid"}
UNDESCRIBED = re.compile(r"^\$(\[\d+\])?\.head\.repo: None ")
"""What GitHub replies for all that: a pull request whose fork was deleted has none."""
PLAIN = {"integer": 1, "number": 1.0, "boolean": False, "string": "x", "array": [], "object": {}}


class Description:
    """One trimmed OpenAPI description of `fixtures/github-api`."""

    def __init__(self, name: str) -> None:
        self._document: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_bytes())
        self._openapi = OpenAPI.from_dict({**self._document, "servers": [{"url": "/"}]})

    def minimal(self, name: str) -> Any:
        """The least that the schema of that name requires."""
        return self._fill({"$ref": f"#/components/schemas/{name}"})

    def problem_of_request(self, request: MockRequest) -> str | None:
        """Where a request departs from what is described."""
        try:
            self._openapi.validate_request(request)
        except OpenAPIError as error:
            return f"request {request.method} {request.path}: {_words(error)}"
        return None

    def problem_of_reply(self, request: MockRequest, reply: MockResponse) -> str | None:
        """Where the reply to a described request departs from what is described."""
        try:
            self._openapi.validate_response(request, reply)
        except ResponseFinderError as error:
            # Not every refusal is described for every path.
            if reply.status_code >= 400:
                return None
            return f"reply {reply.status_code} to {request.path}: {_words(error)}"
        except OpenAPIError as error:
            words = _words(error)
            return f"reply {reply.status_code} to {request.path}: {words}" if words else None
        return None

    def _fill(self, schema: dict[str, Any]) -> Any:
        if "$ref" in schema:
            _, kind, name = schema["$ref"].removeprefix("#/").split("/")
            return self._fill(self._document["components"][kind][name])
        if schema.get("nullable") and not {"properties", "oneOf", "anyOf", "allOf"} & schema.keys():
            return None
        if "allOf" in schema:
            return {
                key: value for part in schema["allOf"] for key, value in self._fill(part).items()
            }
        for choice in ("oneOf", "anyOf"):
            if choice in schema and "properties" not in schema:
                return self._fill(schema[choice][0])
        if "enum" in schema:
            return schema["enum"][0]
        if "properties" in schema:
            wanted = schema.get("required", ())
            return {name: self._fill(schema["properties"][name]) for name in wanted}
        if schema.get("format") in FORMATS:
            return FORMATS[schema["format"]]
        return PLAIN[schema.get("type", "object")]


@functools.cache
def described(name: str) -> Description:
    """The description of that name, which takes a moment to load."""
    return Description(name)


def _words(error: BaseException) -> str:
    """What is wrong and where, without the value it is about; empty for what is known."""
    causes = getattr(error.__cause__, "schema_errors", None)
    if causes is None:
        return f"{str(error)[:200]} {str(error.__cause__ or '')[:200]}"
    inner = [f"{one.json_path}: {one.message[-200:]}" for one in causes]
    return "; ".join(line for line in inner if not UNDESCRIBED.match(line))
