"""Open a checkpoint: configuration and headers, no tensor until asked.

Contract `Container`: how one kind of weight file is read. Opening never raises for a defect of
the checkpoint: it collects `Problem`s, and the rule of the same name reports them.
"""

from gate.checkpoint.contract import (
    DTYPE_BITS,
    LFS_MAGIC,
    Checkpoint,
    Container,
    Header,
    Problem,
    TensorInfo,
    lfs_problem,
)
from gate.checkpoint.files import CONFIG_MAX_BYTES
from gate.checkpoint.opening import (
    find_checkpoints,
    find_models,
    is_checkpoint,
    open_checkpoint,
)
from gate.checkpoint.store import Directory, Store, escapes

__all__ = [
    "CONFIG_MAX_BYTES",
    "DTYPE_BITS",
    "LFS_MAGIC",
    "Checkpoint",
    "Container",
    "Directory",
    "Header",
    "Problem",
    "Store",
    "TensorInfo",
    "escapes",
    "find_checkpoints",
    "find_models",
    "is_checkpoint",
    "lfs_problem",
    "open_checkpoint",
]
