"""The GGUF container: sound files read as gguf reads them; hostile ones read at all."""

import math
import resource
import struct
from pathlib import Path
from typing import Any

import gguf
import gguf_files
import numpy as np
import pytest
from gguf_files import entry, header, key_value, padded, text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gate import ggml
from gate.checkpoint import Directory, Header, find_models, open_checkpoint
from gate.containers import CONTAINERS
from gate.containers.gguf import Gguf
from gate.containers.gguf_header import ELEMENTS_MAX, HEADER_MAX_BYTES, LongArray
from gate.errors import CheckpointError


def read(path: Path) -> Header:
    return Gguf().read_header(Directory(path.parent), path.name)


def written(path: Path, content: bytes) -> Header:
    (path / "model.gguf").write_bytes(content)
    return read(path / "model.gguf")


def assert_same_as_gguf_reads(path: Path) -> None:
    found, wanted = read(path), gguf.GGUFReader(path)
    assert found.problems == ()
    assert [info.name for info in found.tensors] == [tensor.name for tensor in wanted.tensors]
    for info, tensor in zip(found.tensors, wanted.tensors, strict=True):
        assert info.dtype == tensor.tensor_type.name
        assert info.shape == tuple(int(size) for size in reversed(tensor.shape))
        assert info.data_offsets == (tensor.data_offset, tensor.data_offset + tensor.n_bytes)
        data = Gguf().read(Directory(path.parent), info)
        if info.dtype == "BF16":
            data = data.view(np.uint8)
        np.testing.assert_array_equal(data, tensor.data)
    fields = {name: field for name, field in wanted.fields.items() if name[:5] != "GGUF."}
    assert found.metadata.keys() == fields.keys()
    for name, field in fields.items():
        value = found.metadata[name]
        if isinstance(value, LongArray):
            assert (value.type, len(value)) == (field.types[-1], len(field.data))
        else:
            assert value == field.contents()


@pytest.mark.parametrize("kind", gguf_files.STORED, ids=lambda kind: kind.name)
def test_reads_what_gguf_reads(tmp_path: Path, kind: Any) -> None:
    gguf_files.build(tmp_path, kind.name, layers=1)
    assert_same_as_gguf_reads(tmp_path / "model.gguf")


def test_reads_the_real_file_as_gguf_does() -> None:
    assert_same_as_gguf_reads(gguf_files.real_file())


def test_reads_every_kind_of_value(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    values = {
        "uint8": 200, "int8": -3, "uint16": 60_000, "int16": -300, "uint32": 4_000_000_000,
        "int32": -70_000, "uint64": 2**63, "int64": -(2**40), "float32": 0.5, "float64": 0.1,
        "bool": True, "string": "näive", "array": [1, 2, 3],
    }  # fmt: skip
    for kind, value in values.items():
        getattr(writer, f"add_{kind}")(f"a.{kind}", value)
    writer.add_array("a.strings", ["x", "yy"])
    writer.add_array("a.many", list(range(5000)))
    writer.add_custom_alignment(64)
    writer.add_tensor("a", np.ones((3, 5), np.float32))
    writer.add_tensor("b", np.ones((2,), np.int16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert_same_as_gguf_reads(tmp_path / "model.gguf")
    assert read(tmp_path / "model.gguf").metadata["a.many"] == LongArray(5, 5000)


def test_a_header_may_be_longer_than_what_is_read_at_once(tmp_path: Path) -> None:
    tokens = [f"{number:0500}" for number in range(6000)]
    gguf_files.build(tmp_path, layers=1, metadata={"tokenizer.ggml.tokens": tokens})
    assert_same_as_gguf_reads(tmp_path / "model.gguf")


def test_reads_version_2(tmp_path: Path) -> None:
    found = written(tmp_path, padded(header([entry("a", (4,))], version=2), 16))
    assert found.problems == ()
    assert found.tensors[0].shape == (4,)


ONE = [entry("a", (8,))]
ALIGNMENT = "general.alignment"
UNREADABLE = {
    "begins with b'GGML'": header(magic=b"GGML"),
    "is GGUF version 1;": header(version=1),
    "is GGUF version 4;": header(version=4),
    "is big-endian": header(version=3 << 24),
    "tensors; at most": header(counts=(2**60, 0)),
    "keys; at most": header(counts=(0, 2**60)),
    "bytes in a key": header(keys=[struct.pack("<Q", 2**40)], counts=(0, 1)),
    "bytes in a string": header(keys=[key_value("a", 8, struct.pack("<Q", 2**60))]),
    "the key 'a' twice": header(keys=[key_value("a", 0, b"\1"), key_value("a", 0, b"\2")]),
    "a key that is not UTF-8": header(keys=[text(b"\xff") + bytes(8)]),
    "a value of type 13": header(keys=[key_value("a", 13, b"")]),
    "an array of values of type 9": header(keys=[key_value("a", 9, struct.pack("<IQ", 9, 1))]),
    "strings in arrays": header(keys=[key_value("a", 9, struct.pack("<IQ", 8, 2**60))]),
    "claims a header of more": header(keys=[key_value("a", 9, struct.pack("<IQ", 4, 2**60))]),
    "bytes in a tensor's name": header([entry("a" * 200, (8,))]),
    "dimensions of 'a'": header([text("a") + struct.pack("<I", 2**31)]),
    "gives 'a' the dimensions (0,)": header([entry("a", (0,))]),
    f"gives 'a' the dimensions ({2**63}, 2)": header([entry("a", (2**63, 2))]),
    "names tensor a twice": padded(header([entry("a", (8,)), entry("a", (8,))]), 64),
    "has alignment 0": header(ONE, [key_value(ALIGNMENT, 4, struct.pack("<I", 0))]),
    "has alignment 48": header(ONE, [key_value(ALIGNMENT, 4, struct.pack("<I", 48))]),
    "has alignment '32'": header(ONE, [key_value(ALIGNMENT, 8, text("32"))]),
}


@pytest.mark.parametrize(("message", "content"), UNREADABLE.items(), ids=UNREADABLE)
def test_names_what_is_wrong_with_a_header(tmp_path: Path, message: str, content: bytes) -> None:
    problems = written(tmp_path, content).problems
    assert {problem.rule for problem in problems} == {"header-unreadable"}
    assert message in problems[0].message


@pytest.mark.parametrize(
    "content",
    [b"", b"GGU", header(ONE)[:-1], padded(header(ONE), 31), header(counts=(1, 0))],
    ids=["empty", "magic", "header", "data", "count"],
)
def test_a_file_that_ends_early_is_truncated(tmp_path: Path, content: bytes) -> None:
    (problem,) = written(tmp_path, content).problems
    assert problem.rule == "shard-truncated"
    assert f"{len(content):,} bytes where" in problem.message


def test_recognises_a_git_lfs_pointer(tmp_path: Path) -> None:
    (problem,) = written(tmp_path, b"version https://git-lfs.github.com/spec/v1\n").problems
    assert problem.rule == "lfs-pointer"


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, 96), (64, 96), (33, 96)],
    ids=["overlap", "gap", "misaligned"],
)
def test_tensors_follow_one_another(tmp_path: Path, offset: int, size: int) -> None:
    entries = [entry("a", (8,)), entry("b", (8,), offset=offset)]
    (problem,) = written(tmp_path, padded(header(entries), size)).problems
    assert (problem.rule, problem.tensor) == ("tensor-misplaced", "b")


