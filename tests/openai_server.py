"""An OpenAI-compatible server on this machine: strict about requests, and faulty when told so."""

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming as ChatParams,
)
from openai.types.completion_create_params import (
    CompletionCreateParamsNonStreaming as CompletionParams,
)
from pydantic import ConfigDict, TypeAdapter, with_config

EXTENSIONS = {"chat_template_kwargs"}
"""What engines take beside OpenAI's own."""

PUBLISHED = {
    "/v1/completions": TypeAdapter(with_config(ConfigDict(extra="forbid"))(CompletionParams)),
    "/v1/chat/completions": TypeAdapter(ChatParams),
}


def checkpoint(directory: Path, source: Path, seed: int = 0) -> "Model":
    """A random Llama with another checkpoint's tokenizer, written to `directory`, as a server's."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(source)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        eos_token_id=tokenizer.eos_token_id,
        max_position_embeddings=512,
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return Model(model, tokenizer)


class Fault(NamedTuple):
    """What becomes of one request instead of its answer.

    Attributes:
        kind: `status`, `cut`, `garbage`, `huge`, `reply` or `slow`.
        value: The status, the seconds, or the reply.
    """

    kind: str
    value: Any = None
    headers: dict[str, str] = {}  # noqa: RUF012


class Model:
    """A transformers model behind the server, asked for one prompt at a time."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._lock = threading.Lock()

    def write(self, ids: list[int], max_tokens: int) -> tuple[list[int], str]:
        """The likeliest tokens, and why there are no more."""
        import torch

        with self._lock, torch.inference_mode():
            out = self.model.generate(
                torch.tensor([ids]), max_new_tokens=max_tokens, do_sample=False
            )
        new = out[0, len(ids) :].tolist()
        ended = new[-1:] == [self.tokenizer.eos_token_id]
        return new, "stop" if ended else "length"

    def tell(self, ids: list[int]) -> dict[str, Any]:
        """Log-probabilities as servers write them: none for the first token."""
        import torch

        with self._lock, torch.inference_mode():
            found = self.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        names = [str(token) for token in ids]
        own, tops = [], []
        for token, row in zip(ids[1:], found[:-1], strict=True):
            best = int(row.argmax())
            own.append(float(row[token]))
            tops.append({str(token): float(row[token]), str(best): float(row[best])})
        return {"tokens": names, "token_logprobs": [None, *own], "top_logprobs": [None, *tops]}


class Served:
    """A running server.

    Attributes:
        url: Its address.
        seen: Every request: path, headers and body.
        faults: What becomes of the next requests that ask for something.
        busiest: Most requests that it had at a time.
        tokens, echo: Whether it takes prompts as tokens, and tells of a prompt.
        bos: Tokens that it puts before every text of its own.
    """

    def __init__(self, model: Model, names: Sequence[str], context: int | None) -> None:
        self.model, self.names, self.context = model, names, context
        self.url = ""
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.faults: deque[Fault] = deque()
        self.busiest = self.busy = 0
        self.tokens = self.echo = True
        self.bos: list[int] = []

    def models(self) -> dict[str, Any]:
        more: dict[str, Any] = {"meta": {"n_ctx": self.context}} if self.context else {}
        data = [{"id": n, "object": "model", "owned_by": "tests"} | more for n in self.names]
        return {"object": "list", "data": data}

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and reply to a request."""
        PUBLISHED[path].validate_python({k: v for k, v in body.items() if k not in EXTENSIONS})
        if body["model"] not in self.names:
            return 404, {"error": {"message": "no such model"}}
        tokenizer = self.model.tokenizer
        if path == "/v1/chat/completions":
            kwargs = body.get("chat_template_kwargs", {})
            text = tokenizer.apply_chat_template(
                body["messages"], tokenize=False, add_generation_prompt=True, **kwargs
            )
            ids = tokenizer.encode(text, add_special_tokens=False)
        elif isinstance(body["prompt"], str):
            ids = self.bos + tokenizer.encode(body["prompt"])
        elif self.tokens:
            ids = body["prompt"]
        else:
            return 422, {"detail": [{"loc": ["prompt"], "msg": "Input should be a string"}]}
        if body.get("echo") and not self.echo:
            return 400, {"error": {"message": "echo is not supported"}}
        new, finish = self.model.write(ids, body["max_tokens"])
        text = tokenizer.decode(new, skip_special_tokens=True)
        for stop in body.get("stop", []):
            text, cut, _ = text.partition(stop)
            finish = "stop" if cut else finish
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
        if path == "/v1/chat/completions":
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice |= {"text": text, "logprobs": self.model.tell(ids) if self.echo else None}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": len(ids)}}


@contextlib.contextmanager
def serve(
    model: Model, names: Sequence[str] = ("acme/tiny",), context: int | None = None
) -> Iterator[Served]:
    """Serve a model on this machine."""
    served = Served(model, names, context)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            served.seen.append((self.path, dict(self.headers), None))
            self._send(200, json.dumps(served.models()).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.seen.append((self.path, dict(self.headers), body))
            with lock:
                served.busy += 1
                served.busiest = max(served.busiest, served.busy)
                fault = served.faults.popleft() if served.faults else None
            try:
                self._answer(body, fault)
            finally:
                with lock:
                    served.busy -= 1

        def _answer(self, body: Any, fault: Fault | None) -> None:
            if fault is not None and fault.kind == "slow":
                time.sleep(fault.value)
                fault = None
            if fault is None:
                status, reply = served.answer(self.path, body)
                self._send(status, json.dumps(reply).encode())
            elif fault.kind == "status":
                said = json.dumps({"error": {"message": f"told to say {fault.value}"}})
                self._send(fault.value, said.encode(), fault.headers)
            elif fault.kind == "cut":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b'{"choices": [')
                self.close_connection = True
            elif fault.kind == "huge":
                self._send(200, b" " * fault.value)
            else:
                self._send(200, fault.value, fault.headers)

        def _send(self, status: int, content: bytes, headers: Any = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
