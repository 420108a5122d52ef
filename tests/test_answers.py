"""Answers that lie are counted, compared and told; sound pairs of models are left in peace."""

from collections.abc import Sequence

import numpy as np
import pytest
import results
from pydantic import ValidationError

from gate import answers
from gate.answers import languages
from gate.backends.replay import Replay
from gate.records import (
    Answer,
    AnswerStats,
    BaselineInfo,
    EvalResult,
    LintResult,
    Lost,
    Prompting,
    Report,
    ScoredDocument,
    Verdict,
)

N = 200
ENGLISH = "The weather in the town was so pleasant that nobody wanted to stay at home that day. "
GERMAN = "Das Wetter in der Stadt war so angenehm, dass an diesem Tag niemand zu Hause blieb. "
FRENCH = "Le temps dans la ville était si agréable que personne ne voulait rester à la maison. "

PROMPTING = Prompting(
    bos="<s>",
    declares_bos=None,
    puts_bos=False,
    template_bos=True,
    prompts_bos=1,
    turn_end="</s>",
    ends_turn=True,
)


def answer(doc_id: int, text: str = "Yes.", **changes: object) -> Answer:
    stated = {"doc_id": doc_id, "text": text, "tokens": 20, "finish": "stop"}
    return Answer.model_validate(stated | changes)


def result(written: Sequence[Answer], *, think: str | None = "strip", **changes: object):
    """A stored result with these answers to its first documents."""
    stated = {
        "setups": (results.setup(n_documents=N, think=think),),
        "answers": {"ifeval": tuple(written)},
        "prompting": PROMPTING,
    }
    return results.result(results.task([1.0] * len(written)), **(stated | changes))


def report(candidate: EvalResult | None) -> Report:
    return Report(
        gate_version="0.1.0",
        checkpoint="models/fp8",
        revision=None,
        command="gate check models/fp8",
        settings={},
        lint=LintResult(format=None, findings=(), rules_run=(), skipped=()),
        size=None,
        evaluation=candidate,
        baseline=BaselineInfo(
            path="b.json", model="m", revision=None, weights_digest="0", date="", device="cpu"
        ),
        verdict=Verdict(outcome="pass", reasons=("fine",), fix=None, stage="evaluation"),
        date="",
        duration_s=1.0,
    )


def told(before: Sequence[Answer], after: Sequence[Answer], **changes: object) -> dict[str, str]:
    """Kind to message of every concern."""
    explained = answers.explained(report(result(after, **changes)), result(before))
    return {concern.kind: concern.message for concern in explained.verdict.concerns}


SOUND = [answer(i, ENGLISH, tokens=15 + i % 9) for i in range(N)]


def documents(written: Sequence[Answer], lost: dict[int, str]) -> list[ScoredDocument]:
    return [
        ScoredDocument(
            doc_id=a.doc_id,
            doc_hash="",
            prompt_hash="",
            points=(),
            answer=a,
            lost=lost.get(a.doc_id),
        )
        for a in written
    ]


def test_every_document_is_counted() -> None:
    written = [
        answer(0, ENGLISH, tokens=10),
        answer(1, "", tokens=0),
        answer(2, GERMAN, tokens=50, finish="length", thinking="unclosed"),
        answer(3, ENGLISH, tokens=20, thinking="closed"),
    ]
    setup = results.setup(think="strip")
    (stats,) = answers.counted([setup], {"ifeval": documents(written, {1: "scoring, KeyError"})})
    assert (stats.asked, stats.answered, stats.scored) == (4, 4, 3)
    assert stats.lost == (Lost(doc_id=1, where="scoring, KeyError"),)
    assert (stats.ended, stats.truncated, stats.empty) == (3, 1, 1)
    assert (stats.tokens_mean, stats.tokens_median, stats.tokens_max) == (20.0, 15.0, 50)
    assert (stats.thought, stats.cut_thinking) == (1, 1)
    assert stats.languages == {"en": 0.6667, "de": 0.3333}


def test_a_task_without_answers_is_counted_where_it_lost_a_document() -> None:
    setup = results.setup(output_type="multiple_choice")
    plain = [d.model_copy(update={"answer": None}) for d in documents(SOUND[:3], {})]
    assert answers.counted([setup], {"ifeval": plain}) == ()
    lost = [plain[0].model_copy(update={"lost": "scoring, KeyError"}), *plain[1:]]
    (stats,) = answers.counted([setup], {"ifeval": lost})
    assert (stats.asked, stats.answered, stats.scored, len(stats.lost)) == (3, 0, 2, 1)