def test_a_type_unknown_to_ggml_keeps_the_bytes_up_to_the_next_tensor(tmp_path: Path) -> None:
    entries = [entry("a", (256,), 139), entry("b", (8,), offset=160), entry("c", (8,), 999, 192)]
    found = written(tmp_path, padded(header(entries), 250))
    assert [info.dtype for info in found.tensors] == ["IQ4_K", "F32", "type 999"]
    assert [info.nbytes for info in found.tensors] == [160, 32, 58]
    assert Gguf().read(Directory(tmp_path), found.tensors[0]).shape == (160,)


def test_a_file_that_shrinks_after_opening_is_refused(tmp_path: Path) -> None:
    found = written(tmp_path, padded(header(ONE), 32))
    (tmp_path / "model.gguf").write_bytes(header(ONE))
    with pytest.raises(CheckpointError, match="ends before tensor a"):
        Gguf().read(Directory(tmp_path), found.tensors[0])


class Huge:
    """A store whose only file has any size; every byte after the given ones is zero."""

    names = ("model.gguf",)

    def __init__(self, content: bytes, size: int = 1 << 50) -> None:
        self.content, self.bytes, self.read_bytes = content, size, 0

    def refusal(self, name: str) -> None:
        return None

    def size(self, name: str) -> int:
        return self.bytes

    def read(self, name: str, begin: int = 0, end: int | None = None) -> memoryview:
        last = min(self.bytes if end is None else end, self.bytes)
        self.read_bytes += last - begin
        return memoryview(self.content[begin:last].ljust(last - begin, b"\0"))

    def plan(self, name: str, ranges: object) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    "content",
    [
        header(counts=(1 << 18, 1 << 16)),
        header(keys=[key_value("a", 9, struct.pack("<IQ", 8, ELEMENTS_MAX))]),
        header(keys=[key_value("a", 9, struct.pack("<IQ", 8, 256))] * 2),
        header(keys=[key_value("a", 9, struct.pack("<IQ", 0, HEADER_MAX_BYTES - 100))]),
        header(keys=[key_value("a", 8, struct.pack("<Q", 16 * 2**20))]),
    ],
    ids=["counts", "strings", "twice", "numbers", "text"],
)
def test_absurd_claims_cost_little(content: bytes) -> None:
    store = Huge(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    Gguf().read_header(store, "model.gguf")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 2**10
    assert store.read_bytes < 2 * HEADER_MAX_BYTES


SOUND = padded(
    header(
        [entry("a.weight", (256, 2), 12), entry("b.weight", (8,), offset=288)],
        [
            key_value("general.architecture", 8, text("llama")),
            key_value("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2) + text("x") * 2),
            key_value("general.alignment", 4, struct.pack("<I", 32)),
        ],
    ),
    320,
)


def survives(path: Path, content: bytes) -> None:
    """Whatever the bytes: they are read or refused, and what was read lies in the file."""
    found = written(path, content)
    assert found.problems or math.prod(info.nbytes for info in found.tensors) >= 0
    truncated = any(problem.rule == "shard-truncated" for problem in found.problems)
    for info in found.tensors:
        if not truncated:
            assert Gguf().read(Directory(path), info).nbytes == info.nbytes


PROPERTY = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@PROPERTY
@given(st.binary(max_size=400))
def test_any_bytes_after_the_magic_are_survived(tmp_path: Path, content: bytes) -> None:
    survives(tmp_path, b"GGUF\3\0\0\0" + content)


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), max_size=6))
def test_a_sound_file_with_other_bytes_is_survived(
    tmp_path: Path, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(SOUND)
    for position, value in changes:
        content[position] = value
    survives(tmp_path, bytes(content))


@PROPERTY
@given(st.integers(0, len(SOUND)))
def test_a_file_cut_anywhere_is_survived(tmp_path: Path, end: int) -> None:
    survives(tmp_path, SOUND[:end])


def test_names_are_grouped_into_models() -> None:
    names = [
        "b-Q4_K_M.gguf", "a-00002-of-00003.gguf", "a-00001-of-00003.gguf", "mmproj-F16.gguf",
        "c-00007-of-00002.gguf", "README.md",
    ]  # fmt: skip
    assert find_models(names, CONTAINERS) == (
        ("b-Q4_K_M.gguf",),
        ("a-00001-of-00003.gguf", "a-00002-of-00003.gguf", "a-00003-of-00003.gguf"),
        ("mmproj-F16.gguf",),
        ("c-00001-of-00002.gguf", "c-00002-of-00002.gguf", "c-00007-of-00002.gguf"),
    )
    assert find_models(["model.gguf"], CONTAINERS) == ((),)
    assert find_models(names[1:3], CONTAINERS) == ((),)
    assert find_models(["model.safetensors", "a.gguf"], CONTAINERS) == ((), ("a.gguf",))


def test_a_directory_of_several_models_is_not_taken_for_one(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        gguf_files.build(tmp_path, name=name, layers=1)
    with pytest.raises(CheckpointError, match=r"holds 2 models: a\.gguf, b\.gguf"):
        open_checkpoint(tmp_path, CONTAINERS)
    opened = open_checkpoint(tmp_path, CONTAINERS, only=("b.gguf",))
    assert (opened.complete, opened.weight_files) == (True, ("b.gguf",))


def test_one_file_of_a_series_is_not_the_whole(tmp_path: Path) -> None:
    gguf_files.build(tmp_path, layers=2, tensors_per_file=8)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 3
    assert not open_checkpoint(tmp_path, CONTAINERS, only=names[:1]).complete
    whole = open_checkpoint(tmp_path, CONTAINERS)
    assert (whole.complete, whole.problems, len(whole.tensors)) == (True, (), 20)


HALVES = [kind for kind, field in ggml.SCALE_FIELDS.items() if field.kind in {"f2", "iq1_m"}]


@pytest.mark.parametrize("kind", [kind for kind in HALVES if kind != "Q1_0"])
def test_finds_the_blocks_that_gguf_decodes_to_no_number(kind: str) -> None:
    """One block for each place at which two bytes may be 0x7FFF; and one with all bits set."""
    block = ggml.block(kind)
    assert block is not None
    places = block.nbytes // 2
    shape = (places + 1, block.weights)
    blocks = gguf_files.weights(kind, shape).reshape(-1, block.nbytes) & 0x3F
    blocks.view("<u2")[range(places), range(places)] = 0x7FFF
    blocks[places] = 0xFF
    with np.errstate(all="ignore"):
        values = gguf.quants.dequantize(blocks, gguf_files.Kind[kind])
    lost = ~np.isfinite(values).all(axis=1)
    assert lost.any()
    assert ggml.scales_not_finite(blocks, kind).tolist() == lost.tolist()


@pytest.mark.parametrize(
    ("kind", "place", "code"),
    [("MXFP4", 0, 0xFF), ("NVFP4", 0, 0x7F), ("NVFP4", 3, 0xFF), ("Q1_0", 1, 0x7C)],
)
def test_finds_codes_that_are_no_number(kind: str, place: int, code: int) -> None:
    block = ggml.block(kind)
    assert block is not None
    blocks = np.full((3, block.nbytes), 0x3F, np.uint8)
    assert not ggml.scales_not_finite(blocks, kind).any()
    blocks[1, place] = code
    assert ggml.scales_not_finite(blocks, kind).tolist() == [False, True, False]
