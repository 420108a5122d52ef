"""Where a quantized checkpoint is hurt: which modules carry the damage, and what would heal it."""

from pydantic import Field

from gate.records.storing import Record


class LayerDamage(Record):
    """One decoder layer.

    Attributes:
        layer: Its number, from 0.
        hidden_error: Distance of the hidden states that leave it from the reference's, over the
            length of the reference's: mean over the tokens. NaN where a state is not finite.
        returned: Sum of its modules' `ModuleSensitivity.returned`, in nats a token; None where
            nothing in it differs.
    """

    layer: int
    hidden_error: float
    returned: float | None = None


class KindDamage(Record):
    """All modules of one kind, such as every `down_proj`.

    Attributes:
        kind: The last part of their names.
        modules: How many of them differ from the reference.
        returned: Sum of their `ModuleSensitivity.returned`, in nats a token.
    """

    kind: str
    modules: int
    returned: float


class ModuleSensitivity(Record):
    """One module that differs from the reference, and what it costs.

    Attributes:
        module: As the checkpoint names it; the model's own name where several tensors became one.
        kind: The last part of the name.
        layer: The decoder layer that it is part of; None outside of them.
        returned: Divergence that goes away when this module alone is put back, its input no
            longer rounded, in nats a token; below zero where it grows.
        measured: Whether `returned` was measured; else it is a first-order estimate.
        weight_error: Root mean square of the weight's difference over that of the reference, the
            worst of several tensors; None where it was not compared.
        weight_gain: By what factor the reference's weight comes closest to this one: 1 for a sound
            rounding, 4 where a scale is four times too large; None where it was not compared.
        quantized: Whether it is stored quantized; else only its values differ.
        clipped: Share of its inputs beyond what the stored input scale can hold; None without a
            static scale.
        extra_bytes: What it would take more in the reference's precision.
    """

    module: str
    kind: str
    layer: int | None
    returned: float
    measured: bool
    quantized: bool = True
    weight_error: float | None = None
    weight_gain: float | None = None
    clipped: float | None = None
    extra_bytes: int = 0


class InputClipping(Record):
    """What a static input scale does to the text that was read.

    Attributes:
        module: As in `ModuleSensitivity`.
        clipped: Share of the inputs beyond what the scale can hold.
        range_used: The largest input over the largest that the scale can hold: above 1, it was
            calibrated on too little.
    """

    module: str
    clipped: float
    range_used: float


class Exclusion(Record):
    """Modules that bring the checkpoint back under the limit when they stay unquantized.

    Attributes:
        modules: What to exclude, as the checkpoint names them; siblings that runtimes join are
            always together.
        restore: Modules that are stored unquantized with other values than the reference's: what
            they have to get back.
        limit: What the perplexity ratio was to stay below.
        perplexity_ratio: Measured on all windows with these modules put back.
        perplexity_ratio_high: Its upper confidence bound, for the windows that were not read.
        divergence: Measured likewise, in nats a token.
        extra_bytes: What the checkpoint would take more.
        measurements: Sets that were tried.
        patterns: The modules together with those that are unquantized already, as glob patterns:
            what a new export must leave out.
    """

    modules: tuple[str, ...]
    restore: tuple[str, ...] = ()
    limit: float
    perplexity_ratio: float
    perplexity_ratio_high: float
    divergence: float
    extra_bytes: int
    measurements: int
    patterns: tuple[str, ...] = ()


class Diagnosis(Record):
    """Where a checkpoint differs from its reference, and what that costs.

    Divergence is KL(reference || candidate) over the reference's most likely tokens and the rest
    as one, in nats a token: a lower bound of that over the whole vocabulary.

    Attributes:
        reference: The unquantized checkpoint.
        text: Label of the text that was read.
        windows: How many of its windows.
        window: Tokens in a window.
        tokens: Predictions that were compared.
        top_tokens: Most likely tokens of each that are kept of the reference.
        divergence: Of the whole candidate.
        perplexity_ratio: Candidate over reference on these windows.
        layers: In the order in which they run.
        kinds: The most damaging first.
        modules: The most damaging first.
        inputs: Static input scales, the most clipped first.
        limit: What the perplexity ratio was to stay below; None where no limit was given.
        exclusion: None where no limit was given, where it is kept, or where none was found.
        notes: What could not be measured, and why.
        duration_s: Of the diagnosis, loading included.
    """

    reference: str
    text: str
    windows: int
    window: int
    tokens: int
    top_tokens: int
    divergence: float
    perplexity_ratio: float
    layers: tuple[LayerDamage, ...] = ()
    kinds: tuple[KindDamage, ...] = ()
    modules: tuple[ModuleSensitivity, ...] = ()
    inputs: tuple[InputClipping, ...] = ()
    limit: float | None = None
    exclusion: Exclusion | None = None
    notes: tuple[str, ...] = ()
    duration_s: float = Field(default=0.0, ge=0)
