"""Pages for a browser: one HTML file each, which loads nothing and needs no server.

A page is a template in `templates/` that extends `base.html` and names the styles and scripts it
needs beside the common ones: `{% set scripts = ["dashboard.js"] %}`, files of `assets/`. They are
put into the page, and its policy allows those by their digests and nothing else: no request, no
inline handler, no `style` attribute.
"""

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from gate.plain import visible

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

MAX_CHARS = 20_000
"""Of one value: what is longer is no text that anybody reads."""


def render(template: str, **values: object) -> str:
    """A page as HTML, ending in a line end.

    Every value is shown as text, whatever it holds: without control and bidi characters, and
    escaped. Data for a script goes through `tojson` into a `<script type="application/json">`;
    only the escaping happens there, so its texts must be `plain` before.

    Args:
        template: File of `templates/`.
        values: By the names that the template has for them; one that is missing is an error.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=PackageLoader("gate.pages"),
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    made.globals |= {"asset": _asset, "digests": _digests}
    return made


def _shown(value: object) -> object:
    """What is put into a page, before it is escaped; markup of our own stays."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    shown = visible(value[:MAX_CHARS])
    return shown if len(value) <= MAX_CHARS else f"{shown}…"


@cache
def _asset(name: str) -> "Markup":
    """A style or script of ours, as it stands between its tags."""
    from markupsafe import Markup

    path = resources.files("gate.pages") / "assets" / name
    return Markup(path.read_text(encoding="utf-8"))  # noqa: S704 (a file of this package)


def _digests(names: list[str]) -> str:
    """What a Content Security Policy allows: these files, and nothing if there are none.

    Source: https://www.w3.org/TR/CSP3/#grammardef-hash-source
    """
    hashes = [hashlib.sha256(_asset(name).encode()).digest() for name in names]
    allowed = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes]
    return " ".join(allowed) or "'none'"
