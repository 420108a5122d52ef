"""Which modules compressed-tensors' `targets` and `ignore` name.

Source: https://github.com/vllm-project/compressed-tensors (`utils/match.py`).
"""

import re
from collections.abc import Callable, Iterable

from gate.patterns import MAX_NAME, compiled

FUSED_NAMES = {
    "q_proj": "qkv_proj",
    "k_proj": "qkv_proj",
    "v_proj": "qkv_proj",
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
}
"""Leaf to the name of the layer into which vLLM joins it: lists may use either."""

MAX_EXPRESSIONS = 256
"""Of one list that are evaluated: each is held against every module's name."""


class Targets:
    """A list of module names, class names and `re:` expressions.

    An expression is matched at the start of the name, as `re.match` does. They are untrusted:
    one for which bounded time cannot be promised matches nothing.

    Attributes:
        classes: Class names among them: names that begin with a capital.
        refused: Whether an expression could not be used.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        entries = list(entries)
        plain = [entry for entry in entries if not entry.startswith("re:")]
        self.classes = frozenset(name for name in plain if re.fullmatch(r"[A-Z]\w*", name))
        self._names = frozenset(plain) - self.classes
        expressions = dict.fromkeys(entry[3:] for entry in entries if entry.startswith("re:"))
        found = [_matcher(text) for text in list(expressions)[:MAX_EXPRESSIONS]]
        self._matchers = [matcher for matcher in found if matcher]
        self.refused = len(self._matchers) < len(expressions)

    def __contains__(self, module: str) -> bool:
        return self.name_any((module,))

    def name_any(self, spellings: Iterable[str]) -> bool:
        """Whether the list names a module that is known by any of these names."""
        for name in spellings:
            if name in self._names:
                return True
            if self._matchers and len(name) <= MAX_NAME:
                for matches in self._matchers:
                    if matches(name):
                        return True
        return False


def _matcher(text: str) -> Callable[[str], object] | None:
    """What tells whether an expression fits a name; None where it cannot be used.

    A leading negative lookahead is held against the name on its own.
    """
    forbidden, text = _lookahead(text)
    wanted = _at_start(text)
    if wanted is None or forbidden is None:
        return wanted.fullmatch if wanted else None
    unwanted = _at_start(forbidden)
    if unwanted is None:
        return None
    return lambda name: not unwanted.fullmatch(name) and wanted.fullmatch(name)


def _at_start(expression: str) -> re.Pattern[str] | None:
    """Compiled such that `fullmatch` finds what `re.match` would."""
    if len(expression) > MAX_NAME:
        return None
    ended = expression.endswith("$") and not expression.endswith(r"\$")
    return compiled(expression if ended else f"{expression}.*")


def _lookahead(expression: str) -> tuple[str | None, str]:
    """What a leading `(?!...)` forbids, None without one, and the rest."""
    bare = expression.removeprefix("^")
    if not bare.startswith("(?!"):
        return None, expression
    depth = 0
    for found in re.finditer(r"\\.|[()]", bare):
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        if depth == 0 and found[0] == ")":
            return bare[3 : found.start()], bare[found.end() :]
    return None, expression


def spellings(module: str, multimodal: bool) -> list[str]:
    """The names under which lists may know a stored module.

    Beside its own there is the fused layer's and, in multimodal models, the one in memory:
    exporters store `language_model.model.x` for the module `model.language_model.x`.
    """
    names = [module]
    parent, _, leaf = module.rpartition(".")
    if leaf in FUSED_NAMES:
        names.append(f"{parent}.{FUSED_NAMES[leaf]}")
    if multimodal:
        if module.startswith("language_model.model."):
            names.append(f"model.language_model.{module[21:]}")
        elif module.startswith("model.language_model."):
            names.append(f"language_model.model.{module[21:]}")
        elif module.startswith("language_model."):
            names.append(module[15:])
        names.append(module[6:] if module.startswith("model.") else f"model.{module}")
    return names
