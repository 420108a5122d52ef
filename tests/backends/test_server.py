"""A model behind a server: asked as the model itself, and never believed beyond its word."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai_server
import pytest
from openai_server import Fault, Model, Served
from test_harness import write_task
from tiny_models import opened

from gate import settings
from gate.backends.hf import Hf
from gate.backends.server import Server
from gate.errors import BackendUnavailableError, ServerError, SettingsError
from gate.harness import Harness
from gate.settings import PerplexityMetric, PerplexityText, Settings, TaskMetric

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

N = 6


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, export: Callable[[str], Path], sentence_data: Path
) -> Path:
    """A directory with a checkpoint and two tasks: one is answered by text, one by choice."""
    root = tmp_path_factory.mktemp("served")
    rows = [
        {
            "key": key,
            "prompt": f"Write about number {key} without any comma.",
            "instruction_id_list": ["punctuation:no_comma"],
            "kwargs": [{}],
        }
        for key in range(N)
    ]
    (root / "documents.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write_task(root)
    return root


@pytest.fixture(scope="module")
def model(place: Path, export: Callable[[str], Path]) -> Model:
    return openai_server.checkpoint(place / "model", export("bf16"))


@pytest.fixture
def served(model: Model) -> Iterator[Served]:
    with openai_server.serve(model) as found:
        yield found


IFEVAL = TaskMetric(
    task="ifeval", documents="documents.jsonl", max_gen_toks=12, chat_template_kwargs={"seen": 1}
)
TEXT = PerplexityMetric(perplexity=PerplexityText(file="text.txt", window=64))


def stated(served: Served, *metrics: Any, **server: Any) -> Settings:
    return Settings(
        backend="server", server={"url": served.url, **server}, metrics=metrics or (IFEVAL,)
    )


Asking = Callable[..., Server]


@pytest.fixture
def asking(place: Path, served: Served) -> Asking:
    """A backend that asks the running server, given the metrics and the server's settings."""

    def make(*metrics: Any, **server: Any) -> Server:
        asked = stated(served, *metrics, **server)
        checkpoint, form = opened(place / "model")
        harness = Harness.of(asked, checkpoint, place)
        return Server(checkpoint=checkpoint, form=form, harness=harness, settings=asked)

    return make


def choices(place: Path) -> TaskMetric:
    return TaskMetric(task=str(place / "sayings.yaml"))


def posted(served: Served) -> list[dict[str, Any]]:
    return [body for _, _, body in served.seen if body is not None]


def test_it_answers_as_the_model_itself(place: Path, asking: Asking, served: Served) -> None:
    server = asking(IFEVAL, choices(place), TEXT)
    checkpoint, form = opened(place / "model")
    windows = np.arange(40 * 16, dtype=np.int64).reshape(40, 16) % 999
    done: list[int] = []
    with server, Hf(checkpoint, form, server._harness, server.settings) as model:
        for setup in server.setups():
            ids = server.doc_ids(setup.task)
            alone = [one for doc_id in ids for one in model.score(setup.task, [doc_id])]
            assert server.score(setup.task, ids) == alone
        assert len(server.setups()) == 2
        ours, theirs = server.read(windows, progress=done.append), model.read(windows)
        assert server.bos == model.bos
        assert np.array_equal(server.token_ids("a b"), model.token_ids("a b"))
    assert np.allclose(ours.logprobs, theirs.logprobs, atol=1e-5)
    assert done == [32, 8]
    assert 1 < served.busiest <= 8
    assert {body["temperature"] for body in posted(served)} == {0}
    assert server.served.model_dump() == {
        "model": "acme/tiny",
        "host": served.url.removeprefix("http://"),
        "api": "completions",
        "prompts": "tokens",
        "owner": "tests",
    }


def test_no_more_requests_at_a_time_than_allowed(asking: Asking, served: Served) -> None:
    server = asking(IFEVAL, concurrency=2)
    served.faults.extend([Fault("slow", 0.05)] * N)
    server.score("ifeval", server.doc_ids("ifeval"))
    assert served.busiest == 2
    assert server.fitting() == 8


def test_prompts_are_text_where_the_server_takes_no_tokens(
    asking: Asking, served: Served, place: Path
) -> None:
    in_tokens = asking(IFEVAL)
    ids = in_tokens.doc_ids("ifeval")
    expected = in_tokens.score("ifeval", ids)
    served.tokens = False
    server = asking(IFEVAL, choices(place), TEXT)
    assert server.served.prompts == "text"
    assert server.score("ifeval", ids) == expected
    assert isinstance(posted(served)[-1]["prompt"], str)
    assert server.untold is not None and "Input should be a string (422)" in server.untold
    assert [setup.task for setup in server.setups()] == ["ifeval"]


def test_a_server_that_puts_tokens_of_its_own_before_a_prompt_is_refused(
    asking: Asking, served: Served
) -> None:
    served.tokens, served.bos = False, [1]
    with pytest.raises(ServerError, match=r"counts \d+ tokens in a prompt that has \d+"):
        asking(IFEVAL)


def test_by_chat_the_server_gets_the_conversation(asking: Asking, served: Served) -> None:
    in_tokens = asking(IFEVAL)
    ids = in_tokens.doc_ids("ifeval")
    server = asking(IFEVAL, api="chat")
    assert server.score("ifeval", ids) == in_tokens.score("ifeval", ids)
    path, _, body = next(seen for seen in served.seen if "chat" in seen[0])
    assert path == "/v1/chat/completions"
    assert body["messages"] == [
        {"role": "user", "content": "Write about number 0 without any comma."}
    ]
    assert body["chat_template_kwargs"] == {"seen": 1}
    assert server.served.prompts == "messages"


