"""A process that judges: what it gets, what it says, what it leaves behind."""

import os
import re
import stat
import sys
import time
from pathlib import Path

import pytest
from checkpoints import build

from gate.errors import BackendUnavailableError
from gate.github import inputs, interpreter, judging
from gate.github.interpreter import Interpreter
from gate.github.judging import Order

REPORT = "for each; do case $each in json=*) REPORT=${each#json=}; esac; done"


def order(tmp_path: Path, script: str | None = None, **given: str) -> Order:
    """An order to the process that a script stands for."""
    reports = tmp_path / "reports"
    reports.mkdir()
    evaluator = None
    if script is not None:
        python = program(tmp_path / "python", f"{REPORT}\n{script}")
        evaluator = Interpreter(str(python), (3, 12, 0), {"torch": "2.13.0"})
    environ = {f"QUANT_GATE_INPUT_{name.upper()}": value for name, value in given.items()}
    return Order(inputs.read(environ), evaluator, tmp_path, None, reports)


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


FAILURES = {
    "no report": ("exit 0", 3, "ended with exit code 0 and stored no report"),
    "killed": ("kill -KILL $$", -9, "was killed"),
    "crashed": ("kill -SEGV $$", -11, "was ended by SIGSEGV"),
    "torn": ("echo '{' >$REPORT; exit 1", 3, "cannot be read as Report"),
    "newer": ("echo '{\"schema_version\": 99}' >$REPORT; exit 4", 3, "schema version 99"),
    "says why": ("printf 'gate: no disk\\n  Buy one.\\n' >&2; exit 3", 3, "no disk"),
}
"""Name to what a process does, the code that is kept and what is said of it."""


@pytest.mark.parametrize("name", FAILURES)
def test_a_missing_or_torn_report_is_a_failure_whatever_the_exit_code(
    name: str, tmp_path: Path
) -> None:
    script, code, reason = FAILURES[name]
    judged = judging.judge("model", order(tmp_path, script))
    assert judged.reports == ()
    (failure,) = judged.failures
    assert reason in failure.message
    assert failure.exit_code == code
    assert failure.hint


def test_several_models_of_a_directory_are_reported_each(tmp_path: Path) -> None:
    for name in ("a", "b"):
        build(tmp_path / "models" / name)
    judged = judging.judge("models", order(tmp_path, lint_only="true"))
    assert [report.checkpoint for report in judged.reports] == ["models/a", "models/b"]
    assert {report.command for report in judged.reports} == {"gate lint -- models"}
    assert judged.failures == ()


def test_a_name_is_never_an_option(tmp_path: Path) -> None:
    build(tmp_path / "--help")
    judged = judging.judge("--help", order(tmp_path, lint_only="true"))
    assert [report.checkpoint for report in judged.reports] == ["--help"]


def test_the_process_has_neither_token_nor_command_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    for name in (
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_RUNTIME_TOKEN",
        "GH_TOKEN", "GIT_CONFIG_VALUE_0", "GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH",
        "GITHUB_STATE", "GITHUB_STEP_SUMMARY", "GITHUB_TOKEN", "QUANT_GATE_INPUT_GITHUB_TOKEN",
    ):  # fmt: skip
        monkeypatch.setenv(name, "secret")
    for name in ("CUDA_VISIBLE_DEVICES", "GITHUB_EVENT_NAME", "HF_TOKEN", "QUANT_GATE_CACHE"):
        monkeypatch.setenv(name, "wanted")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "here", "/elsewhere"]))
    judging.judge("model", order(tmp_path, f"env >{seen}"))
    found = dict(line.partition("=")[::2] for line in seen.read_text().splitlines())
    assert "secret" not in found.values()
    assert list(found.values()).count("wanted") == 4
    # Neither an empty entry nor a relative one: both mean the work tree.
    assert found["PYTHONPATH"] == f"{interpreter.INSTALLATION}{os.pathsep}/elsewhere"
    assert found["PYTHONSAFEPATH"] == "1"


def test_what_is_printed_is_no_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    judging.judge("a\n::error::planted", order(tmp_path, "printf '::add-mask::PASS\\n::error::'"))
    listening, token = True, ""
    lines = capfd.readouterr().out.splitlines()
    for line in lines:
        if listening and line.startswith("::stop-commands::"):
            listening, token = False, line.removeprefix("::stop-commands::")
        elif line == f"::{token}::":
            listening = True
        assert not (listening and re.match(r"\s*::(add-mask|error)", line)), lines
    assert listening
    assert len(token) == 32


def test_what_a_process_leaves_running_is_ended(tmp_path: Path) -> None:
    left = tmp_path / "left"
    judging.judge("model", order(tmp_path, f"sleep 300 & echo $! >{left}"))
    # Killed it is, but the system takes a moment to end it.
    deadline = time.monotonic() + 30
    while _runs(left.read_text().strip()):
        assert time.monotonic() < deadline, "it was not ended"
        time.sleep(0.05)


def _runs(pid: str) -> bool:
    """Whether a process is there and not only waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_without_an_interpreter_for_it_nothing_is_evaluated(tmp_path: Path) -> None:
    said = "printf 'gate: evaluation needs torch: not installed\\n' >&2;"
    said += """echo "  Run: pip install 'quant-gate[eval]'" >&2; exit 3"""
    (failure,) = judging.judge("model", order(tmp_path, said)).failures
    assert "torch" in failure.message
    assert re.fullmatch(r"Run on the runner: \S+ -m pip install .*'lm-eval\[.*", failure.hint)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'Unknown option: -P' >&2; exit 2", "no Python 3.11 or newer: Unknown option: -P"),
        ('echo \'[[3, 12, 1], {"numpy": "1.26.4"}]\'', "lacks what quant-gate imports: click"),
        ("echo nonsense", "cannot be run"),
    ],
)
def test_an_interpreter_that_does_not_do_is_refused(script: str, said: str, tmp_path: Path) -> None:
    python = program(tmp_path / "python", script)
    with pytest.raises(BackendUnavailableError) as caught:
        interpreter.find(str(python), os.environ)
    assert said in caught.value.message


def test_an_interpreter_is_asked_for_its_versions() -> None:
    found = interpreter.find(sys.executable, judging.environment(os.environ))
    assert found.missing(evaluating=True) == []
    assert str(found).startswith(f"{sys.executable}: Python {sys.version_info[0]}.")
    assert "torch" in str(found)
    older = found._replace(installed={**found.installed, "transformers": "4.50.0"})
    (missing,) = older.missing(evaluating=True)
    assert missing.startswith("transformers")
