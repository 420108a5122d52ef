"""vLLM in this process: what it answers is what the reference answers, and it leaves nothing."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import checkpoints
import numpy as np
import openai_server
import pytest
import vllm_signatures
import vllm_stand_in
from test_harness import write_task
from tiny_models import opened
from vllm_stand_in import LLM

from gate import devices, interrupts
from gate.backends import vllm_engine, vllm_machine, vllm_outputs, vllm_worker
from gate.backends.hf import Hf
from gate.backends.vllm import Vllm
from gate.errors import (
    BackendError,
    BackendUnavailableError,
    ExitCode,
    NonFiniteLogitsError,
    OutOfMemoryError,
    SettingsError,
)
from gate.harness import Asked, Harness
from gate.settings import PerplexityMetric, PerplexityText, Settings, TaskMetric
from gate.speed import Workload

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

N = 6
WINDOWS = np.arange(20 * 16, dtype=np.int64).reshape(20, 16) % 999
IFEVAL = TaskMetric(task="ifeval", documents="documents.jsonl", max_gen_toks=14)


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, export: Callable[[str], Path], sentence_data: Path
) -> Path:
    """A directory with a checkpoint and two tasks: one is answered by text, one by choice."""
    root = tmp_path_factory.mktemp("vllm")
    rows = [
        {
            "key": key,
            "prompt": f"Write about number {key} without any comma.",
            "instruction_id_list": ["punctuation:no_comma"],
            "kwargs": [{}],
        }
        for key in range(N)
    ]
    (root / "documents.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write_task(root)
    openai_server.checkpoint(root / "model", export("bf16"))
    return root


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """vLLM's stand-in, on a machine of as many GPUs as `count` says."""
    import torch

    found = SimpleNamespace(count=1, free=80 * 2**30)
    for name, module in vllm_stand_in.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in vllm_machine.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(devices.LOCKS, str(tmp_path))
    monkeypatch.setattr(devices, "found", lambda: vllm_stand_in.gpus(found.count))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (found.free, 80 * 2**30))
    monkeypatch.setattr(LLM, "made", [])
    monkeypatch.setattr(LLM, "fault", {})
    yield found
    left = [llm for llm in LLM.made if llm.llm_engine.process.poll() is None]
    for llm in left:
        llm.llm_engine.process.kill()
    assert not left, "an engine outlived its backend"


Making = Callable[..., Vllm]


@pytest.fixture(scope="module")
def tasks(place: Path) -> Harness:
    """Both tasks, built once."""
    found = Harness.of(
        Settings(metrics=(IFEVAL, TaskMetric(task=str(place / "sayings.yaml")))),
        opened(place / "model")[0],
        place,
    )
    assert found is not None
    return found


@pytest.fixture
def making(place: Path, machine: SimpleNamespace, tasks: Harness) -> Making:
    """A backend with both tasks, given the metrics of its settings and vLLM's arguments."""

    def make(*metrics: Any, **vllm: Any) -> Vllm:
        asked = Settings(backend="vllm", vllm=vllm, metrics=metrics or (IFEVAL,))
        checkpoint, form = opened(place / "model")
        return Vllm(checkpoint=checkpoint, form=form, harness=tasks, settings=asked)

    return make


def test_it_answers_as_the_reference(place: Path, making: Making) -> None:
    backend = making()
    checkpoint, form = opened(place / "model")
    done: list[int] = []
    with backend, Hf(checkpoint, form, backend._harness, backend.settings) as model:
        for setup in backend.setups():
            ids = backend.doc_ids(setup.task)
            alone = [one for doc_id in ids for one in model.score(setup.task, [doc_id])]
            assert backend.score(setup.task, ids) == alone
        assert len(backend.setups()) == 2
        at = np.repeat(WINDOWS[:, 1:, None].astype(np.int32), 3, axis=2) + np.arange(
            3, dtype=np.int32
        )
        ours = backend.read(WINDOWS, top=4, at=at, progress=done.append)
        theirs = model.read(WINDOWS, top=4, at=at)
        assert backend.bos == model.bos
        assert np.array_equal(backend.token_ids("a b"), model.token_ids("a b"))
    assert np.array_equal(ours.top_ids, theirs.top_ids)
    for name in ("logprobs", "top_logprobs", "at_logprobs"):
        assert np.allclose(getattr(ours, name), getattr(theirs, name), atol=1e-5)
    assert done == [20]


