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

from gate.errors import BackendError, GateError
from gate.records import Distributions, Drift, PerplexityResult, RoundingFloor, ScoredDocument

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
        self.distributions: list[Distributions] = []
        self.drifts: list[Drift] = []
        self.batch_size: int | None = None
        self.smaller: dict[tuple[str, tuple[int, ...]], int] = {}
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
        """Keep a completed batch, in which every document that was asked is accounted for.

        Raises:
            BackendError: It is not what was asked.
        """
        scored = [document.doc_id for document in documents]
        if scored != list(doc_ids):
            raise BackendError(
                f"the backend was asked {len(doc_ids)} documents of {task} and scored "
                f"{len(scored)}, not all of them those that were asked",
                "Report this: a document must be scored, or be said to be lost.",
            )
        self.batches[task, tuple(doc_ids)] = documents
        dumped = [document.model_dump(mode="json") for document in documents]
        self._append({"task": task, "doc_ids": list(doc_ids), "documents": dumped})

    def begun(self, batch_size: int) -> int:
        """The batch size that the run began with: the one given, unless another was kept."""
        if self.batch_size is None:
            self.batch_size = batch_size
            self._append({"batch_size": batch_size})
        return self.batch_size

    def halved(self, task: str, doc_ids: Sequence[int]) -> int | None:
        """The batch size that followed on a batch that did not fit; None if it was not tried."""
        return self.smaller.get((task, tuple(doc_ids)))

    def add_halved(self, task: str, doc_ids: Sequence[int], batch_size: int) -> None:
        """Keep that a batch did not fit, and the size that follows."""
        self.smaller[task, tuple(doc_ids)] = batch_size
        self._append({"task": task, "doc_ids": list(doc_ids), "halved": batch_size})

    def add_perplexity(self, result: PerplexityResult) -> None:
        """Keep a completed perplexity."""
        self.perplexities[result.name] = result
        self._append({"perplexity": json.loads(result.model_dump_json())})

    def add_rounding_floor(self, floor: RoundingFloor) -> None:
        """Keep the rounding floor."""
        self.rounding_floor = floor
        self._append({"rounding_floor": floor.model_dump(mode="json")})

    def add_distributions(self, distributions: Distributions) -> None:
        """Keep which distributions were stored."""
        self.distributions.append(distributions)
        self._append({"distributions": distributions.model_dump(mode="json")})

    def add_drift(self, drift: Drift) -> None:
        """Keep how far distributions have moved."""
        self.drifts.append(drift)
        self._append({"drift": json.loads(drift.model_dump_json())})

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
        elif "halved" in entry:
            smaller = max(1, int(entry["halved"]))
            self.smaller[entry["task"], tuple(entry["doc_ids"])] = smaller
        elif "batch_size" in entry:
            self.batch_size = max(1, int(entry["batch_size"]))
        elif "rounding_floor" in entry:
            self.rounding_floor = RoundingFloor.model_validate(entry["rounding_floor"])
        elif "distributions" in entry:
            self.distributions.append(Distributions.model_validate(entry["distributions"]))
        elif "drift" in entry:
            self.drifts.append(Drift.model_validate(entry["drift"]))
        else:
            documents = [ScoredDocument.model_validate(item) for item in entry["documents"]]
            self.batches[entry["task"], tuple(entry["doc_ids"])] = documents


def cache_directory() -> Path:
    """Where what is kept between runs lies: QUANT_GATE_CACHE, else the user's cache."""
    named = os.environ.get("QUANT_GATE_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(home) / "quant-gate"
