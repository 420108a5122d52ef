"""Linear layers of a model on a CPU, their weights laid out as its matrix kernels want them.

PyTorch lays a BF16 weight out anew for every product; for the few rows of a decoding step that
takes as long as the product. Laid out once, the products are the same to the last bit.

Source: https://github.com/pytorch/pytorch (`aten/src/ATen/native/mkldnn/Linear.cpp`), which is
what PyTorch's own compiler calls.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SPARE = 2.0
"""Free memory per byte of weights that is left for them to be kept twice."""


def pack(model: Any, free_bytes: int) -> int:
    """Lay out every linear layer's weight anew, beside the stored one.

    Args:
        model: Loaded; nothing is done unless it computes in bfloat16 on a CPU.
        free_bytes: Of memory; nothing is done where the second copy would take half of it.

    Returns:
        Layers that were laid out.
    """
    import torch

    if model.device.type != "cpu" or model.dtype != torch.bfloat16:
        return 0
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return 0
    layers = [
        module
        for module in model.modules()
        if type(module) is torch.nn.Linear and module.weight.dtype == torch.bfloat16
    ]
    if SPARE * sum(layer.weight.nbytes for layer in layers) > free_bytes:
        return 0
    with torch.inference_mode():
        for layer in layers:
            # Before a hook on the layer, the module's own `forward` is looked up in the instance.
            vars(layer)["forward"] = _packed(layer.weight, layer.bias)
    return len(layers)


def _packed(weight: "Tensor", bias: "Tensor | None") -> Callable[["Tensor"], "Tensor"]:
    import torch

    packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
    return partial(_product, packed, bias)


def _product(packed: "Tensor", bias: "Tensor | None", x: "Tensor") -> "Tensor":
    import torch

    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return found
