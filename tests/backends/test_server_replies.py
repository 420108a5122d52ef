"""Replies of a server: believed only in the shape that OpenAI publishes."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion

from gate.backends import server_replies
from gate.errors import GateError, NonFiniteLogitsError, ServerError

TOKENS = [5, 6, 7]
NAMES = ["choices", "usage", "text", "message", "content", "finish_reason", "logprobs", "data"]
NAMES += ["id", "token_logprobs", "top_logprobs", "prompt_tokens", "reasoning", "stop", "length"]

SAID = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(NAMES),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=4)
    ),
    max_leaves=25,
)


def reply(own: list[Any], tops: Any) -> dict[str, Any]:
    logprobs = {"token_logprobs": own, "top_logprobs": tops}
    return {"choices": [{"text": "", "finish_reason": "length", "logprobs": logprobs}]}


@given(SAID)
def test_whatever_a_server_replies_is_refused_or_read(said: Any) -> None:
    whole = {"choices": [{"finish_reason": "stop", "logprobs": said, "message": said}]}
    for value in (said, {"choices": said}, {"choices": [said]}, {"data": said}, whole):
        for read in (
            lambda v: server_replies.answered(v, "answer"),
            lambda v: server_replies.told(v, TOKENS, "tell"),
            lambda v: server_replies.models(v, "list"),
        ):
            try:
                read(value)
            except GateError as error:
                assert len(error.message) < 1000


def test_what_a_server_tells_of_a_prompt() -> None:
    tops = [None, {"a": -0.5, "b": -0.1}, {"c": -0.25}]
    for more in ([], [-1.0]):
        said = reply([None, -0.5, -0.25, *more], [*tops, *({"z": m} for m in more)])
        assert server_replies.told(said, TOKENS, "tell") == ([-0.5, -0.25], [False, True])


@pytest.mark.parametrize(
    ("own", "tops", "said"),
    [
        ([None, -0.5], [None, {"a": -0.5}], "2 log-probabilities for 3 tokens"),
        ([None, -1.0, -1.0, -1.0, -1.0], [None, *[{"a": -1.0}] * 4], "5 log-probabilities"),
        ([None, -0.5, None], [None, {"a": -0.5}, {"a": -0.5}], "a token without"),
        ([None, -0.5, -0.5], [None, {"a": -0.5}, {}], "a token without"),
        ([None, -0.5, -0.5], [None, {"a": -0.5}], "2 likeliest tokens for 3"),
        ([None, -0.5, -0.5], None, "3 log-probabilities for 3"),
        ([None, -0.5, 0.5], [None, {"a": -0.5}, {"a": 0.5}], "a log-probability of 0.5"),
    ],
)
def test_what_is_not_told_of_every_token_is_refused(own: Any, tops: Any, said: str) -> None:
    with pytest.raises(ServerError, match=said):
        server_replies.told(reply(own, tops), TOKENS, "tell")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_log_probability_that_is_no_number_is_the_models_defect(value: float) -> None:
    said = json.loads(json.dumps(reply([None, value, -1.0], [None, {"a": -1.0}, {"a": -1.0}])))
    with pytest.raises(NonFiniteLogitsError):
        server_replies.told(said, TOKENS, "tell")
    with pytest.raises(NonFiniteLogitsError):
        server_replies.told(
            reply([None, -1.0, -1.0], [None, {"a": value}, {"a": -1.0}]), TOKENS, "tell"
        )


def test_answers_in_the_shape_that_openai_publishes() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    head = {"id": "1", "created": 1, "model": "m", "usage": usage}
    choice = {"index": 0, "text": "Yes", "finish_reason": "length", "logprobs": None}
    text = Completion(object="text_completion", choices=[choice], **head)
    message = {"role": "assistant", "content": "Yes"}
    spoken = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    chat = ChatCompletion(object="chat.completion", choices=[spoken], **head)
    assert server_replies.answered(text.model_dump(), "answer") == ("Yes", False, 3)
    assert server_replies.answered(chat.model_dump(), "answer") == ("Yes", True, 3)
