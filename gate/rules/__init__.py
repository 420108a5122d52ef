"""The rules, in the order in which reports list them: from the files to the data."""

from gate.rule import Rule
from gate.rules.architecture_differs import ArchitectureDiffers
from gate.rules.architecture_unknown import ArchitectureUnknown
from gate.rules.bits_per_weight import BitsPerWeight
from gate.rules.chat_template_differs import ChatTemplateDiffers
from gate.rules.config_json_unreadable import ConfigJsonUnreadable
from gate.rules.configs_disagree_algo import ConfigsDisagreeAlgo
from gate.rules.configs_disagree_exclude import ConfigsDisagreeExclude
from gate.rules.configs_disagree_group_size import ConfigsDisagreeGroupSize
from gate.rules.configs_disagree_kv import ConfigsDisagreeKv
from gate.rules.configs_disagree_layers import ConfigsDisagreeLayers
from gate.rules.dims_vs_config import DimsVsConfig
from gate.rules.does_not_fit_in_memory import DoesNotFitInMemory
from gate.rules.dtype_differs import DtypeDiffers
from gate.rules.duplicate_tensor import DuplicateTensor
from gate.rules.exclude_pattern_unused import ExcludePatternUnused
from gate.rules.excluded_but_quantized import ExcludedButQuantized
from gate.rules.expert_missing import ExpertMissing
from gate.rules.float16_checkpoint import Float16Checkpoint
from gate.rules.fused_global_scale_differs import FusedGlobalScaleDiffers
from gate.rules.fused_scale_spread import FusedScaleSpread
from gate.rules.fused_siblings_mixed import FusedSiblingsMixed
from gate.rules.g_idx_out_of_range import GIdxOutOfRange
from gate.rules.generation_config_differs import GenerationConfigDiffers
from gate.rules.generation_config_unreadable import GenerationConfigUnreadable
from gate.rules.gguf_scale_not_finite import GgufScaleNotFinite
from gate.rules.global_divisor_implausible import GlobalDivisorImplausible
from gate.rules.gptq_zero_format import GptqZeroFormat
from gate.rules.group_does_not_divide import GroupDoesNotDivide
from gate.rules.hardware_unsupported_algo import HardwareUnsupportedAlgo
from gate.rules.header_unreadable import HeaderUnreadable
from gate.rules.implausible_magnitude import ImplausibleMagnitude
from gate.rules.indexed_tensor_absent import IndexedTensorAbsent
from gate.rules.kv_scale_partial import KvScalePartial
from gate.rules.kv_scale_range import KvScaleRange
from gate.rules.layer_missing import LayerMissing
from gate.rules.leaked_buffer import LeakedBuffer
from gate.rules.lfs_pointer import LfsPointer
from gate.rules.lm_head_missing import LmHeadMissing
from gate.rules.lm_head_quantized import LmHeadQuantized
from gate.rules.missing_required_field import MissingRequiredField
from gate.rules.missing_scale import MissingScale
from gate.rules.mixed_without_layers import MixedWithoutLayers
from gate.rules.mtp_missing import MtpMissing
from gate.rules.name_prefix import NamePrefix
from gate.rules.no_weights import NoWeights
from gate.rules.orphan_scale import OrphanScale
from gate.rules.other_base import OtherBase
from gate.rules.packed_shape_disagrees import PackedShapeDisagrees
from gate.rules.partial_block import PartialBlock
from gate.rules.pre_quant_scale_undeclared import PreQuantScaleUndeclared
from gate.rules.processor_missing import ProcessorMissing
from gate.rules.quant_config_schema import QuantConfigSchema
from gate.rules.quant_config_unreadable import QuantConfigUnreadable
from gate.rules.quant_map_unordered import QuantMapUnordered
from gate.rules.quant_state_disagrees import QuantStateDisagrees
from gate.rules.quantized_but_undeclared import QuantizedButUndeclared
from gate.rules.row_not_divisible import RowNotDivisible
from gate.rules.runtime_unsupported_algo import RuntimeUnsupportedAlgo
from gate.rules.scalar_scale_shape import ScalarScaleShape
from gate.rules.scale_constant import ScaleConstant
from gate.rules.scale_headroom import ScaleHeadroom
from gate.rules.scale_negative import ScaleNegative
from gate.rules.scale_not_finite import ScaleNotFinite
from gate.rules.scale_not_power_of_two import ScaleNotPowerOfTwo
from gate.rules.scale_shape import ScaleShape
from gate.rules.scale_zero import ScaleZero
from gate.rules.shard_missing import ShardMissing
from gate.rules.shard_too_large_for_git import ShardTooLargeForGit
from gate.rules.shard_truncated import ShardTruncated
from gate.rules.split_incomplete import SplitIncomplete
from gate.rules.stray_weights_file import StrayWeightsFile
from gate.rules.tensor_misplaced import TensorMisplaced
from gate.rules.tensor_missing_for_architecture import TensorMissingForArchitecture
from gate.rules.tensor_not_indexed import TensorNotIndexed
from gate.rules.tensor_parallel_splits_group import TensorParallelSplitsGroup
from gate.rules.tied_and_quantized import TiedAndQuantized
from gate.rules.tied_head_stored import TiedHeadStored
from gate.rules.tokenizer_differs import TokenizerDiffers
from gate.rules.tokenizer_missing import TokenizerMissing
from gate.rules.tokenizer_pre_missing import TokenizerPreMissing
from gate.rules.type_fallback import TypeFallback
from gate.rules.unexpected_scale import UnexpectedScale
from gate.rules.unknown_algo import UnknownAlgo
from gate.rules.unknown_tensor_type import UnknownTensorType
from gate.rules.unportable_pattern import UnportablePattern
from gate.rules.unquantized_not_excluded import UnquantizedNotExcluded
from gate.rules.vocab_rows import VocabRows
from gate.rules.vocabulary_differs import VocabularyDiffers
from gate.rules.vocabulary_mismatch import VocabularyMismatch
from gate.rules.weight_all_zero import WeightAllZero
from gate.rules.weight_dtype import WeightDtype
from gate.rules.weight_not_finite import WeightNotFinite
from gate.rules.weights_unlike_reference import WeightsUnlikeReference

