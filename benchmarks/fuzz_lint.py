"""Feed broken checkpoints to everything that `gate lint` does before it prints.

Each case damages one file of a sound checkpoint: bytes, lengths, or nodes of its JSON. No case may
raise anything but the gate's own errors, take more than `MOST_SECONDS`, open a file outside of the
checkpoint, or bring the process above `MOST_MEGABYTES`.

python benchmarks/fuzz_lint.py [--cases 100000] [--workers 2] [--seed 0]
"""

import argparse
import json
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import checkpoints  # noqa: E402

MOST_SECONDS = 5
MOST_MEGABYTES = 1000

METHODS = (
    "modelopt", "compressed-tensors", "gptq", "awq", "bitsandbytes", "fp8", "mxfp4", "quanto",
    "exl2", "exl3", "quark", "torchao", "hqq", "auto-round", "fbgemm_fp8",
)  # fmt: skip

HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 3, 2**31, 2**63, 10**40, 0.5, float("nan"), float("inf"), "", "x" * 5000,
    "../../etc/passwd", "/etc/passwd", "re:(a+)+$", "re:[", "*" * 300, "a\0b", "\ud800", [], {},
    [[[[]]]], ["lm_head"], [128, 128], [0, 0], {"quant_algo": "NVFP4"}, list(range(2000)),
)  # fmt: skip
"""What no exporter writes where a value is expected."""


def seeds(root: Path) -> list[Path]:
    """Sound checkpoints, one directory each."""
    made = [
        checkpoints.build(root / "fp8", "FP8"),
        checkpoints.build(root / "nvfp4", "NVFP4", shards=2),
        checkpoints.build(root / "mixed", "MIXED_PRECISION", experts=2),
        checkpoints.build(root / "plain", None),
    ]
    for method in METHODS:
        path = checkpoints.build(root / method, "FP8_PB_WO", layers=1)
        declared = {
            "quant_method": method, "bits": 4, "group_size": 128, "weight_block_size": [128, 128],
            "config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 8}}},
            "ignore": ["re:.*lm_head"], "dynamic": {"-:.*mlp.*": {}}, "format": "pack-quantized",
            "modules_to_not_convert": ["lm_head"], "checkpoint_format": "gptq",
        }  # fmt: skip
        checkpoints.edit_json(
            path, "config.json", lambda config, d=declared: config.update(quantization_config=d)
        )
        (path / "hf_quant_config.json").unlink()
        made.append(path)
    return [*made, gguf_seed(root / "gguf")]


