"""What GPTQ and AWQ share: integers packed into 32-bit words beside their zeros and scales."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from gate.checkpoint import Checkpoint, Problem, Store, TensorInfo
from gate.checkpoint.files import read_json
from gate.errors import UnknownFormatError
from gate.formats.decoding import require, require_as_described
from gate.formats.packed_config import Packing, Packings
from gate.formats.skipped import convertible, gather
from gate.quantization import Declaration, QuantizedLayer, Role, TensorSpec

SUFFIXES = {
    "qweight": Role.WEIGHT,
    "qzeros": Role.WEIGHT_ZERO_POINT,
    "scales": Role.WEIGHT_SCALE,
    "g_idx": Role.WEIGHT_G_IDX,
}

WORDS = frozenset({"I32"})
HALVES = frozenset({"F16", "BF16"})
WEIGHT_ONLY = {Role.WEIGHT: TensorSpec(WORDS, stored_as="qweight")}

AUTO_ROUND = frozenset({"auto-round", "intel/auto-round"})

_Known = tuple[object, Mapping[str, Packings]]
_KNOWN: WeakKeyDictionary[Store, dict[str, _Known]] = WeakKeyDictionary()
"""Format to config.json's declaration and what was made of it, for each open checkpoint."""


class Packed:
    """A format of packed integers; what its tensors look like is said by those derived from it.

    Attributes:
        side_file: Where its own library declares it, beside config.json.
    """

    name: str
    side_file: ClassVar[str]

    def matches(self, checkpoint: Checkpoint) -> bool:
        """Declared in config.json, or in the library's own file where that says nothing."""
        return bool(self._found(checkpoint))

    def declarations(self, checkpoint: Checkpoint) -> tuple[Declaration, ...]:
        """What config.json and the library's own file declare.

        Which modules stay unquantized is not told by patterns as ModelOpt has them.
        """
        return tuple(
            Declaration(
                file=file,
                quant_algo=packings.default.label,
                kv_cache_quant_algo=None,
                group_size=packings.default.group_size,
                exclude_modules=None,
                quantized_layers=None,
            )
            for file, packings in self._found(checkpoint).items()
        )

    def algorithms(self, checkpoint: Checkpoint) -> Mapping[str, bool]:
        """Width, group size and order of every packing that is declared."""
        declared = self._packings(checkpoint).all
        return {packing.label: packing.scheme is not None for packing in declared}

    def weight_bits(self, checkpoint: Checkpoint) -> int | None:
        """The lowest declared weight width in bits."""
        found = [packing.bits for packing in self._packings(checkpoint).all if packing.bits]
        return min(found, default=None)

    def layers(self, checkpoint: Checkpoint) -> Iterator[QuantizedLayer]:
        """See `Format.layers`."""
        packings = self._packings(checkpoint)
        marked, plain = gather(checkpoint.tensors, SUFFIXES)
        for module, tensors in marked.items():
            yield self._layer(checkpoint, module, packings.of(module), tensors)
        must = {module for module in convertible(plain, marked) if packings.demands(module)}
        must |= {module for module in plain if packings.demands_head(module)}
        for module, info in plain.items():
            if module in must:
                tensors = {Role.WEIGHT: info}
                yield self._layer(checkpoint, module, packings.of(module), tensors)

    def is_companion(self, tensor: str) -> bool:
        """Zeros, scales and the order of the inputs."""
        suffix = tensor.rpartition(".")[2]
        return suffix in SUFFIXES and suffix != "qweight"

    def dequantize(self, layer: QuantizedLayer, xp: Any) -> Any:
        """See `Format.dequantize`."""
        if layer.scheme is None:
            raise UnknownFormatError(
                f"{layer.name} is stored as {layer.algo or 'undeclared'}, which has no decoder",
                "Judge it statically with gate lint.",
            )
        require_as_described(layer)
        require(layer, layer.shape is not None, Role.WEIGHT)
        return self.decode(layer, xp)

    def decode(self, layer: QuantizedLayer, xp: Any) -> Any:
        """The values of a layer whose tensors are as described; see `Format.dequantize`."""
        raise NotImplementedError

    def declared_layout(self, config: Mapping[str, Any], method: object) -> str | None:
        """The layout that a configuration names; None where it declares another format."""
        raise NotImplementedError

    def describe(
        self, packing: Packing, weight: tuple[int, int]
    ) -> tuple[tuple[int, int], Mapping[Role, TensorSpec]]:
        """(out_features, in_features), and what stands beside a weight of this shape."""
        raise NotImplementedError

    def _found(self, checkpoint: Checkpoint) -> Mapping[str, Packings]:
        """File to what it declares, the one that runtimes prefer first; read once."""
        known = _KNOWN.setdefault(checkpoint.store, {})
        declared = checkpoint.quantization_config
        if self.name not in known or known[self.name][0] is not declared:
            known[self.name] = declared, dict(self._read(checkpoint))
        return known[self.name][1]

    def _read(self, checkpoint: Checkpoint) -> Iterator[tuple[str, Packings]]:
        declared = checkpoint.quantization_config
        if declared is not None:
            layout = self.declared_layout(declared, declared.get("quant_method"))
            if layout is None:
                return
            yield "config.json", Packings(declared, layout)
        elif not any(name.endswith(".qweight") for name in checkpoint.tensors):
            return  # the file is left over, or another tool's of that name
        problems: list[Problem] = []
        beside = read_json(checkpoint.store, self.side_file, "quant-config-unreadable", problems)
        if beside is not None:
            layout = self.declared_layout(beside, beside.get("quant_method", self.name))
            if layout is not None:
                yield self.side_file, Packings(beside, layout)

    def _packings(self, checkpoint: Checkpoint) -> Packings:
        return next(iter(self._found(checkpoint).values()))

    def _layer(
        self,
        checkpoint: Checkpoint,
        module: str,
        packing: Packing | None,
        tensors: Mapping[Role, TensorInfo],
    ) -> QuantizedLayer:
        weight = tensors.get(Role.WEIGHT)
        scheme = packing.scheme if packing else None
        shape: tuple[int, ...] | None = None
        expected: Mapping[Role, TensorSpec] = WEIGHT_ONLY if scheme else {}
        if weight is not None and weight.name.endswith(".weight"):
            shape = weight.shape
        elif packing and scheme and weight is not None and len(weight.shape) == 2:
            rows, columns = weight.shape
            shape, expected = self.describe(packing, (rows, columns))
        return QuantizedLayer(
            name=module,
            algo=packing.label if packing else "",
            scheme=scheme,
            input_scheme=None,
            tensors=tensors,
            expected=expected,
            declared=packing is not None,
            checkpoint=checkpoint,
            shape=shape,
        )
