"""How fast a model ran, and how much memory it took."""

from decimal import Decimal
from typing import Literal

from pydantic import Field

from gate.records.storing import Record

SECONDS_PER_HOUR = 3600


class Repeated(Record):
    """One figure of several runs: its median, and the range of all of them."""

    median: float
    low: float
    high: float

    def overlaps(self, other: "Repeated") -> bool:
        """Whether both ranges share a value; ranges that are no numbers share none."""
        return self.low <= other.high and other.low <= self.high


class BatchSpeed(Record):
    """One number of sequences that are generated together.

    Attributes:
        batch: Sequences.
        first_token_s: Time from prompts that are in place to the first token of all sequences.
        prefill_tokens_per_s: Prompt tokens of all sequences over that time.
        decode_tokens_per_s: Every token but the first, of all sequences, over the time after it.
        output_tokens_per_s: New tokens of all sequences over the whole time, prefill included.
        ms_per_token: Time between two tokens of one sequence.
    """

    batch: int = Field(ge=1)
    first_token_s: Repeated
    prefill_tokens_per_s: Repeated
    decode_tokens_per_s: Repeated
    output_tokens_per_s: Repeated
    ms_per_token: Repeated


class Throughput(Record):
    """How fast a model ran on one machine: greedy, of fixed length, without stopping at an end.

    Attributes:
        device: Its name; of a CPU its instructions and threads.
        devices: How many hold the model.
        kernel: How quantized layers were computed, in words.
        emulated: Quantized weights were decoded and computed as unquantized ones: this is not
            the speed, nor the memory, of the checkpoint in a runtime.
        prompt_tokens: Random tokens that each sequence begins with.
        new_tokens: Tokens that each sequence is continued by.
        repeats: Runs at each batch, those of the warm-up not counted.
        batches: One sequence alone, and the number that the settings ask for; ascending.
        peak_bytes: Most memory that was in use during the runs.
        peak_of: Whose memory: what was allocated on the devices; or what was resident of the
            whole process, loading included.
        gpu_hour_price: Of one device, in the currency of the settings; None if not stated.
    """

    device: str
    devices: int = Field(ge=1)
    dtype: str
    kernel: str
    emulated: bool
    prompt_tokens: int
    new_tokens: int
    repeats: int
    batches: tuple[BatchSpeed, ...] = Field(min_length=1)
    peak_bytes: int
    peak_of: Literal["device", "process"]
    gpu_hour_price: Decimal | None = None

    @property
    def largest(self) -> BatchSpeed:
        """The batch that the settings ask for."""
        return self.batches[-1]

    @property
    def cost_per_million(self) -> float | None:
        """Price of a million new tokens at the largest batch, their prefill included."""
        rate = self.largest.output_tokens_per_s.median
        if self.gpu_hour_price is None or not rate > 0:
            return None
        return float(self.gpu_hour_price) * self.devices / SECONDS_PER_HOUR / rate * 1e6

    def at(self, batch: int) -> BatchSpeed | None:
        """The figures of one batch."""
        return next((found for found in self.batches if found.batch == batch), None)
