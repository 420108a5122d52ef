"""Patterns of the user's own, in time linear in the text that they are held against.

Python's `re` may take for ever on an answer that a broken model wrote; RE2 cannot, and its result
does not hang on the speed of the machine as a time limit's would.

Source: https://github.com/google/re2/wiki/Syntax
"""

from functools import lru_cache
from typing import Any

from gate.errors import BackendUnavailableError

MOST_CHARACTERS = 10_000
"""Of a pattern."""


@lru_cache(maxsize=4096)
def compiled(pattern: str) -> Any:
    """The pattern as RE2 has it.

    Raises:
        ValueError: RE2 does not know it, for example a look-ahead or a back reference.
        BackendUnavailableError: RE2 is not installed.
    """
    try:
        import re2
    except ImportError as error:
        raise BackendUnavailableError(
            "patterns need google-re2, which is not installed", "Run: pip install google-re2"
        ) from error
    if len(pattern) > MOST_CHARACTERS:
        raise ValueError(f"a pattern has more than {MOST_CHARACTERS:,} characters")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(_encodable(pattern), options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        reason = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise ValueError(f"a pattern is none of RE2's: {reason}") from error


def occurs(pattern: str, text: str) -> bool:
    """Whether the pattern is found anywhere in the text."""
    return compiled(pattern).search(_encodable(text)) is not None


def _encodable(text: str) -> str:
    """Half of a surrogate pair, which JSON may hold, is no character."""
    return text.encode("utf-8", "replace").decode("utf-8")
