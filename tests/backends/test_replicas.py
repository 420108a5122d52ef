"""How many processes share a run, and what each of them sees.

GPUs are stood in for: what is asked of them is their sizes, and of a process its environment.
"""

from pathlib import Path
from typing import Any

import pytest

from gate import devices
from gate.backends.replicas import Replicas
from gate.errors import BackendUnavailableError
from gate.placement import Placement, replicas
from gate.settings import Settings

GIB = 2**30
PLACED = Placement(decoded_bytes=40 * GIB)


def count(asked: Any, sizes_gib: list[int], monkeypatch: Any, **stated: Any) -> int:
    gpus = [devices.Device(n, f"GPU-{n}", "H100", size * GIB) for n, size in enumerate(sizes_gib)]
    monkeypatch.setattr(devices, "found", lambda: tuple(gpus))
    placed = stated.pop("placed", PLACED)
    return replicas(Settings.model_validate({"replicas": asked, **stated}), placed)


@pytest.mark.parametrize(
    ("asked", "sizes", "expected"),
    [("auto", [80, 80, 80], 3), ("auto", [80, 40], 1), ("auto", [40, 40], 1), ("auto", [], 1),
     (2, [80, 80, 80], 2), (1, [80, 80], 1)],
)  # fmt: skip
def test_a_process_for_each_gpu_that_holds_the_model(
    asked: Any, sizes: list[int], expected: int, monkeypatch: Any
) -> None:
    assert count(asked, sizes, monkeypatch) == expected


def test_as_many_as_are_asked_for_or_none(monkeypatch: Any) -> None:
    with pytest.raises(BackendUnavailableError, match=r"54\.5 GiB each, and 1 of 2 GPUs"):
        count(2, [80, 40], monkeypatch)
    with pytest.raises(BackendUnavailableError, match="decoded model takes 4000"):
        count(4, [], monkeypatch, placed=Placement(decoded_bytes=1000 * GIB))
    streamed = Placement(decoded_bytes=40 * GIB, streamed=True)
    assert count("auto", [80, 80], monkeypatch, placed=streamed) == 1
    with pytest.raises(BackendUnavailableError, match="layer by layer"):
        count(2, [80, 80], monkeypatch, placed=streamed)
    assert count("auto", [80, 80], monkeypatch, backend="native") == 1
    with pytest.raises(BackendUnavailableError, match="backend native has its own"):
        count(2, [80, 80], monkeypatch, backend="native")


class Loads:
    """Stands for a backend that was not entered."""

    checkpoint = form = settings = None
    emulated, versions = True, {}


def test_each_process_sees_one_gpu_that_is_kept_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = tuple(devices.Device(n, f"GPU-{n}", "H100", 80 * GIB) for n in range(3))
    monkeypatch.setattr("gate.devices.reservation.found", lambda: gpus)
    monkeypatch.setenv(devices.LOCKS, str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-six,7")
    shared = Replicas(Loads(), tmp_path, 2, 50 * GIB)
    monkeypatch.setattr(devices, "reserved", _with_free(devices.reserved))
    with shared._places() as places:
        assert [place["CUDA_VISIBLE_DEVICES"] for place in places] == ["4", "GPU-six"]
        assert all(devices.owner(gpu) for gpu in gpus[:2]) and devices.owner(gpus[2]) is None
        assert {place[devices.LOCKS] for place in places}.isdisjoint({str(tmp_path)})
    assert devices.owner(gpus[0]) is None


def _with_free(reserved: Any) -> Any:
    return lambda needed, each: reserved(needed, free=lambda gpu: gpu.total_bytes, each=each)
