"""One of several processes that share a run: it holds the whole model and does as it is told."""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

from gate import errors
from gate.backends.hf import Hf
from gate.checkpoint import Checkpoint
from gate.errors import BackendError, GateError
from gate.harness import Harness
from gate.quantization import Format
from gate.settings import Settings

END_S = 5.0
"""For a process that was told to end, before it is killed."""


@dataclass(frozen=True)
class Recipe:
    """What another process makes its backend of.

    Attributes:
        root: Directory to which the settings' paths are relative.
    """

    checkpoint: Checkpoint
    form: Format | None
    settings: Settings
    root: Path


class Replica:
    """One process, as the others see it."""

    def __init__(self, name: str, recipe: Recipe, environment: Mapping[str, str]) -> None:
        self.name = name
        spawning = get_context("spawn")
        self._pipe, theirs = spawning.Pipe()
        self._process = spawning.Process(
            target=_serve, args=(theirs, recipe, dict(environment)), daemon=True
        )
        self._process.start()
        theirs.close()

    def ask(self, method: str, *arguments: Any) -> Any:
        """Have it call a method, and wait for what that gives."""
        self.give(method, *arguments)
        return self.take()

    def give(self, method: str, *arguments: Any) -> None:
        """Have it call a method."""
        try:
            self._pipe.send((method, arguments))
        except OSError as error:
            raise self._ended() from error

    def take(self) -> Any:
        """Wait for what the next method gives.

        Raises:
            GateError: The one that it raised.
            BackendError: The process has ended.
        """
        try:
            kind, found = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if kind is None:
            return found
        raised = getattr(errors, kind, BackendError)
        raise raised(*found)

    def end(self) -> None:
        """Let it go, whatever it does."""
        self._pipe.close()
        self._process.terminate()
        self._process.join(END_S)
        self._process.kill()
        self._process.join()

    def _ended(self) -> BackendError:
        self._process.join(END_S)
        code = self._process.exitcode
        why = f"exit code {code}"
        if code is not None and code < 0:
            why = signal.Signals(-code).name
        return BackendError(
            f"{self.name} (process {self._process.pid}) has ended: {why}",
            "Start the same command again: finished batches are kept. SIGKILL often means that "
            "memory ran out; fewer replicas need less.",
        )


def _serve(pipe: Connection, recipe: Recipe, environment: Mapping[str, str]) -> None:
    """The process: loads the model, and answers until nobody asks any more."""
    # A terminal interrupts all processes of a command; the first one ends these.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(environment)
    Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", torch.get_num_threads())))
    try:
        with _backend(recipe) as backend:
            pipe.send((None, None))
            while True:
                method, arguments = pipe.recv()
                pipe.send(_answer(backend, method, arguments))
    except GateError as error:
        pipe.send((type(error).__name__, (error.message, error.hint)))
    except (EOFError, OSError):
        return


def _backend(recipe: Recipe) -> Hf:
    harness = Harness.of(recipe.settings, recipe.checkpoint, recipe.root)
    return Hf(recipe.checkpoint, recipe.form, harness, recipe.settings)


def _answer(backend: Hf, method: str, arguments: tuple[Any, ...]) -> tuple[str | None, Any]:
    """What a method gives, or the kind, message and hint of the error that it raises."""
    try:
        if method == "described":
            return None, (backend.device, backend.dtype, backend.kernel)
        if method == "read":
            windows, top, at = arguments
            return None, backend.read(windows, top=top, at=at)
        return None, getattr(backend, method)(*arguments)
    except GateError as error:
        return type(error).__name__, (error.message, error.hint)


def _end_with_parent() -> None:
    """End at once when the first process is gone, also in the middle of a batch."""
    first = parent_process()
    if first is not None:
        first.join()
        os._exit(1)
