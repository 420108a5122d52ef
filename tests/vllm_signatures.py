"""What vLLM's released package takes and gives: names, read from its wheel without running it."""

import ast
import json
import re
import zipfile
from pathlib import Path
from typing import Any

FIXTURE = Path(__file__).parent / "fixtures" / "vllm.json"

FIELDS = {
    "SamplingParams": "sampling_params.py",
    "RequestOutput": "outputs.py",
    "CompletionOutput": "outputs.py",
    "FlatLogprobs": "logprobs.py",
    "EngineArgs": "engine/arg_utils.py",
    "ModelConfig": "config/model.py",
    "CacheConfig": "config/cache.py",
    "VllmConfig": "config/vllm.py",
    "ParallelConfig": "config/parallel.py",
}
"""Classes whose fields matter, and where they are."""

METHODS = {
    "LLM": ("entrypoints/llm.py", ("__init__", "generate", "collective_rpc")),
    "LLMEngine": (
        "v1/engine/llm_engine.py",
        ("add_request", "step", "has_unfinished_requests"),
    ),
    "MPClient": ("v1/engine/core_client.py", ("shutdown",)),
    "InprocClient": ("v1/engine/core_client.py", ("shutdown",)),
    "WorkerBase": ("v1/worker/worker_base.py", ("get_model",)),
    "AttentionLayerBase": (
        "model_executor/layers/attention_layer_base.py",
        ("get_attn_backend",),
    ),
    "AttentionBackend": ("v1/attention/backend.py", ("get_name",)),
    "ModelConfig": ("config/model.py", ("get_vocab_size",)),
}
"""Classes whose methods matter, where they are, and which."""

ATTRIBUTES = {
    "LLM": "entrypoints/llm.py",
    "LLMEngine": "v1/engine/llm_engine.py",
    "FusedMoEKernel": "model_executor/layers/fused_moe/modular_kernel.py",
    "FusedMoEKernelModularImpl": "model_executor/layers/fused_moe/modular_kernel.py",
}
"""Classes whose own attributes matter, and where they are."""


def known() -> dict[str, Any]:
    """The recorded ones."""
    found: dict[str, Any] = json.loads(FIXTURE.read_text())
    return found


def write(found: dict[str, Any]) -> None:
    """Record them."""
    FIXTURE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def read(wheel: Path) -> dict[str, Any]:
    """Those of a wheel."""
    with zipfile.ZipFile(wheel) as archive:

        def source(path: str) -> ast.Module:
            return ast.parse(archive.read(f"vllm/{path}"))

        return {
            "version": re.fullmatch(r"vllm-([^-]+)-.*", wheel.name)[1],
            "fields": {name: _fields(_class(source(path), name)) for name, path in FIELDS.items()},
            "methods": {
                name: {each: _parameters(_class(source(path), name), each) for each in wanted}
                for name, (path, wanted) in METHODS.items()
            },
            "attributes": {
                name: _attributes(_class(source(path), name)) for name, path in ATTRIBUTES.items()
            },
            "exceptions": {
                node.name: [ast.unparse(base) for base in node.bases]
                for node in source("exceptions.py").body
                if isinstance(node, ast.ClassDef)
            },
            "environment": sorted(
                node.target.id
                for node in ast.walk(source("envs.py"))
                if isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and node.target.id.startswith(("VLLM_LOGGING", "VLLM_NO_USAGE", "VLLM_WORKER"))
            ),
        }


def _class(module: ast.Module, name: str) -> ast.ClassDef:
    return next(
        node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name
    )


def _fields(found: ast.ClassDef) -> dict[str, Any]:
    """Name to default, where that is a plain value; those of a constructor if there is one."""
    for node in found.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return dict.fromkeys(_arguments(node))
    fields = (
        n for n in found.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    )
    return {node.target.id: _plain(node.value) for node in fields}


def _plain(value: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(value) if value is not None else None
    except ValueError:
        return None


def _parameters(found: ast.ClassDef, name: str) -> list[str]:
    return next(
        _arguments(node)
        for node in found.body
        if isinstance(node, ast.FunctionDef) and node.name == name
    )


def _arguments(node: ast.FunctionDef) -> list[str]:
    given = node.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def _attributes(found: ast.ClassDef) -> list[str]:
    """What its methods set on itself."""
    targets = (
        target
        for node in ast.walk(found)
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    )
    return sorted(
        {
            target.attr
            for target in targets
            if isinstance(target, ast.Attribute)
            and isinstance(target.value, ast.Name)
            and target.value.id == "self"
        }
    )
