"""Pages: the package's own templates alone, and a policy that allows what is in them."""

import base64
import hashlib
import re

import pytest
from jinja2 import TemplateNotFound, UndefinedError
from justhtml import JustHTML
from reports_data import REPORTS

from gate import pages
from gate.reports import html


def test_a_policy_allows_what_is_in_the_page_and_nothing_else():
    document = JustHTML(html.render(REPORTS["fail"]), strict=True, sanitize=False)
    (meta,) = document.query("meta[http-equiv]")
    assert meta.attrs is not None
    rules = dict(rule.split(" ", 1) for rule in (meta.attrs["content"] or "").split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for name in ("style", "script"):
        digests = [
            hashlib.sha256(element.to_text(separator="", strip=False).encode()).digest()
            for element in document.query(name)
        ]
        assert rules[f"{name}-src"].split() == [
            f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests
        ]
        assert digests


def test_a_value_that_is_missing_is_an_error():
    with pytest.raises(UndefinedError):
        pages.render("report.html", title="t")


@pytest.mark.parametrize("name", ["../__init__.py", "/etc/hostname", "none.html"])
def test_there_are_no_templates_but_those_of_the_package(name: str):
    with pytest.raises(TemplateNotFound):
        pages.render(name)


def test_pages_load_nothing():
    """Neither what a page holds nor its styles and scripts name another place."""
    page = html.render(REPORTS["fail"])
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|fetch\(|import\(", page)
