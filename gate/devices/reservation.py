"""Which GPUs a run may use: none that another job uses, and none whose memory is taken."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple

from gate import terminal
from gate.devices.device import Device, found, free_bytes, processes
from gate.devices.lock import lock
from gate.errors import BackendUnavailableError, SettingsError

WAIT = "QUANT_GATE_GPU_WAIT"
WAIT_S = 3600.0
"""How long a run waits for a GPU that another job uses."""

SETTLE_S = 30.0
"""How long memory may still be held once nobody has the lock: a killed job takes its time."""

PAUSE_S = 1.0


class Patience(NamedTuple):
    """How long to wait, in seconds: for another job, for memory to settle, between two looks."""

    wait_s: float = WAIT_S
    settle_s: float = SETTLE_S
    pause_s: float = PAUSE_S


@contextlib.contextmanager
def reserved(
    needed: int,
    devices: Sequence[Device] | None = None,
    free: Callable[[Device], int] = free_bytes,
    patience: Patience | None = None,
    each: int | None = None,
    partly: bool = False,
) -> Iterator[dict[int, int]]:
    """Keep the fewest devices that hold `needed` bytes to this process.

    Jobs of other repositories and containers keep to it too where they share the directory of the
    locks: QUANT_GATE_LOCKS, or /tmp. No job holds one device while it waits for another, so two
    never wait for each other.

    Args:
        needed: Bytes.
        devices: To choose among; None for all that are visible.
        free: What is free of a device.
        patience: How long to wait; None for an hour, or QUANT_GATE_GPU_WAIT seconds.
        each: Bytes that are used of every device, no more and no less; None for what is free.
        partly: Whether all devices will do where they have less than is needed.

    Yields:
        Index of each device to its free bytes.

    Raises:
        BackendUnavailableError: They do not have the memory, or it did not come free in time.
        SettingsError: QUANT_GATE_GPU_WAIT is no number of seconds.
    """
    devices = found() if devices is None else devices
    patience = patience or _patience()
    if not partly:
        _require_room(needed, devices)
    started = time.monotonic()
    told: dict[Device, str] = {}
    while True:
        with contextlib.ExitStack() as locks:
            room, owners = _lock_enough(needed, devices, free, locks, each)
            if _usable(room, each) >= needed or (partly and room and not owners):
                yield {device.index: count for device, count in room.items()}
                return
        waited = time.monotonic() - started
        if owners and waited >= patience.wait_s:
            raise _timed_out(owners, waited)
        if not owners and waited >= patience.settle_s:
            raise _left_over(needed, room)
        if owners != told:
            terminal.note(f"waiting for {_named(owners)}")
            told = owners
        time.sleep(patience.pause_s)


def _lock_enough(
    needed: int,
    devices: Sequence[Device],
    free: Callable[[Device], int],
    locks: contextlib.ExitStack,
    each: int | None,
) -> tuple[dict[Device, int], dict[Device, str]]:
    """Lock devices, the largest first, until they have the room; keep the fewest that have it.

    Returns:
        Free bytes of each locked device, and who holds each of the others that were tried.
    """
    held: dict[Device, BinaryIO] = {}
    room: dict[Device, int] = {}
    owners: dict[Device, str] = {}
    for device in sorted(devices, key=lambda device: (-device.total_bytes, device.index)):
        tried = lock(device)
        if isinstance(tried, str):
            owners[device] = tried
            continue
        held[device] = locks.enter_context(tried)
        room[device] = free(device)
        if _usable(room, each) >= needed:
            break
    kept = _fewest(room, needed, each)
    for device in held.keys() - kept.keys():
        held[device].close()
    return kept, owners


def _usable(room: Mapping[Device, int], each: int | None) -> int:
    """Bytes of devices together; those with less than is used of each have none."""
    return sum(free if each is None else each * (free >= each) for free in room.values())


def _fewest(room: Mapping[Device, int], needed: int, each: int | None) -> dict[Device, int]:
    """The emptiest devices that have the room together; all if they have not."""
    kept: dict[Device, int] = {}
    for device in sorted(room, key=lambda device: (-room[device], device.index)):
        kept[device] = room[device]
        if _usable(kept, each) >= needed:
            break
    return kept


def _patience() -> Patience:
    text = os.environ.get(WAIT)
    if not text:
        return Patience()
    try:
        wait_s = float(text)
    except ValueError:
        wait_s = math.nan
    if not 0 <= wait_s < math.inf:
        raise SettingsError(f"{WAIT}={text!r} is no number of seconds", f"Set {WAIT}=3600.")
    return Patience(wait_s=wait_s)


def _require_room(needed: int, devices: Sequence[Device]) -> None:
    """Refuse what no waiting makes fit."""
    total = sum(device.total_bytes for device in devices)
    if total < needed:
        raise BackendUnavailableError(
            f"evaluating the model needs {_gib(needed)} of GPU memory; {_count(devices)} here with "
            f"{_gib(total)}",
            "Use more or larger GPUs, or set CUDA_VISIBLE_DEVICES= to run on the CPU.",
        )


def _timed_out(owners: Mapping[Device, str], waited: float) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"no GPU came free within {waited / 60:.0f} minutes: {_named(owners)}",
        f"Wait for that job, or allow more seconds with {WAIT}.",
    )


def _left_over(needed: int, room: Mapping[Device, int]) -> BackendUnavailableError:
    """No job has the lock, yet the memory is not free."""
    lines = []
    for device, count in room.items():
        holders = ", ".join(processes(device)) or "a process that cannot be seen from here"
        taken = f"{_gib(device.total_bytes - count)} of {_gib(device.total_bytes)}"
        lines.append(f"{taken} on {device} are held by {holders}")
    return BackendUnavailableError(
        f"evaluating the model needs {_gib(needed)} of GPU memory and {_gib(sum(room.values()))} "
        f"are free: {'; '.join(lines)}",
        "End what another job left behind; nvidia-smi on the host lists it.",
    )


def _named(owners: Mapping[Device, str]) -> str:
    return "; ".join(f"{device}, used by {owner}" for device, owner in owners.items())


def _count(devices: Sequence[Device]) -> str:
    return "there is 1 GPU" if len(devices) == 1 else f"there are {len(devices)} GPUs"


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
