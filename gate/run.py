"""One evaluation of one checkpoint: prepared, run in parts, and put into a result."""

import hashlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from gate import agreement, baseline, canary, devices, emulation, placement, preflight, verdict
from gate import speed as speeding
from gate.answers import counting
from gate.architecture import of_gguf
from gate.backends import BACKENDS
from gate.backends.hf import Hf
from gate.backends.replay import Replay
from gate.backends.replicas import Replicas
from gate.backends.server import Server
from gate.backends.vllm import Vllm
from gate.evaluate import Backend, Evaluation, suite_digest
from gate.harness import Harness
from gate.journal import Journal
from gate.readings import Readings
from gate.records import Agreement, CanaryAnswer, Comparison, EvalResult, Targeted, Throughput, now
from gate.request import Request, Subject
from gate.resume import journal_path
from gate.schedule import Schedule
from gate.screen import Screen
from gate.settings import Metric, PerplexityMetric, Suite, TaskMetric


class Run:
    """One evaluation: everything is prepared on construction, the model is loaded on entering.

    Raises:
        BackendUnavailableError: A package, data or memory is missing.
    """

    def __init__(self, request: Request, subject: Subject) -> None:
        self.request, self.subject, self.settings = request, subject, request.settings
        checkpoint, fit = subject.checkpoint, subject.lint.fit
        form = self.form = emulation.emulated(subject.form, checkpoint, self.settings, fit)
        self.digest = subject.weights_digest
        self._loaded: Callable[[int], None] = lambda done: None
        self.stored_answers: EvalResult | None = None
        self.throughput: Throughput | None = None
        self.left_out: dict[str, str] = {}
        self.decoded: agreement.Decoded | None = None
        self.agreement: Agreement | None = None
        self.served: Agreement | None = None
        self.placement, self.replicas = placement.Placement(), 1
        if self.settings.speed is not None:
            config = checkpoint.config or of_gguf(checkpoint.metadata)
            speeding.require_room(self.settings.speed, config)
        if self.settings.backend == "replay":
            self.stored_answers = baseline.load(request.root / str(self.settings.answers))
            self.backend: Backend = Replay(self.stored_answers, self.digest)
            self.prompting = self.stored_answers.prompting
        else:
            preflight.require_packages()
            self.placement = placement.place(self.settings, checkpoint, form)
            harness = Harness.of(self.settings, checkpoint, request.root)
            self.prompting = harness.prompting(checkpoint) if harness else None
            self.backend = BACKENDS[self.settings.backend](
                checkpoint=checkpoint,
                form=form,
                harness=harness,
                settings=self.settings,
                progress=lambda done, total: self._loaded(1),
                streamed=self.placement.streamed,
            )
            self._replicate()
        left_out: tuple[str, ...] = ()
        if isinstance(self.backend, Server | Vllm):
            self.settings, left_out = self.backend.able()
        self.readings = Readings(self.settings, checkpoint, request.root, self.stored_answers)
        self.readings.unread += left_out
        suite = suite_digest(self.backend.setups())
        self.seed = hashlib.sha256(f"{suite}/{self.digest}".encode()).hexdigest()
        kept = (request, subject, self.backend, self.readings)
        self.journal = Journal(None if self.stored_answers else journal_path(*kept))
        self.journals = [self.journal]

    def _replicate(self) -> None:
        """Several processes in place of this one, where the settings ask for them."""
        self.replicas = placement.replicas(self.settings, self.placement)
        if self.replicas > 1 and isinstance(self.backend, Hf):
            each = self.placement.device_bytes if devices.found() else None
            self.backend = Replicas(self.backend, self.request.root, self.replicas, each)

    def __enter__(self) -> Self:
        self.journal.__enter__()
        if self.stored_answers:
            self.journal.perplexities = {p.name: p for p in self.stored_answers.perplexities}
        self.decoded = agreement.decoded(self.backend, self.readings)
        self.served = agreement.served(self.backend, self.readings)
        with self.request.progress("loading", len(self.subject.checkpoint.tensors)) as self._loaded:
            self.backend.__enter__()
        asked = self.settings.batch_size
        self.begin(self.backend.fitting() if asked == "auto" else asked, self.request.arrays)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.backend.__exit__(kind, None, None)
        self.journal.__exit__()
        if kind is None:
            for journal in self.journals:
                journal.remove()

    def begin(self, batch_size: int, arrays: Path | None = None) -> None:
        """Nothing measured yet: the model is loaded, and asks for so many documents together.

        Args:
            arrays: Directory of the stored result, see `Request`.
        """
        self.throughput = None
        self.screen = Screen(
            self.backend,
            self.seed,
            self.journal,
            self.request.progress,
            known=self.readings.known,
            directory=arrays,
            top=self.settings.top_tokens,
            shard=self.request.shard,
        )
        self.evaluation = Evaluation(
            self.backend,
            self.seed,
            batch_size,
            self.journal,
            self.request.progress,
            self.request.shard,
        )

    def conditions(self) -> baseline.Conditions:
        """How the checkpoint is about to be measured; known before the model is loaded."""
        checkpoint, stored = self.subject.checkpoint, self.stored_answers
        return baseline.Conditions(
            setups=baseline.stated(stored) if stored else self.backend.setups(),
            template_sha=baseline.template_sha(checkpoint),
            tokenizer_digest=baseline.tokenizer_digest(checkpoint),
            config_digest=baseline.config_digest(checkpoint),
            backend=self.settings.backend,
            activations=self.settings.activations,
            api=self.backend.served.api if self.backend.served else None,
            runtime_quantization=self.subject.quantized,
            tokens_digests=self.readings.digests(self.backend),
            prompts_digests=baseline.prompts_digests(self.prompting)
            if checkpoint.whole_file
            else None,
            optional=self.readings.optional,
            device=self.backend.device or None,
            dtype=self.backend.dtype or None,
            versions=self.backend.versions,
        )

    @property
    def target(self) -> Targeted | None:
        """The runtime and GPU that are meant, beside what is measured."""
        settings, fit, device = self.settings, self.subject.lint.fit, self.backend.device
        return emulation.targeted(self.form, settings, fit, device, self.served)

    def texts(self, stored: EvalResult | None = None) -> None:
        """Every perplexity and the rounding floor, or until one text condemns the candidate.

        Args:
            stored: The baseline by which a text may end early; None for all of every text.
        """
        self.agreement = agreement.measure(self.backend, self.decoded)
        self.readings.read(self.screen, stored, self.subject.weight_bits)

    def read_answers(self) -> None:
        """How far the model moves on the baseline's own answers."""
        self.readings.read_answers(self.screen)

    def keep_answers(self) -> None:
        """Distributions over the model's own answers, for candidates to be compared with."""
        tasks = self.evaluation.documents
        answers = {task: self.evaluation.answers(task) for task in tasks}
        self.readings.keep_answers(self.screen, self.backend, answers)

    def canary(self, stored: EvalResult) -> tuple[CanaryAnswer, ...]:
        """The first answers of every generation task, as soon as one condemns the candidate."""
        for setup in self.backend.setups():
            if setup.task in self.settings.reserve or self.placement.streamed:
                continue
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
        """Every task: to its end, or as far as the verdict against a baseline needs it."""
        if self.placement.streamed:
            self.readings.unread += self.placement.require_answers(self.settings)
            return
        full = self.request.full
        schedule = Schedule(self.settings, self.evaluation, stored, full=full)

        def borderline(suite: Suite) -> bool:
            assert stored is not None, "without a baseline nothing is borderline"
            found = self.compare(stored, self.measured)
            lost = any(each.outcome == "fail" and not each.borderline for each in found)
            return not lost and any(e.borderline for e in found if e.task in suite.tasks)

        schedule.run(borderline)
        self.left_out = schedule.left_out

    def speed(self) -> None:
        """Throughput and memory, where the settings ask for them."""
        asked, stored, shard = self.settings.speed, self.stored_answers, self.request.shard
        if asked is None or self.placement.streamed or (shard and not shard.first):
            return
        if stored and stored.throughput and speeding.answers(stored.throughput, asked):
            self.throughput = stored.throughput
            return
        with self.request.progress("speed", speeding.runs(asked)) as advance:
            self.throughput = speeding.measure(self.backend, asked, advance)

    def compare(self, stored: EvalResult, metrics: Sequence[Metric]) -> tuple[Comparison, ...]:
        """Some of the metrics against the baseline."""
        chosen = self.settings.model_copy(update={"metrics": tuple(metrics)})
        return verdict.compare(chosen, stored, self.result(), self.subject.weight_bits)

    @property
    def measured(self) -> tuple[Metric, ...]:
        """The settings' metrics without those of tasks and texts that were not needed."""
        evaluation = self.evaluation
        failed = any(stop.outcome == "fail" for stop in evaluation.stopped.values())
        spared = failed or self.placement.streamed
        unneeded = {setup.task for setup in self.backend.setups()} if spared else set()
        unneeded |= self.settings.reserve
        unneeded -= {result.task for result in evaluation.task_results()}
        read = {found.name for found in self.screen.perplexities}
        condemned = any(found.early_stop for found in self.screen.perplexities)
        return tuple(
            metric
            for metric in self.settings.metrics
            if (
                metric.task not in unneeded
                if isinstance(metric, TaskMetric)
                else not condemned or metric.perplexity.label in read
            )
        )

    @property
    def read(self) -> tuple[PerplexityMetric, ...]:
        """Those of them that were measured by reading alone."""
        return tuple(m for m in self.measured if isinstance(m, PerplexityMetric))

    def result(self) -> EvalResult:
        """What was measured so far."""
        evaluation, screen = self.evaluation, self.screen
        answers = {
            setup.task: tuple(sorted(evaluation.answers(setup.task), key=lambda a: a.doc_id))
            for setup in self.backend.setups()
        }
        assert self.subject.size is not None, "a checkpoint without lint errors has weights"
        return EvalResult(
            **self.subject.identity,
            backend=self.settings.backend,
            device=self.backend.device,
            dtype=self.backend.dtype,
            kernel=self.backend.kernel,
            runtime_quantization=self.subject.quantized,
            agreement=self.agreement,
            target=self.target,
            served=self.backend.served,
            engine=self.backend.engine if isinstance(self.backend, Vllm) else None,
            chosen=self.request.chosen,
            activations=self.settings.activations,
            setups=self.backend.setups(),
            tasks=evaluation.task_results(),
            answers={task: found for task, found in answers.items() if found},
            answer_stats=counting.counted(self.backend.setups(), evaluation.documents),
            prompting=self.prompting,
            perplexities=tuple(screen.perplexities),
            rounding_floor=screen.rounding_floor,
            distributions=tuple(screen.distributions),
            drifts=tuple(screen.drifts),
            unread=tuple(self.readings.unread),
            throughput=self.throughput,
            shard=self.request.shard,
            shards=self.stored_answers.shards if self.stored_answers else 1,
            replicas=self.replicas,
            seed=self.seed,
            batch_size=evaluation.batch_size,
            batch_plan=evaluation.batch_plan,
            versions=self.backend.versions,
            date=now(),
            duration_s=round(time.monotonic() - self.subject.started, 1),
        )
