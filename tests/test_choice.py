"""Which backend `auto` takes and why, and the whole gate by vLLM."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import vllm_stand_in
from checkpoints import build

from gate import baseline, check, choice, devices, records, serving
from gate.doctor import doctor
from gate.errors import BaselineMismatchError
from gate.records import EvalResult
from gate.reports.wording import run_sentence
from gate.request import Request
from gate.settings import Settings
from gate.terminal import silent

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

TEXT = {"perplexity": {"file": "text.txt", "window": 32, "windows": 4}, "max_ratio": "1.1"}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Makes this a machine with GPUs of some compute capability, and vLLM."""
    import torch

    monkeypatch.setenv(devices.LOCKS, str(tmp_path))
    monkeypatch.setenv("QUANT_GATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vllm_stand_in.LLM, "made", [])

    def make(count: int = 1, capability: tuple[int, int] = (9, 0), vllm: bool = True) -> None:
        monkeypatch.setattr(devices, "found", lambda: vllm_stand_in.gpus(count))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (80 * 2**30,) * 2)
        for name, module in vllm_stand_in.modules().items() if vllm else ():
            monkeypatch.setitem(sys.modules, name, module)

    return make


def request(path: Path, root: Path, backend: str = "auto", **more: Any) -> Request:
    asked = {"backend": backend, "metrics": [TEXT], "vllm": more.pop("vllm", {})}
    return Request(
        checkpoint=str(path),
        settings=Settings.model_validate(asked),
        root=root,
        command="gate",
        progress=silent,
        store=lambda record: None,
        **more,
    )


def settled(path: Path, **more: Any) -> tuple[str, str]:
    found = choice.settled(request(path, path.parent, **more))
    assert found.chosen is not None
    return found.settings.backend, found.chosen.removeprefix("chosen by auto, ")


def test_a_named_backend_stays(tmp_path: Path) -> None:
    asked = request(tmp_path, tmp_path, backend="hf")
    assert choice.settled(asked) is asked


def test_vllm_is_taken_where_it_is_installed_on_a_gpu(
    machine: Callable[..., None], tmp_path: Path
) -> None:
    path = build(tmp_path / "plain", algo=None)
    assert settled(path) == ("hf", "not vllm: it is not installed")
    machine(count=0)
    assert settled(path) == ("hf", "not vllm: there is no CUDA GPU")
    machine()
    assert settled(path) == ("vllm", "installed here, and serves it on NVIDIA H100 80GB HBM3")
    missing = "not vllm: it is to use 4 GPUs, and there are 1"
    assert settled(path, vllm={"tensor_parallel_size": 4}) == ("hf", missing)


@pytest.mark.parametrize(
    ("algo", "capability", "expected"),
    [
        ("FP8", (9, 0), "vllm"),
        ("FP8", (7, 5), "hf"),
        ("NVFP4", (10, 0), "vllm"),
        ("W4A8_AWQ", (9, 0), "hf"),
    ],
)
def test_the_table_of_support_says_what_vllm_serves(
    machine: Callable[..., None],
    tmp_path: Path,
    algo: str,
    capability: tuple[int, int],
    expected: str,
) -> None:
    machine(capability=capability)
    backend, why = settled(build(tmp_path / "quantized", algo=algo))
    assert backend == expected
    assert expected == "vllm" or why.startswith(f"not vllm: {algo}: ")


def test_the_whole_gate_by_vllm(
    machine: Callable[..., None], tmp_path: Path, export: Callable[[str], Path]
) -> None:
    machine()
    model = export("bf16")
    (tmp_path / "text.txt").write_text(" ".join(f"Line {n} of a text." for n in range(200)))
    path = tmp_path / "baselines" / "made.json"
    made = check.measure(request(model, tmp_path, arrays=path.parent))
    records.write(path, made)
    assert made.backend == "vllm" and made.engine is not None
    assert made.chosen is not None
    assert run_sentence(made).startswith(
        "vllm (chosen by auto, installed here, and serves it on NVIDIA H100 80GB HBM3) on NVIDIA"
    )
    report = check.check(request(model, tmp_path))
    assert report.verdict.outcome == "pass", report.verdict.reasons
    assert report.evaluation is not None and report.evaluation.engine == made.engine
    assert report.evaluation.drifts and not report.evaluation.unread
    told = {one.name: one.detail for one in doctor(request(model, tmp_path))}
    assert told["backend"].startswith("chosen by auto, installed here")
    told = {one.name: one.detail for one in doctor(request(tmp_path, tmp_path, "vllm"))}
    assert told["vllm"] == f"{vllm_stand_in.KNOWN['version']}, GPU 0 (NVIDIA H100 80GB HBM3)"
    assert all(llm.llm_engine.process.poll() is not None for llm in vllm_stand_in.LLM.made)
    with pytest.raises(BaselineMismatchError, match="backend is vllm in the baseline and hf here"):
        check.check(request(model, tmp_path, "hf"))
    assert_engine_counts(made)


def assert_engine_counts(made: EvalResult) -> None:
    """Another way through the engine makes another baseline, and is told of."""
    assert made.engine is not None
    other = made.engine.model_copy(update={"attention": ("A", "B"), "kernels": ()})
    (concern,) = serving.concerns(None, made.engine, other)
    assert concern.message == (
        "part of the difference may be the engine's own: attention is computed by FLASH_ATTN for "
        "the baseline and A, B here"
    )
    assert not list(serving.concerns(None, made.engine, made.engine))
    assert not list(serving.concerns(None, None, made.engine))
    for change in ({"attention": ("FLASHINFER",)}, {"version": "0.34.0"}, {"kernels": ()}):
        other = made.model_copy(update={"engine": made.engine.model_copy(update=change)})
        assert baseline.fingerprint(other) != baseline.fingerprint(made)
