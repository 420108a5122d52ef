"""docs/formats.md: what can be done with each format, each cell with the test that shows it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gate.backends.native import LIBRARIES
from gate.fit.support import table

SOURCE = Path(__file__).parent.parent / "docs" / "formats.yaml"

COLUMNS = ("format", "recognised, linted", "`hf`: decoded", "`native`", "`vllm`", "`server`")

NATIVE = "tests/backends/test_native.py::test_it_is_the_model_that_transformers_loads"
VLLM = "tests/test_choice.py::test_the_table_of_support_says_what_vllm_serves"
SERVER = (
    "tests/acceptance/test_served.py::test_transformers_server_scores_as_hf_over_the_same_weights"
)

RUN = frozenset({None, "bitsandbytes", "compressed-tensors"})
"""Methods that transformers has computed in a test."""

HEAD = """\
# What is done with each format

Every *yes* leads to the test that shows it. `hf` decodes the stored weights, rounds inputs as the
runtime will, and is the reference; what it does not decode ends with exit 3, naming it. `native` is
transformers' own computation, with the library that is named; *not run* was never run here. `vllm`
is what vLLM says that it loads, and no GPU has run it here: the way its kernels take depends on the
GPU (`gate lint --runtime vllm --gpu NAME` says which, from
[support.yaml](../gate/data/support.yaml)). A server loads what it loads; the gate asks it.

"""


def page() -> str:
    """The whole page."""
    rows = [[row["formats"], *_cells(row)] for row in read()]
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return HEAD + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def read() -> Sequence[Mapping[str, Any]]:
    """The rows of the source."""
    found: list[Mapping[str, Any]] = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    return found


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    method = row.get("method")
    quantized = method is not None and method != "recognised"
    decoded = _yes(row["reference"]) if "reference" in row else "no: exit 3"
    if "but" in row:
        decoded += f"; not {row['but']}"
    native = ", ".join(LIBRARIES.get(method or "", ()))
    served = _yes(SERVER)
    if not quantized and method is not None:
        return _yes(row["lint"]), decoded, "no", "not known", served
    unquantized = method is None
    return (
        _yes(row["lint"]),
        decoded,
        _native(method, native) if native or unquantized else "no",
        _vllm(method, row.get("algorithms", ["*"])) if not unquantized else _yes(VLLM),
        served,
    )


def _native(method: str | None, packages: str) -> str:
    """Tested, or only written."""
    return _yes(NATIVE, packages) if method in RUN else f"not run: {packages}"


def _vllm(method: str | None, algorithms: Sequence[str]) -> str:
    """The ways that vLLM takes, by the table of support."""
    known = table().runtimes["vllm"].methods.get(method or "", {})
    cells = [cell for name in algorithms for cell in known.get(name, ())]
    ways = dict.fromkeys(cell.path for cell in cells)
    loaded = [way for way in ways if way not in ("not loaded", "not known")]
    if loaded:
        return _yes(VLLM, ", ".join(loaded))
    return next(iter(ways), "not known")


def _yes(test: str, with_what: str = "") -> str:
    file, _, name = test.partition("::")
    title = f' "{name}"' if name else ""
    return f"[yes](../{file}{title})" + (f": {with_what}" if with_what else "")