def asked(backend: Vllm, *stop: str, max_tokens: int = 8, doc_id: int = 0) -> Asked:
    ids = backend.tokenizer.encode(backend.prompt("ifeval", doc_id))
    return Asked("", ids, None, stop, max_tokens)


def test_an_answer_ends_where_it_should(making: Making) -> None:
    with making() as backend:
        (whole,) = backend.write([asked(backend)])
        assert (whole.ended, whole.tokens) == (False, 8)
        one = asked(backend)
        output = LLM.made[0]._answer(one.token_ids, vllm_outputs.answering(one, 1.0))
        written = output.outputs[0].token_ids
        third = backend.tokenizer.decode(written[2])
        first = next(n for n in range(8) if third in backend.tokenizer.decode(written[: n + 1]))
        (cut,) = backend.write([asked(backend, third)])
        assert (cut.ended, cut.tokens) == (True, first) and whole.text.startswith(cut.text)


def test_a_prompt_without_room_for_its_answer_loses_its_beginning(making: Making) -> None:
    with making(max_model_len=32) as backend:
        one = asked(backend)
        long = one._replace(token_ids=one.token_ids * 4)
        (written,) = backend.write([long])
        prompts, _ = LLM.made[0].asked[-1]
        assert prompts[0]["prompt_token_ids"] == long.token_ids[-24:]
        assert written.tokens == 8
    with pytest.raises(SettingsError, match="generates up to 14 tokens"):
        making(max_model_len=16)


def test_what_a_checkpoint_makes_of_repetition_is_kept(making: Making, place: Path) -> None:
    path = place / "model" / "generation_config.json"
    before = path.read_text()
    for stated, expected in ((1.7, 1.7), ("much", 1.0), (None, 1.0)):
        try:
            path.write_text(json.dumps(json.loads(before) | {"repetition_penalty": stated}))
            with making() as backend:
                backend.write([asked(backend, max_tokens=1)])
        finally:
            path.write_text(before)
        _, params = LLM.made[-1].asked[-1]
        assert params[0].repetition_penalty == expected


def test_windows_are_read_in_parts(making: Making, monkeypatch: pytest.MonkeyPatch) -> None:
    with making() as backend:
        whole = backend.read(WINDOWS, top=2)
        monkeypatch.setattr(vllm_outputs, "MOST_VALUES", 16 * 3 * 7)
        done: list[int] = []
        parts = backend.read(WINDOWS, top=2, progress=done.append)
    assert done == [7, 7, 6]
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert [len(prompts) for prompts, _ in LLM.made[0].asked] == [20, 7, 7, 6]


def test_copies_divide_the_work_and_keep_its_order(
    making: Making, machine: SimpleNamespace
) -> None:
    with making() as backend:
        alone = backend.score("ifeval", backend.doc_ids("ifeval"))
    machine.count = 3
    with making(data_parallel_size=3) as backend:
        assert backend.score("ifeval", backend.doc_ids("ifeval")) == alone
        assert backend.score("ifeval", [2]) == [alone[2]]
        assert backend.device == "3 x NVIDIA H100 80GB HBM3"
        assert backend.engine is not None and backend.engine.data_parallel_size == 3
        assert "data parallel by 3" in backend.kernel
    copies = LLM.made[1:]
    assert [llm.given["device_ids"] for llm in copies] == [[0], [1], [2]]
    assert [len(llm.asked[0][0]) for llm in copies] == [2, 2, 2]


