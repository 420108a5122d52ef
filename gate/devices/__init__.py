"""Which GPUs a run may use: one job a device on this host, and nothing left there by another."""

from gate.devices.device import Device, found, free_bytes, processes
from gate.devices.lock import LOCKS, OWNER_BYTES, owner
from gate.devices.reservation import WAIT, Patience, reserved

__all__ = [
    "LOCKS",
    "OWNER_BYTES",
    "WAIT",
    "Device",
    "Patience",
    "found",
    "free_bytes",
    "owner",
    "processes",
    "reserved",
]
