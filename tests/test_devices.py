"""One job a GPU on a host: the locks by real processes, the memory by stated figures."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate import devices, terminal
from gate.devices import Device, Patience, reserved
from gate.errors import BackendUnavailableError, SettingsError

GIB = 2**30
HASTY = Patience(wait_s=0, settle_s=0, pause_s=0.01)
PATIENT = Patience(wait_s=60, settle_s=60, pause_s=0.01)

HOLD = """
import sys
from gate.devices import Device, Patience, reserved
devices = [Device(int(n), f"GPU-{n}", "H100", 80 * 2**30) for n in sys.argv[2:]]
patience = Patience(60, 60, 0.01)
with reserved(int(sys.argv[1]) * 2**30, devices, lambda d: d.total_bytes, patience) as kept:
    print(*sorted(kept), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(devices.LOCKS, str(tmp_path))
    return tmp_path


def gpus(*sizes_gib: int) -> list[Device]:
    return [Device(n, f"GPU-{n}", "H100", size * GIB) for n, size in enumerate(sizes_gib)]


def whole(device: Device) -> int:
    """All of it is free."""
    return device.total_bytes


Holder = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def holder() -> Iterator[Holder]:
    """Starts a process that reserves devices until it is told to end."""
    started: list[subprocess.Popen[str]] = []

    def start(needed_gib: int, *indices: int, **options: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(needed_gib), *map(str, indices)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, **pipes, **options))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline().strip()
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_device_that_another_job_uses_is_named_with_its_job(
    holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/models")
    monkeypatch.setenv("GITHUB_RUN_ID", "42")
    other = holder(1, 0)
    with pytest.raises(BackendUnavailableError) as raised, reserved(1, gpus(80), whole, HASTY):
        pass
    assert f"GPU 0 (H100), used by process {other.pid}, acme/models 42, 20" in raised.value.message
    assert devices.WAIT in raised.value.hint
    assert str(other.pid) in (devices.owner(gpus(80)[0]) or "")


def test_another_device_is_taken_instead(holder: Holder) -> None:
    holder(1, 0)
    with reserved(1, gpus(80, 80), whole, HASTY) as kept:
        assert kept == {1: 80 * GIB}


def test_a_killed_job_holds_nothing(holder: Holder) -> None:
    other = holder(1, 0)
    other.send_signal(signal.SIGKILL)
    other.wait()
    with reserved(1, gpus(80), whole, HASTY) as kept:
        assert kept == {0: 80 * GIB}
    assert devices.owner(gpus(80)[0]) is None


def test_waits_and_says_once_for_whom(holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    other = holder(1, 0)
    said: list[str] = []

    def note(text: str) -> None:
        said.append(text)
        other.communicate("\n")

    monkeypatch.setattr(terminal, "note", note)
    with reserved(1, gpus(80), whole, PATIENT) as kept:
        assert kept == {0: 80 * GIB}
    (line,) = said
    assert f"waiting for GPU 0 (H100), used by process {other.pid}" in line


def test_jobs_that_want_several_devices_never_wait_for_each_other(locks: Path) -> None:
    command = [sys.executable, "-c", HOLD, "100"]
    orders = (("0", "1"), ("1", "0"), ("0", "1"), ("1", "0"))
    jobs = [
        subprocess.Popen(
            [*command, *order], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        for order in orders
    ]
    assert [job.communicate(timeout=60)[0] for job in jobs] == ["0 1\n"] * len(jobs)


def test_the_lock_is_given_back_when_the_run_fails() -> None:
    with pytest.raises(ZeroDivisionError), reserved(1, gpus(80), whole, HASTY):
        raise ZeroDivisionError
    with reserved(1, gpus(80), whole, HASTY):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_of_the_host_shares_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not below pytest's own directory, into which only its user may look.
    directory = tempfile.TemporaryDirectory()
    Path(directory.name).chmod(0o1777)
    monkeypatch.setenv(devices.LOCKS, directory.name)
    with reserved(1, gpus(80), whole, HASTY):
        pass
    code = (
        "import os, sys\n"
        "from gate.devices import Device, owner\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "print(owner(Device(0, 'GPU-0', 'H100', 1)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "None\n", done.stderr


@pytest.mark.parametrize(
    ("free_gib", "needed_gib", "kept"),
    [
        ((10, 30, 20), 30, {1: 30}),
        ((10, 30, 20), 31, {1: 30, 0: 10}),
        ((10, 20, 30), 31, {2: 30, 1: 20}),
        ((10, 30, 20), 60, {0: 10, 1: 30, 2: 20}),
        ((80, 80, 80), 80, {0: 80}),
    ],
)
def test_the_fewest_devices_are_kept(
    free_gib: tuple[int, ...], needed_gib: int, kept: dict[int, int]
) -> None:
    found = gpus(80, 80, 80)
    free = {device: count * GIB for device, count in zip(found, free_gib, strict=True)}
    with reserved(needed_gib * GIB, found, free.__getitem__, HASTY) as held:
        assert held == {index: count * GIB for index, count in kept.items()}
        used = {device.index for device in found if devices.owner(device)}
        assert used == kept.keys(), "what is not needed is left to others"


def test_all_devices_will_do_where_the_host_takes_the_rest(holder: Holder) -> None:
    with reserved(300 * GIB, gpus(80, 80), whole, HASTY, partly=True) as kept:
        assert sorted(kept) == [0, 1]
    holder(1, 1)
    with (
        pytest.raises(BackendUnavailableError, match="no GPU came free"),
        reserved(300 * GIB, gpus(80, 80), whole, HASTY, partly=True),
    ):
        pass


def test_the_largest_device_is_asked_first() -> None:
    with reserved(20 * GIB, gpus(24, 80), whole, HASTY) as held:
        assert held == {1: 80 * GIB}


def test_a_model_that_no_waiting_makes_fit_is_refused_at_once() -> None:
    with (
        pytest.raises(BackendUnavailableError) as raised,
        reserved(161 * GIB, gpus(80, 80), whole, PATIENT),
    ):
        pass
    assert "needs 161.0 GiB of GPU memory; there are 2 GPUs here with 160.0" in raised.value.message


def test_memory_that_a_job_left_behind_is_named_once_it_had_time_to_go() -> None:
    with (
        pytest.raises(BackendUnavailableError) as raised,
        reserved(40 * GIB, gpus(80), lambda device: 20 * GIB, HASTY),
    ):
        pass
    assert "60.0 GiB of 80.0 GiB on GPU 0 (H100) are held by a process" in raised.value.message
    assert "nvidia-smi" in raised.value.hint
    looks = iter([20, 20, 80])
    with reserved(40 * GIB, gpus(80), lambda device: next(looks) * GIB, PATIENT) as held:
        assert held == {0: 80 * GIB}


@given(text=st.binary(max_size=4000))
def test_who_holds_it_is_told_in_plain_characters(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    import fcntl

    directory = tmp_path_factory.mktemp("locks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(devices.LOCKS, str(directory))
        (directory / "quant-gate-GPU-0.lock").write_bytes(text)
        with (directory / "quant-gate-GPU-0.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            owner = devices.owner(gpus(80)[0])
    assert owner and owner.isprintable() and len(owner) <= devices.OWNER_BYTES


def test_what_is_planted_in_the_locks_place_is_refused(locks: Path) -> None:
    victim = locks / "victim"
    victim.write_text("precious")
    lock = locks / "quant-gate-GPU-0.lock"
    for plant in (lambda: lock.symlink_to(victim), lambda: os.mkfifo(lock), lock.mkdir):
        plant()
        with pytest.raises(BackendUnavailableError, match="cannot be opened"):
            devices.owner(gpus(80)[0])
        lock.rmdir() if lock.is_dir() and not lock.is_symlink() else lock.unlink()
    assert victim.read_text() == "precious"


def test_a_name_leads_nowhere_else(locks: Path) -> None:
    with reserved(1, [Device(0, "../../x\n", "H100", GIB)], whole, HASTY):
        assert [path.name for path in locks.iterdir()] == ["quant-gate-x.lock"]


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_the_wait_is_a_number_of_seconds(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.WAIT, text)
    with pytest.raises(SettingsError, match=devices.WAIT), reserved(1, gpus(80), whole):
        pass


def test_without_a_driver_nobody_is_named() -> None:
    assert devices.processes(gpus(80)[0]) == []