def test_by_chat_nothing_is_told_of_a_prompt(asking: Asking, place: Path) -> None:
    server = asking(IFEVAL, choices(place), api="chat")
    assert server.untold == "the chat API gives no log-probabilities of a prompt"
    assert [setup.task for setup in server.setups()] == ["ifeval"]
    plain = IFEVAL.model_copy(update={"apply_chat_template": False})
    with pytest.raises(SettingsError, match="asked without the chat template"):
        asking(plain, api="chat")


def test_what_the_server_cannot_tell_is_left_out_or_refused(asking: Asking, served: Served) -> None:
    served.echo = False
    able, left_out = asking(IFEVAL, TEXT).able()
    assert able.metrics == (IFEVAL,)
    assert able.top_tokens == 0
    assert left_out[0].startswith("perplexity on text.txt: the server at 127.0.0.1")
    assert left_out[0].endswith("echo is not supported (400)")
    assert left_out[1].startswith("drift from the baseline: ")
    gating = TEXT.model_copy(update={"max_ratio": "by-weight-bits"})
    with pytest.raises(BackendUnavailableError, match=r"perplexity on text.txt cannot be measured"):
        asking(IFEVAL, gating).able()
    with pytest.raises(BackendUnavailableError, match="cannot be measured"):
        asking(TEXT).able()


def test_what_no_server_tells(asking: Asking) -> None:
    limited = TEXT.model_copy(update={"max_kl": settings.Settings().metrics[0].min_retention})
    with pytest.raises(BackendUnavailableError, match="how likely other tokens"):
        asking(limited).able()
    speed = asking(IFEVAL).settings.model_copy(update={"speed": settings.Speed()})
    server = asking(IFEVAL)
    server.settings = speed
    able, left_out = server.able()
    assert able.speed is None and left_out[0].startswith("speed: ")
    server.settings = speed.model_copy(update={"speed": settings.Speed(max_peak_bytes=1)})
    with pytest.raises(BackendUnavailableError, match="speed cannot be measured"):
        server.able()
    with pytest.raises(BackendUnavailableError):
        server.generate(None, None)  # type: ignore[arg-type]


def test_long_windows_need_room(model: Model, place: Path) -> None:
    with openai_server.serve(model, context=64) as served:
        asked = stated(served, TEXT)
        checkpoint, _ = opened(place / "model")
        server = Server(checkpoint=checkpoint, harness=None, settings=asked)
        assert server.context == 64
        with pytest.raises(BackendUnavailableError, match="no room for one more in the 64"):
            server.able()
        server.context = 65
        assert server.able()[0].metrics == (TEXT,)


def test_a_task_that_needs_more_room_than_the_server_has(model: Model, place: Path) -> None:
    with openai_server.serve(model, context=12) as served:
        asked = stated(served, IFEVAL)
        checkpoint, _ = opened(place / "model")
        harness = Harness.of(asked, checkpoint, place)
        with pytest.raises(SettingsError, match="generates up to 12 tokens"):
            Server(checkpoint=checkpoint, harness=harness, settings=asked)


@pytest.mark.parametrize(
    ("names", "asked", "said"),
    [
        (("a", "b"), None, "serves a, b: it is not clear which one is meant"),
        ((), None, "serves no model"),
        (("a\x1b[2J",), "b", "serves a, not b"),
        (tuple("abcdefgh"), "x", "serves a, b, c, d, e and 3 more, not x"),
    ],
)
def test_another_model_than_the_one_that_is_meant(
    model: Model, place: Path, names: tuple[str, ...], asked: str | None, said: str
) -> None:
    with openai_server.serve(model, names) as served:
        asking = stated(served, TEXT, model=asked)
        with pytest.raises(ServerError, match=said):
            Server(checkpoint=opened(place / "model")[0], harness=None, settings=asking)


def test_the_model_that_is_named_is_asked(model: Model, place: Path) -> None:
    with openai_server.serve(model, ("a", "b")) as served:
        asking = stated(served, TEXT, model="b")
        server = Server(checkpoint=opened(place / "model")[0], harness=None, settings=asking)
        assert server.served.model == "b"
        assert {body["model"] for body in posted(served)} == {"b"}


@pytest.mark.parametrize(
    ("message", "text", "thinking"),
    [
        ({"content": "Yes", "reasoning_content": "hm"}, "Yes", "closed"),
        ({"content": None, "reasoning": "hm"}, "<think>hm", "unclosed"),
        ({"content": None}, "", None),
    ],
)
def test_thinking_that_the_server_took_out_is_counted(
    asking: Asking, served: Served, message: dict[str, Any], text: str, thinking: str | None
) -> None:
    server = asking(IFEVAL, api="chat", concurrency=1)
    reply = {"choices": [{"message": message, "finish_reason": "stop"}]}
    served.faults.append(Fault("reply", json.dumps(reply).encode()))
    (scored,) = server.score("ifeval", [0])
    assert scored.answer is not None
    assert (scored.answer.text, scored.answer.thinking) == (text, thinking)


def test_an_answer_that_something_cut_into_is_none(asking: Asking, served: Served) -> None:
    server = asking(IFEVAL, api="chat", concurrency=1)
    choice = {"message": {"content": None}, "finish_reason": "tool_calls"}
    served.faults.append(Fault("reply", json.dumps({"choices": [choice]}).encode()))
    with pytest.raises(ServerError, match="ended its answer by 'tool_calls'"):
        server.score("ifeval", [0])
