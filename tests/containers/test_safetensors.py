"""The header parser against what the library writes, and against any bytes at all."""

import json
from pathlib import Path

import checkpoints
import numpy as np
import pytest
import safetensors.numpy
from checkpoints import write_raw, write_safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gate.checkpoint import DTYPE_BITS, Directory, Header, TensorInfo
from gate.containers.safetensors import NAME_MAX, Safetensors
from gate.errors import CheckpointError

CONTAINER = Safetensors()
RULES = {"header-unreadable", "shard-truncated", "lfs-pointer"}
quick = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def header(path: Path) -> Header:
    return CONTAINER.read_header(Directory(path.parent), path.name)


def defects(path: Path) -> set[str]:
    found = header(path).problems
    assert all(problem.file == path.name and problem.fix for problem in found)
    return {problem.rule for problem in found}


def entry(dtype: object = "U8", shape: object = (4,), offsets: object = (0, 4)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def test_reads_what_the_library_writes(file: Path) -> None:
    tensors = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.arange(5, dtype=np.int8),
        "scalar": np.asarray(2.5, np.float16),
        "empty": np.empty((0, 4), np.int64),
    }
    safetensors.numpy.save_file(tensors, file, metadata={"format": "pt"})
    found = header(file)
    assert found.problems == ()
    assert found.metadata == {"format": "pt"}
    assert {info.name for info in found.tensors} == tensors.keys()
    for info in found.tensors:
        read = CONTAINER.read(Directory(file.parent), info)
        assert read.dtype == tensors[info.name].dtype
        assert np.array_equal(read, tensors[info.name])


def test_what_the_builder_writes_is_read_by_the_library(file: Path) -> None:
    write_safetensors(file, {"x": checkpoints.f32((2, 2), 3.0), "y": ("U8", (3,), b"\1\2\3")})
    loaded = safetensors.numpy.load_file(file)
    assert loaded["x"].tolist() == [[3.0, 3.0], [3.0, 3.0]]
    assert loaded["y"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("dtype", "shape", "read"),
    [
        ("BF16", (2, 2), (np.uint16, (2, 2))),
        ("F8_E4M3", (3,), (np.uint8, (3,))),
        ("F4", (2, 4), (np.uint8, (2, 2))),
        ("F6_E2M3", (2, 4), (np.uint8, (2, 3))),
    ],
)
def test_codes_that_numpy_does_not_know(file: Path, dtype: str, shape: tuple, read: tuple) -> None:
    size = int(np.prod(shape)) * DTYPE_BITS[dtype] // 8
    write_safetensors(file, {"pad": ("U8", (1,), b"\0"), "x": (dtype, shape, bytes(range(size)))})
    (_, info) = header(file).tensors
    raw = CONTAINER.read(Directory(file.parent), info)
    assert (raw.dtype, raw.shape) == read
    assert raw.tobytes() == bytes(range(size))


@pytest.mark.parametrize("length", [2**60, 2**63, 2**64 - 1, 100 * 2**20 + 1])
def test_absurd_lengths(file: Path, length: int) -> None:
    write_raw(file, b"{}", length=length)
    assert defects(file) == {"header-unreadable"}


@pytest.mark.parametrize("size", [0, 1, 7])
def test_no_room_for_a_length(file: Path, size: int) -> None:
    file.write_bytes(b"\0" * size)
    assert defects(file) == {"shard-truncated"}


def test_a_header_longer_than_the_file(file: Path) -> None:
    write_raw(file, b"{}", length=3)
    assert defects(file) == {"shard-truncated"}


@pytest.mark.parametrize("change", [b"", b"\0"], ids=["short", "long"])
def test_data_of_another_length(file: Path, change: bytes) -> None:
    write_raw(file, json.dumps({"x": entry()}).encode(), b"\0" * 3 + 2 * change)
    assert defects(file) == {"shard-truncated"}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b"[" * 100_000,
        b'{"x": 1}',
        b'{"x": {"dtype": "U8", "shape": [9' + b"9" * 5000 + b'], "data_offsets": [0, 4]}}',
        b'{"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, "x": 1}',
        b'{"x": {"dtype": "U8", "dtype": "I8", "shape": [4], "data_offsets": [0, 4]}}',
        b'{"\\ud800": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}',
    ],
    ids=range(12),
)
def test_what_is_no_header(file: Path, raw: bytes) -> None:
    write_raw(file, raw, b"\0" * 4)
    assert defects(file) == {"header-unreadable"}


