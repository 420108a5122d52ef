"""The JSON Schemas that the package carries."""

import json
from importlib import resources
from pathlib import Path
from typing import Any


def load(name: str) -> dict[str, Any]:
    """The schema called `name`, for example `hf_quant_config`.

    An installed wheel holds them inside the package, a checkout beside it.
    """
    file = f"{name}.schema.json"
    packaged = resources.files("gate") / "schemas" / file
    found = packaged if packaged.is_file() else Path(__file__).parent.parent / "schemas" / file
    schema: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    return schema
