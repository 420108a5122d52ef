"""Run a command of gate and note how much of its time the model's arithmetic takes.

The time is that inside the outermost `forward` of a transformers model: on a GPU by events in its
queue, elsewhere by the clock. Everything else is loading, tokenizing, choosing tokens, scoring,
statistics and reports. The program itself is left as it is::

    python benchmarks/model_time.py SECONDS_FILE check CHECKPOINT ...
"""

import json
import runpy
import sys
import time
from pathlib import Path
from typing import Any


class Stopwatch:
    """Adds up the time between the first `start` and the last `stop` of nested calls."""

    def __init__(self) -> None:
        self.calls = 0
        self._depth = 0
        self._seconds = self._started = 0.0
        self._events: list[tuple[Any, Any]] = []

    def start(self, *_: object) -> None:
        """A module is entered."""
        self._depth += 1
        if self._depth == 1:
            self.calls += 1
            self._started = time.perf_counter()
            if _cuda():
                self._events.append((_event(), None))

    def stop(self, *_: object) -> None:
        """A module is left."""
        self._depth -= 1
        if self._depth == 0:
            self._seconds += time.perf_counter() - self._started
            if _cuda():
                self._events[-1] = self._events[-1][0], _event()

    @property
    def seconds(self) -> float:
        """What was added up."""
        if not self._events:
            return self._seconds
        import torch

        torch.cuda.synchronize()
        return sum(begin.elapsed_time(end) for begin, end in self._events if end) / 1000


def _cuda() -> bool:
    import torch

    return torch.cuda.is_initialized()


def _event() -> Any:
    import torch

    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def watch(stopwatch: Stopwatch) -> None:
    """Have every transformers model that is made from now on tell when it is entered and left."""
    from transformers import PreTrainedModel

    original = PreTrainedModel.__init__

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        self.register_forward_pre_hook(stopwatch.start)
        self.register_forward_hook(stopwatch.stop, always_call=True)

    PreTrainedModel.__init__ = init


def main() -> None:
    """Run the command, then write the seconds, whatever its exit code."""
    file = Path(sys.argv[1]).absolute()
    sys.argv = ["gate", *sys.argv[2:]]
    stopwatch = Stopwatch()
    watch(stopwatch)
    try:
        runpy.run_module("gate", run_name="__main__", alter_sys=True)
    finally:
        found = {"model_s": stopwatch.seconds, "forward_calls": stopwatch.calls}
        file.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
