"""Where a checkpoint is going to be served."""

from typing import Annotated

from pydantic import Field

from gate.settings.metrics import Part

Name = Annotated[str, Field(min_length=1, max_length=80)]


class Target(Part):
    """The runtime and the hardware that are meant; `gate check` validates and emulates them.

    Attributes:
        runtime: As `gate lint --runtime` names it.
        gpu: As `gate lint --gpu` names it; left out, what depends on it is not known.
        tensor_parallel: Devices that share every layer.
    """

    runtime: Name
    gpu: Name | None = None
    tensor_parallel: int = Field(default=1, ge=1, le=1024)
