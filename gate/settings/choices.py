"""What single settings may be."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gate import duration
from gate.errors import SettingsError

EarlyStopping = Literal["auto", "guaranteed", "certain", "off"]

BatchSize = Annotated[int, Field(ge=1, le=4096)] | Literal["auto"]

Borderline = Literal["point", "block", "inconclusive", "escalate"]

Memory = Literal["auto", "resident", "stream", "offload"]


def _age(text: str) -> str:
    """A length of time as it is written, held against the ones that count."""
    try:
        duration.parse(text, "age of a baseline")
    except SettingsError as error:
        raise ValueError(f"{error.message}. {error.hint}") from error
    return text


Age = Annotated[str, AfterValidator(_age)]

MOST_REPLICAS = 64

Replicas = Annotated[int, Field(ge=1, le=MOST_REPLICAS)] | Literal["auto"]
