"""Think blocks: found at the beginning of an answer only, taken out whole, never invented."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.harness.thinking import MARKERS, decoded, markers, split

TEXT = st.text(alphabet=st.sampled_from("ab </think>\n"), max_size=60)


@pytest.mark.parametrize(("opener", "closer"), [found[:2] for found in MARKERS])
def test_a_closed_block_is_taken_out(opener: str, closer: str) -> None:
    assert split(f"\n{opener}\nHm.\n{closer}\n\nYes.") == ("Yes.", "closed")
    assert split(f"{opener}Hm.{closer}{opener}More.{closer}Yes.") == ("Yes.", "closed")


@pytest.mark.parametrize(
    ("text", "prompt", "answer", "ended"),
    [
        ("Yes.", "", "Yes.", None),
        (" Yes.\n", "", " Yes.\n", None),
        ("", "", "", None),
        ("<think>Hm, let me see", "", "<think>Hm, let me see", "unclosed"),
        ("Hm.</think>\n\nYes.", "user: Q\nassistant: <think>\n", "Yes.", "closed"),
        ("Hm, let me see", "assistant: <think>\n", "Hm, let me see", "unclosed"),
        ("Yes.", "assistant: <think>\n\n</think>\n\n", "Yes.", None),
        ("Close it with </think>, as in HTML.", "", "Close it with </think>, as in HTML.", None),
        ("The tag <think> opens it.", "", "The tag <think> opens it.", None),
        ("<think>a</think>Write </think> here.", "", "Write </think> here.", "closed"),
        ("<think>a</think>", "", "", "closed"),
        ("<think>a</think><think>b", "", "<think>b", "unclosed"),
        ("<|channel|>final<|message|>Yes.", "", "Yes.", None),
    ],
)  # fmt: skip
def test_what_is_an_answer(text: str, prompt: str, answer: str, ended: str | None) -> None:
    assert split(text, prompt) == (answer, ended)


@given(TEXT, TEXT)
def test_any_text_is_split_without_inventing_any(text: str, prompt: str) -> None:
    answer, ended = split(text, prompt)
    assert text.endswith(answer)
    assert ended in {None, "closed", "unclosed"}
    if ended is None and not text.lstrip().startswith("</think>"):
        assert answer == text
    if ended == "closed":
        assert "</think>" in text[: len(text) - len(answer)]


class Tokenizer:
    """Characters are tokens, but for added ones, of which some are special."""

    def __init__(self, *special: str, plain: tuple[str, ...] = ()) -> None:
        self.added = {token: 0x110000 + i for i, token in enumerate((*special, *plain))}
        self.added_tokens_decoder = {
            index: Added(token, token in special) for token, index in self.added.items()
        }

    def get_added_vocab(self) -> dict[str, int]:
        return self.added

    def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        names = {index: token for token, index in self.added.items()}
        special = {i for i, token in self.added_tokens_decoder.items() if token.special}
        return "".join(names.get(t) or chr(t) for t in tokens if t not in special)


class Added(str):
    special: bool

    def __new__(cls, content: str, special: bool) -> "Added":
        made = super().__new__(cls, content)
        made.special = special
        return made


def test_a_model_writes_the_markers_that_it_has_tokens_for() -> None:
    assert [found.opener for found in markers(Tokenizer())] == ["<think>"]
    own = Tokenizer("[THINK]", "[/THINK]", "<s>")
    assert [found.opener for found in markers(own)] == ["<think>", "[THINK]"]


def test_special_markers_survive_decoding_and_other_special_tokens_do_not() -> None:
    own = Tokenizer("[THINK]", "[/THINK]", "</s>")
    tokens = [own.added["[THINK]"], *map(ord, "Hm."), own.added["[/THINK]"], *map(ord, "Yes.")]
    text = decoded(own, [*tokens, own.added["</s>"]])
    assert text == "[THINK]Hm.[/THINK]Yes."
    assert split(text) == ("Yes.", "closed")
    assert decoded(own, []) == ""
