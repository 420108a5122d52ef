"""One run of vLLM against the clock: its own scheduler and kernels, for a fixed length."""

from typing import Any

from gate.backends.hf_speed import random_prompts
from gate.backends.vllm_engine import Engines, answering
from gate.speed import Clock, Generated, Workload


def generate(
    engines: Engines, tokenizer: Any, device: str, workload: Workload, clock: Clock
) -> Generated:
    """See `evaluate.Backend.generate`; where there are copies of the model, the first is measured.

    Args:
        tokenizer: Its own: prompts hold no special token, which could mean an image.
        device: Its name.

    Raises:
        BackendError: The engine refuses the prompts, or died.
    """
    from vllm import SamplingParams

    llm = engines.llms[0]
    known = llm.model_config.get_vocab_size()
    prompts = random_prompts(known, tokenizer, workload).tolist()
    params = SamplingParams(
        temperature=0.0,
        ignore_eos=True,
        min_tokens=workload.new_tokens,
        max_tokens=workload.new_tokens,
        detokenize=False,
    )
    llm.collective_rpc("quant_gate_peak_bytes")
    with answering():
        times = [clock()]
        written = {f"speed-{workload.seed}-{number}": 0 for number in range(len(prompts))}
        for name, prompt in zip(written, prompts, strict=True):
            llm.llm_engine.add_request(name, {"prompt_token_ids": prompt}, params)
        while llm.llm_engine.has_unfinished_requests():
            for output in llm.llm_engine.step():
                written[output.request_id] = len(output.outputs[0].token_ids)
            # Several tokens may arrive in one step.
            times += [clock()] * (min(written.values()) - len(times) + 1)
    peak = sum(llm.collective_rpc("quant_gate_peak_bytes"))
    return Generated(times, peak, "device", device, len(llm.collective_rpc("quant_gate_kernels")))
