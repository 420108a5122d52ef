"""Whether a runtime computes what the files say: sound pairs agree, broken ones are told of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import native_models
import pytest
from tiny_models import opened

from gate import agreement
from gate.backends.hf import Hf
from gate.backends.native import Native
from gate.errors import NonFiniteLogitsError
from gate.harness import Harness
from gate.readings import Readings
from gate.records import Agreement, Concern
from gate.settings import Settings

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

TEXT = {"perplexity": {"file": "text.txt", "window": 32}}
TASK = {"task": "ifeval", "documents": "documents.jsonl"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, export: Callable[[str], Path]) -> Path:
    """A directory with one model in NF4 and in W8A8, and what is read."""
    root = tmp_path_factory.mktemp("agreeing")
    original = native_models.plain(root / "plain", export("bf16"))
    # A random model that is sure of nothing would agree with any other.
    native_models.sharpen(original)
    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    native_models.bitsandbytes(root / "nf4", original, **four)
    native_models.compressed_tensors(root / "w8a8", original, "W8A8")
    (root / "text.txt").write_text(" ".join(f"Line {n} of a text to be read." for n in range(40)))
    row = '{"key": 1, "prompt": "Write two words.", "instruction_id_list": [], "kwargs": []}'
    (root / "documents.jsonl").write_text(row)
    return root


def compared(
    place: Path, kind: str, spoil: Callable[[Any], None] = lambda model: None, metric: Any = TEXT
) -> tuple[Agreement | None, list[Concern], list[str]]:
    """What is found of one checkpoint, whose runtime is spoiled once it is loaded."""
    asked = Settings(backend="native", metrics=[metric])
    checkpoint, form = opened(place / kind)
    harness = Harness.of(asked, checkpoint, place)
    backend = Native(checkpoint, form, harness, asked)
    readings = Readings(asked, checkpoint, place, None)
    known = agreement.decoded(backend, readings)
    with backend:
        spoil(backend.model)
        found = agreement.measure(backend, known)
    return found, list(agreement.concerns(found, backend.kernel)), readings.unread


@pytest.mark.parametrize("metric", [TEXT, TASK])
def test_a_sound_runtime_agrees_with_the_decoded_weights(
    metric: Any, place: Path, sentence_data: Path
) -> None:
    found, concerns, unread = compared(place, "nf4", metric=metric)
    assert found is not None and found.kl is not None and found.same_top is not None
    assert found.kl < agreement.MOST_KL == found.limit and found.same_top > 0.9
    assert found.reference == "weights decoded to bfloat16, inputs not quantized"
    assert (concerns, unread) == ([], [])
    assert metric is TASK or found.tokens == 62


def test_where_inputs_are_rounded_the_limit_is_that_of_rounding(place: Path) -> None:
    found, concerns, _ = compared(place, "w8a8")
    assert found is not None and found.kl is not None
    assert found.kl <= found.limit >= agreement.MOST_KL_ROUNDED
    assert found.reference.endswith("inputs rounded to INT8 dynamic") and concerns == []


def swap(model: Any) -> None:
    """A kernel that reads the nibbles of a byte in the wrong order."""
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False
            module.weight.data = (module.weight.data >> 4) | (module.weight.data << 4)


def test_a_runtime_that_reads_the_file_otherwise_is_told_of(place: Path) -> None:
    found, (concern,), _ = compared(place, "nf4", swap)
    assert found is not None and found.kl is not None and found.kl > found.limit
    assert concern.kind == "runtime-disagrees"
    assert f"KL {found.kl:.2g} nats, beyond the 0.02 of sound ones" in concern.message
    assert "either the file or the runtime is broken (NF4 computed by bits" in concern.message


def test_numbers_that_only_the_runtime_finds_are_told_of(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(*_: Any, **__: Any) -> Any:
        raise NonFiniteLogitsError("the model computed logits that are NaN", "Look for scales.")

    original = Hf.read
    with monkeypatch.context() as patch:
        patch.setattr(
            Hf,
            "read",
            lambda self, *a, **k: (
                original(self, *a, **k) if isinstance(self, Native) else overflow()
            ),
        )
        found, (concern,), _ = compared(place, "nf4")
    assert found is not None and found.kl is None
    assert concern.message.startswith("the decoded weights compute NaN or infinity")


def test_not_a_number_is_no_agreement() -> None:
    found = Agreement(kl=float("nan"), same_top=1.0, limit=0.02, tokens=1, reference="")
    assert len(list(agreement.concerns(found, ""))) == 1


def test_what_cannot_be_decoded_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gate.formats.bitsandbytes import BitsAndBytes

    monkeypatch.setattr(BitsAndBytes, "algorithms", lambda self, checkpoint: {"NF4": False})
    found, concerns, unread = compared(place, "nf4")
    assert (found, concerns) == (None, [])
    assert "agreement with the decoded weights" in unread[0] and "no decoder" in unread[0]


def test_an_unquantized_model_has_nothing_to_agree_with(place: Path) -> None:
    assert compared(place, "plain") == (None, [], [])
