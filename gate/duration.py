"""Lengths of time as people write them: `14d`, `12h`."""

import re
from datetime import timedelta

from gate.errors import SettingsError

LENGTH = re.compile(r"([1-9][0-9]{0,3})([dh])")


def parse(text: str, what: str, longest: timedelta | None = None) -> timedelta:
    """Days or hours.

    Args:
        text: For example `14d`.
        what: What the message calls it, for example "age of a waiver".
        longest: More is refused.

    Raises:
        SettingsError: It is written otherwise, or longer.
    """
    match = LENGTH.fullmatch(text)
    unit = "days" if match and match[2] == "d" else "hours"
    length = timedelta(**{unit: int(match[1])}) if match else timedelta()
    if not timedelta() < length <= (longest or timedelta.max):
        up_to = f", up to {longest.days}d" if longest else ""
        raise SettingsError(
            f"{text!r} is no {what}", f"Write days or hours, such as 3d or 12h{up_to}."
        )
    return length
