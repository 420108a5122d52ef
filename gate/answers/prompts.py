"""What is wrong with the beginning and the end of what the model reads."""

from collections.abc import Iterator, Sequence

from gate.records import Concern, Prompting, TaskSetup


def concerns(
    now: Prompting | None, stored: Prompting | None, setups: Sequence[TaskSetup]
) -> Iterator[Concern]:
    """A missing or a second BOS, and an end-of-turn token at which nothing ends.

    A template that begins with a BOS beside a tokenizer that puts one is what many sound models
    have; it is told only where the baseline's model differs.

    Args:
        now: Of the candidate; None where nothing is asked.
        stored: Of the baseline; None where its version did not look.
        setups: How the candidate's tasks are asked.
    """
    if now is None:
        return
    yield from _end(now, stored, setups)
    if now.bos is None:
        return
    if now.prompts_bos > 1:
        yield Concern(
            kind="double-bos",
            message=f"prompts begin with {now.prompts_bos} BOS tokens ({now.bos})",
            fix="Take the BOS out of the chat template, or let the tokenizer put none.",
        )
    elif now.template_bos and _puts(now) and stored is not None and not _doubles(stored):
        how = "tokenizer_config.json asks for" if now.declares_bos else "the tokenizer puts"
        yield Concern(
            kind="double-bos",
            message=f"the chat template begins with the BOS {now.bos} and {how} another, unlike "
            "the baseline's: a runtime that heeds both reads it twice (these prompts hold one)",
            fix="Copy tokenizer_config.json and tokenizer.json from the reference.",
        )
    bare = [setup.task for setup in setups if setup.add_bos is False]
    if now.declares_bos and bare:
        yield Concern(
            kind="missing-bos",
            message=f"tokenizer_config.json says add_bos_token: true, and the prompts of "
            f"{', '.join(bare)} begin without the BOS {now.bos}",
            fix="Save the tokenizer so that tokenizer.json puts it, or say add_bos_token: false "
            "if the model was trained without.",
        )
    if now.declares_bos is False and now.puts_bos:
        yield Concern(
            kind="unwanted-bos",
            message=f"tokenizer_config.json says add_bos_token: false, and tokenizer.json puts the "
            f"BOS {now.bos} before a text",
            fix="Save the tokenizer again, so that both say the same.",
        )


def _end(
    now: Prompting, stored: Prompting | None, setups: Sequence[TaskSetup]
) -> Iterator[Concern]:
    asked = [s.task for s in setups if s.apply_chat_template and s.output_type == "generate_until"]
    if now.ends_turn is False and asked:
        both = stored is not None and stored.ends_turn is False
        yield Concern(
            kind="end-of-turn",
            message=f"the chat template ends an answer with {now.turn_end}, at which generation "
            f"does not end{', in the baseline neither' if both else ''}: the answers to "
            f"{', '.join(asked)} run on behind it",
            fix=f"Add the id of {now.turn_end} to eos_token_id in generation_config.json.",
        )


def _puts(known: Prompting) -> bool:
    """Whether a BOS comes before a text, by tokenizer.json or by what its configuration asks."""
    return known.puts_bos or bool(known.declares_bos)


def _doubles(known: Prompting) -> bool:
    return bool(known.template_bos) and _puts(known)
