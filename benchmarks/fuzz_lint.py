"""Feed broken checkpoints to everything that `gate lint` does before it prints.

Each case damages one file of a sound checkpoint: bytes, lengths, or nodes of its JSON. No case may
raise anything but the gate's own errors, take more than `MOST_SECONDS`, open a file outside of the
checkpoint, or bring the process above `MOST_MEGABYTES`.

python benchmarks/fuzz_lint.py [--cases 100000] [--workers 2] [--seed 0]
"""

import argparse
import json
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

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "formats")]

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


def make_seeds(root: Path) -> None:
    """Write sound checkpoints of every format, one directory each."""
    import gguf_files
    import quantizers
    import test_block_fp8
    import test_mxfp4
    from compressed_checkpoints import compressed

    checkpoints.build(root / "fp8", "FP8")
    checkpoints.build(root / "nvfp4", "NVFP4", shards=2)
    checkpoints.build(root / "mixed", "MIXED_PRECISION", experts=2)
    checkpoints.build(root / "plain", None)
    packed = {"bits": 4, "group_size": 32, "sym": True, "desc_act": False, "zero_point": True}
    for method, quantizer in {
        "gptq": quantizers.gptq(), "awq": quantizers.awq(), "exl2": quantizers.exl2(),
        "exl3": quantizers.exl3(),
    }.items():  # fmt: skip
        declared = {"quant_method": method, "dynamic": {"-:.*x.*": {}}, **packed}
        quantizers.convert(root / method, quantizer, declared, layers=1)
    for name, weights in {
        "int4": {"num_bits": 4, "strategy": "group", "group_size": 32},
        "float8": {"num_bits": 8, "type": "float", "strategy": "channel"},
    }.items():
        compressed(root / name, {"weights": weights}, layers=1)
    test_block_fp8.deepseek(root / "block_fp8")
    test_mxfp4.gpt_oss(root / "mxfp4")
    gguf_files.build(root / "gguf", "Q4_0", layers=2)
    gguf_files.build(root / "splits", "Q8_0", layers=2, tensors_per_file=12)
    for method in METHODS:
        path = checkpoints.build(root / f"called {method}", "FP8_PB_WO", layers=1)
        declared = {"quant_method": method, "weight_block_size": [128, 128], **packed}
        checkpoints.edit_json(
            path, "config.json", lambda config, d=declared: config.update(quantization_config=d)
        )
        (path / "hf_quant_config.json").unlink()


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


def work(cases: int, first_seed: int, sound: list[Path]) -> None:
    """Damage `sound` checkpoints in `cases` ways in this process, and print what was seen."""
    from judging import gather, judge

    from gate.errors import GateError
    from gate.size import size

    root = Path(tempfile.mkdtemp(prefix="quant-gate-fuzz-"))
    (root / "secret").write_text("outside")
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
    # Not getrusage: that begins with what the process had before it became this program.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1000
    print(json.dumps({"slowest": slowest, "peak": peak, "seen": seen}))
    assert peak <= MOST_MEGABYTES, f"{peak:.0f} MB"


def main() -> None:
    """Run the workers and print one table; exit code 1 if a case failed."""
    parser = argparse.ArgumentParser(description="Feed broken checkpoints to gate lint.")
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--sound", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments.seed, sorted(arguments.sound.iterdir()))
        return
    sound = Path(tempfile.mkdtemp(prefix="quant-gate-sound-"))
    make_seeds(sound)
    each = -(-arguments.cases // arguments.workers)
    command = [sys.executable, __file__, "--work", str(each), "--sound", str(sound), "--seed"]
    started = time.perf_counter()
    running = [
        subprocess.Popen([*command, str(first)], stdout=subprocess.PIPE, text=True)
        for first in range(arguments.seed, arguments.seed + arguments.workers)
    ]
    outputs = [process.communicate()[0] for process in running]
    shutil.rmtree(sound)
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
