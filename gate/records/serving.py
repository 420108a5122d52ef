"""Who ran the model where transformers did not: what a server or an engine said of itself."""

from typing import Literal

from gate.records.storing import Record


class Served(Record):
    """Who answered, where the gate loaded no weights itself.

    Which bytes were served is known to the server alone.

    Attributes:
        model: The name under which the server lists the model.
        host: Its host and port.
        api: `completions` was sent prompts, `chat` conversations, which the server put into its
            own chat template.
        prompts: What a prompt was sent as.
        owner: Who owns the model according to the server, by which engines name themselves.
    """

    model: str
    host: str
    api: Literal["chat", "completions"]
    prompts: Literal["tokens", "text", "messages"]
    owner: str | None = None


class Engine(Record):
    """The engine in this process that ran the model, and the way that it took.

    Attributes:
        name: For example `vllm`.
        quantization: What the engine calls the method of the checkpoint; None for none.
        kernels: What computed the layers, as the engine's own classes are called: a method, and
            what it multiplied with where it says so.
        attention: What computed the attention, likewise.
        kv_cache_dtype: Of keys and values; `auto` is the model's.
        tensor_parallel_size: GPUs that divided every layer.
        pipeline_parallel_size: Groups of GPUs that divided the list of layers.
        data_parallel_size: Copies of the model.
    """

    name: str
    version: str
    quantization: str | None
    kernels: tuple[str, ...]
    attention: tuple[str, ...]
    kv_cache_dtype: str
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
