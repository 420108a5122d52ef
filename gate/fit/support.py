"""The table of support, `gate/data/support.yaml`: what runtimes load and what GPUs compute."""

from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Generic, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field

from gate.records import ComputePath

V = TypeVar("V")
Capability = tuple[int, int]

UNVERIFIED = "unverified"
"""The source of a cell that could not be checked."""


class Part(BaseModel):
    """Part of the table: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Checked(Part, Generic[V]):
    """A fact and where it can be checked."""

    value: V
    source: str


class Gpu(Part):
    """A device that models run on.

    Attributes:
        memory_gb: As the vendor counts it; None where machines differ.
        formats: What its matrix units take as input: FP4, FP8, INT8, INT4.
    """

    name: str
    platform: Literal["cuda", "rocm", "metal", "cpu"]
    compute_capability: Checked[Capability] | None = None
    memory_gb: Checked[int] | None = None
    formats: Checked[tuple[str, ...]] | None = None


class Cell(Part):
    """What a runtime does with one algorithm, on the GPUs that the cell is about.

    Attributes:
        since: Compute capability at least.
        below: Compute capability less than.
    """

    path: ComputePath
    why: str
    source: str
    platform: str | None = None
    since: Capability | None = Field(default=None, alias="from")
    below: Capability | None = None

    @property
    def about_hardware(self) -> bool:
        """Whether it depends on the GPU."""
        return self.platform is not None

    def applies(self, gpu: Gpu | None) -> bool:
        """Whether the cell is about this GPU; about none in particular where none is named."""
        if not self.about_hardware:
            return True
        if gpu is None or gpu.platform != self.platform:
            return False
        if self.since is None and self.below is None:
            return True
        if gpu.compute_capability is None:
            return False
        has = gpu.compute_capability.value
        return (self.since is None or has >= self.since) and (
            self.below is None or has < self.below
        )


class Runtime(Part):
    """A program that serves models.

    Attributes:
        version: That the table describes.
        splits: What several devices divide: every tensor, or the list of layers.
        kv_cache: Values of `kv_cache_quant_algo` that make its cache smaller.
        methods: Format's name, or `*`, to algorithm, or `*`, to what happens.
    """

    name: str
    version: str
    splits: Checked[Literal["tensors", "layers"]]
    kv_cache: Checked[tuple[str, ...]] | None = None
    methods: Mapping[str, Mapping[str, tuple[Cell, ...]]]

    def cells(self, method: str, names: tuple[str, ...]) -> tuple[Cell, ...]:
        """The cells of the first of `names` that the table has; none where it has none of them."""
        for row in (self.methods.get(method), self.methods.get("*")):
            for name in (*names, "*") if row else ():
                if row and name in row:
                    return row[name]
        return ()


class Table(Part):
    """The whole table."""

    sources: Mapping[str, str]
    gpus: Mapping[str, Gpu]
    runtimes: Mapping[str, Runtime]


@lru_cache(maxsize=1)
def table() -> Table:
    """The table, read once."""
    file = resources.files("gate") / "data" / "support.yaml"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return Table.model_validate(yaml.load(file.read_bytes(), Loader=loader))  # noqa: S506
