"""Patterns of module names, taken from untrusted files: what they name, in bounded time."""

import fnmatch
import re
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice

MAX_NAME = 400
"""Characters of a pattern, or of a module's name held against an expression; longer never match."""
MAX_EXPRESSIONS = 1024
"""Patterns beyond names and prefixes that are used: public checkpoints have at most five."""
MAX_CHARACTERS = 1 << 15
"""Of all such patterns together: compiling more takes seconds."""
MOST_PARTS = 64
"""Parts of a module's name, between dots, that are looked at."""

DIGITS = r"(\\d|\[0-9\]|\[\^\\?\.\])\+"
"""In an expression: a run of digits, or of anything up to the next dot."""
WILD = r"(?<!\\)\.([*+])\??"
"""In an expression: a run of anything."""


class Exclusions:
    """Which modules a list of exclusions names, themselves or by an ancestor.

    Entries are glob patterns, `re:` entries regular expressions: the reading that accepts every
    public checkpoint. The patterns are untrusted, so each takes time linear in the name's length,
    and an expression for which that cannot be promised matches nothing.

    Source: https://github.com/NVIDIA/TensorRT-LLM
    (`QuantConfig.is_module_excluded_from_quantization`).
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        entries = [pattern for pattern in patterns if len(pattern) <= MAX_NAME]
        expressions = [entry[3:] for entry in entries if entry.startswith("re:")]
        globs = {entry for entry in entries if not entry.startswith("re:")}
        # `experts.*` also stands for `experts` itself.
        globs |= {glob[:-2] for glob in globs if glob.endswith(".*")}
        self._exact = {glob for glob in globs if not re.search(r"[*?\[]", glob)}
        self._prefixes = {
            glob[:-1]
            for glob in globs
            if glob.endswith("*") and not re.search(r"[*?\[]", glob[:-1])
        }
        self._lengths = {len(prefix) for prefix in self._prefixes}
        others = [glob for glob in globs - self._exact if glob[:-1] not in self._prefixes]
        matchers = [compiled(expression) for expression in _affordable(expressions)]
        found = [matcher for matcher in matchers if matcher]
        joined = [matcher.pattern for matcher in found if not matcher.groups]
        joined += [fnmatch.translate(glob) for glob in _affordable(sorted(others))]
        self._expressions = [matcher for matcher in found if matcher.groups]
        if joined:
            # One pattern: trying 95 in turn on every expert takes a second.
            self._expressions.append(re.compile("|".join(f"(?s:{one})" for one in joined)))
        # Experts by the thousand share their ancestors.
        self._cached = lru_cache(maxsize=1 << 16)(self._matches)
        self._parents = lru_cache(maxsize=1 << 16)(self._names_any)

    def __contains__(self, module: str) -> bool:
        return self._matches(module) or self._parents(module.rpartition(".")[0])

    def _names_any(self, module: str) -> bool:
        """Whether an entry names the module or one above it."""
        while module:
            if self._cached(module):
                return True
            module = module.rpartition(".")[0]
        return False

    def _matches(self, name: str) -> bool:
        if name in self._exact:
            return True
        for length in self._lengths:
            if name[:length] in self._prefixes:
                return True
        if len(name) > MAX_NAME:
            return False
        return any(expression.fullmatch(name) for expression in self._expressions)


def _affordable(patterns: Iterable[str]) -> Iterator[str]:
    """The first of them, as many as may be compiled."""
    characters = 0
    for pattern in islice(patterns, MAX_EXPRESSIONS):
        characters += len(pattern)
        if characters > MAX_CHARACTERS:
            return
        yield pattern


def compiled(expression: str) -> re.Pattern[str] | None:
    """`expression` so compiled that it cannot run away; None where it could. For `fullmatch`.

    The piece between two `.*` is matched where it first fits and never tried elsewhere: enough,
    since the next `.*` makes up the difference. Within a piece only digits, or what stands
    between two dots, may repeat, and few choices may be open.
    """
    expression = expression.removeprefix("^").removesuffix("$")
    parts = re.split(WILD, expression)
    pieces, gaps = parts[::2], parts[1::2]
    if not all(_is_tame(piece) for piece in pieces):
        return None
    first, *rest = (re.sub(DIGITS, r"\1++", piece) for piece in pieces)
    joined = f"(?:{first})"
    for number, (gap, piece) in enumerate(zip(gaps, rest, strict=True), start=1):
        last = number == len(gaps)
        joined += f".{gap}(?:{piece})" if last else f"(?>.{gap}?(?:{piece}))"
    try:
        return _compile(joined)
    except (re.error, RecursionError, OverflowError):
        return None


def _compile(expression: str) -> re.Pattern[str]:
    """A dot stands for any character; what Python may once read otherwise is no user's concern."""
    with warnings.catch_warnings(action="ignore"):
        return re.compile(expression, re.DOTALL)


def _is_tame(piece: str) -> bool:
    """Whether a piece of an expression stands for itself and repeats nothing at length."""
    try:
        _compile(piece)
    except (re.error, RecursionError, OverflowError):
        return False
    bare = re.sub(rf"{DIGITS}|\\.", "", piece)
    outside = re.sub(r"\([^()]*\)", "", bare)
    optional = bare.count("?") - bare.count("(?:")
    return (
        not re.search(r"[*+{]|\(\?(?!:)", bare)
        and "|" not in outside
        and bare.count("|") <= 128
        and bare.count("(") <= 2
        and optional <= 2
    )


class SkippedModules:
    """Which modules a list such as `modules_to_not_convert` names.

    An entry names every module in whose path its parts stand one after another: `lm_head`,
    `model.visual` or `mlp.gate`. Entries with `*`, and `re:` entries, are read by `Exclusions`.

    Source: https://github.com/huggingface/transformers (`quantizers/quantizers_utils.py`,
    `should_convert_module`: the start or the end of a path).
    """

    def __init__(self, names: Iterable[str]) -> None:
        entries = [name for name in names if len(name) <= MAX_NAME]
        wild = {name for name in entries if "*" in name or name.startswith("re:")}
        self._names = {name for name in entries if name} - wild
        self._lengths = sorted({name.count(".") + 1 for name in self._names})
        self._wild = Exclusions(wild) if wild else None

    def __contains__(self, module: str) -> bool:
        parts = module.split(".")
        # Experts by the thousand have short names; only an absurd one has more parts.
        if len(parts) <= MOST_PARTS:
            for length in self._lengths:
                for begin in range(len(parts) - length + 1):
                    if ".".join(parts[begin : begin + length]) in self._names:
                        return True
        return self._wild is not None and module in self._wild
