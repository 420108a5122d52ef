"""One evaluation of one checkpoint: prepared, run in parts, and put into a result."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from gate import __version__, baseline, canary, drift, preflight, stopping, verdict
from gate import size as sizing
from gate.backends import BACKENDS
from gate.backends.replay import Replay
from gate.checkpoint import Checkpoint
from gate.errors import SettingsError
from gate.evaluate import Backend, Evaluation, suite_digest
from gate.harness import Harness, load_tokenizer
from gate.journal import Journal
from gate.records import CanaryAnswer, Comparison, EvalResult, now
from gate.request import Request, Subject
from gate.settings import Metric, PerplexityText, Settings, TaskMetric


class Run:
    """One evaluation: everything is prepared on construction, the model is loaded on entering.

    Raises:
        BackendUnavailableError: A package, data or memory is missing.
    """

    def __init__(self, request: Request, subject: Subject) -> None:
        self.request, self.subject, self.settings = request, subject, request.settings
        checkpoint, form = subject.checkpoint, subject.form
        self.digest = subject.weights_digest
        self._contents: dict[str, str] = {}
        self._loaded: Callable[[int], None] = lambda done: None
        self.stored_answers: EvalResult | None = None
        if self.settings.backend == "replay":
            self.stored_answers = baseline.load(request.root / str(self.settings.answers))
            self.backend: Backend = Replay(self.stored_answers, self.digest)
        else:
            preflight.require_packages()
            preflight.require_memory(sizing.decoded_bytes(checkpoint, form))
            self._contents = _read_texts(self.settings, request.root)
            self.backend = BACKENDS[self.settings.backend](
                checkpoint=checkpoint,
                form=form,
                harness=_harness(self.settings, checkpoint, request.root),
                settings=self.settings,
                progress=lambda done, total: self._loaded(1),
            )
        suite = suite_digest(self.backend.setups())
        self.seed = hashlib.sha256(f"{suite}/{self.digest}".encode()).hexdigest()
        self.journal = Journal(None if self.stored_answers else self._journal_path())

    def __enter__(self) -> Self:
        self.journal.__enter__()
        if self.stored_answers:
            self.journal.perplexities = {p.name: p for p in self.stored_answers.perplexities}
        with self.request.progress("loading", len(self.subject.checkpoint.tensors)) as self._loaded:
            self.backend.__enter__()
        self.evaluation = Evaluation(
            self.backend, self.seed, self.settings.batch_size, self.journal, self.request.progress
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.backend.__exit__(kind, None, None)
        self.journal.__exit__()
        if kind is None:
            self.journal.remove()

    def conditions(self) -> baseline.Conditions:
        """How the checkpoint is about to be measured; known before the model is loaded."""
        checkpoint = self.subject.checkpoint
        stored = self.stored_answers
        digests = (
            {text.name: text.tokens_digest for text in stored.perplexities}
            if stored
            else {
                metric.perplexity.label: self._tokens_digest(metric.perplexity)
                for metric in self.settings.perplexity_metrics
            }
        )
        return baseline.Conditions(
            setups=self.backend.setups(),
            template_sha=baseline.template_sha(checkpoint),
            tokenizer_digest=baseline.tokenizer_digest(checkpoint),
            config_digest=baseline.config_digest(checkpoint),
            backend=self.settings.backend,
            activations=self.settings.activations,
            tokens_digests=digests,
            device=self.backend.device or None,
            dtype=self.backend.dtype or None,
            versions=self.backend.versions,
        )

    def _tokens_digest(self, text: PerplexityText) -> str:
        content = self._contents[text.label]
        return drift.tokens_digest(drift.text_windows(self.backend, text, content))

    def texts(self) -> None:
        """Every perplexity, and the rounding floor on the first text."""
        metrics = self.settings.perplexity_metrics
        for metric in metrics:
            text = metric.perplexity
            self.evaluation.measure_text(text, self._contents.get(text.label, ""))
        if self.stored_answers:
            self.evaluation.rounding_floor = self.stored_answers.rounding_floor
        elif metrics:
            first = metrics[0].perplexity
            content = self._contents.get(first.label, "")
            self.evaluation.measure_rounding_floor(first, content)

    def canary(self, stored: EvalResult) -> tuple[CanaryAnswer, ...]:
        """The first answers of every generation task, as soon as one condemns the candidate."""
        for setup in self.backend.setups():
            if setup.output_type == "generate_until" and self.settings.canary_prompts:
                self.evaluation.run(setup.task, self.settings.canary_prompts)
                bad = canary.degenerated(
                    setup.task,
                    self.evaluation.answers(setup.task)[: self.settings.canary_prompts],
                    stored.answers.get(setup.task, ()),
                    partial(self.backend.prompt, setup.task),
                )
                if bad:
                    return bad
        return ()

    def tasks(self, stored: EvalResult | None = None) -> None:
        """Every task: to its end, or until the verdict against a baseline is settled."""
        evaluation = self.evaluation
        stop = stopping.Stopping(self.settings, stored, evaluation.orders) if stored else None
        for setup in self.backend.setups():
            evaluation.run(setup.task, stop=stop)
            settled = evaluation.stopped.get(setup.task)
            if settled is not None and settled.outcome == "fail":
                return

    def compare(self, stored: EvalResult, metrics: Sequence[Metric]) -> tuple[Comparison, ...]:
        """Some of the metrics against the baseline."""
        chosen = self.settings.model_copy(update={"metrics": tuple(metrics)})
        return verdict.compare(chosen, stored, self.result(), self.subject.weight_bits)

    @property
    def measured(self) -> tuple[Metric, ...]:
        """The settings' metrics without those of tasks that a settled FAIL made unnecessary."""
        evaluation = self.evaluation
        failed = any(stop.outcome == "fail" for stop in evaluation.stopped.values())
        tasks = {result.task for result in evaluation.task_results()}
        return tuple(
            metric
            for metric in self.settings.metrics
            if not failed or not isinstance(metric, TaskMetric) or metric.task in tasks
        )

    def result(self) -> EvalResult:
        """What was measured so far."""
        checkpoint, evaluation = self.subject.checkpoint, self.evaluation
        answers = {
            setup.task: tuple(sorted(evaluation.answers(setup.task), key=lambda a: a.doc_id))
            for setup in self.backend.setups()
        }
        assert self.subject.size is not None, "a checkpoint without lint errors has weights"
        return EvalResult(
            gate_version=__version__,
            model=checkpoint.source,
            revision=checkpoint.revision,
            weights_digest=self.digest,
            config_digest=baseline.config_digest(checkpoint),
            tokenizer_digest=baseline.tokenizer_digest(checkpoint),
            chat_template_sha=baseline.template_sha(checkpoint),
            format=self.subject.form.name if self.subject.form else None,
            weight_bits=self.subject.weight_bits,
            backend=self.settings.backend,
            device=self.backend.device,
            dtype=self.backend.dtype,
            kernel=self.backend.kernel,
            activations=self.settings.activations,
            setups=self.backend.setups(),
            tasks=evaluation.task_results(),
            answers={task: found for task, found in answers.items() if found},
            perplexities=tuple(evaluation.perplexities),
            rounding_floor=evaluation.rounding_floor,
            size=self.subject.size,
            seed=self.seed,
            batch_size=evaluation.batch_size,
            versions=self.backend.versions,
            date=now(),
            duration_s=round(time.monotonic() - self.subject.started, 1),
        )

    def _journal_path(self) -> Path:
        """Named by everything on which a batch's scores depend."""
        checkpoint = self.subject.checkpoint
        settings = self.settings
        key = [
            self.digest,
            baseline.config_digest(checkpoint),
            checkpoint.quantization_config,
            checkpoint.hf_quant_config,
            checkpoint.generation_config,
            baseline.tokenizer_digest(checkpoint),
            [setup.model_dump(mode="json") for setup in self.backend.setups()],
            [metric.perplexity.model_dump(mode="json") for metric in settings.perplexity_metrics],
            [hashlib.sha256(text.encode()).hexdigest() for text in self._contents.values()],
            settings.backend,
            settings.activations,
            settings.batch_size,
            settings.trust_remote_code,
            preflight.versions(),
            os.environ.get("CUDA_VISIBLE_DEVICES"),
        ]
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return cache_directory() / "journal" / f"{name[:32]}.jsonl"


def cache_directory() -> Path:
    """Where unfinished runs are kept: QUANT_GATE_CACHE, else the user's cache."""
    named = os.environ.get("QUANT_GATE_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(home) / "quant-gate"


def _read_texts(settings: Settings, root: Path) -> dict[str, str]:
    """Label to content of every perplexity text."""
    contents: dict[str, str] = {}
    for metric in settings.perplexity_metrics:
        text = metric.perplexity
        if text.label in contents:
            raise SettingsError(
                f"two perplexities are called {text.label}",
                "Give each its own file name; a text is measured once.",
            )
        contents[text.label] = drift.read_text(text, root)
    return contents


def _harness(settings: Settings, checkpoint: Checkpoint, root: Path) -> Harness | None:
    """Every task's requests, built by the checkpoint's own tokenizer; None without tasks."""
    if not settings.task_runs:
        return None
    tokenizer = load_tokenizer(checkpoint.path, settings.trust_remote_code)
    return Harness(
        settings.task_runs, tokenizer, root, settings.include_path, settings.allow_unsafe_tasks
    )