RULES: tuple[Rule, ...] = (
    ConfigJsonUnreadable(),
    NoWeights(),
    LfsPointer(),
    ShardMissing(),
    HeaderUnreadable(),
    ShardTruncated(),
    TensorMisplaced(),
    UnknownTensorType(),
    RowNotDivisible(),
    SplitIncomplete(),
    TensorNotIndexed(),
    IndexedTensorAbsent(),
    StrayWeightsFile(),
    DuplicateTensor(),
    ShardTooLargeForGit(),
    GenerationConfigUnreadable(),
    TokenizerMissing(),
    ProcessorMissing(),
    Float16Checkpoint(),
    QuantConfigUnreadable(),
    QuantConfigSchema(),
    QuantizedButUndeclared(),
    UnknownAlgo(),
    ConfigsDisagreeAlgo(),
    ConfigsDisagreeLayers(),
    ConfigsDisagreeGroupSize(),
    ConfigsDisagreeExclude(),
    ConfigsDisagreeKv(),
    MixedWithoutLayers(),
    MissingRequiredField(),
    TiedAndQuantized(),
    ExcludePatternUnused(),
    UnportablePattern(),
    ExcludedButQuantized(),
    UnquantizedNotExcluded(),
    WeightDtype(),
    DimsVsConfig(),
    ArchitectureUnknown(),
    TensorMissingForArchitecture(),
    VocabularyMismatch(),
    TokenizerPreMissing(),
    TypeFallback(),
    FusedSiblingsMixed(),
    LeakedBuffer(),
    LmHeadQuantized(),
    BitsPerWeight(),
    MissingScale(),
    OrphanScale(),
    UnexpectedScale(),
    PreQuantScaleUndeclared(),
    ScaleShape(),
    LayerMissing(),
    ExpertMissing(),
    NamePrefix(),
    VocabRows(),
    LmHeadMissing(),
    TiedHeadStored(),
    KvScalePartial(),
    MtpMissing(),
    ScalarScaleShape(),
    GroupDoesNotDivide(),
    PartialBlock(),
    ScaleNotFinite(),
    ScaleZero(),
    GgufScaleNotFinite(),
    PackedShapeDisagrees(),
    ScaleNotPowerOfTwo(),
    GlobalDivisorImplausible(),
    ScaleNegative(),
    WeightNotFinite(),
    WeightAllZero(),
    ImplausibleMagnitude(),
    FusedGlobalScaleDiffers(),
    FusedScaleSpread(),
    ScaleHeadroom(),
    ScaleConstant(),
    KvScaleRange(),
    QuantStateDisagrees(),
    QuantMapUnordered(),
    GptqZeroFormat(),
    GIdxOutOfRange(),
    ArchitectureDiffers(),
    VocabularyDiffers(),
    TokenizerDiffers(),
    ChatTemplateDiffers(),
    GenerationConfigDiffers(),
    DtypeDiffers(),
    OtherBase(),
    WeightsUnlikeReference(),
    RuntimeUnsupportedAlgo(),
    HardwareUnsupportedAlgo(),
    TensorParallelSplitsGroup(),
    DoesNotFitInMemory(),
)