def gguf_seed(path: Path) -> Path:
    """A small GGUF file with a tokenizer and two quantized types."""
    import gguf

    path.mkdir()
    writer = gguf.GGUFWriter(path / "model.gguf", "llama")
    writer.add_block_count(1)
    writer.add_embedding_length(64)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{number}" for number in range(96)])
    for name in ("token_embd", "output", "blk.0.attn_q", "blk.0.ffn_up"):
        values = np.random.default_rng(0).normal(size=(96, 64)).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(f"{name}.weight", gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value of a JSON document stands."""
    yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from nodes(item, (*path, key))


def damaged_json(raw: bytes, chance: Random) -> bytes:
    """One to three nodes replaced, removed or renamed."""
    value = json.loads(raw)
    for _ in range(1 + chance.getrandbits(32) % 3):
        places = list(nodes(value))[1:]
        if not places:
            break
        *parents, key = places[chance.getrandbits(32) % len(places)]
        parent = value
        for step in parents:
            parent = parent[step]
        action, hostile = chance.getrandbits(32) % 4, deepcopy(chance.choice(HOSTILE))
        if action == 0:
            del parent[key]
        elif action == 1 and isinstance(parent, dict):
            parent[str(hostile)] = parent.pop(key)
        else:
            parent[key] = hostile
    return json.dumps(value).encode()


def damaged_bytes(raw: bytes, chance: Random) -> bytes:
    """Bytes and integers overwritten near the beginning, or the end cut or stretched."""
    content = bytearray(raw)
    for _ in range(1 + chance.getrandbits(32) % 4):
        place = chance.getrandbits(32) % max(min(len(content), 4096), 1)
        action = chance.getrandbits(32) % 5
        if action == 0:
            content[place : place + 1] = bytes([chance.getrandbits(32) % 256])
        elif action == 1:
            extreme = (0, 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)[chance.getrandbits(32) % 6]
            content[place : place + 8] = struct.pack("<Q", extreme)
        elif action == 2:
            del content[chance.getrandbits(32) % (len(content) + 1) :]
        elif action == 3:
            content += bytes(chance.getrandbits(32) % 64)
        else:
            del content[place : place + chance.getrandbits(32) % 16]
    return bytes(content)


def damaged(name: str, raw: bytes, chance: Random) -> bytes:
    """`raw` after one kind of damage that suits the file."""
    if chance.getrandbits(32) % 4 == 0 or name.endswith(".gguf"):
        return damaged_bytes(raw, chance)
    if name.endswith(".json"):
        return damaged_json(raw, chance)
    (length,) = struct.unpack("<Q", raw[:8])
    header = damaged_json(raw[8 : 8 + length], chance)
    return struct.pack("<Q", len(header)) + header + raw[8 + length :]


def work(cases: int, first_seed: int) -> None:
    """Run `cases` of them in this process and print what was seen."""
    from judging import gather, judge

    from gate.errors import GateError
    from gate.size import size

    root = Path(tempfile.mkdtemp(prefix="quant-gate-fuzz-"))
    (root / "secret").write_text("outside")
    sound = seeds(root / "seeds")
    target = root / "candidate"
    seen: Counter[str] = Counter()
    slowest = 0.0

    def guard(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str):
            path = Path(arguments[0]).resolve()
            outside = path.is_relative_to(root) and not path.is_relative_to(target)
            if watching and (outside or path.is_relative_to("/etc")):
                raise AssertionError(f"{path} was opened")

    watching = False
    sys.addaudithook(guard)

    def late(*_: object) -> None:
        raise AssertionError(f"a case took more than {MOST_SECONDS} s")

    signal.signal(signal.SIGALRM, late)

    @seed(first_seed)
    @settings(
        max_examples=cases, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.integers(0, 2**64 - 1))
    def case(number: int) -> None:
        nonlocal watching, slowest
        chance = Random(number)
        source = sound[chance.getrandbits(32) % len(sound)]
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        names = sorted(file.name for file in target.iterdir())
        name = names[chance.getrandbits(32) % len(names)]
        (target / name).write_bytes(damaged(name, (target / name).read_bytes(), chance))
        watching, started = True, time.perf_counter()
        signal.alarm(MOST_SECONDS)
        try:
            for finding in judge(target).findings:
                seen[finding.rule] += 1
            evidence = gather(target)
            size(evidence.checkpoint, evidence.form).model_dump_json()
        except GateError as error:
            seen[type(error).__name__] += 1
        finally:
            signal.alarm(0)
            watching = False
        slowest = max(slowest, time.perf_counter() - started)

    case()
    shutil.rmtree(root)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({"slowest": slowest, "peak": peak, "seen": seen}))
    assert peak <= MOST_MEGABYTES, f"{peak:.0f} MB"


def main() -> None:
    """Run the workers and print one table; exit code 1 if a case failed."""
    parser = argparse.ArgumentParser(description="Feed broken checkpoints to gate lint.")
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments.seed)
        return
    each = -(-arguments.cases // arguments.workers)
    command = [sys.executable, __file__, "--work", str(each), "--seed"]
    started = time.perf_counter()
    running = [
        subprocess.Popen([*command, str(first)], stdout=subprocess.PIPE, text=True)
        for first in range(arguments.seed, arguments.seed + arguments.workers)
    ]
    outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit(1)
    results = [json.loads(output.splitlines()[-1]) for output in outputs]
    seen = sum((Counter(result["seen"]) for result in results), Counter[str]())
    print(f"{each * arguments.workers:,} cases in {time.perf_counter() - started:.0f} s")
    print(f"slowest case {max(result['slowest'] for result in results):.2f} s")
    print(f"peak memory {max(result['peak'] for result in results):.0f} MB a process")
    print("\n| found | times |\n|---|--:|")
    for rule, count in seen.most_common():
        print(f"| {rule} | {count:,} |")


if __name__ == "__main__":
    main()
