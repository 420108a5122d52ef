"""What has been measured already: a killed run resumes from here, batch by batch.

One JSON Lines file a run, named by everything that decides its content. A batch is appended when
it is complete; a torn last line is an unfinished batch and is measured again.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from gate.errors import GateError
from gate.records import PerplexityResult, RoundingFloor, ScoredDocument

MAX_LINE_BYTES = 64 * 2**20


class Journal:
    """Completed work of one run; a context manager that holds the file open.

    Args:
        path: The file; its directory is made. None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.batches: dict[tuple[str, tuple[int, ...]], list[ScoredDocument]] = {}
        self.perplexities: dict[str, PerplexityResult] = {}
        self.rounding_floor: RoundingFloor | None = None
        self._file: Any = None

    def __enter__(self) -> Self:
        if self.path is None:
            return self
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            whole = self._replay() if self.path.is_file() else 0
            self._file = self.path.open("ab")
            self._file.truncate(whole)
        except OSError as error:
            raise GateError(
                f"{self.path} cannot be written: {error}",
                "Name a writable directory with QUANT_GATE_CACHE.",
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def batch(self, task: str, doc_ids: Sequence[int]) -> list[ScoredDocument] | None:
        """The result of exactly this batch, if it was completed."""
        return self.batches.get((task, tuple(doc_ids)))

    def add_batch(self, task: str, doc_ids: Sequence[int], documents: list[ScoredDocument]) -> None:
        """Keep a completed batch."""
        self.batches[task, tuple(doc_ids)] = documents
        dumped = [document.model_dump(mode="json") for document in documents]
        self._append({"task": task, "doc_ids": list(doc_ids), "documents": dumped})

    def add_perplexity(self, result: PerplexityResult) -> None:
        """Keep a completed perplexity."""
        self.perplexities[result.name] = result
        self._append({"perplexity": json.loads(result.model_dump_json())})

    def add_rounding_floor(self, floor: RoundingFloor) -> None:
        """Keep the rounding floor."""
        self.rounding_floor = floor
        self._append({"rounding_floor": floor.model_dump(mode="json")})

    def remove(self) -> None:
        """Delete the file: the run is complete and its result stored."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _append(self, entry: dict[str, Any]) -> None:
        if self._file is None:
            return
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _replay(self) -> int:
        """Read what is complete; returns where the first torn or unreadable line begins."""
        whole = 0
        for line in self._lines():
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError, ValidationError):
                break
            whole += len(line)
        return whole

    def _lines(self) -> Iterator[bytes]:
        assert self.path is not None
        with self.path.open("rb") as file:
            while (line := file.readline(MAX_LINE_BYTES)).endswith(b"\n"):
                yield line

    def _take(self, entry: dict[str, Any]) -> None:
        if "perplexity" in entry:
            result = PerplexityResult.model_validate(entry["perplexity"])
            self.perplexities[result.name] = result
        elif "rounding_floor" in entry:
            self.rounding_floor = RoundingFloor.model_validate(entry["rounding_floor"])
        else:
            documents = [ScoredDocument.model_validate(item) for item in entry["documents"]]
            self.batches[entry["task"], tuple(entry["doc_ids"])] = documents
