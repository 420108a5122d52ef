"""The divergence from the reference, and its gradient, beside what torch works out."""

import numpy as np
import pytest

from gate.diagnosis import targets
from gate.diagnosis.targets import Targets

WINDOWS, WINDOW, VOCABULARY = 3, 5, 40


def drawn(seed: int) -> "torch.Tensor":  # type: ignore[name-defined]  # noqa: F821
    import torch

    return torch.randn(
        WINDOWS, WINDOW, VOCABULARY, generator=torch.Generator().manual_seed(seed)
    ).mul_(3)


IDS = np.random.default_rng(0).integers(0, VOCABULARY, (WINDOWS, WINDOW))


@pytest.mark.parametrize("chunk", [1 << 24, 2 * VOCABULARY])
@pytest.mark.parametrize("top", [5, 1000])
def test_it_is_the_divergence_over_the_kept_tokens_and_the_rest(
    top: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(targets, "CHUNK_LOGITS", chunk)
    ours, theirs = drawn(1), drawn(2)
    found = Targets.of(IDS, ours, top).distance(theirs)
    p, q = (x[:, :-1].double().softmax(-1) for x in (ours, theirs))
    kept = p.topk(min(top, VOCABULARY - 1)).indices
    joined = [
        torch.cat([x.gather(-1, kept), 1 - x.gather(-1, kept).sum(-1, keepdim=True)], -1)
        for x in (p, q)
    ]
    expected = (joined[0] * (joined[0] / joined[1]).log()).sum(-1).mean(1)
    assert found.divergence == pytest.approx(expected.numpy(), rel=1e-4)
    next_ids = torch.from_numpy(IDS[:, 1:, None])
    nll = -q.gather(-1, next_ids).log().sum((1, 2))
    assert found.nll == pytest.approx(nll.numpy(), rel=1e-5)


def test_a_model_is_at_no_distance_from_itself() -> None:
    logits = drawn(3)
    logits[..., 7] = -float("inf")
    found = Targets.of(IDS[:, :1].repeat(WINDOW, 1) * 0, logits, 8)
    distance = found.distance(logits)
    assert distance.divergence == pytest.approx(0, abs=1e-6)
    assert distance.nll == pytest.approx(found.nll)
    assert found.gradient(logits).abs().max() < 1e-5


def test_what_a_model_makes_impossible_costs_much_and_not_everything() -> None:
    found, logits = Targets.of(IDS, drawn(6), 8), drawn(6)
    logits[0, 0, int(found.ids[0, 0, 0])] = -float("inf")
    divergence = found.distance(logits).divergence
    assert 100 < divergence[0] < 1e4 and divergence[1:].max() < 1e-5


def test_the_gradient_is_that_of_the_divergence() -> None:
    found, logits = Targets.of(IDS, drawn(4), 6), drawn(5)
    gradient = found.gradient(logits)
    assert not gradient[:, -1].any()
    step = 1e-2
    for place in [(0, 0, 3), (1, 2, 17), (2, 3, 30), *map(tuple, best(found))]:
        moved = [logits.clone(), logits.clone()]
        moved[0][place] += step
        moved[1][place] -= step
        ends = [found.distance(x).divergence.sum() * (WINDOW - 1) for x in moved]
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(gradient[place]), abs=2e-4)


def best(found: Targets) -> list[tuple[int, int, int]]:
    """Where the reference's most likely tokens are."""
    return [(w, p, int(found.ids[w, p, 0])) for w, p in ((0, 1), (2, 2))]
