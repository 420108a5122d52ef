"""Which backend runs a checkpoint where the settings say `auto`, and why."""

import dataclasses
import importlib.util

from gate import devices, hub
from gate.backends import vllm_machine
from gate.checkpoint import Checkpoint, open_checkpoint
from gate.containers import CONTAINERS
from gate.fit import layer_kinds
from gate.fit.paths import executions
from gate.fit.support import Checked, Gpu, table
from gate.formats import FORMATS
from gate.lint import walk
from gate.quantization import Format, identify
from gate.request import Request

HERE = "this machine"
"""Where the compute capability was found out."""


def settled(request: Request) -> Request:
    """The request with a backend that is named: vLLM where it serves the checkpoint, else hf.

    Raises:
        SettingsError: The name is no checkpoint's.
        BackendUnavailableError: The hub or the repository cannot be reached.
    """
    if request.settings.backend != "auto":
        return request
    checkpoint = open_checkpoint(hub.resolve(request.checkpoint).path, CONTAINERS)
    found = devices.found()
    against = _against(checkpoint, identify(checkpoint, FORMATS), found, request.settings.vllm.gpus)
    if against is None:
        backend, why = "vllm", f"installed here, and serves it on {found[0].name}"
    else:
        backend, why = "hf", f"not vllm: {against}"
    return dataclasses.replace(
        request,
        settings=request.settings.model_copy(update={"backend": backend}),
        chosen=f"chosen by auto, {why}",
    )


def _against(
    checkpoint: Checkpoint, form: Format | None, found: tuple[devices.Device, ...], gpus: int
) -> str | None:
    """Why vLLM does not run a checkpoint here; None where it does."""
    if importlib.util.find_spec("vllm") is None:
        return "it is not installed"
    if not found:
        return "there is no CUDA GPU"
    if (why := vllm_machine.unread(checkpoint)) is not None:
        return why
    if len(found) < gpus:
        return f"it is to use {gpus} GPUs, and there are {len(found)}"
    runtime = table().runtimes["vllm"]
    kinds = layer_kinds(walk(checkpoint, form))
    for way in executions(checkpoint, form, kinds, runtime, _gpu(found[0])):
        if way.path in {"not loaded", "not known"}:
            name = f"{way.algorithm}: " if way.algorithm else ""
            return f"{name}{way.reason.rstrip('.')}"
    return None


def _gpu(device: devices.Device) -> Gpu:
    """A device of this machine as the table of support describes one."""
    import torch

    capability = torch.cuda.get_device_capability(device.index)
    return Gpu(
        name=device.name,
        platform="rocm" if torch.version.hip else "cuda",
        compute_capability=Checked(value=capability, source=HERE),
    )
