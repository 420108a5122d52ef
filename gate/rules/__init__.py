"""The rules, in the order in which reports list them: from the files to the data."""

from gate.rule import Rule
from gate.rules.config_json_unreadable import ConfigJsonUnreadable
from gate.rules.configs_disagree_algo import ConfigsDisagreeAlgo
from gate.rules.configs_disagree_exclude import ConfigsDisagreeExclude
from gate.rules.excluded_but_quantized import ExcludedButQuantized
from gate.rules.generation_config_unreadable import GenerationConfigUnreadable
from gate.rules.header_unreadable import HeaderUnreadable
from gate.rules.indexed_tensor_absent import IndexedTensorAbsent
from gate.rules.lfs_pointer import LfsPointer
from gate.rules.missing_scale import MissingScale
from gate.rules.no_weights import NoWeights
from gate.rules.quant_config_schema import QuantConfigSchema
from gate.rules.quant_config_unreadable import QuantConfigUnreadable
from gate.rules.quantized_but_undeclared import QuantizedButUndeclared
from gate.rules.scale_not_finite import ScaleNotFinite
from gate.rules.scale_shape import ScaleShape
from gate.rules.scale_zero import ScaleZero
from gate.rules.shard_missing import ShardMissing
from gate.rules.shard_truncated import ShardTruncated
from gate.rules.tensor_not_indexed import TensorNotIndexed
from gate.rules.tokenizer_missing import TokenizerMissing
from gate.rules.unknown_algo import UnknownAlgo
from gate.rules.unquantized_not_excluded import UnquantizedNotExcluded
from gate.rules.weight_dtype import WeightDtype

RULES: tuple[Rule, ...] = (
    ConfigJsonUnreadable(),
    NoWeights(),
    LfsPointer(),
    ShardMissing(),
    HeaderUnreadable(),
    ShardTruncated(),
    TensorNotIndexed(),
    IndexedTensorAbsent(),
    GenerationConfigUnreadable(),
    TokenizerMissing(),
    QuantConfigUnreadable(),
    QuantConfigSchema(),
    QuantizedButUndeclared(),
    UnknownAlgo(),
    ConfigsDisagreeAlgo(),
    ConfigsDisagreeExclude(),
    ExcludedButQuantized(),
    UnquantizedNotExcluded(),
    WeightDtype(),
    MissingScale(),
    ScaleShape(),
    ScaleNotFinite(),
    ScaleZero(),
)
