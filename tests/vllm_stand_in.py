"""vLLM as far as the gate uses it, over a transformers model on the CPU: answers are real.

It takes and gives what `fixtures/vllm.json` says that the released package does, and nothing more.
"""

import functools
import importlib.machinery
import subprocess
import sys
import types
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import vllm_signatures

KNOWN = vllm_signatures.known()
FIELDS, METHODS = KNOWN["fields"], KNOWN["methods"]


class VLLMError(Exception):
    """vLLM's own."""


class VLLMClientError(VLLMError):
    """It was asked wrongly."""


class VLLMServerError(VLLMError):
    """It failed."""


def _made(kind: str, **given: Any) -> SimpleNamespace:
    """A value with the fields that the package's class has, and no others."""
    assert given.keys() <= FIELDS[kind].keys(), (kind, given.keys() - FIELDS[kind].keys())
    return SimpleNamespace(**FIELDS[kind] | given)


class SamplingParams(SimpleNamespace):
    """The package's fields and defaults."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**vars(_made("SamplingParams", **given)))


class Engine:
    """Where requests wait; it has a process of its own, as the package's engine does."""

    def __init__(self, llm: "LLM") -> None:
        self.llm = llm
        self.process = subprocess.Popen(["sleep", "600"])
        self.engine_core = SimpleNamespace(shutdown=self._shutdown)
        self.vllm_config = _made(
            "VllmConfig",
            model_config=llm.model_config,
            cache_config=_made("CacheConfig", cache_dtype=llm.kv_cache_dtype),
        )
        self._waiting: dict[str, tuple[SimpleNamespace, int, int]] = {}

    def _shutdown(self, timeout: float | None = None) -> None:
        self.process.terminate()
        self.process.wait(timeout)

    def add_request(self, request_id: str, prompt: Any, params: SamplingParams) -> str:
        assert params.ignore_eos and params.min_tokens == params.max_tokens
        (output,) = self.llm.generate([prompt], [params], use_tqdm=False)
        output.request_id = request_id
        self._waiting[request_id] = (output, 0, params.max_tokens)
        return f"{request_id}-0a1b2c3d"

    def has_unfinished_requests(self) -> bool:
        return bool(self._waiting)

    def step(self) -> list[Any]:
        """One token more of each request; the first step reads the prompt of the first alone."""
        steps = []
        for name, (output, done, limit) in list(self._waiting.items()):
            ids = output.outputs[0].token_ids[: done + 1]
            part = _made("CompletionOutput", index=0, token_ids=ids)
            steps.append(_made("RequestOutput", request_id=name, outputs=[part]))
            self._waiting[name] = (output, done + 1, limit)
            if done + 1 == limit:
                del self._waiting[name]
            if done == 0:
                break
        return steps


