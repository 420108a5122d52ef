"""Think blocks: what a model writes to itself before it answers."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

Thinking = Literal["closed", "unclosed"]


class Markers(NamedTuple):
    """What encloses a think block.

    Attributes:
        needs: Tokens that a tokenizer must have for a model to write it; empty for plain text.
    """

    opener: str
    closer: str
    needs: tuple[str, ...] = ()


def _tokens(opener: str, closer: str) -> Markers:
    return Markers(opener, closer, (opener, closer))


MARKERS = (
    Markers("<think>", "</think>"),
    _tokens("[THINK]", "[/THINK]"),
    _tokens("<|START_THINKING|>", "<|END_THINKING|>"),
    _tokens("<seed:think>", "</seed:think>"),
    _tokens("◁think▷", "◁/think▷"),
    Markers(
        "<|channel|>analysis<|message|>",
        "<|channel|>final<|message|>",
        ("<|channel|>", "<|message|>"),
    ),
)
"""What public models write: Qwen, DeepSeek, GLM and others; Magistral; Cohere; Seed; Kimi; gpt-oss.

Source: the models' chat templates, and for the last
https://cookbook.openai.com/articles/openai-harmony (its final channel ends the analysis).
"""


def markers(tokenizer: Any) -> tuple[Markers, ...]:
    """Those that a tokenizer's model can write: `<think>`, and others that it has tokens for."""
    added = tokenizer.get_added_vocab()
    return tuple(found for found in MARKERS if all(token in added for token in found.needs))


def decoded(tokenizer: Any, tokens: Sequence[int]) -> str:
    """The text of generated tokens without special ones, those of think blocks excepted.

    Some tokenizers call these special; without them the thinking would run into the answer.
    """
    kept = _special_markers(tokenizer)
    parts: list[str] = []
    start = 0
    for position, token in enumerate(tokens):
        if token in kept:
            parts += [_plain(tokenizer, tokens[start:position]), kept[token]]
            start = position + 1
    return "".join([*parts, _plain(tokenizer, tokens[start:])])


def split(
    text: str, prompt: str = "", known: Sequence[Markers] = MARKERS
) -> tuple[str, Thinking | None]:
    """What follows the think blocks with which an answer begins, and how the last of them ended.

    An answer that only mentions a marker is left alone. A block that nothing closes is left where
    it is: there is no answer behind it.

    Args:
        text: What the model wrote.
        prompt: What it was given, whose end may open a block.
        known: Markers to look for.
    """
    for opener, closer, _ in known:
        rest = text
        ended: Thinking | None = None
        opened = prompt.rstrip().endswith(opener)
        while True:
            head = rest.lstrip()
            if opened or head.startswith(opener):
                _, closed, after = head.partition(closer)
                if not closed:
                    return rest, "unclosed"
                rest, ended, opened = after.lstrip(), "closed", False
            elif head.startswith(closer):
                # Harmony announces its answer whether or not it thought.
                rest = head.removeprefix(closer).lstrip()
            else:
                break
        if rest is not text:
            return rest, ended
    return text, None


def _special_markers(tokenizer: Any) -> Mapping[int, str]:
    """Token id to text of the markers that decoding would leave out."""
    special = {
        str(token): index
        for index, token in tokenizer.added_tokens_decoder.items()
        if getattr(token, "special", False)
    }
    return {
        special[token]: token
        for opener, closer, needs in markers(tokenizer)
        for token in (opener, closer, *needs)
        if token in special
    }


def _plain(tokenizer: Any, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=True)) if len(tokens) else ""
