"""In which language an answer is written, told by langdetect, as in IFEval's scorer."""

import functools
import importlib.util
from collections.abc import Iterable

from gate.records import Answer

MIN_LETTERS = 40
"""Shorter texts are often told wrongly."""

READ_CHARS = 1000
"""A language shows in the first lines; detection takes about a millisecond for them."""

MOST = 1000
"""Answers of a task that are looked at, by document: more would tell no more."""

CERTAIN = 0.9
"""Probability from which a language counts as told.

Source: https://github.com/shuyo/language-detection (noisy and mixed texts stay below).
"""


def of_all(answers: Iterable[Answer]) -> dict[int, str]:
    """Document id to ISO 639-1 code, of the answers that are long and clear enough to tell.

    The same texts give the same languages: langdetect draws, from a seed of its own.
    """
    if importlib.util.find_spec("langdetect") is None:
        return {}
    first = sorted(answers, key=lambda answer: answer.doc_id)[:MOST]
    found = {answer.doc_id: _language(answer.text[:READ_CHARS]) for answer in first}
    return {doc_id: language for doc_id, language in found.items() if language is not None}


@functools.lru_cache(maxsize=4 * MOST)
def _language(text: str) -> str | None:
    import langdetect
    from langdetect.lang_detect_exception import LangDetectException

    if sum(map(str.isalpha, text)) <= MIN_LETTERS:
        return None
    langdetect.DetectorFactory.seed = 0
    try:
        best = langdetect.detect_langs(text)[0]
    except (LangDetectException, IndexError):
        return None
    return str(best.lang).partition("-")[0] if best.prob >= CERTAIN else None