@functools.cache
def loaded(path: str) -> tuple[Any, Any]:
    """A model and its tokenizer, which many tests share."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(path, dtype="auto").eval()
    return model, AutoTokenizer.from_pretrained(path)


class LLM:
    """One engine.

    Attributes:
        made: Every one that was made.
        asked: Prompts and parameters of every call of `generate`.
        fault: Raised by the next call of what it names.
    """

    made: "list[LLM]" = []  # noqa: RUF012
    fault: dict[str, BaseException] = {}  # noqa: RUF012
    kv_cache_dtype = "auto"

    def __init__(self, model: str, **given: Any) -> None:
        unknown = given.keys() - {*METHODS["LLM"]["__init__"], *FIELDS["EngineArgs"]}
        assert not unknown, unknown
        if "start" in self.fault:
            raise self.fault.pop("start")
        assert given.get("data_parallel_size", 1) == 1, "one process has one data parallel rank"
        self.given = given
        self.model, self.tokenizer = loaded(model)
        config = self.model.config
        context = config.max_position_embeddings
        self.model_config = _made(
            "ModelConfig",
            dtype=self.model.dtype,
            max_model_len=context if given["max_model_len"] == -1 else given["max_model_len"],
            quantization=None,
        )
        self.model_config.get_vocab_size = lambda: config.vocab_size
        self.llm_engine = Engine(self)
        self.asked: list[tuple[Any, Any]] = []
        self.made.append(self)

    def collective_rpc(self, method: str) -> list[Any]:
        """By a worker into which the extension is mixed, as vLLM does it."""
        place, _, name = self.given["worker_extension_cls"].rpartition(".")
        extension = getattr(importlib.import_module(place), name)
        worker = type("Worker", (extension,), {"get_model": lambda worker: network()})()
        return [getattr(worker, method)() for _ in range(self.given["tensor_parallel_size"])]

    def generate(
        self, prompts: Sequence[Any], sampling_params: Sequence[Any], *, use_tqdm: bool
    ) -> list[Any]:
        if "generate" in self.fault:
            raise self.fault.pop("generate")
        self.asked.append((prompts, sampling_params))
        return [
            self._answer(prompt["prompt_token_ids"], params)
            for prompt, params in zip(prompts, sampling_params, strict=True)
        ]

    def _answer(self, ids: list[int], params: SamplingParams) -> Any:
        if len(ids) + 1 > self.model_config.max_model_len:
            raise VLLMClientError(f"a prompt of {len(ids)} tokens is too long")
        more = {} if params.prompt_logprobs is None else self._told(ids, params)
        new, finish, total = self._written(ids, params)
        written = _made(
            "CompletionOutput",
            index=0,
            text="not looked at",
            token_ids=new,
            cumulative_logprob=None if params.logprobs is None else total,
            finish_reason=finish,
        )
        return _made(
            "RequestOutput", prompt_token_ids=ids, outputs=[written], finished=True, **more
        )

    def _written(self, ids: list[int], params: SamplingParams) -> tuple[list[int], str, float]:
        """The likeliest tokens, why there are no more, and the sum of their log-probabilities."""
        import torch

        assert params.temperature == 0
        limit = min(params.max_tokens, self.model_config.max_model_len - len(ids))
        stated = self.model.generation_config.eos_token_id
        ends = {self.tokenizer.eos_token_id, *(stated if isinstance(stated, list) else [stated])}
        with torch.inference_mode():
            found = self.model.generate(
                torch.tensor([ids]),
                max_new_tokens=limit,
                min_new_tokens=params.min_tokens if params.ignore_eos else 0,
                do_sample=False,
                repetition_penalty=params.repetition_penalty,
                output_logits=True,
                return_dict_in_generate=True,
            )
        new: list[int] = []
        total = 0.0
        tokens = found.sequences[0, len(ids) :].tolist()
        for token, logits in zip(tokens, found.logits, strict=True):
            new.append(token)
            total += float(logits[0].float().log_softmax(-1)[token])
            if token in ends and not params.ignore_eos:
                return new, "stop", total
            text = self.tokenizer.decode(new, skip_special_tokens=params.skip_special_tokens)
            if any(string in text for string in params.stop or ()):
                return new, "stop", total
        return new, "length", total

    def _told(self, ids: list[int], params: SamplingParams) -> dict[str, Any]:
        import torch

        assert params.flat_logprobs and not params.detokenize
        if params.prompt_logprobs > self.given["max_logprobs"]:
            raise VLLMClientError("more log-probabilities than max_logprobs")
        with torch.inference_mode():
            logits = self.model(torch.tensor([ids])).logits[0, :-1].float()
        found = logits.log_softmax(-1)
        best = found.topk(params.prompt_logprobs).indices
        chosen = torch.cat([torch.tensor(ids[1:])[:, None], best], dim=1)
        starts = [0, *range(0, chosen.numel(), chosen.shape[1])]
        flat = _made(
            "FlatLogprobs",
            start_indices=starts,
            end_indices=[0, *(start + chosen.shape[1] for start in starts[1:])],
            token_ids=chosen.flatten().tolist(),
            logprobs=found.gather(1, chosen).flatten().tolist(),
        )
        at = params.prompt_logprob_token_ids
        if at is None:
            return {"prompt_logprobs": flat}
        assert at.dtype.kind == "i" and len(at) == len(ids) - 1
        if at.shape[1] > self.given["max_logprobs"] or at.max() >= found.shape[1]:
            raise VLLMClientError("no such tokens")
        wanted = found.gather(1, torch.from_numpy(at).long()).numpy()
        return {"prompt_logprobs": flat, "prompt_token_id_logprobs": wanted}


def network() -> Any:
    """Modules that hold what vLLM's do: an FP8 layer, an unquantized one, experts, attention."""
    import torch

    def of(name: str, module: str, **attributes: Any) -> Any:
        made = type(name, (), {"__module__": module})()
        vars(made).update(attributes)
        return made

    quantization, kernels = "vllm.model_executor.layers.quantization", "vllm.model_executor.kernels"
    experts = "vllm.model_executor.layers.fused_moe"
    cutlass = of("CutlassFP8ScaledMMLinearKernel", f"{kernels}.linear.scaled_mm.cutlass")
    fused = of("FusedMoEKernelModularImpl", experts, fused_experts=of("TritonExperts", experts))
    moe = of("FusedMoEKernel", f"{experts}.modular_kernel", impl=fused)
    methods = [
        of("ModelOptFp8LinearMethod", f"{quantization}.modelopt", fp8_linear=cutlass, size=7),
        of("UnquantizedLinearMethod", "vllm.model_executor.layers.linear"),
        of("ModelOptFp8MoEMethod", f"{quantization}.modelopt", moe_kernel=moe),
        of("CompressedTensorsLinearMethod", f"{quantization}.compressed_tensors"),
    ]
    layers = [torch.nn.Module() for _ in methods]
    for layer, method in zip(layers, methods, strict=True):
        layer.quant_method = method
    layers[-1].scheme = of(
        "CompressedTensorsW8A8Fp8", f"{quantization}.compressed_tensors", fp8_linear=cutlass
    )
    attention = torch.nn.Module()
    attention.get_attn_backend = lambda: SimpleNamespace(get_name=lambda: "FLASH_ATTN")
    return torch.nn.ModuleList([*layers, attention, torch.nn.Linear(2, 2)])


def modules(version: str = KNOWN["version"]) -> dict[str, types.ModuleType]:
    """The package, as `sys.modules` has it."""
    package, exceptions = types.ModuleType("vllm"), types.ModuleType("vllm.exceptions")
    package.__spec__ = importlib.machinery.ModuleSpec("vllm", None)
    vars(package).update(
        LLM=LLM, SamplingParams=SamplingParams, exceptions=exceptions, __version__=version
    )
    kinds = (VLLMError, VLLMClientError, VLLMServerError)
    vars(exceptions).update({kind.__name__: kind for kind in kinds})
    return {"vllm": package, "vllm.exceptions": exceptions}


def install() -> None:
    """Into this process, for good, with a GPU that is none."""
    import torch

    from gate import devices

    sys.modules |= modules()
    found = gpus(1)
    devices.found = lambda: found  # type: ignore[assignment]
    torch.cuda.mem_get_info = lambda index: (found[0].total_bytes,) * 2  # type: ignore[assignment]


def gpus(count: int) -> tuple[Any, ...]:
    """So many of them."""
    from gate.devices import Device

    return tuple(Device(n, f"GPU-{n}", "NVIDIA H100 80GB HBM3", 80 * 2**30) for n in range(count))
