"""Several processes that each hold the whole model and share its batches."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from gate import devices, drift
from gate.backends.hf import Hf
from gate.backends.replica import Recipe, Replica
from gate.devices import LOCKS
from gate.drift import Reading
from gate.errors import BackendError, GateError
from gate.records import RoundingFloor, ScoredDocument, Served, TaskSetup
from gate.speed import Clock, Generated, Workload


class Replicas:
    """Runs a checkpoint in several processes; see `evaluate.Backend`, `dispatch.Replicated`.

    Every batch is measured as one process would measure it, so what comes out is the same.

    Args:
        backend: Not entered: it knows the tasks and the tokenizer.
        root: Directory to which the settings' paths are relative.
        replicas: How many processes there are.
        device_bytes: What each needs of its GPU; None on a CPU.

    Attributes:
        alone: The same in one process, not entered.
    """

    def __init__(self, backend: Hf, root: Path, replicas: int, device_bytes: int | None) -> None:
        self._recipe = Recipe(backend.checkpoint, backend.form, backend.settings, root)
        self.alone, self._device_bytes = backend, device_bytes
        self.replicas = replicas
        self.device = self.dtype = self.kernel = ""
        self.emulated, self.versions = backend.emulated, backend.versions
        self.served: Served | None = None
        self._processes: list[Replica] = []
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as held:
            places = held.enter_context(self._places())
            for index, environment in enumerate(places, 1):
                started = Replica(f"replica {index} of {self.replicas}", self._recipe, environment)
                held.callback(started.end)
                self._processes.append(started)
            for replica in self._processes:  # they load at the same time
                replica.take()
            self._describe()
            self._held = held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()
        self._processes = []

    def _describe(self) -> None:
        """What computes, as the first of them says: that is known once it has answered."""
        self.device, self.dtype, self.kernel = self._processes[0].ask("described")

    @contextlib.contextmanager
    def _places(self) -> Iterator[list[dict[str, str]]]:
        """The environment of each process: a GPU of its own, or a part of the threads."""
        if self._device_bytes is None:
            import torch

            threads = max(1, torch.get_num_threads() // self.replicas)
            yield [{"OMP_NUM_THREADS": str(threads)}] * self.replicas
            return
        each = self._device_bytes
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        visible = named.split(",") if named else None
        with (
            devices.reserved(self.replicas * each, each=each) as kept,
            # They are kept here, all at once: a process that waited for its own would hold others.
            tempfile.TemporaryDirectory() as locks,
        ):
            yield [
                {"CUDA_VISIBLE_DEVICES": visible[i] if visible else str(i), LOCKS: locks}
                for i in sorted(kept)
            ]

    def setups(self) -> tuple[TaskSetup, ...]:
        """See `Backend.setups`."""
        return self.alone.setups()

    def doc_ids(self, task: str) -> Sequence[int]:
        """See `Backend.doc_ids`."""
        return self.alone.doc_ids(task)

    def prompt(self, task: str, doc_id: int) -> str | None:
        """See `Backend.prompt`."""
        return self.alone.prompt(task, doc_id)

    def higher_is_better(self, task: str, metric: str) -> bool:
        """See `Backend.higher_is_better`."""
        return self.alone.higher_is_better(task, metric)

    @property
    def bos(self) -> int | None:
        """See `Backend.bos`."""
        return self.alone.bos

    def token_ids(self, text: str) -> np.ndarray:
        """See `Backend.token_ids`."""
        return self.alone.token_ids(text)

    def fitting(self) -> int:
        """What fits on each of them; see `Backend.fitting`."""
        for replica in self._processes:
            replica.give("fitting")
        return min(int(replica.take()) for replica in self._processes)

    def score(self, task: str, doc_ids: Sequence[int]) -> list[ScoredDocument]:
        """See `Backend.score`."""
        (found,) = self.score_each(task, [doc_ids])
        if isinstance(found, GateError):
            raise found
        return found

    def score_each(
        self, task: str, batches: Sequence[Sequence[int]]
    ) -> list[list[ScoredDocument] | GateError]:
        """See `dispatch.Replicated`."""
        found = self._each("score", [(task, list(batch)) for batch in batches])
        if not isinstance(found[0], GateError):
            self._describe()
        return found

    def read(
        self,
        windows: np.ndarray,
        *,
        top: int = 0,
        at: np.ndarray | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Reading:
        """See `Backend.read`."""
        size = drift.together(windows.shape[1])
        batches = [range(i, min(i + size, len(windows))) for i in range(0, len(windows), size)]
        parts: list[Reading] = []
        for first in range(0, len(batches), self.replicas):
            asked = batches[first : first + self.replicas]
            given = [(windows[rows], top, None if at is None else at[rows]) for rows in asked]
            for rows, found in zip(asked, self._each("read", given), strict=True):
                if isinstance(found, GateError):
                    raise found
                parts.append(found)
                if progress:
                    progress(len(rows))
        return Reading.joined(parts)

    def generate(self, workload: Workload, clock: Clock) -> Generated:
        """The speed of one of them; see `Backend.generate`."""
        found: Generated = self._processes[0].ask("generate", workload, clock)
        return found

    def rounding_floor(self, token_ids: np.ndarray) -> RoundingFloor | None:
        """See `Backend.rounding_floor`."""
        found: RoundingFloor | None = self._processes[0].ask("rounding_floor", token_ids)
        return found

    def _each(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What each of as many processes answers, or the error with which it failed."""
        found: list[Any] = []
        asked = list(zip(self._processes, arguments, strict=False))
        for replica, given in asked:
            with contextlib.suppress(BackendError):  # met again below
                replica.give(method, *given)
        for replica, _ in asked:
            try:
                found.append(replica.take())
            except GateError as error:
                found.append(error)
        return found
