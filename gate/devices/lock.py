"""One job a GPU: a locked file a device, shared by all who share its directory."""

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from pathlib import Path
from typing import BinaryIO

from gate.devices.device import Device
from gate.errors import BackendUnavailableError

LOCKS = "QUANT_GATE_LOCKS"
LOCK_DIRECTORY = Path("/tmp")  # noqa: S108 (TMPDIR may be each job's own; locks are the host's)
OWNER_BYTES = 200


def lock(device: Device) -> BinaryIO | str:
    """The device's locked file, released when it is closed; or who has locked it."""
    path = _lock_path(device)
    try:
        file = _opened(path)
    except OSError as error:
        raise BackendUnavailableError(
            f"{path}, the lock of {device}, cannot be opened: {error.strerror}",
            f"Name a directory that all jobs of this host may write with {LOCKS}.",
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            return _read_owner(file)
    file.truncate(0)
    file.write(_owner().encode())
    file.flush()
    return file


def owner(device: Device) -> str | None:
    """Which job uses a device; None if none does."""
    held = lock(device)
    if isinstance(held, str):
        return held
    held.close()
    return None


def _lock_path(device: Device) -> Path:
    name = re.sub(r"[^A-Za-z0-9-]", "", device.uuid)
    return Path(os.environ.get(LOCKS) or LOCK_DIRECTORY) / f"quant-gate-{name}.lock"


def _opened(path: Path) -> BinaryIO:
    """The file, made for everyone on this host; what another put there in its place is refused."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        # Not made on the way: Linux refuses that for a file of another user below /tmp.
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):
            made = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
            os.fchmod(made, 0o666)
            os.close(made)
        descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file")
    return os.fdopen(descriptor, "r+b", buffering=0)


def _owner() -> str:
    """What others are told while this process has the lock."""
    environ = os.environ
    job = " ".join(environ.get(name, "") for name in ("GITHUB_REPOSITORY", "GITHUB_RUN_ID"))
    since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return ", ".join(part for part in (f"process {os.getpid()}", job.strip(), since) if part)


def _read_owner(file: BinaryIO) -> str:
    """Anyone may write there: one short line of plain characters."""
    text = os.pread(file.fileno(), OWNER_BYTES, 0).decode(errors="replace")
    return "".join(c for c in text if c.isprintable()).strip() or "another job"
