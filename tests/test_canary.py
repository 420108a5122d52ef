"""The canary condemns only what the baseline does not do as well."""

from gate.canary import defect, degenerated
from gate.records import Answer

SOUND = "Paris is the capital of France, and it lies on the river Seine."
LOOP = "the the the the " * 40


def answers(*texts: str, finish: str = "stop") -> list[Answer]:
    return [
        Answer(doc_id=i, text=text, tokens=len(text.split()), finish=finish)
        for i, text in enumerate(texts)
    ]


def judge(candidate: list[Answer], baseline: list[Answer]) -> tuple[str, ...]:
    found = degenerated("ifeval", candidate, baseline, lambda doc_id: f"prompt {doc_id}")
    return tuple(answer.defect for answer in found)


def test_each_defect_is_told_apart() -> None:
    assert [defect(a) for a in answers("  \n", LOOP, SOUND)] == ["empty", "repeating", None]
    assert defect(answers(SOUND, finish="length")[0]) == "never-ending"


def test_ordinary_prose_and_lists_do_not_repeat() -> None:
    poem = "\n".join(f"{i}. Item number {i} of this rather long list of things" for i in range(9))
    assert defect(answers(poem)[0]) is None


def test_a_candidate_that_only_loops_is_condemned_with_both_answers() -> None:
    found = degenerated(
        "ifeval", answers(*[LOOP] * 4), answers(*[SOUND] * 4), lambda doc_id: f"prompt {doc_id}"
    )
    assert len(found) == 4
    assert (found[0].prompt, found[0].baseline, found[0].candidate) == ("prompt 0", SOUND, LOOP)


def test_what_the_baseline_does_too_is_forgiven() -> None:
    assert judge(answers(*[LOOP] * 8), answers(*[LOOP] * 6, SOUND, SOUND)) == ()


def test_a_few_bad_answers_among_many_are_left_to_the_whole_run() -> None:
    assert judge(answers(*[LOOP] * 3, *[SOUND] * 5), answers(*[SOUND] * 8)) == ()


def test_documents_without_a_stored_answer_decide_nothing() -> None:
    assert judge(answers(*[LOOP] * 5), []) == ()