def test_a_copy_that_cannot_start_takes_the_others_with_it(
    making: Making, machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.count = 2

    def started(llm: LLM, *args: Any, **given: Any) -> None:
        begin(llm, *args, **given)
        LLM.fault["start"] = RuntimeError("Engine core initialization failed.\nSee above.")

    begin = LLM.__init__
    monkeypatch.setattr(LLM, "__init__", started)
    with pytest.raises(BackendUnavailableError, match=r"cannot load .*initialization failed"):
        making(data_parallel_size=2).__enter__()
    assert len(LLM.made) == 1


def test_the_layers_are_divided_among_the_gpus_that_are_kept(
    making: Making, machine: SimpleNamespace
) -> None:
    machine.count = 2
    with making(tensor_parallel_size=2, enable_prefix_caching=False, enforce_eager=True) as backend:
        given = LLM.made[0].given
        with pytest.raises(BackendUnavailableError, match=r"no GPU came free|are free"):
            other = making()
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(devices.WAIT, "0")
                other.__enter__()
    assert given["device_ids"] == [0, 1] and given["tensor_parallel_size"] == 2
    assert given["enable_prefix_caching"] is False and given["enforce_eager"] is True
    assert given["gpu_memory_utilization"] == 0.85 and given["max_logprobs"] == 1024
    assert "distributed_executor_backend" not in given
    assert "tensor parallel by 2" in backend.kernel


def test_ray_has_gpus_of_its_own(making: Making, machine: SimpleNamespace) -> None:
    machine.count = 0
    ray = {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}
    with making(distributed_executor_backend="ray", **ray) as backend:
        given = LLM.made[0].given
        assert backend.device == "4 GPUs of a Ray cluster"
    assert given["distributed_executor_backend"] == "ray" and "device_ids" not in given


def test_the_way_that_the_engine_took_is_told(making: Making) -> None:
    with making() as backend:
        engine = backend.engine
    assert engine is not None
    assert engine.version == vllm_stand_in.KNOWN["version"] == backend.versions["vllm"]
    assert engine.kernels == (
        "CompressedTensorsW8A8Fp8 with CutlassFP8ScaledMMLinearKernel",
        "ModelOptFp8LinearMethod with CutlassFP8ScaledMMLinearKernel",
        "ModelOptFp8MoEMethod with TritonExperts",
        "UnquantizedLinearMethod",
    )
    assert engine.attention == ("FLASH_ATTN",)
    assert backend.kernel == (
        "vLLM's kernels: CompressedTensorsW8A8Fp8 with CutlassFP8ScaledMMLinearKernel, "
        "ModelOptFp8LinearMethod with CutlassFP8ScaledMMLinearKernel, "
        "ModelOptFp8MoEMethod with TritonExperts; attention by FLASH_ATTN"
    )
    assert (backend.device, backend.dtype) == ("NVIDIA H100 80GB HBM3", "float32")
    assert not backend.emulated and backend.rounding_floor(WINDOWS) is None


def test_it_quantizes_at_load_what_is_not_quantized(place: Path, machine: SimpleNamespace) -> None:
    runtime = {"quantization": "fp8", "kv_cache_dtype": "fp8"}
    asked = Settings.model_validate({"backend": "vllm", "runtime_quantization": runtime})
    checkpoint, form = opened(place / "model")
    with Vllm(checkpoint=checkpoint, form=form, harness=None, settings=asked):
        given = LLM.made[0].given
    assert (given["quantization"], given["kv_cache_dtype"]) == ("fp8", "fp8")


def test_a_quantized_checkpoint_is_not_quantized_again(
    tmp_path: Path, machine: SimpleNamespace
) -> None:
    asked = Settings.model_validate(
        {"backend": "vllm", "runtime_quantization": {"quantization": "fp8"}}
    )
    checkpoint, form = opened(checkpoints.build(tmp_path / "fp8", "FP8"))
    with pytest.raises(SettingsError, match="stored as modelopt: it cannot be quantized again"):
        Vllm(checkpoint=checkpoint, form=form, harness=None, settings=asked)


def test_speed_is_timed_token_by_token(making: Making, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 7)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    ticks = iter(range(100))
    with making() as backend:
        found = backend.generate(Workload(3, 10, 5, seed=1), lambda: float(next(ticks)))
    # The first prompts are read one after the other: a token of each is there after three steps.
    assert len(found.times) == 6 and found.times[0] == 0.0
    assert list(found.times) == sorted(found.times)
    assert (found.peak_bytes, found.peak_of, found.devices) == (7, "device", 1)


@pytest.mark.parametrize(
    ("error", "expected", "match"),
    [
        (ValueError("No GPU memory is left\nmore"), OutOfMemoryError, "No GPU memory is left$"),
        (vllm_stand_in.VLLMServerError("broken"), BackendUnavailableError, "broken"),
        (NotImplementedError("no such model"), BackendUnavailableError, "no such model"),
    ],
)
def test_a_model_that_cannot_be_loaded(
    making: Making, error: Exception, expected: type[Exception], match: str
) -> None:
    LLM.fault["start"] = error
    with pytest.raises(expected, match=match) as raised:
        making().__enter__()
    assert type(raised.value) is expected


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (vllm_stand_in.VLLMClientError("too long"), "refuses what it is asked: too long"),
        (ValueError("too odd"), "refuses what it is asked: too odd"),
        (vllm_stand_in.VLLMServerError("dead"), "engine ended while it answered: dead"),
        (RuntimeError("dead"), "engine ended while it answered: dead"),
    ],
)
def test_an_engine_that_refuses_or_dies(making: Making, error: Exception, match: str) -> None:
    with making() as backend:
        LLM.fault["generate"] = error
        with pytest.raises(BackendError, match=match):
            backend.score("ifeval", [0])