@pytest.mark.parametrize("asked", [9, 11])
def test_counts_that_do_not_add_up_are_refused(asked: int) -> None:
    with pytest.raises(ValidationError, match="does not add up"):
        AnswerStats(task="ifeval", asked=asked, answered=10, ended=10, scored=10)
    with pytest.raises(ValidationError, match="not all answers"):
        AnswerStats(task="ifeval", asked=10, answered=10, scored=10, ended=9)


def test_the_baseline_is_counted_on_the_documents_that_were_asked() -> None:
    stored = result([a.model_copy(update={"finish": "length"}) for a in SOUND])
    (stats,) = answers.beside(stored, result(SOUND[:30]))
    assert (stats.asked, stats.scored, stats.truncated) == (30, 30, 30)


def test_blocks_of_an_older_baseline_are_found_in_its_answers() -> None:
    stored = result([answer(0, "<think>Hm.</think>Yes."), answer(1, "Yes.")], think=None)
    (stats,) = answers.beside(stored, result(SOUND[:2]))
    assert (stats.thought, stats.cut_thinking) == (1, 0)


def test_replayed_answers_keep_what_was_lost() -> None:
    stats = AnswerStats(
        task="ifeval", asked=2, answered=2, ended=2, scored=1,
        lost=(Lost(doc_id=1, where="scoring, KeyError"),),
    )  # fmt: skip
    stored = result(SOUND[:2], answer_stats=(stats,))
    replayed = Replay(stored, stored.weights_digest).score("ifeval", [0, 1])
    assert [document.lost for document in replayed] == [None, "scoring, KeyError"]


def test_the_report_holds_both_counts_and_its_other_concerns() -> None:
    shown = answers.explained(report(result(SOUND)), result(SOUND))
    assert shown.verdict.concerns == ()
    assert shown.baseline is not None
    assert [stats.asked for stats in shown.baseline.answer_stats] == [N]


def test_a_report_without_an_evaluation_stays_as_it_is() -> None:
    bare = report(None)
    assert answers.explained(bare, result(SOUND)) is bare


def changed(share: float, **changes: object) -> list[Answer]:
    """Sound answers of which the first share is changed."""
    count = round(share * N)
    return [a.model_copy(update=changes) if a.doc_id < count else a for a in SOUND]


@pytest.mark.parametrize(
    ("kind", "after", "message"),
    [
        ("empty-answers", changed(0.06, text=" \n"), "12 of 200 answers are empty, 0 of"),
        ("truncated-answers", changed(0.06, finish="length"), "limit of 1,280 new tokens, 0 of"),
        ("cut-thinking", changed(0.06, thinking="unclosed"), "12 of 200 answers end inside"),
        ("thinking", changed(0.10, thinking="closed"), "20 of 200 answers begin with a think"),
        ("answer-language", changed(0.15, text=GERMAN), "answers are in"),
        ("answer-length", changed(1.0, tokens=60), "times as long"),
    ],
    ids=lambda value: value if isinstance(value, str) and "-" in value else "",
)
def test_what_came_about_is_told(kind: str, after: list[Answer], message: str) -> None:
    found = told(SOUND, after)
    assert kind in found and message in found[kind], found
    if kind != "cut-thinking":
        assert set(found) == {kind}
    if kind not in {"cut-thinking", "thinking", "answer-language", "answer-length"}:
        assert told(after, SOUND) == {}, "what went away is none"


@pytest.mark.parametrize(
    "after",
    [
        changed(0.04, text=" \n"),
        changed(0.04, finish="length"),
        changed(0.01, thinking="unclosed"),
        changed(0.04, text=FRENCH),
        changed(0.4, tokens=30),
    ],
)
def test_little_is_not_told(after: list[Answer]) -> None:
    assert told(SOUND, after) == {}


def test_chance_is_not_told_however_large_the_move() -> None:
    lengths = [a.model_copy(update={"tokens": 80 if a.doc_id % 2 else 12}) for a in SOUND[:10]]
    assert told(SOUND[:10], lengths) == {}, "1.4 times as long, by five answers of ten"
    before = [a.model_copy(update={"text": GERMAN}) if a.doc_id < 15 else a for a in SOUND]
    after = [a.model_copy(update={"text": GERMAN}) if 15 <= a.doc_id < 45 else a for a in SOUND]
    assert told(before, after) == {}, "30 answers one way and 15 the other"


