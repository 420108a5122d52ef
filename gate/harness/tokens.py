"""Texts as a checkpoint's tokenizer sees them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def bos(tokenizer: Any) -> int | None:
    """The token that it puts before every text; None if it puts none."""
    first = tokenizer("a")["input_ids"][:1]
    return first[0] if first == [tokenizer.bos_token_id] else None


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """A prompt's tokens as lm-eval gives them to a model: with one BOS, where there is one."""
    written = bool(tokenizer.bos_token) and prompt.startswith(tokenizer.bos_token)
    found: list[int] = tokenizer.encode(prompt, add_special_tokens=not written)
    return found


def token_ids(tokenizer: Any, text: str) -> "np.ndarray":
    """The text's tokens without special ones: int64, shape (tokens,)."""
    import numpy as np

    found = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return np.asarray(found, dtype=np.int64)
