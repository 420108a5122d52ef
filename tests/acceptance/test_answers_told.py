"""What the command tells of answers that lie, beside a verdict that they do not decide."""

from pathlib import Path

import results
from checkpoints import build
from test_exit_codes import SETTINGS, SOUND, gate, measured, said

from gate import records
from gate.records import Answer, Prompting

N = 200


def test_answers_are_counted_and_told_beside_the_verdict(tmp_path: Path) -> None:
    path = build(tmp_path / "quantized_model", "FP8")
    written = [
        Answer(doc_id=i, text=SOUND, tokens=9, finish="length" if i < 12 else "stop")
        for i in range(N)
    ]
    prompting = Prompting(
        bos="<s>",
        declares_bos=None,
        puts_bos=False,
        template_bos=True,
        prompts_bos=2,
        turn_end="</s>\x1b[2J",
        ends_turn=False,
    )
    candidate = measured(
        path,
        [1.0] * N,
        300.0,
        format="modelopt",
        weight_bits=8,
        answers={"ifeval": written},
        setups=(results.setup(n_documents=N, think="strip"),),
        prompting=prompting,
    )
    records.write(tmp_path / "candidate.json", candidate)
    older = measured(path, [1.0] * N, 300.0, weights_digest="0" * 64)
    records.write(tmp_path / "baselines" / "base.json", older)
    (tmp_path / "quant-gate.yaml").write_text(SETTINGS)

    text = said(gate(tmp_path, "check", "quantized_model", "--full"), 0)
    assert text.startswith("PASS")
    assert "Warning: ifeval: 12 of 200 answers were cut at the limit of 1,280 new tokens" in text
    assert "Warning: prompts begin with 2 BOS tokens (<s>)" in text
    assert "Warning: the chat template ends an answer with </s>, at which generation" in text
    assert "\x1b" not in text, "a token's name is text of the checkpoint"
    told = "200 asked, 200 scored, 0 lost; 12 ended at the limit (baseline 0)"
    assert told in " ".join(text.split())
