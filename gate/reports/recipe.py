"""How the modules that hurt are left unquantized: patterns, and code for ModelOpt."""

import json
import textwrap
from collections.abc import Sequence

from gate.architecture import LANGUAGE_MODELS
from gate.records import Exclusion, LintResult
from gate.reports.json import inert

TITLE = "Leave these modules unquantized"
MOST_CHARS = 30_000
"""Of code: a set of hundreds of modules is still complete."""

COLUMNS = 80

PRESETS = {
    "FP8": "FP8_DEFAULT_CFG",
    "FP8_PER_CHANNEL_PER_TOKEN": "FP8_PER_CHANNEL_PER_TOKEN_CFG",
    "FP8_PB_WO": "FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG",
    "NVFP4": "NVFP4_DEFAULT_CFG",
    "W4A16_NVFP4": "W4A16_NVFP4_CFG",
}
"""Algorithm to ModelOpt's configuration that makes it.

Source: https://github.com/NVIDIA/Model-Optimizer (`modelopt/torch/quantization/config.py`).
"""

LISTS = {"modelopt": "exclude_modules", "compressed-tensors": "ignore"}
"""Format to what it calls its list of modules that stay unquantized."""


def ways(exclusion: Exclusion, lint: LintResult) -> list[tuple[str, str]]:
    """What to do, and with what: a sentence each with its lines."""
    found = []
    if exclusion.restore:
        found.append(("Take from the reference, as it is:", _names(exclusion.restore)))
    if exclusion.modules:
        name = LISTS.get(lint.format or "", "unquantized")
        listed = f"{name} += {_names(exclusion.modules)}"
        found.append(("Add to the list of modules that stay unquantized:", listed))
        if lint.format == "modelopt":
            found.append(("Quantize again with ModelOpt, and export:", _code(exclusion, lint)))
    return found


def _names(modules: Sequence[str]) -> str:
    """A list in JSON, several to a line."""
    # Lines end between names, whatever a name holds.
    words = ", ".join(inert(json.dumps(name)).replace(" ", "\\u0020") for name in modules)
    return textwrap.fill(
        f"[{words}]", COLUMNS, break_long_words=False, break_on_hyphens=False, subsequent_indent=" "
    )


def _code(exclusion: Exclusion, lint: LintResult) -> str:
    """Python that leaves them out.

    A later entry of `quant_cfg` overrides earlier ones. It names quantizers by a pattern,
    `<module>.weight_quantizer` and the like.

    Source: as `PRESETS`.
    """
    known = [PRESETS[name] for name in lint.algorithms if name in PRESETS]
    preset = f"mtq.{known[0]}" if len(known) == len(lint.algorithms) == 1 else "YOUR_CONFIG"
    entries = "".join(
        f'    {{"quantizer_name": {_literal(_quantizers(pattern))}, "enable": False}},\n'
        for pattern in exclusion.patterns
    )
    return (
        "import copy\n\nimport modelopt.torch.quantization as mtq\n\n"
        f"config = copy.deepcopy({preset})  # or what it was made with\n"
        f'config["quant_cfg"] += [\n{entries}]\n'
        "model = mtq.quantize(model, config, forward_loop)"
    )


def _quantizers(pattern: str) -> str:
    """The quantizers of a module; multimodal models have other names in memory than stored."""
    for prefix in LANGUAGE_MODELS:
        if pattern.startswith(prefix):
            return f"*{pattern.removeprefix(prefix)}.*"
    return f"{pattern}.*"


def _literal(text: str) -> str:
    """A string as Python writes it, in ASCII."""
    written = json.dumps(text, ensure_ascii=False).encode("ascii", "backslashreplace").decode()
    return inert(written)
