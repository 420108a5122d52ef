"""A model in a server or an engine, as lm-eval asks one: what is sent, and what comes back.

Prompts are tokenized here exactly as for a model of transformers in this process.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from gate.errors import SettingsError
from gate.harness import decoding
from gate.harness.generation import Generation

DEFAULT_MAX_GEN_TOKS = 256
"""Of a task that states no limit: lm-eval's."""


class Conversation(NamedTuple):
    """The messages of which a prompt was made, and what the chat template was told beside them."""

    messages: list[dict[str, Any]]
    template_kwargs: Mapping[str, Any]


class Asked(NamedTuple):
    """An answer that is wanted.

    Attributes:
        prompt: As text, chat template included.
        token_ids: The same in tokens, a BOS included where the tokenizer puts one.
        conversation: What the prompt was made of; None where no chat template was applied.
        stop: Strings that end the answer.
        max_tokens: Most tokens of it.
    """

    prompt: str
    token_ids: list[int]
    conversation: Conversation | None
    stop: tuple[str, ...]
    max_tokens: int


class Written(NamedTuple):
    """An answer, and whether the model ended it; the string that ended it may still be there.

    Attributes:
        tokens: How many the answer has, the end token not counted; None where nobody says.
    """

    text: str
    ended: bool
    tokens: int | None = None


class Told(NamedTuple):
    """What a model says of every token of a text but the first, given those before it.

    Attributes:
        logprobs: In nats.
        greedy: Whether it is the most likely one.
    """

    logprobs: list[float]
    greedy: list[bool]


class Remote(Protocol):
    """Who asks it."""

    def write(self, asked: Sequence[Asked]) -> list[Written]:
        """An answer each, in order."""
        ...

    def tell(self, sequences: Sequence[Sequence[int]]) -> list[Told]:
        """What the model says of the tokens of each sequence, in order."""
        ...


def remote_model(
    remote: Remote, tokenizer: Any, context: int, conversations: Mapping[str, Conversation]
) -> Any:
    """A model for lm-eval that hands on what it is asked; see `generation.LanguageModel`.

    Args:
        remote: Asks the server or the engine.
        tokenizer: The checkpoint's own.
        context: Tokens of prompt and answer that the model was made for.
        conversations: Prompt to what it was made of.
    """
    return _class()(remote, tokenizer, context, conversations)


@functools.cache
def _class() -> type[Any]:
    from lm_eval.api.model import TemplateLM
    from lm_eval.models.huggingface import HFLM

    class RemoteLM(TemplateLM):  # type: ignore[misc]
        # The tokens of a prompt are those that HFLM would give the model.
        tok_encode = HFLM.tok_encode
        prefix_token_id = HFLM.prefix_token_id
        loglikelihood_rolling = HFLM.loglikelihood_rolling
        add_bos_token = custom_prefix_token_id = None
        decodes = True

        def __init__(
            self,
            remote: Remote,
            tokenizer: Any,
            context: int,
            conversations: Mapping[str, Conversation],
        ) -> None:
            super().__init__()
            self.remote, self.tokenizer = remote, tokenizer
            self.conversations = conversations
            # Who tells of a prompt writes one token more; HFLM reads one beyond.
            self.max_length = context - 2
            self.batch_size_per_gpu = 1
            self.generations: dict[str, list[Generation]] = {}

        @property
        def batch_size(self) -> int:
            return self.batch_size_per_gpu

        @property
        def eot_token_id(self) -> int:
            return int(self.tokenizer.eos_token_id)

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            return _written(self, [_asked(self, *request.args) for request in requests])

        def _loglikelihood_tokens(
            self, requests: list[Any], disable_tqdm: bool = False, override_bs: int | None = None
        ) -> list[tuple[float, bool]]:
            return _scored(self, requests)

    return RemoteLM


def _asked(lm: Any, prompt: str, options: dict[str, Any]) -> Asked:
    """What a request of lm-eval asks for.

    Raises:
        SettingsError: More than the likeliest token each time.
    """
    from lm_eval.models.utils import normalize_gen_kwargs

    kwargs = normalize_gen_kwargs(options, DEFAULT_MAX_GEN_TOKS)
    stop = tuple(filter(None, kwargs.pop("until", ())))
    limit = int(kwargs.pop("max_gen_toks"))
    if not decoding.is_plain(kwargs):
        raise SettingsError(
            "a task draws or changes its answers, and this backend asks for the likeliest token "
            f"each time, not for {', '.join(sorted(kwargs))}",
            "Leave the task out, or measure it with backend: hf.",
        )
    return Asked(prompt, lm.tok_encode(prompt), lm.conversations.get(prompt), stop, limit)


def _written(lm: Any, asked: Sequence[Asked]) -> list[str]:
    """The answers, cut where they should have ended; how they did is noted in `generations`."""
    from lm_eval.models.utils import postprocess_generated_text

    end = str(lm.tokenizer.decode(lm.eot_token_id))
    answers = []
    for one, written in zip(asked, lm.remote.write(asked), strict=True):
        text = postprocess_generated_text(written.text, [*one.stop, end], None)
        ended = written.ended or len(text) < len(written.text)
        tokens = written.tokens
        if tokens is None:
            # What was written in other tokens than the text's may seem to be more.
            counted = min(len(lm.tok_encode(text, add_special_tokens=False)), one.max_tokens)
            tokens = counted if ended else one.max_tokens
        found = Generation(tokens, ended)
        lm.generations.setdefault(one.prompt, []).append(found)
        answers.append(text)
    return answers


def _scored(lm: Any, requests: Sequence[Any]) -> list[tuple[float, bool]]:
    """Log-probability of each continuation, and whether it is the greedy one.

    Raises:
        SettingsError: One alone is longer than what the model takes.
    """
    longest = max(len(continuation) for _, _, continuation in requests)
    if longest > lm.max_length:
        raise SettingsError(
            f"a choice has {longest:,} tokens, and the model is served with {lm.max_length:,}",
            "Serve the model with a longer context, or leave the task out.",
        )
    # From the left, as HFLM cuts what is longer than the model's context.
    whole = [
        [*context, *continuation][-(lm.max_length + 1) :] for _, context, continuation in requests
    ]
    found = []
    for (_, _, continuation), told in zip(requests, lm.remote.tell(whole), strict=True):
        last = slice(len(told.logprobs) - len(continuation), None)
        found.append((sum(told.logprobs[last]), all(told.greedy[last])))
    return found