def test_what_is_missing_is_named_before_anything_is_loaded(
    making: Making, machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.count = 1
    with pytest.raises(BackendUnavailableError, match="use 2 CUDA GPUs, and there are 1"):
        making(tensor_parallel_size=2)
    monkeypatch.setitem(sys.modules, "vllm", vllm_stand_in.modules("0.32.1")["vllm"])
    with pytest.raises(BackendUnavailableError, match=r"0\.33 or newer, and 0\.32\.1 is installed"):
        making()
    monkeypatch.delitem(sys.modules, "vllm")
    with pytest.raises(BackendUnavailableError, match="not installed") as raised:
        making()
    assert "quant-gate[vllm]" in raised.value.hint


def spoilt(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None]) -> None:
    """Change what the engine gives."""
    answer = LLM._answer

    def changed(llm: LLM, ids: list[int], params: Any) -> Any:
        output = answer(llm, ids, params)
        change(output)
        return output

    monkeypatch.setattr(LLM, "_answer", changed)


def set_logprob(value: float) -> Callable[[Any], None]:
    return lambda output: output.prompt_logprobs.logprobs.__setitem__(3, value)


@pytest.mark.parametrize(
    ("change", "expected", "match"),
    [
        (set_logprob(float("nan")), NonFiniteLogitsError, "NaN"),
        (set_logprob(float("inf")), NonFiniteLogitsError, "infinite"),
        (lambda o: o.prompt_logprobs.logprobs.pop(), BackendError, "values instead of 45"),
        (lambda o: o.prompt_logprobs.token_ids.__setitem__(3, 9), BackendError, "another text"),
        (lambda o: setattr(o, "prompt_logprobs", None), BackendError, "0 values instead of 45"),
        (
            lambda o: setattr(o, "prompt_token_id_logprobs", None),
            BackendError,
            "none of the tokens that the baseline knows",
        ),
        (
            lambda o: o.prompt_token_id_logprobs.fill(np.nan),
            NonFiniteLogitsError,
            "NaN",
        ),
    ],
)
def test_log_probabilities_are_held_against_what_was_asked(
    making: Making,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Any], None],
    expected: type[Exception],
    match: str,
) -> None:
    spoilt(monkeypatch, change)
    at = np.zeros((1, 15, 1), np.int32)
    with making() as backend, pytest.raises(expected, match=match):
        backend.read(WINDOWS[:1], top=2, at=at)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("finish_reason", "abort", BackendError),
        ("finish_reason", None, BackendError),
        ("cumulative_logprob", float("nan"), NonFiniteLogitsError),
    ],
)
def test_answers_that_are_not_whole_or_no_numbers_are_refused(
    making: Making,
    monkeypatch: pytest.MonkeyPatch,
    field: str,
    value: Any,
    expected: type[Exception],
) -> None:
    spoilt(monkeypatch, lambda output: setattr(output.outputs[0], field, value))
    with making() as backend, pytest.raises(expected):
        backend.score("ifeval", [0])


def test_tokens_of_another_vocabulary_are_refused(making: Making) -> None:
    with making() as backend:
        for at in (10**6, -1):
            with pytest.raises(BackendError, match="beyond this model's"):
                backend.read(WINDOWS[:1], at=np.full((1, 15, 1), at, np.int32))
        assert backend.read(WINDOWS[:1], top=4).top_ids.shape == (1, 15, 4)


def test_windows_as_long_as_the_context_are_left_out(making: Making) -> None:
    long = PerplexityMetric(perplexity=PerplexityText(file="text.txt", window=512))
    settings, left = making(IFEVAL, long).able()
    assert settings.perplexity_metrics == () and settings.top_tokens == 64
    assert left == (
        "perplexity on text.txt: its windows of 512 tokens leave no room for one more in the 512 "
        "that the model is served with",
    )
    gating = long.model_copy(update={"max_ratio": 1.1})
    with pytest.raises(BackendUnavailableError, match="cannot be measured"):
        making(IFEVAL, gating).able()


