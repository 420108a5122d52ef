"""Memory and time of a model that is streamed layer by layer, beside the same model loaded.

Each runs in a process of its own, which reads random windows in batches and prints its peak of
resident memory above what it held before the model. The model is random, in bfloat16, and written
to a temporary directory, or the checkpoint that is named::

    python benchmarks/streaming.py [CHECKPOINT] [--layers 24] [--hidden 1536] [--windows 16]
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MIB = 2**20
MODES = ("resident", "streamed")


def write_model(options: argparse.Namespace, path: Path) -> None:
    """A random Llama, one shard a layer, so that it is never in memory as a whole."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=32_000,
        hidden_size=options.hidden,
        intermediate_size=3 * options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // 64,
        num_key_value_heads=options.hidden // 128,
        dtype="bfloat16",
    )
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in LlamaForCausalLM(config).state_dict().items()}
    files: dict[str, str] = {}
    groups: dict[str, list[str]] = {}
    for name in shapes:
        groups.setdefault(".".join(name.split(".")[:3]), []).append(name)
    torch.manual_seed(0)
    for index, names in enumerate(groups.values()):
        file = f"model-{index + 1:05}-of-{len(groups):05}.safetensors"
        tensors = {name: 0.02 * torch.randn(shapes[name]).to(torch.bfloat16) for name in names}
        tensors |= {name: t + 1 for name, t in tensors.items() if "norm" in name}
        save_file(tensors, path / file, metadata={"format": "pt"})
        files |= dict.fromkeys(names, file)
    index_file = path / "model.safetensors.index.json"
    index_file.write_text(json.dumps({"metadata": {}, "weight_map": files}), encoding="utf-8")
    config.save_pretrained(path)


def measure(options: argparse.Namespace, mode: str) -> dict[str, object]:
    """Read the windows in this process; seconds, bytes and a digest of the logits."""
    import numpy as np
    import torch

    # Imported before the memory of the process is looked at.
    from transformers import LlamaForCausalLM  # noqa: F401

    from gate import size
    from gate.backends.hf import Hf
    from gate.checkpoint import open_checkpoint
    from gate.containers import CONTAINERS
    from gate.formats import FORMATS
    from gate.quantization import identify
    from gate.settings import DEFAULT

    checkpoint = open_checkpoint(options.checkpoint, CONTAINERS)
    form = identify(checkpoint, FORMATS)
    backend = Hf(checkpoint, form, None, DEFAULT, streamed=mode == "streamed")
    shape = (options.windows, options.window)
    windows = np.random.default_rng(0).integers(0, checkpoint.config["vocab_size"], shape)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # sets VmHWM back
    began = time.monotonic()
    digest = hashlib.sha256()
    with backend, torch.inference_mode():
        for logits in backend._forward(np.split(windows, options.windows // 4)):
            digest.update(logits.view(torch.uint8).numpy().data)
            del logits
    return {
        "seconds": round(time.monotonic() - began, 1),
        "peak": _status("VmHWM") - before,
        "model": size.decoded_bytes(checkpoint, form),
        "part": size.part_bytes(checkpoint, form),
        "logits": digest.hexdigest()[:16],
    }


def _status(field: str) -> int:
    """A figure of this process in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Print one row a mode."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--hidden", type=int, default=1536)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--measure", choices=MODES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options, options.measure)))
        return
    with tempfile.TemporaryDirectory() as directory:
        if options.checkpoint is None:
            options.checkpoint = Path(directory)
            write_model(options, options.checkpoint)
        print(f"{'':10}{'seconds':>9}{'peak MiB':>10}{'model MiB':>11}{'layer MiB':>11}  logits")
        for mode in MODES:
            told = ("--measure", mode, "--windows", options.windows, "--window", options.window)
            command = (sys.executable, __file__, options.checkpoint, *told)
            done = subprocess.run([str(word) for word in command], capture_output=True, check=True)
            found = json.loads(done.stdout)
            sizes = (f"{found[name] / MIB:,.0f}" for name in ("peak", "model", "part"))
            print("{:10}{:>9}{:>10}{:>11}{:>11}".format(mode, found["seconds"], *sizes), end="  ")
            print(found["logits"], flush=True)


if __name__ == "__main__":
    main()
