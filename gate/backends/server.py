"""A server that runs the model: any that speaks OpenAI's API.

The gate sees neither the weights nor the kernels. What it measures is what the server says it
serves.
"""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from gate import serving
from gate.architecture import architecture
from gate.backends import server_probe, server_replies
from gate.backends.documents import Documents
from gate.backends.server_client import Client
from gate.checkpoint import Checkpoint
from gate.drift import Reading
from gate.errors import BackendUnavailableError, SettingsError
from gate.harness import Asked, Told, Written, tokens
from gate.plain import plain
from gate.records import RoundingFloor, ScoredDocument, Served, TaskSetup
from gate.settings import Settings
from gate.speed import Clock, Generated, Workload

if TYPE_CHECKING:
    from gate.harness import Harness

AHEAD = 4
"""Documents that are asked for together, for each request at a time: few wait for the last."""

CONTEXT = 2048
"""Tokens for prompt and answer where neither server nor checkpoint says how many there are."""

NAME_CHARS = 200
"""Longer names of models are cut where they are shown."""


class Server(Documents):
    """Asks a server for answers and log-probabilities; see `evaluate.Backend`.

    Which model it serves and what it can be asked for is found out on construction.

    Args:
        checkpoint: What it is said to serve.
        harness: The tasks; None where only texts are measured.
        settings: Whose `server` is asked.
        unused: What those take that load weights.

    Attributes:
        context: Tokens of prompt and answer that the server takes.
        untold: Why it gives no log-probabilities of a prompt; None where it gives them, or where
            nothing that is measured needs them.

    Raises:
        ServerError: It does not reply, or serves something else.
        SettingsError: A task cannot be asked in this way.
    """

    dtype = "dtype as served"
    emulated = False

    def __init__(
        self,
        checkpoint: Checkpoint,
        harness: "Harness | None",
        settings: Settings,
        **unused: object,
    ) -> None:
        assert settings.server is not None, "the settings ask for one with this backend"
        super().__init__(checkpoint, harness, settings)
        self._asked = settings.server
        self._client = Client(settings.server)
        self.model = server_probe.identity(self._client, settings.server)
        known = (self.model.context, architecture(checkpoint).context)
        self.context = min(filter(None, known), default=CONTEXT)
        self.untold = self._untold()
        self._prompts = self._kind_of_prompts()
        host, owner = self._client.host, self.model.owner
        self.served: Served | None = Served(
            model=plain(self.model.name, limit=NAME_CHARS),
            host=host,
            api=self._asked.api,
            prompts=self._prompts,
            owner=plain(owner, limit=NAME_CHARS) if owner else None,
        )
        self.device = f"{self.served.model} at {host}"
        self.kernel = (
            f"kernel unknown to the gate; prompts sent as {self._prompts}, up to "
            f"{self._asked.concurrency} at a time"
        )
        self.versions = {name: version(name) for name in ("transformers", "lm_eval")}
        self._language_model = harness.remote_model(self, self.context) if harness else None
        self._task = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def able(self) -> tuple[Settings, tuple[str, ...]]:
        """The settings without what it cannot be asked for; see `serving.able`."""
        return serving.able(
            self.settings,
            self.setups(),
            self.context,
            untold=self.untold,
            drift=serving.DRIFT,
            speed=serving.SPEED,
        )

    def setups(self) -> tuple[TaskSetup, ...]:
        """How each task is asked that this server can be asked for."""
        return tuple(each for each in super().setups() if self.untold is None or _writes(each))

    def fitting(self) -> int:
        """Documents that keep the server busy; it has its own way to put them into batches."""
        return AHEAD * self._asked.concurrency

    def score(self, task: str, doc_ids: Sequence[int]) -> list[ScoredDocument]:
        """See `Backend.score`."""
        assert self._language_model is not None, "tasks need a harness"
        self._task = task
        return self._tasks.score(self._language_model, task, doc_ids)

    def write(self, asked: Sequence[Asked]) -> list[Written]:
        """See `harness.remote.Remote`."""
        return self._client.all(self._answer, asked)

    def tell(self, sequences: Sequence[Sequence[int]]) -> list[Told]:
        """See `harness.remote.Remote`."""
        doing = f"give the log-probabilities of {self._task}"
        return self._client.all(
            lambda ids: server_probe.told(self._client, self.model.name, ids, doing), sequences
        )

    def read(
        self,
        windows: np.ndarray,
        *,
        top: int = 0,
        at: np.ndarray | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Reading:
        """See `Backend.read`; what else than the text's own tokens is likely is not told."""
        assert not top and at is None, "a server is not asked for distributions"
        self._task = "a text"
        reading = Reading.empty(len(windows), windows.shape[1], top=0, k=0)
        size = self.fitting()
        for start in range(0, len(windows), size):
            batch = windows[start : start + size].tolist()
            found = self.tell(batch)
            reading.logprobs[start : start + len(batch)] = [told.logprobs for told in found]
            if progress:
                progress(len(batch))
        return reading

    def generate(self, workload: Workload, clock: Clock) -> Generated:
        """Its speed is that of its machine and of all who use it."""
        raise BackendUnavailableError(
            "the speed of a server is not measured", "Measure it with the server's own benchmark."
        )

    def rounding_floor(self, token_ids: np.ndarray) -> RoundingFloor | None:
        """A server rounds as it does."""
        return None

    def _untold(self) -> str | None:
        if not self.settings.perplexity_metrics and all(map(_writes, super().setups())):
            return None
        if self._asked.api == "chat":
            return "the chat API gives no log-probabilities of a prompt"
        return server_probe.untold(self._client, self.model.name)

    def _kind_of_prompts(self) -> Literal["tokens", "text", "messages"]:
        """What prompts are sent as.

        Raises:
            SettingsError: A conversation is to be sent, and a task has none.
        """
        written = [each for each in self.setups() if _writes(each)]
        if self._asked.api == "chat":
            for setup in written:
                if not setup.apply_chat_template:
                    raise SettingsError(
                        f"task {setup.task} is asked without the chat template, and the server "
                        "by api: chat, which always applies one",
                        "Set api: completions, or apply_chat_template: true for this task.",
                    )
            return "messages"
        if not written:
            return "tokens"
        task = written[0].task
        text = self.prompt(task, self.doc_ids(task)[0])
        first = tokens.prompt_ids(self.tokenizer, text)
        return server_probe.prompts(self._client, self.model.name, text, first)

    def _answer(self, asked: Asked) -> Written:
        doing, model = f"answer a document of {self._task}", self.model.name
        if self._prompts == "messages":
            assert asked.conversation is not None, "tasks without a chat template are refused"
            messages, template_kwargs = asked.conversation
            if messages[-1]["role"] == "assistant":
                raise SettingsError(
                    f"task {self._task} begins the answer itself, which no chat API goes on with",
                    "Set api: completions.",
                )
            payload = server_probe.chat(
                model, messages, asked.max_tokens, asked.stop, dict(template_kwargs)
            )
            found = server_replies.answered(
                self._client.post("chat/completions", payload, doing), doing
            )
            return Written(found.text, found.ended)
        prompt = asked.token_ids if self._prompts == "tokens" else asked.prompt
        payload = server_probe.completion(model, prompt, asked.max_tokens, asked.stop)
        found = server_replies.answered(self._client.post("completions", payload, doing), doing)
        server_probe.require_count(found, len(asked.token_ids))
        return Written(found.text, found.ended)


def _writes(setup: TaskSetup) -> bool:
    """Whether a task is answered by text."""
    return setup.output_type == "generate_until"