def test_nothing_is_told_to_anybody_else(making: Making, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    making()
    assert os.environ["VLLM_NO_USAGE_STATS"] == "1"
    assert os.environ["VLLM_LOGGING_STREAM"] == "ext://sys.stderr"
    assert os.environ["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert set(vllm_machine.ENVIRONMENT) <= set(vllm_stand_in.KNOWN["environment"])


def test_the_engine_has_less_time_to_end_than_an_interrupted_run() -> None:
    assert vllm_engine.STOP_S < interrupts.GRACE_S


def test_the_extension_takes_no_name_of_the_workers_own() -> None:
    own = [name for name in dir(vllm_worker.Worker) if not name.startswith("__")]
    assert own and all(name.startswith("quant_gate_") for name in own)


INTERRUPTED = """
import os, signal, sys, threading
import vllm_stand_in
vllm_stand_in.install()
NAME = sys.argv.pop()

def started(llm, *args, **options):
    print(llm.llm_engine.process.pid, flush=True)
    os.kill(os.getpid(), getattr(signal, NAME))
    threading.Event().wait(60)

vllm_stand_in.LLM.generate = started
from gate.__main__ import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_leaves_no_process(place: Path, tmp_path: Path, name: str) -> None:
    settings = tmp_path / "quant-gate.yaml"
    (tmp_path / "text.txt").write_text(" ".join(f"Line {n} of a text." for n in range(100)))
    settings.write_text(
        "backend: vllm\nmetrics: [{perplexity: {file: text.txt, window: 16, windows: 2}}]\n"
    )
    command = ["eval", str(place / "model"), "--settings", str(settings), "-o", "made.json", name]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *command],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parent.parent),
            "QUANT_GATE_CACHE": str(tmp_path),
            devices.LOCKS: str(tmp_path),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.INTERRUPTED, done.stderr
    engine = int(done.stdout.splitlines()[0])
    assert not Path(f"/proc/{engine}").exists()


def test_what_the_engine_prints_is_no_result(
    capfd: pytest.CaptureFixture[str], making: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = LLM.__init__

    def started(llm: LLM, *args: Any, **given: Any) -> None:
        subprocess.run(["echo", "printed by the engine"], check=True)
        begin(llm, *args, **given)

    monkeypatch.setattr(LLM, "__init__", started)
    with making():
        subprocess.run(["echo", "printed by the gate"], check=True)
    told = capfd.readouterr()
    assert "printed by the engine" in told.err
    assert told.out.strip() == "printed by the gate"


@pytest.mark.slow
def test_the_recorded_package_is_the_released_one() -> None:
    named = os.environ.get("QUANT_GATE_TEST_VLLM_WHEEL")
    if named is None:
        pytest.skip("QUANT_GATE_TEST_VLLM_WHEEL names no wheel of vLLM")
    found = vllm_signatures.read(Path(named))
    if os.environ.get("QUANT_GATE_WRITE_SNAPSHOTS"):
        vllm_signatures.write(found)
    assert found == vllm_signatures.known()


@pytest.mark.gpu
def test_the_real_engine_answers_as_the_reference(
    export: Callable[[str], Path], place: Path, tasks: Harness
) -> None:
    pytest.importorskip("vllm")
    checkpoint, form = opened(export("bf16"))
    asked = Settings(backend="vllm", vllm={"enforce_eager": True, "max_model_len": 1024})
    backend = Vllm(checkpoint=checkpoint, form=form, harness=tasks, settings=asked)
    at = WINDOWS[:, 1:, None].astype(np.int32)
    with backend:
        ours = backend.read(WINDOWS, top=4, at=at)
        scored = backend.score("ifeval", backend.doc_ids("ifeval"))
        assert backend.engine is not None and backend.engine.attention
        speed = backend.generate(Workload(2, 16, 8, seed=1), time.perf_counter)
    assert speed.peak_bytes > 0 and len(speed.times) == 9
    assert np.allclose(ours.logprobs, ours.at_logprobs[..., 0], atol=1e-3)
    with Hf(checkpoint, form, tasks, asked) as model:
        theirs = model.read(WINDOWS, top=4, at=at)
        again = model.score("ifeval", model.doc_ids("ifeval"))
    # Both compute in bfloat16, and round in another order.
    assert np.abs(ours.logprobs - theirs.logprobs).mean() < 0.05
    assert [one.doc_id for one in scored] == [one.doc_id for one in again]
