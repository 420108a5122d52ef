"""What a checkpoint weighs."""

from gate.records.storing import Record


class SizeBucket(Record):
    """Part of a checkpoint: stored bytes, and parameters as the model counts them."""

    stored_bytes: int
    parameters: int


class Size(Record):
    """What a checkpoint weighs, from headers alone.

    Attributes:
        stored_bytes: Tensor data on disk.
        stored_elements: As headers count them: packed values share one, scales have their own.
        parameters: Logical count: two packed FP4 values are two parameters; scales are none.
        bits_per_weight: 8 * stored_bytes / parameters.
        linear_bits_per_weight: The same over quantized layers with their scales.
        compression: Reference's stored bytes over this one's.
    """

    stored_bytes: int
    parameters: int
    bits_per_weight: float
    linear_bits_per_weight: float | None
    by_dtype: dict[str, SizeBucket]
    by_class: dict[str, SizeBucket]
    stored_elements: int | None = None
    reference_bytes: int | None = None

    @property
    def compression(self) -> float | None:
        """How many times smaller than the reference."""
        if not self.reference_bytes or not self.stored_bytes:
            return None
        return self.reference_bytes / self.stored_bytes
