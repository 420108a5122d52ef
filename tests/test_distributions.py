"""Stored distributions: their divergence, what 16 bits do to it, and files that are none."""

import contextlib
import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gate import drift
from gate.backends import hf_reading
from gate.drift import divergence, store
from gate.errors import BackendError, BaselineError, NonFiniteLogitsError
from gate.records import Distributions

VOCABULARY = 40
WINDOWS = np.arange(24, dtype=np.int64).reshape(3, 8) * 7 % VOCABULARY


def read(logits: np.ndarray, top: int, at: np.ndarray | None = None) -> drift.Reading:
    """What the reference backend makes of logits."""
    torch = pytest.importorskip("torch")
    return hf_reading.read(torch.from_numpy(logits), WINDOWS, top, at)


def random_logits(seed: int, spread: float = 3.0, vocabulary: int = VOCABULARY) -> np.ndarray:
    shape = (*WINDOWS.shape, vocabulary)
    return (np.random.default_rng(seed).normal(size=shape) * spread).astype(np.float32)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def exact_kl(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Over the whole vocabulary, in float64; shape (tokens,)."""
    p, q = log_softmax(ours[:, :-1]), log_softmax(theirs[:, :-1])
    return (np.exp(p) * (p - q)).sum(axis=-1).ravel()


def stored_kl(ours: np.ndarray, theirs: np.ndarray, k: int) -> np.ndarray:
    """What the gate would see: the baseline's top k, the candidate read at them."""
    top = drift.TopTokens.of(drift.Sequences.whole(WINDOWS), read(ours, k))
    reading = read(theirs, 1, top.at)
    return drift.kl_divergence(top, reading.at_logprobs[top.sequences.mask])


logits_of_two = st.tuples(
    *[
        arrays.arrays(
            np.float32, (*WINDOWS.shape, VOCABULARY), elements=st.floats(-30, 30, width=32)
        )
    ]
    * 2
)


@pytest.mark.model
@settings(max_examples=30, deadline=None)
@given(logits_of_two, st.integers(1, VOCABULARY))
def test_what_is_stored_tells_a_lower_bound(two: tuple[np.ndarray, np.ndarray], k: int) -> None:
    """Never above the divergence over the whole vocabulary but by what 16 bits round."""
    found, exact = stored_kl(*two, k), exact_kl(*two)
    assert (found >= 0).all()
    top = read(two[0], k).top_ids.reshape(-1, k)
    theirs = log_softmax(two[1][:, :-1]).reshape(len(top), -1)
    rest = 1 - np.exp(np.take_along_axis(theirs, top, axis=1)).sum(axis=1)
    # A rest that is next to nothing drowns in float32's own error of about a millionth.
    told = (rest > 1e-4) | (k == VOCABULARY)
    assert (found <= exact * 1.01 + 0.03)[told].all()


@pytest.mark.model
@pytest.mark.parametrize("seed", range(3))
def test_the_whole_vocabulary_gives_the_divergence_itself(seed: int) -> None:
    ours = random_logits(seed)
    theirs = ours + random_logits(seed + 9, 0.3)
    exact = exact_kl(ours, theirs)
    assert stored_kl(ours, theirs, VOCABULARY) == pytest.approx(exact, rel=0.01, abs=1e-4)
    assert stored_kl(ours, theirs, 999) == pytest.approx(exact, rel=0.01, abs=1e-4)
    partly = [stored_kl(ours, theirs, k).mean() for k in (1, 4, 16, VOCABULARY)]
    assert partly == sorted(partly)


@pytest.mark.model
@pytest.mark.parametrize("spread", [0.0, 0.01, 3.0, 60.0])
def test_a_model_has_no_divergence_from_itself(spread: float) -> None:
    """Whether its distributions are flat, peaked, or full of ties."""
    logits = random_logits(1, spread)
    top = drift.TopTokens.of(drift.Sequences.whole(WINDOWS), read(logits, 8))
    record = Distributions(name="t", source="text", k=8, tokens=21, digest="0" * 64)
    moved = drift.measure(record, top, read(logits, 1, top.at))
    assert moved.kl < 1e-6 and moved.kl_max < 1e-6
    assert (moved.same_top, moved.losses, moved.gains) == (1.0, 0, 0)


@pytest.mark.model
def test_of_tokens_that_tie_the_lowest_comes_first_however_many_are_asked_for() -> None:
    """As greedy decoding does; ties are common in bfloat16."""
    logits = np.zeros((*WINDOWS.shape, VOCABULARY), np.float32)
    logits[..., [31, 5, 17]] = 4.0
    for top in (1, 2, 8):
        found = read(logits, top).top_ids
        assert (found[..., 0] == 5).all()
        assert len(set(found[0, 0].tolist())) == top


@pytest.mark.model
def test_windows_larger_than_a_chunk_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, at = random_logits(4), np.arange(21 * 2, dtype=np.int32).reshape(3, 7, 2) % VOCABULARY
    whole = read(logits, 5, at)
    monkeypatch.setattr(hf_reading, "CHUNK_LOGITS", 2 * VOCABULARY)
    for part, expected in zip(read(logits, 5, at), whole, strict=True):
        assert part == pytest.approx(expected, abs=1e-6)


@pytest.mark.model
def test_tokens_that_the_model_does_not_know_are_refused() -> None:
    at = np.full((3, 7, 1), VOCABULARY, np.int32)
    with pytest.raises(BackendError, match="beyond this model's 40"):
        read(random_logits(0), 1, at)


@pytest.mark.model
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused(value: float) -> None:
    logits = random_logits(0)
    logits[2, 3, 4] = value
    with pytest.raises(NonFiniteLogitsError):
        read(logits, 1)
    masked = random_logits(0)
    masked[..., 4] = -np.inf
    assert np.isfinite(read(masked, 8).top_logprobs).all()


@pytest.mark.model
def test_losses_gains_and_flips_are_of_the_next_token() -> None:
    """Window 0: the baseline knows every next token; window 1: the candidate does; 2: neither."""
    ours, theirs = np.zeros((2, *WINDOWS.shape, VOCABULARY), np.float32)
    for position in range(7):
        ours[0, position, WINDOWS[0, position + 1]] = 5
        theirs[0, position, (WINDOWS[0, position + 1] + 1) % VOCABULARY] = 5
        theirs[1, position, WINDOWS[1, position + 1]] = 5
    theirs[2] = ours[2]
    top = drift.TopTokens.of(drift.Sequences.whole(WINDOWS), read(ours, 4))
    record = Distributions(name="t", source="text", k=4, tokens=21, digest="0" * 64)
    moved = drift.measure(record, top, read(theirs, 1, top.at))
    zero = sum(WINDOWS[1, 1:] == 0)  # what a flat distribution holds for most likely
    assert (moved.losses, moved.gains) == (7, 7 - zero)
    assert moved.same_top == pytest.approx((7 + zero) / 21)
    assert moved.kl_stderr is not None and moved.kl_stderr > 0


def some_top(k: int = 4, vocabulary: int = VOCABULARY) -> drift.TopTokens:
    """Distributions over three sequences of different lengths."""
    rows = [np.arange(6, dtype=np.int64), np.arange(3, dtype=np.int64), np.arange(9) + 20]
    sequences = drift.Sequences.of(rows, [1, 2, 5])
    rng = np.random.default_rng(0)
    tokens = int(sequences.counts.sum())
    probabilities = rng.dirichlet(np.ones(k + 1), size=tokens)
    ids = rng.integers(0, vocabulary, (tokens, k))
    logprobs = np.log(probabilities).astype(np.float16)
    return drift.TopTokens(sequences, ids, logprobs[:, :k], logprobs[:, k])


def test_what_is_stored_is_read_back(tmp_path: Path) -> None:
    top = some_top()
    record = store.keep(tmp_path, "domain.txt", "answers", top)
    file = tmp_path / f"{record.digest}.npz"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == record.digest
    back = store.load(tmp_path, record)
    for ours, theirs in zip(back[1:], top[1:], strict=True):
        assert (ours == theirs).all()
    for ours, theirs in zip(back.sequences, top.sequences, strict=True):
        assert (ours == theirs).all()
    assert store.keep(tmp_path, "domain.txt", "answers", top) == record, "the same bytes again"


@pytest.mark.parametrize("vocabulary", [49_152, 151_936])
def test_a_token_takes_at_most_400_bytes(
    vocabulary: int, record_property: Callable[[str, object], None]
) -> None:
    """Uncompressed, with 64 tokens, the token itself and the window's bounds."""
    windows = np.full((4, 512), vocabulary - 1, np.int64)
    sequences = drift.Sequences.whole(windows)
    tokens = int(sequences.counts.sum())
    ids = np.full((tokens, 64), vocabulary - 1)
    half = np.zeros((tokens, 64), np.float16)
    held = store.arrays(drift.TopTokens(sequences, ids, half, half[:, 0]))
    figure = sum(array.nbytes for array in held.values()) / tokens
    record_property("bytes a token", figure)
    assert figure <= 400


def test_some_sequences_are_taken_in_the_order_asked_for() -> None:
    top = some_top()
    taken = top.take([2, 0])
    assert taken.sequences.length.tolist() == [9, 6]
    assert (taken.ids == np.concatenate([top.ids[6:], top.ids[:5]])).all()
    assert taken.at.shape == (2, 8, 4)
    assert (taken.at[taken.sequences.mask] == taken.ids).all()


@pytest.mark.parametrize(
    ("prompt", "answer", "first", "length"),
    [(10, 5, 10, 15), (600, 5, 507, 512), (10, 700, 1, 512), (0, 5, 1, 5)],
)
def test_the_last_tokens_of_a_prompt_and_its_answer_are_kept(
    prompt: int, answer: int, first: int, length: int
) -> None:
    pair = np.arange(prompt), np.arange(answer) + 1000
    empty = np.arange(3), np.arange(0)
    found = drift.answers.sequences([empty, pair])
    assert found is not None
    assert (found.first.tolist(), found.length.tolist()) == ([first], [length])
    assert found.ids[0, length - 1] == 1000 + answer - 1
    assert drift.answers.sequences([empty]) is None


def rewritten(directory: Path, change: Any, **fields: Any) -> Distributions:
    """A stored file whose arrays were changed, under the digest that it has now."""
    held = store.arrays(some_top())
    change(held)
    out = io.BytesIO()
    np.savez_compressed(out, **held)
    return kept(directory, out.getvalue(), **fields)


def kept(directory: Path, content: bytes, **fields: Any) -> Distributions:
    digest = hashlib.sha256(content).hexdigest()
    (directory / f"{digest}.npz").write_bytes(content)
    stated = {"name": "t", "source": "text", "k": 4, "tokens": 10, "digest": digest}
    return Distributions.model_validate(stated | fields)


HUGE = np.uint32(2**31)


@pytest.mark.parametrize(
    "change",
    [
        lambda held: held.update(logprobs=held["logprobs"].astype(np.float64)),
        lambda held: held.update(logprobs=held["logprobs"][:-1]),
        lambda held: held.update(top_ids=held["top_ids"].astype(np.int64)),
        lambda held: held.update(rest=np.full(10, np.nan, np.float16)),
        lambda held: held.update(length=np.array([HUGE] * 3)),
        lambda held: held.update(length=held["first"]),
        lambda held: held.update(first=held["first"] * 0),
        lambda held: held.update(token_ids=held["token_ids"][1:]),
        lambda held: held.update(extra=held["rest"]),
        lambda held: held.pop("rest"),
        lambda held: held.update(rest=np.array([None] * 10, dtype=object)),
        lambda held: held.update(top_ids=np.asfortranarray(held["top_ids"])),
    ],
)
def test_arrays_that_are_not_what_the_record_says_are_refused(change: Any, tmp_path: Path) -> None:
    record = rewritten(tmp_path, change)
    with pytest.raises(BaselineError, match=f"{record.digest}.npz"):
        store.load(tmp_path, record)


@pytest.mark.parametrize("fields", [{"k": 5}, {"tokens": 9}, {"tokens": 1 << 26}])
def test_a_record_of_another_size_is_refused(fields: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(BaselineError):
        store.load(tmp_path, rewritten(tmp_path, lambda held: None, **fields))


def test_a_header_that_promises_more_than_there_is_allocates_nothing(tmp_path: Path) -> None:
    """A terabyte of token ids, in a file of a few bytes."""
    header = io.BytesIO()
    shape = (1 << 40,)
    description = {"descr": "<u4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in store.ARRAYS:
            archive.writestr(f"{name}.npy", header.getvalue())
    with pytest.raises(BaselineError, match="length is cut off"):
        store.load(tmp_path, kept(tmp_path, out.getvalue()))


def test_missing_and_exchanged_files_are_named(tmp_path: Path) -> None:
    record = store.keep(tmp_path, "t", "text", some_top())
    file = tmp_path / f"{record.digest}.npz"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(BaselineError, match=f"{file.name} is not the file"):
        store.load(tmp_path, record)
    file.unlink()
    with pytest.raises(BaselineError, match=f"{file.name} of the baseline cannot be read"):
        store.load(tmp_path, record)
    with pytest.raises(ValueError, match="digest"):
        Distributions.model_validate(record.model_dump() | {"digest": "../../etc/passwd"})


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_are_taken_for_distributions(content: bytes) -> None:
    record = Distributions(name="t", source="text", k=4, tokens=10, digest="0" * 64)
    with pytest.raises(Exception) as caught:
        store._read(content, record)
    assert isinstance(caught.value, store.MALFORMED)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_archive_is_an_error_of_its_own(at: int, flip: int) -> None:
    """Whatever byte of a sound file is changed, it is read soundly or refused as malformed."""
    out = io.BytesIO()
    np.savez_compressed(out, **store.arrays(some_top()))
    content = bytearray(out.getvalue())
    content[at % len(content)] ^= flip
    record = Distributions(name="t", source="text", k=4, tokens=10, digest="0" * 64)
    with contextlib.suppress(*store.MALFORMED):
        store._read(bytes(content), record)


def test_one_window_has_no_standard_error() -> None:
    assert divergence._clustered(np.ones(5), np.array([5])) is None


def test_distributions_of_parts_are_those_of_the_whole() -> None:
    """Sequences of other lengths are filled up; in the order of the whole they are the same."""
    whole = some_top()
    rows = list(range(len(whole.sequences.ids)))
    parts = [whole.take(rows[1::2]), whole.take(rows[0::2])]
    joined = drift.TopTokens.joined(parts)
    back = sorted(rows, key=[*rows[1::2], *rows[0::2]].__getitem__)
    again = joined.take(back)
    for ours, theirs in zip(drift.store.arrays(again).values(), drift.store.arrays(whole).values(),
                            strict=True):  # fmt: skip
        assert (ours == theirs).all()
    narrow = drift.Sequences.of([np.arange(3)], [1])
    short = whole.take([0])._replace(sequences=narrow)
    assert drift.TopTokens.joined([whole, short]).sequences.ids.shape[0] == len(rows) + 1
