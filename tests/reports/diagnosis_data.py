"""Diagnoses to render: few broken modules, a sensitive few, plain rounding, hostile names."""

import math
from typing import Any

from gate.records import (
    Diagnosis,
    DiagnosisReport,
    Exclusion,
    InputClipping,
    KindDamage,
    LayerDamage,
    LintResult,
    ModuleSensitivity,
)

HOSTILE = "model.layers.1.mlp.`x`](http://evil.example)|<img src=x>\x1b[2J\u202e\n::error::@all"
NVFP4 = LintResult(format="modelopt", algorithms=("NVFP4",))


def module(
    layer: int | None, kind: str, returned: float, name: str | None = None, **changes: Any
) -> ModuleSensitivity:
    """One module of the MLP, rounded as NVFP4 rounds."""
    stated = {
        "module": name or f"model.layers.{layer}.mlp.{kind}",
        "kind": kind,
        "layer": layer,
        "returned": returned,
        "measured": True,
        "weight_error": 0.095,
        "weight_gain": 0.995,
        "extra_bytes": 1_271_808,
    }
    return ModuleSensitivity.model_validate(stated | changes)


def diagnosis(*modules: ModuleSensitivity, **changes: Any) -> Diagnosis:
    """Of a model of six layers."""
    stated = {
        "reference": "reference",
        "text": "topics.txt",
        "windows": 16,
        "window": 512,
        "tokens": 8176,
        "top_tokens": 64,
        "divergence": 0.4,
        "perplexity_ratio": 1.583,
        "layers": [
            LayerDamage(layer=i, hidden_error=error, returned=0.02 * i)
            for i, error in enumerate((0.004, 0.01, 0.02, 0.21, 0.25, 0.31))
        ],
        "kinds": [
            KindDamage(kind="down_proj", modules=6, returned=0.17),
            KindDamage(kind="up_proj", modules=6, returned=0.03),
        ],
        "modules": modules,
        "inputs": [
            InputClipping(module="model.layers.3.mlp.down_proj", clipped=0.02, range_used=3)
        ],
        "duration_s": 92.4,
    }
    return Diagnosis.model_validate(stated | changes)


OTHERS = (
    module(4, "up_proj", 0.011),
    module(5, "up_proj", 0.004, measured=False, weight_error=None, weight_gain=None),
)

EXCLUSION = Exclusion(
    modules=("model.layers.3.mlp.down_proj", "model.layers.5.mlp.down_proj"),
    limit=1.15,
    perplexity_ratio=1.121,
    perplexity_ratio_high=1.139,
    divergence=0.09,
    extra_bytes=2_543_616,
    measurements=9,
    patterns=(
        "model.layers.[35].mlp.down_proj",
        "model.layers.4.self_attn.o_proj",
    ),
)

DIAGNOSES: dict[str, Diagnosis] = {
    "few": diagnosis(
        module(3, "down_proj", 0.17),
        module(5, "down_proj", 0.12, weight_error=0.21, clipped=0.0),
        *OTHERS,
        exclusion=EXCLUSION,
    ),
    "scale": diagnosis(module(3, "down_proj", 0.39, weight_error=3.0, weight_gain=4.0), *OTHERS),
    "codes": diagnosis(module(3, "down_proj", 0.39, weight_error=1.4, weight_gain=0.01), *OTHERS),
    "small": diagnosis(
        module(3, "o_proj", 0.037, weight_error=1.4, weight_gain=0.01),
        module(5, "up_proj", 0.028),
        *OTHERS,
    ),
    "clipped": diagnosis(module(3, "down_proj", 0.39, clipped=0.023), *OTHERS),
    "head": diagnosis(module(None, "lm_head", 0.39, "lm_head", weight_error=0.3), *OTHERS),
    "spread": diagnosis(module(2, "down_proj", 0.03), *OTHERS, kinds=()),
    "kind": diagnosis(
        module(2, "down_proj", 0.03),
        *OTHERS,
        kinds=[KindDamage(kind="down_proj", modules=6, returned=0.3)],
    ),
    "kept": diagnosis(module(2, "down_proj", 0.03), *OTHERS, limit=1.6, kinds=()),
    "lost": diagnosis(module(2, "down_proj", 0.03), *OTHERS, limit=1.15, kinds=()),
    "layer": diagnosis(
        module(2, "down_proj", 0.03),
        *OTHERS,
        layers=[LayerDamage(layer=i, hidden_error=0.1, returned=0.1 * i) for i in range(4)],
    ),
    "not finite": diagnosis(
        module(3, "down_proj", 0.39, weight_error=math.nan, weight_gain=math.nan),
        layers=[LayerDamage(layer=i, hidden_error=(0.1, math.nan)[i == 2]) for i in range(4)],
    ),
    "equal": diagnosis(divergence=0.0, perplexity_ratio=1.0, layers=(), kinds=()),
    "hostile": diagnosis(
        module(1, HOSTILE, 0.39, HOSTILE),
        text=HOSTILE,
        reference=HOSTILE,
        notes=(HOSTILE,),
        kinds=[KindDamage(kind=HOSTILE, modules=1, returned=0.39)],
        exclusion=EXCLUSION.model_copy(update={"modules": (HOSTILE,), "patterns": (HOSTILE,)}),
    ),
}


def report(name: str, lint: LintResult = NVFP4) -> DiagnosisReport:
    """What `gate diagnose` stores."""
    return DiagnosisReport(
        gate_version="0.1.0",
        checkpoint=HOSTILE if name == "hostile" else "quantized_model/nvfp4",
        revision=None,
        command="gate diagnose quantized_model/nvfp4",
        lint=lint,
        diagnosis=DIAGNOSES[name],
        date="2026-11-21T10:00:00+00:00",
    )
