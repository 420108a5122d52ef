"""The GPUs that this process sees, and who holds their memory."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Device:
    """A CUDA device that this process sees.

    Attributes:
        uuid: The driver's; the same in every container and for every CUDA_VISIBLE_DEVICES.
    """

    index: int
    uuid: str
    name: str
    total_bytes: int

    def __str__(self) -> str:
        return f"GPU {self.index} ({self.name})"


def found() -> tuple[Device, ...]:
    """Every CUDA device that is visible here; none of their memory is touched."""
    import torch

    if not torch.cuda.is_available():
        return ()
    devices = []
    for index in range(torch.cuda.device_count()):
        told = torch.cuda.get_device_properties(index)
        devices.append(Device(index, str(told.uuid), told.name, told.total_memory))
    return tuple(devices)


def free_bytes(device: Device) -> int:
    """Free memory of a device; asking takes some of it."""
    import torch

    return int(torch.cuda.mem_get_info(device.index)[0])


def processes(device: Device) -> list[str]:
    """Who holds memory of a device: "process 7 (python, 9.0 GiB)", as far as the driver tells."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{device.uuid.removeprefix('GPU-')}")
            return [
                f"process {held.pid} ({_name(pynvml, held.pid)}"
                f"{f', {held.usedGpuMemory / 2**30:.1f} GiB' if held.usedGpuMemory else ''})"
                for held in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
                if held.pid != os.getpid()
            ]
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return []


def _name(pynvml: Any, pid: int) -> str:
    """The program of a process, which may be another container's."""
    try:
        path = pynvml.nvmlSystemGetProcessName(pid)
    except pynvml.NVMLError:
        return "unknown"
    return Path(path.decode(errors="replace") if isinstance(path, bytes) else path).name
