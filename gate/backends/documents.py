"""What a backend knows before it runs anything: its documents, and texts in tokens."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gate.checkpoint import Checkpoint
from gate.harness import tokens
from gate.records import TaskSetup
from gate.settings import Settings

if TYPE_CHECKING:
    import numpy as np

    from gate.harness import Harness


class Documents:
    """The tasks of a run, asked of one checkpoint; see `evaluate.Backend`.

    Args:
        checkpoint: Whose tokenizer makes the prompts.
        harness: The tasks; None where only texts are measured.
        settings: `trust_remote_code` is read.
    """

    def __init__(
        self, checkpoint: Checkpoint, harness: "Harness | None", settings: Settings
    ) -> None:
        self.checkpoint, self.settings = checkpoint, settings
        self._harness = harness

    def setups(self) -> tuple[TaskSetup, ...]:
        """See `Backend.setups`."""
        return self._harness.setups() if self._harness else ()

    def doc_ids(self, task: str) -> Sequence[int]:
        """See `Backend.doc_ids`."""
        return self._tasks.doc_ids(task)

    def prompt(self, task: str, doc_id: int) -> str:
        """See `Backend.prompt`."""
        return self._tasks.prompt(task, doc_id)

    def higher_is_better(self, task: str, metric: str) -> bool:
        """See `Backend.higher_is_better`."""
        return self._tasks.higher_is_better(task, metric)

    @property
    def bos(self) -> int | None:
        """See `Backend.bos`."""
        return tokens.bos(self.tokenizer)

    def token_ids(self, text: str) -> "np.ndarray":
        """See `Backend.token_ids`."""
        return tokens.token_ids(self.tokenizer, text)

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's own."""
        if self._harness is not None:
            return self._harness.tokenizer
        from gate.harness import load_tokenizer

        trusted, file = self.settings.trust_remote_code, self.checkpoint.whole_file
        return load_tokenizer(self.checkpoint.path, trusted, file)

    @property
    def _tasks(self) -> "Harness":
        assert self._harness is not None, "tasks need a harness"
        return self._harness
