"""Weights laid out for a CPU's kernels: the same products, to the last bit."""

from typing import Any

import pytest
import tiny_models

from gate.backends import hf_linear

pytestmark = pytest.mark.model

ALL = 2**40


def logits(model: Any, rows: int) -> Any:
    import torch

    ids = torch.arange(rows * 9).reshape(rows, 9) * 5 % tiny_models.VOCABULARY
    with torch.inference_mode():
        return model(input_ids=ids).logits


def test_products_are_the_same_to_the_last_bit() -> None:
    model = tiny_models.llama()
    before = [logits(model, rows) for rows in (1, 7, 16)]
    assert hf_linear.pack(model, ALL) == 2 * 7 + 1
    assert [
        bool((logits(model, rows) == found).all())
        for rows, found in zip((1, 7, 16), before, strict=True)
    ] == [True] * 3
    assert model.lm_head.forward.func is hf_linear._product


def test_hooks_on_a_layer_still_see_its_input() -> None:
    model = tiny_models.llama()
    hf_linear.pack(model, ALL)
    layer = model.model.layers[0].mlp.down_proj
    layer.register_forward_pre_hook(lambda module, args: (args[0] * 0,))
    shapes = []
    layer.register_forward_hook(lambda module, args, out: shapes.append(bool(out.any())))
    logits(model, 2)
    assert shapes == [False]


def test_nothing_is_kept_twice_where_memory_is_short_or_the_dtype_is_another() -> None:
    import torch

    model = tiny_models.llama()
    weights = sum(m.weight.nbytes for m in model.modules() if isinstance(m, torch.nn.Linear))
    assert hf_linear.pack(model, int(hf_linear.SPARE * weights) - 1) == 0
    assert hf_linear.pack(model.float(), ALL) == 0
    assert "forward" not in vars(model.lm_head)
