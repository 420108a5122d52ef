"""Amounts of memory, read from text and written as it."""

import re

from gate.errors import SettingsError

UNITS = {
    "": 1, "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip
_AMOUNT = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]*)")


def parse_bytes(text: str) -> int:
    """Bytes of an amount such as `36GB`, `36 GiB` or `40000000000`.

    Raises:
        SettingsError: It is no amount above zero, or its unit is not known.
    """
    found = _AMOUNT.fullmatch(text.strip())
    factor = UNITS.get(found[2].upper()) if found else None
    amount = round(float(found[1]) * factor) if found and factor else 0
    if not amount > 0:
        raise SettingsError(
            f"{text!r} is no amount of memory", "Write a number and a unit, such as 36GB or 36GiB."
        )
    return amount


def gigabytes(count: int) -> str:
    """In units of 10^9 bytes, one decimal, without the unit."""
    return f"{count / 1e9:,.1f}"
