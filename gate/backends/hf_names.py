"""Which of a model's parameters a checkpoint's tensor becomes: transformers' own renaming."""

from typing import Any


class Names:
    """The renaming and the fusing of one model's architecture.

    Args:
        model: Built by transformers; its weights may be missing.

    Attributes:
        converters: Pattern in a tensor's name to transformers' converter of such tensors.

    Source: https://github.com/huggingface/transformers (`core_model_loading.py`).
    """

    def __init__(self, model: Any) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming

        mapping = get_model_conversion_mapping(model)
        self._renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
        self._fusings = [entry for entry in mapping if isinstance(entry, WeightConverter)]
        self._prefix, self._state = model.base_model_prefix, model.state_dict()
        self.converters = {
            pattern: entry for entry in self._fusings for pattern in entry.source_patterns
        }

    def parameter(self, tensor: str) -> tuple[str | None, str | None]:
        """The parameter made of a tensor, and the pattern of its converter; None for none."""
        from transformers.core_model_loading import rename_source_key

        renamed, pattern = rename_source_key(
            tensor, self._renamings, self._fusings, self._prefix, self._state
        )
        if renamed in self._state:
            return renamed, pattern
        return (tensor, None) if tensor in self._state else (None, None)