def test_both_languages_of_a_move_are_one_concern() -> None:
    mixed = [a.model_copy(update={"text": GERMAN if a.doc_id % 2 else ENGLISH}) for a in SOUND]
    found = told(mixed, SOUND)
    assert list(found) == ["answer-language"]
    assert "100 of the baseline's" in found["answer-language"]


def test_alike_models_are_left_in_peace() -> None:
    """Each answer drawn anew for both models: 60 pairs, five checks each, one alarm expected
    in three such tests."""
    rng = np.random.default_rng(0)

    def drawn() -> list[Answer]:
        return [
            answer(
                i,
                "" if rng.random() < 0.05 else "Yes.",
                tokens=int(np.exp(rng.normal(4, 1))),
                finish="length" if rng.random() < 0.3 else "stop",
                thinking="closed" if rng.random() < 0.5 else None,
            )
            for i in range(N)
        ]

    alarms = sum(bool(told(drawn(), drawn())) for _ in range(60))
    assert alarms <= 1


def test_lost_samples_are_told_whoever_lost_them() -> None:
    stats = AnswerStats(
        task="ifeval", asked=N, answered=N, ended=N, scored=N - 7,
        lost=tuple(Lost(doc_id=i, where="scoring, KeyError") for i in range(7)),
    )  # fmt: skip
    found = told(SOUND, SOUND, answer_stats=(stats,))
    assert found["lost-samples"] == (
        "ifeval: 7 of 200 documents could not be scored and count as wrong for the candidate "
        "(scoring, KeyError; documents 0, 1, 2, 3, 4, …)"
    )
    stored = result(SOUND, answer_stats=(stats,))
    (concern,) = answers.explained(report(result(SOUND)), stored).verdict.concerns
    assert "for the baseline" in concern.message


def test_a_language_is_told_the_same_each_time_and_short_texts_in_none() -> None:
    texts = [answer(0, ENGLISH), answer(1, GERMAN), answer(2, "Yes."), answer(3, "1 2 3 " * 50)]
    assert languages.of_all(texts) == {0: "en", 1: "de"}
    assert languages.of_all(reversed(texts)) == {0: "en", 1: "de"}


def prompted(now: Prompting | None, stored: Prompting | None = PROMPTING, **setup: object):
    setups = (results.setup(n_documents=N, think="strip", **setup),)
    candidate = result(SOUND, prompting=now, setups=setups)
    explained = answers.explained(report(candidate), result(SOUND, prompting=stored))
    return {concern.kind: concern.message for concern in explained.verdict.concerns}


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"prompts_bos": 2}, "double-bos", "prompts begin with 2 BOS tokens (<s>)"),
        ({"declares_bos": True}, "double-bos", "tokenizer_config.json asks for another"),
        ({"puts_bos": True}, "double-bos", "the tokenizer puts another"),
        ({"puts_bos": True, "declares_bos": False, "template_bos": False}, "unwanted-bos", "false"),
        ({"ends_turn": False}, "end-of-turn", "ends an answer with </s>, at which"),
    ],
    ids=["measured", "declared", "put", "unwanted", "end"],
)
def test_prompts_that_begin_or_end_wrongly(
    changes: dict[str, object], kind: str, said: str
) -> None:
    found = prompted(PROMPTING.model_copy(update=changes))
    assert list(found) == [kind] and said in found[kind]


def test_what_the_reference_has_as_well_is_no_second_bos() -> None:
    both = PROMPTING.model_copy(update={"declares_bos": True, "puts_bos": True})
    assert prompted(both, both) == {}
    assert prompted(both, None) == {}, "an older baseline does not know"


def test_prompts_without_the_bos_that_is_asked_for() -> None:
    bare = PROMPTING.model_copy(
        update={"declares_bos": True, "template_bos": False, "prompts_bos": 0}
    )
    assert "of ifeval begin without the BOS <s>" in prompted(bare, add_bos=False)["missing-bos"]
    assert prompted(PROMPTING, add_bos=False) == {}, "nobody asks for it"


def test_an_end_that_nobody_asks_for_or_knows_is_none() -> None:
    endless = PROMPTING.model_copy(update={"ends_turn": False})
    assert prompted(endless, apply_chat_template=False) == {}
    assert prompted(PROMPTING.model_copy(update={"turn_end": None, "ends_turn": None})) == {}
    assert prompted(None) == {}
    assert "in the baseline neither" in prompted(endless, endless)["end-of-turn"]
