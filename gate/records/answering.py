"""What became of every document that a model was asked, and how its prompts begin and end."""

from typing import Self

from pydantic import Field, model_validator

from gate.records.storing import Record


class Lost(Record):
    """A document whose answer could not be scored; it counts as the worst score.

    Attributes:
        where: The step and the kind of error, without any text of the document.
    """

    doc_id: int
    where: str


class AnswerStats(Record):
    """The answers to one task, counted; every document that was asked is in `scored` or `lost`.

    Attributes:
        asked: Documents of the task, or those before it was stopped early.
        answered: Documents with a generated answer; 0 where the task generates none.
        ended: Answers that an end token or a stop string ended.
        truncated: Answers that the limit of new tokens ended.
        empty: Answers without a visible character.
        tokens_mean, tokens_median, tokens_max: Generated tokens an answer, thinking included.
        thought: Answers that begin with a think block which they close.
        cut_thinking: Answers that end inside one.
        languages: ISO 639-1 code to share of the answers long enough to tell; the three largest.
    """

    task: str
    asked: int
    answered: int
    scored: int
    lost: tuple[Lost, ...] = ()
    ended: int = 0
    truncated: int = 0
    empty: int = 0
    tokens_mean: float | None = None
    tokens_median: float | None = None
    tokens_max: int | None = None
    thought: int = 0
    cut_thinking: int = 0
    languages: dict[str, float] = Field(default={})

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.scored + len(self.lost) != self.asked:
            raise ValueError(
                f"{self.asked} documents were asked, {self.scored} scored and "
                f"{len(self.lost)} lost: that does not add up"
            )
        if self.ended + self.truncated != self.answered:
            raise ValueError("answers that ended and that were cut are not all answers")
        return self


class Prompting(Record):
    """How a checkpoint's tokenizer and chat template begin and end what the model reads.

    Attributes:
        bos: The BOS token; None where the tokenizer has none.
        declares_bos: `add_bos_token` of tokenizer_config.json; None where it is not stated.
        puts_bos: Whether the tokenizer puts a BOS before a plain text.
        template_bos: Whether the rendered chat template begins with a BOS; None without one.
        prompts_bos: BOS tokens with which the tasks' prompts begin, the most of any task.
        turn_end: The token with which the template ends an answer; None where it shows none.
        ends_turn: Whether generation ends at that token.
        tokens_digests: Task to SHA-256 over the token ids of its first prompts and of a text with
            much that tokenizers treat in different ways; see `prompting.tokens_digest`.
    """

    bos: str | None
    declares_bos: bool | None
    puts_bos: bool
    template_bos: bool | None
    prompts_bos: int
    turn_end: str | None
    ends_turn: bool | None
    tokens_digests: dict[str, str] = Field(default={})
