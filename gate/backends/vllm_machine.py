"""What backend `vllm` needs of the machine: vLLM itself, and GPUs that nobody else uses."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Sequence

from packaging.version import Version

from gate import devices
from gate.checkpoint import Checkpoint
from gate.errors import BackendUnavailableError
from gate.harness.loading import first_line
from gate.plain import plain
from gate.settings import Vllm

ENVIRONMENT = {
    # vLLM reports who uses it to its authors unless it is told not to.
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    # CUDA is in use in this process, and does not outlive a fork.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}
"""What vLLM reads of the environment, unless the user said otherwise.

Source: https://docs.vllm.ai/en/latest/configuration/env_vars/
"""

OLDEST = "0.33"
"""Which gives the log-probabilities of any tokens (`prompt_logprob_token_ids`)."""


def prepare() -> None:
    """Say to vLLM, before it is first imported, what it would else do its own way."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def require() -> str:
    """The version of vLLM that is installed.

    Raises:
        BackendUnavailableError: There is none, it is older than `OLDEST`, or it cannot be imported.
    """
    install = "Run, in an environment of its own: pip install 'quant-gate[vllm]'"
    prepare()
    try:
        import vllm
    except (ImportError, OSError) as error:
        missing = importlib.util.find_spec("vllm") is None
        what = "not installed" if missing else f"it cannot be imported: {plain(first_line(error))}"
        raise BackendUnavailableError(f"backend: vllm needs vLLM: {what}", install) from error
    found = str(vllm.__version__)
    if Version(found) < Version(OLDEST):
        raise BackendUnavailableError(
            f"backend: vllm needs vLLM {OLDEST} or newer, and {plain(found, limit=40)} is "
            "installed",
            install,
        )
    return found


def unread(checkpoint: Checkpoint) -> str | None:
    """Why vLLM is not given a checkpoint, whatever is installed; None where it is."""
    if checkpoint.container is not None and checkpoint.container.suffix == ".gguf":
        return "vLLM reads GGUF by a plugin of another project, which is not used here"
    return None


def require_gpus(asked: Vllm) -> tuple[devices.Device, ...]:
    """The GPUs of this machine; none where a Ray cluster has them.

    Raises:
        BackendUnavailableError: There are fewer than the settings ask for.
    """
    if asked.distributed_executor_backend == "ray":
        return ()
    found = devices.found()
    if len(found) < asked.gpus:
        raise BackendUnavailableError(
            f"backend: vllm is to use {asked.gpus} CUDA GPUs, and there are {len(found)}",
            "Run where they are, ask for fewer under vllm in quant-gate.yaml, or use backend: hf.",
        )
    return found


@contextlib.contextmanager
def gpus(asked: Vllm) -> Iterator[tuple[devices.Device, ...]]:
    """Keep the GPUs that the engine takes to this process; see `devices.reserved`.

    Raises:
        BackendUnavailableError: As `require_gpus`, or their memory did not come free.
    """
    found = require_gpus(asked)
    if not found:
        yield ()
        return
    each = int(asked.gpu_memory_utilization * min(device.total_bytes for device in found))
    with devices.reserved(each * asked.gpus, found, each=each) as kept:
        yield tuple(device for device in found if device.index in kept)


def named(chosen: Sequence[devices.Device], asked: Vllm) -> str:
    """The devices of an engine, in words."""
    names = ", ".join(dict.fromkeys(device.name for device in chosen))
    if not chosen:
        return f"{asked.gpus} GPUs of a Ray cluster"
    return names if len(chosen) == 1 else f"{len(chosen)} x {names}"
