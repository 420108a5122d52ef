"""Whether the evaluation can be run here, found out before any weight is read."""

import importlib.metadata
import importlib.util
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gate import devices
from gate.errors import BackendUnavailableError, GateError
from gate.settings import Memory
from gate.size import workspace_bytes

EVAL_PACKAGES = {
    "torch": "torch",
    "transformers": "transformers",
    "lm_eval": "lm-eval",
    "accelerate": "accelerate",
    "langdetect": "langdetect",
    "nltk": "nltk",
    "immutabledict": "immutabledict",
}
"""Import name to distribution, of what evaluation needs."""

INSTALL_EVAL = "pip install 'quant-gate[eval]'"


@dataclass(frozen=True)
class Check:
    """One line of `gate doctor`.

    Attributes:
        detail: What was found.
        error: What stands in the way; None if nothing does.
    """

    name: str
    detail: str
    error: GateError | None = None


def require_packages() -> None:
    """Refuse to start without what evaluation imports.

    Raises:
        BackendUnavailableError: With the install line.
    """
    missing = [name for module, name in EVAL_PACKAGES.items() if not _installed(module)]
    if missing:
        raise BackendUnavailableError(
            f"evaluation needs {', '.join(missing)}: not installed",
            f"Run: {INSTALL_EVAL}",
        )


def require_memory(decoded_bytes: int, device_bytes: int | None = None) -> None:
    """Refuse a model that does not fit, by the header's arithmetic.

    Args:
        decoded_bytes: The decoded model.
        device_bytes: What can be used; None asks the machine: the size of its GPUs, since who
            uses them now may be waited for, else the free memory of the host.

    Raises:
        BackendUnavailableError: Naming what is needed and what there is.
    """
    needed = decoded_bytes + workspace_bytes(decoded_bytes)
    available = _usable_bytes() if device_bytes is None else device_bytes
    if needed > available:
        raise BackendUnavailableError(
            f"{need(decoded_bytes)} and there are {_gib(available)}",
            "Free memory, or run on a machine that has it.",
        )


def need(decoded_bytes: int) -> str:
    """What a model that is loaded as a whole takes, in words."""
    needed = decoded_bytes + workspace_bytes(decoded_bytes)
    return (
        f"the decoded model takes {_gib(decoded_bytes)}; evaluating it needs about {_gib(needed)}"
    )


def streams(
    memory: Memory, decoded_bytes: int, part_bytes: int, device_bytes: int | None = None
) -> bool:
    """Whether a model is streamed layer by layer rather than loaded as a whole.

    Args:
        memory: What the settings ask for.
        decoded_bytes: The decoded model.
        part_bytes: Its largest layer, decoded.
        device_bytes: See `require_memory`.

    Raises:
        BackendUnavailableError: What is asked for does not fit.
    """
    if memory == "offload":
        together = _usable_bytes(host=True) if device_bytes is None else device_bytes
        require_memory(decoded_bytes, together)
        return False
    if memory != "stream":
        try:
            require_memory(decoded_bytes, device_bytes)
            return False
        except BackendUnavailableError as error:
            if memory == "resident" and devices.found():
                hint = "Use more or larger GPUs, or let the host's memory hold the rest, slowly: "
                raise BackendUnavailableError(error.message, hint + "memory: offload") from error
            if memory == "resident":
                raise
    needed = part_bytes + workspace_bytes(part_bytes)
    available = _usable_bytes(together=False) if device_bytes is None else device_bytes
    if needed > available:
        raise BackendUnavailableError(
            f"the largest layer takes {_gib(part_bytes)} once it is decoded; streaming the model "
            f"needs about {_gib(needed)} and there are {_gib(available)}",
            "Free memory, or run on a machine that has it.",
        )
    return True


def doctor(extra: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """Every check of this machine, then those of the settings.

    Args:
        extra: Checks that need the packages; not made without them.
    """
    yield Check("python", platform.python_version())
    yield attempt("evaluation packages", _package_versions)
    if all(_installed(module) for module in EVAL_PACKAGES):
        yield attempt("devices", _devices)
        yield from extra()


def network(tried: list[str] | None) -> Iterator[Check]:
    """Whether a run that must do without a network asked for one.

    Args:
        tried: Addresses, which grow while the other checks are made; None where it may.
    """
    if tried is not None:
        yield attempt("network", lambda: _unused(tried))


def attempt(name: str, check: Callable[[], str]) -> Check:
    """One check whose `GateError` becomes its finding."""
    try:
        return Check(name, check())
    except GateError as error:
        return Check(name, "", error)


def _unused(tried: list[str]) -> str:
    if tried:
        raise BackendUnavailableError(
            f"{len(tried)} connections were tried, the first to {tried[0]}",
            "Pack what is missing where there is a network: gate bundle -o DIRECTORY",
        )
    return "not used"


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _package_versions() -> str:
    require_packages()
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in versions())


def versions() -> dict[str, str]:
    """Installed versions of what a result depends on."""
    return {
        name: importlib.metadata.version(name)
        for module, name in {
            **EVAL_PACKAGES,
            "tokenizers": "tokenizers",
            "datasets": "datasets",
        }.items()
        if _installed(module)
    }


def _devices() -> str:
    import torch

    disk = f"{_gib(shutil.disk_usage('.').free)} disk free"
    found = devices.found()
    if not found:
        memory = f"{_gib(_usable_bytes())} memory"
        return f"CPU ({torch.get_num_threads()} threads), {memory} and {disk}"
    return f"{'; '.join(map(_described, found))}; {disk}"


def _described(device: devices.Device) -> str:
    """A device, what is free of it, and who uses it."""
    free, owner = _gib(devices.free_bytes(device)), devices.owner(device)
    holders = [f"used by {owner}"] if owner else [f"held by {p}" for p in devices.processes(device)]
    room = f"{free} of {_gib(device.total_bytes)} free"
    return f"{device}: {', '.join([room, *holders])}"


def _usable_bytes(*, together: bool = True, host: bool = False) -> int:
    """All memory of the CUDA devices, or of the largest one; else what is free of the host's.

    Args:
        host: Whether that counts beside devices, too.
    """
    import psutil

    found = devices.found()
    if found:
        sizes = [device.total_bytes for device in found]
        beside = int(psutil.virtual_memory().available) if host else 0
        return beside + (sum(sizes) if together else max(sizes))
    return int(psutil.virtual_memory().available)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
