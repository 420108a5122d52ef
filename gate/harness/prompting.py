"""What the tokenizer and the chat template do at the beginning and at the end of an answer."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from gate import ggml
from gate.checkpoint import Checkpoint
from gate.checkpoint.files import read_json
from gate.harness import tokens
from gate.harness.loading import MALFORMED
from gate.records import Prompting

TURN = ({"role": "user", "content": "Question"}, {"role": "assistant", "content": "Answer"})
"""A conversation whose end shows how the template ends an answer."""

MAX_TOKEN_CHARS = 60
"""Longer names of tokens are cut: a tokenizer may call them what it likes."""


MAX_TAIL_CHARS = 1000
"""What a template may write behind an answer before its end is looked for in vain."""


COMPARED_PROMPTS = 64
"""Of a task, by whose tokens two tokenizers are compared: the next ones would say the same."""

VARIED = (
    "It's 1,234.5678 times; I'LL we've\t\ttabs\r\n\n\n    x_1 = f(y)[0] # ==> {'a': null}\n"
    "caf\u00e9 cafe\u0301 \u00dcber \u0414\u0430 \u03a9 \u65e5\u672c\u8a9e\u6f22\u5b57"
    "\u3001\ud55c\uad6d\uc5b4 \u0639\u0631\u0628\u064a \u0939\u093f\u0928\u094d\u0926\u0940"
    "\U0001f642\U0001f469\u200d\U0001f4bb \u00a0\u2003 camelCaseWORDS 2024-01-31T00:00Z "
    "http://a.b/c?d=e&f  -- ... !!! \u2014\u201cq\u201d $1\u00b2\u00bd \x00\ufeff end  "
)
"""What tokenizers treat in different ways: digits, white space, case, accents, scripts, marks."""


def tokens_digest(tokenizer: Any, prompts: Sequence[str]) -> str:
    """SHA-256 over what a tokenizer makes of prompts: the same for those that do the same.

    Args:
        tokenizer: The checkpoint's own.
        prompts: A task's, of which `COMPARED_PROMPTS` are read.
    """
    texts = [VARIED, *prompts[:COMPARED_PROMPTS]]
    found = [tokens.prompt_ids(tokenizer, text) for text in texts]
    return hashlib.sha256(json.dumps(found).encode("ascii")).hexdigest()


def facts(tokenizer: Any, checkpoint: Checkpoint, prompts: Sequence[str]) -> Prompting:
    """What is known about BOS and end-of-turn tokens before any weight is read.

    Args:
        tokenizer: The checkpoint's own.
        checkpoint: Whose configuration says where generation ends.
        prompts: The first one of each task.
    """
    bos = tokenizer.bos_token
    rendered = _rendered(tokenizer)
    end = _turn_end(tokenizer, rendered) if rendered is not None else None
    return Prompting(
        bos=bos[:MAX_TOKEN_CHARS] if bos else None,
        declares_bos=_declares_bos(checkpoint),
        puts_bos=bool(bos) and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id],
        template_bos=rendered.startswith(bos) if bos and rendered is not None else None,
        prompts_bos=max((_begins(tokenizer, prompt) for prompt in prompts), default=0),
        turn_end=end[1][:MAX_TOKEN_CHARS] if end else None,
        ends_turn=end[0] in _ends(tokenizer, checkpoint) if end else None,
    )


def _declares_bos(checkpoint: Checkpoint) -> bool | None:
    if checkpoint.whole_file is not None:
        return None  # a key of the file, and what the tokenizer does by it, cannot differ
    config = read_json(checkpoint.store, "tokenizer_config.json", "", []) or {}
    declared = config.get("add_bos_token")
    return declared if isinstance(declared, bool) else None


def _begins(tokenizer: Any, prompt: str) -> int:
    """BOS tokens at the beginning of a prompt, tokenized as lm-eval does it."""
    if not tokenizer.bos_token:
        return 0
    found = tokens.prompt_ids(tokenizer, prompt)
    others = (i for i, token in enumerate(found) if token != tokenizer.bos_token_id)
    return next(others, len(found))


def _rendered(tokenizer: Any) -> str | None:
    """A short conversation as the chat template writes it; None without a usable one."""
    import jinja2

    if not tokenizer.chat_template:
        return None
    try:
        return str(tokenizer.apply_chat_template(list(TURN), tokenize=False))
    except (jinja2.TemplateError, ArithmeticError, RecursionError, *MALFORMED):
        # Some want tools or a system message; the tasks' own prompts are rendered elsewhere.
        return None


def _turn_end(tokenizer: Any, rendered: str) -> tuple[int, str] | None:
    """The first special token behind the answer of a rendered conversation."""
    _, answer, tail = rendered.rpartition(str(TURN[-1]["content"]))
    if not answer:
        return None
    special = {
        index
        for index, token in tokenizer.added_tokens_decoder.items()
        if getattr(token, "special", False)
    }
    for token in tokenizer.encode(tail[:MAX_TAIL_CHARS], add_special_tokens=False):
        if token in special:
            return token, str(tokenizer.convert_ids_to_tokens(token))
    return None


def _ends(tokenizer: Any, checkpoint: Checkpoint) -> set[Any]:
    """Token ids that end an answer: the generation's, and the tokenizer's, which lm-eval adds.

    Source: https://huggingface.co/docs/transformers/main_classes/text_generation (without
    generation_config.json those of config.json).
    """
    if checkpoint.whole_file is not None:
        return {*ggml.end_tokens(checkpoint.metadata), tokenizer.eos_token_id}
    generation = checkpoint.generation_config
    config = checkpoint.text_config if generation is None else generation
    declared = config.get("eos_token_id")
    listed = declared if isinstance(declared, list) else [declared]
    numbers = {token for token in listed if isinstance(token, int)}
    return numbers | {tokenizer.eos_token_id}