@pytest.mark.parametrize(
    "bad",
    [
        {},
        entry(dtype="F8"),
        entry(dtype=["U8"]),
        entry(dtype=None),
        entry(shape=None),
        entry(shape="4"),
        entry(shape={"0": 4}),
        entry(shape=[-4]),
        entry(shape=[-2, -2]),
        entry(shape=[4.0]),
        entry(shape=[True, 4]),
        entry(shape=[2**62]),
        entry(shape=[2**61] * 64),
        entry(shape=[1] * 100_000),
        entry(shape=[3]),
        entry(offsets=[0]),
        entry(offsets=[0, 4, 4]),
        entry(offsets=[4, 0]),
        entry(offsets=[-4, 0]),
        entry(offsets=[0, 2**70]),
        entry(offsets=[0, "4"]),
        entry(offsets=[1, 5]),
        entry(dtype="F4", shape=[8, 1]),
    ],
    ids=range(23),
)
def test_entries_that_contradict_themselves(file: Path, bad: dict) -> None:
    write_raw(file, json.dumps({"x": bad}).encode(), b"\0" * 4)
    assert defects(file) == {"header-unreadable"}


@pytest.mark.parametrize("second", [(0, 4), (2, 6), (5, 9)], ids=["same", "overlap", "gap"])
def test_ranges_that_overlap_or_leave_gaps(file: Path, second: tuple[int, int]) -> None:
    tensors = {"x": entry(), "y": entry(offsets=second)}
    write_raw(file, json.dumps(tensors).encode(), b"\0" * second[1])
    assert defects(file) == {"header-unreadable"}


def test_overlong_names(file: Path) -> None:
    write_raw(file, json.dumps({"a." * NAME_MAX: entry()}).encode(), b"\0" * 4)
    (problem,) = header(file).problems
    assert len(problem.message) < 2 * NAME_MAX


def test_a_tensor_beyond_the_end_is_not_read(file: Path) -> None:
    write_safetensors(file, {"x": ("U8", (4,), b"\0" * 4)})
    with pytest.raises(CheckpointError, match="ends before"):
        end = file.stat().st_size
        beyond = TensorInfo("x", "U8", (5,), (end - 4, end + 1), file.name)
        CONTAINER.read(Directory(file.parent), beyond)


def judged(path: Path) -> None:
    """Whatever it holds, the header is read without an exception, and what it lists can be read."""
    found = header(path)
    assert {problem.rule for problem in found.problems} <= RULES
    if found.problems:
        return
    covered = sorted(info.data_offsets for info in found.tensors)
    if covered:
        assert sum(end - begin for begin, end in covered) == covered[-1][1] - covered[0][0]
        assert covered[-1][1] == path.stat().st_size
    for info in found.tensors:
        assert CONTAINER.read(Directory(path.parent), info).nbytes == info.nbytes


@quick
@given(st.binary(max_size=200))
def test_any_bytes(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(raw)
    judged(tmp_path / "x.safetensors")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([*DTYPE_BITS, "dtype", "shape", "data_offsets", "__metadata__"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)
SIZES = st.lists(st.integers(0, 4) | st.integers(-(2**65), 2**65) | JSON, max_size=4)
ENTRY = st.fixed_dictionaries(
    {"dtype": st.sampled_from(list(DTYPE_BITS)) | JSON, "shape": SIZES, "data_offsets": SIZES}
)


@quick
@given(st.dictionaries(st.text(max_size=5), ENTRY | JSON, max_size=4), st.binary(max_size=64))
def test_any_json(tmp_path: Path, value: dict, data: bytes) -> None:
    write_raw(tmp_path / "x.safetensors", json.dumps(value).encode(), data)
    judged(tmp_path / "x.safetensors")


@quick
@given(st.data())
def test_one_changed_byte(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, checkpoints.linear("m", "NVFP4", (4, 32)))
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    judged(path)
