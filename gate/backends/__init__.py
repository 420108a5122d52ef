"""Who runs a model, by the name that the settings give."""

from collections.abc import Callable

from gate.backends.hf import Hf
from gate.backends.native import Native
from gate.backends.replay import Replay
from gate.backends.server import Server
from gate.backends.vllm import Vllm
from gate.evaluate import Backend

BACKENDS: dict[str, Callable[..., Backend]] = {
    "hf": Hf,
    "native": Native,
    "replay": Replay,
    "server": Server,
    "vllm": Vllm,
}
