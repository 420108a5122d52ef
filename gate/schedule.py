"""Which tasks are asked, in which order, and when one more suite is needed to tell.

A suite that another escalates to is kept in reserve. It is asked where the other one is borderline
on all of its documents, and where the time that it may take is enough for it.
"""

import time
from collections.abc import Callable

from gate.evaluate import Evaluation
from gate.records import EarlyStop, EvalResult
from gate.settings import Settings, Suite
from gate.stopping import Stopping, Within


class Schedule:
    """The tasks of one run.

    Args:
        settings: Their order, their suites, and when a task may end.
        evaluation: Entered already.
        stored: The baseline; None to measure everything to its end, as for a baseline.
        full: Whether every task is run to its end all the same.

    Attributes:
        left_out: Suite that would have been needed to why it was not run to its end.
    """

    def __init__(
        self,
        settings: Settings,
        evaluation: Evaluation,
        stored: EvalResult | None = None,
        *,
        full: bool = False,
    ) -> None:
        self._settings, self._evaluation = settings, evaluation
        self._reserve = settings.reserve if stored else frozenset()
        self._escalates = stored is not None
        # A task that is never stopped is one block: its documents are sorted all together.
        stops = stored is not None and not full and settings.early_stop != "off"
        self._stop = Stopping(settings, stored, evaluation.orders) if stored and stops else None
        self._setups = evaluation.backend.setups()
        # Seconds a document, by task.
        self._rates: dict[str, float] = {}
        self.left_out: dict[str, str] = {}

    def run(self, borderline: Callable[[Suite], bool]) -> None:
        """Every task that is needed: until the last one, or one that settles a FAIL.

        Args:
            borderline: Whether it hangs on a suite that leaves it open.
        """
        for setup in self._setups:
            if setup.task in self._reserve:
                continue
            settled = self._ask(setup.task)
            if settled is not None and settled.outcome == "fail":
                return
        for suite, further in self._settings.escalations if self._escalates else ():
            # Last, since a FAIL of any other suite makes it needless.
            if borderline(suite) and self._escalate(suite, further):
                return

    def _escalate(self, suite: Suite, further: Suite) -> bool:
        """Run one more suite within its time; says whether a FAIL was settled."""
        setups = [setup for setup in self._setups if setup.task in further.tasks]
        if further.budget_s is not None:
            known = [self._rates[task] for task in suite.tasks if task in self._rates]
            needed = max(known, default=0.0) * sum(setup.n_documents for setup in setups)
            if needed > further.budget_s:
                self.left_out[further.name] = (
                    f"about {needed:,.0f} s are needed at the rate of {suite.name}, and "
                    f"{further.budget_s:,.0f} s are allowed"
                )
                return False
        began = time.monotonic()
        for setup in setups:
            left = None
            if further.budget_s is not None:
                left = further.budget_s - (time.monotonic() - began)
            settled = self._ask(setup.task, left)
            if settled is not None and settled.outcome is None:
                self.left_out[further.name] = settled.reason
                return False
            if settled is not None and settled.outcome == "fail":
                return True
        return False

    def _ask(self, task: str, seconds: float | None = None) -> EarlyStop | None:
        """Run one task, and note what each of its documents took."""
        evaluation, planned = self._evaluation, len(self._evaluation.orders[task])
        before, began = len(evaluation.documents.get(task, ())), time.monotonic()
        stop = self._stop if seconds is None else Within(self._stop, seconds, planned)
        done = len(evaluation.run(task, stop=stop))
        if done > before:
            self._rates[task] = (time.monotonic() - began) / (done - before)
        settled = evaluation.stopped.get(task)
        if settled is None or task not in self._rates:
            return settled
        saved = round(self._rates[task] * (planned - done), 1)
        evaluation.stopped[task] = settled.model_copy(update={"seconds_saved": saved})
        return settled
