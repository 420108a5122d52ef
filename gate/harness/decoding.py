"""Greedy decoding in which no finished answer keeps a place in the batch.

`generate` of transformers computes every row until the last one of its batch is done. Here a row
leaves as soon as it ends, and keys and values are written in place.
"""

import copy
import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gate.errors import NonFiniteLogitsError

if TYPE_CHECKING:
    import torch

Stopped = Callable[[Sequence[int]], bool]
"""Whether the tokens of an answer so far hold a string that ends it."""

INPUTS = {"input_ids", "attention_mask", "position_ids", "past_key_values", "logits_to_keep"}
"""What a model must take to be decoded here."""

PREPARATIONS = ("prepare_inputs_for_generation", "_prepare_position_ids_for_generation")
"""Methods of `generate` that a model with inputs of its own overrides."""

WITHOUT_EFFECT = frozenset({
    "_from_model_config", "bos_token_id", "do_sample", "eos_token_id", "max_length",
    "max_new_tokens", "min_p", "output_attentions", "output_hidden_states", "output_logits",
    "output_scores", "pad_token_id", "return_dict_in_generate", "temperature", "top_h", "top_k",
    "top_p", "transformers_version", "typical_p", "use_cache",
})  # fmt: skip
"""Settings of a generation that change nothing where the likeliest token is taken."""

NEUTRAL = {
    "diversity_penalty": 0.0, "encoder_no_repeat_ngram_size": 0, "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "guidance_scale": 1.0, "length_penalty": 1.0,
    "min_length": 0, "min_new_tokens": 0, "no_repeat_ngram_size": 0, "num_beam_groups": 1,
    "num_beams": 1, "num_return_sequences": 1, "remove_invalid_values": False,
    "renormalize_logits": False, "repetition_penalty": 1.0,
}  # fmt: skip
"""Values of other settings that change nothing."""

ROOM = 64
"""Tokens for which a cache has spare room whenever it is enlarged."""


def is_plain(generation: Mapping[str, Any]) -> bool:
    """Whether settings of a generation ask for the likeliest token each time and nothing else.

    Args:
        generation: Those that differ from the defaults, by their names in transformers.
    """
    return not generation.get("do_sample") and all(
        value is None or name in WITHOUT_EFFECT or (name in NEUTRAL and value == NEUTRAL[name])
        for name, value in generation.items()
    )


def is_supported(model: Any) -> bool:
    """Whether a loaded model is asked in the usual way and keeps keys and values of every token."""
    from transformers import GenerationMixin
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    takes = inspect.signature(model.forward).parameters
    usual = all(
        getattr(type(model), name, None) is getattr(GenerationMixin, name, None)
        for name in PREPARATIONS
    )
    if model.config.is_encoder_decoder or not usual or not takes.keys() >= INPUTS:
        return False
    kinds = {type(layer) for layer in empty_cache(model).layers}
    return bool(kinds) and kinds <= {DynamicLayer, DynamicSlidingWindowLayer, _in_place()}


def decode(
    model: Any,
    input_ids: "torch.Tensor",
    attention_mask: "torch.Tensor",
    limit: int,
    ends: Collection[int],
    stopped: Stopped,
) -> list[list[int]]:
    """Each row's answer: its likeliest tokens up to and with an end token, or up to the limit.

    Args:
        model: See `is_supported`.
        input_ids: int64, shape (rows, width), padded on the left.
        attention_mask: The same shape, 0 where padded.
        limit: Most tokens of an answer.
        ends: Token ids that end one.
        stopped: Asked after every token.

    Raises:
        NonFiniteLogitsError: The model computed NaN or infinity.
    """
    import torch

    answers: list[list[int]] = [[] for _ in input_ids]
    rows = list(range(len(answers)))
    cache = empty_cache(model)
    ids, mask = input_ids, attention_mask
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        while True:
            chosen = _likeliest(model, ids, mask, positions, cache)
            for row, token in zip(rows, chosen.tolist(), strict=True):
                answers[row].append(token)
            kept = [
                place
                for place, row in enumerate(rows)
                if answers[row][-1] not in ends
                and len(answers[row]) < limit
                and not stopped(answers[row])
            ]
            if not kept:
                return answers
            if len(kept) < len(rows):
                rows = [rows[place] for place in kept]
                left = torch.tensor(kept, device=mask.device)
                cache.batch_select_indices(left)
                mask, chosen = mask[left], chosen[left]
            ids = chosen[:, None]
            mask = torch.cat([mask, mask.new_ones((len(rows), 1))], dim=-1)
            positions = mask.sum(-1, keepdim=True) - 1


def forward(
    model: Any, ids: Any, mask: Any, positions: Any, cache: Any, kept: int
) -> "torch.Tensor":
    """Logits of shape (rows, kept, vocabulary), or of every token where `kept` is 0."""
    logits: torch.Tensor = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=kept,
    ).logits
    return logits


def _likeliest(model: Any, ids: Any, mask: Any, positions: Any, cache: Any) -> "torch.Tensor":
    """The next token of every row, int64, shape (rows,)."""
    last = forward(model, ids, mask, positions, cache, kept=1)[:, -1]
    # In float32 as `generate` compares them; a row that holds NaN has its largest there.
    tokens: torch.Tensor = require_finite(last.float()).argmax(dim=-1).to(mask.device)
    return tokens


def empty_cache(model: Any) -> Any:
    """An empty cache of the kinds of layers that the model has."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    cache.layers = [
        _in_place()() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def copied(cache: Any) -> Any:
    """A cache that goes on by itself from what another one holds."""
    found = copy.copy(cache)
    found.layers = [copy.copy(layer) for layer in cache.layers]
    return found


@functools.cache
def _in_place() -> type[Any]:
    """The class of a cache's layer that is written in place.

    transformers copies all keys and values for every token that is added; here they lie in a
    tensor with room for more.
    """
    from transformers.cache_utils import DynamicLayer

    class InPlace(DynamicLayer):
        def update(
            self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any
        ) -> tuple[Any, Any]:
            """Add keys and values, each of shape (rows, heads, tokens, width)."""
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
                self._rooms: tuple[Any, Any] = (None, None)
            rooms = (
                self._room(self._rooms[0], self.keys, key_states),
                self._room(self._rooms[1], self.values, value_states),
            )
            done = self.get_seq_length()
            total = done + key_states.shape[-2]
            for room, new in zip(rooms, (key_states, value_states), strict=True):
                room[..., done:total, :] = new
            self._rooms = rooms
            self.keys, self.values = (room[..., :total, :] for room in rooms)
            return self.keys, self.values

        @staticmethod
        def _room(room: Any, kept: Any, new: Any) -> Any:
            """Where what is kept already lies and what is new has room beside it."""
            done = kept.shape[-2] if kept.numel() else 0
            total = done + new.shape[-2]
            # Rows that were selected are a tensor of their own.
            if room is None or room.data_ptr() != kept.data_ptr() or room.shape[-2] < total:
                room = new.new_empty((*new.shape[:-2], total + ROOM, new.shape[-1]))
                if done:
                    room[..., :done, :] = kept
            return room

    return InPlace


def require_finite(logits: "torch.Tensor") -> "torch.Tensor":
    """The same logits, shape (..., vocabulary), where every row's largest is a number.

    Entries masked with -inf are no error; the maximum shows NaN, +inf and rows of -inf only.

    Raises:
        NonFiniteLogitsError: One is not.
    """
    if not logits.amax(dim=-1).isfinite().all():
        raise NonFiniteLogitsError(
            "the model computed logits that are NaN or infinite",
            "Look for broken scales or an overflow of the computation's dtype.",
        )
    return logits
