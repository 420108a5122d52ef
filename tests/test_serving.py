"""The whole gate against a server: judged, resumed, compared with its like, and never attested."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai_server
import pytest
import results
import yaml
from openai_server import Fault, Model, Served
from pydantic import ValidationError

from gate import attest, baseline, check, policy, preflight, records, settings
from gate.cli.options import request as asked_by
from gate.doctor import doctor
from gate.errors import (
    AttestError,
    BackendUnavailableError,
    BaselineMismatchError,
    ServerError,
    SettingsError,
)
from gate.records import Report
from gate.request import Request
from gate.settings import Server, Settings
from gate.terminal import silent

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

N = 60
SERVED = {"model": "a", "host": "h:1", "api": "completions", "prompts": "tokens"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, sentence_data: Path) -> Path:
    """A directory with documents that a model of noise answers well, and a text."""
    root = tmp_path_factory.mktemp("judged")
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
    (root / "text.txt").write_text(" ".join(f"Line {n} of a text to be read." for n in range(200)))
    return root


class Scribe(Model):
    """Writes the same to every prompt, and is never surprised."""

    def write(self, ids: list[int], max_tokens: int) -> tuple[list[int], str]:
        return self.tokenizer.encode("It is a fine number."), "stop"

    def tell(self, ids: list[int]) -> dict[str, Any]:
        rest = len(ids) - 1
        return {
            "token_logprobs": [None, *[-1.0] * rest],
            "top_logprobs": [None, *[{"": -1.0}] * rest],
        }


@pytest.fixture(scope="module")
def model(place: Path, export: Callable[[str], Path]) -> Model:
    made = openai_server.checkpoint(place / "model", export("bf16"))
    return Scribe(made.model, made.tokenizer)


@pytest.fixture
def served(model: Model) -> Iterator[Served]:
    with openai_server.serve(model) as found:
        yield found


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUANT_GATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def stated(served: Served, **changes: Any) -> Settings:
    return Settings.model_validate(
        {
            "backend": "server",
            "server": {"url": served.url},
            "batch_size": 8,
            "metrics": [
                {
                    "task": "ifeval",
                    "metric": "inst_level_strict_acc",
                    "documents": "documents.jsonl",
                    "max_gen_toks": 16,
                    "min_retention": "0.9",
                },
                {
                    "perplexity": {"file": "text.txt", "window": 32, "windows": 20},
                    "max_ratio": "1.1",
                },
            ],
            **changes,
        }
    )


def request(place: Path, asked: Settings, **more: Any) -> Request:
    return Request(
        checkpoint=str(place / "model"),
        settings=asked,
        root=place,
        command="gate",
        progress=silent,
        store=more.pop("store", lambda record: None),
        **more,
    )


@pytest.fixture
def made(place: Path, served: Served, cache: Path) -> Path:
    """A baseline of what the server serves."""
    path = place / "baselines" / "served.json"
    records.write(path, check.measure(request(place, stated(served), arrays=path.parent)))
    return path


def test_what_is_served_is_judged_by_a_baseline_of_the_same_server(
    place: Path, served: Served, made: Path, cache: Path, tmp_path: Path
) -> None:
    stored = records.read(made, records.EvalResult)
    assert stored.served is not None and stored.served.model == "acme/tiny"
    assert stored.distributions == ()
    before = len(served.seen)
    report = check.check(request(place, stated(served), baseline=made, full=True, reuse=True))
    assert report.verdict.outcome == "pass"
    assert {(c.task, c.outcome) for c in report.verdict.comparisons} == {
        ("ifeval", "pass"),
        ("perplexity", "pass"),
    }
    (concern,) = [c for c in report.verdict.concerns if c.kind == "as-served"]
    assert "the answers are those of acme/tiny at 127.0.0.1:" in concern.message
    assert report.evaluation is not None
    assert report.evaluation.unread[0].startswith("drift from the baseline: a server does not tell")
    assert len(served.seen) > before + N

    check.check(request(place, stated(served), baseline=made, full=True, reuse=True))
    assert len(served.seen) > before + 2 * N, "what a server serves may have changed since"
    assert not (cache / "verdicts").exists()

    records.write(tmp_path / "report.json", report)
    with pytest.raises(AttestError, match=r"measured what the server 127\.0\.0\.1:"):
        attest.attest(tmp_path / "report.json", place / "model")


def test_a_run_that_a_server_broke_off_is_resumed(place: Path, served: Served, cache: Path) -> None:
    metrics = [stated(served).metrics[0].model_dump(exclude_none=True)]
    # One at a time: what is under way elsewhere when one fails would be counted, too.
    asked = stated(served, metrics=metrics, server={"url": served.url, "concurrency": 1})
    slow = [Fault("slow", 0)] * 26
    served.faults.extend([*slow, Fault("status", 400)])
    with pytest.raises(ServerError, match="answer a document of ifeval: told to say 400"):
        check.measure(request(place, asked))
    first = len(served.seen)
    result = check.measure(request(place, asked))
    assert [len(task.samples) for task in result.tasks] == [N] * 4
    # 24 documents were finished; two requests are for the list and the probe.
    assert len(served.seen) - first == N - 24 + 2
    assert not list((cache / "journal").iterdir())


def test_what_gates_and_cannot_be_measured_ends_the_run_before_it_begins(
    place: Path, served: Served, cache: Path
) -> None:
    served.echo = False
    with pytest.raises(BackendUnavailableError, match=r"perplexity on text.txt cannot be measured"):
        check.measure(request(place, stated(served)))
    assert len(served.seen) == 3, "the list, and what can be asked for"


def test_doctor_asks_the_server(place: Path, served: Served, made: Path) -> None:
    found = {c.name: c for c in doctor(request(place, stated(served), baseline=made))}
    assert found["server"].detail == f"acme/tiny at {served.url.removeprefix('http://')}"
    assert "memory" not in found and found["baseline"].error is None
    served.names = ("a", "b")
    found = {c.name: c for c in doctor(request(place, stated(served)))}
    assert isinstance(found["server"].error, ServerError)
    assert isinstance(found["baseline"], preflight.Check) and found["baseline"].error


def test_results_of_two_apis_are_not_compared(tmp_path: Path) -> None:
    def kept(api: str | None, backend: str) -> Any:
        served = SERVED | {"api": api} if api else None
        return results.result(results.task([1.0]), backend=backend, served=served, device=f"{api}")

    texts, chats, own = kept("completions", "server"), kept("chat", "server"), kept(None, "hf")
    assert len({baseline.fingerprint(each) for each in (texts, chats, own)}) == 3
    differ = baseline.mismatches(texts, baseline.Conditions.of(chats))
    assert differ == ("the server's api is completions in the baseline and chat here",)
    assert baseline.mismatches(texts, baseline.Conditions.of(texts)) == ()
    assert baseline.warnings(texts, baseline.Conditions.of(texts)) == ()
    differ = baseline.mismatches(own, baseline.Conditions.of(texts))
    assert differ == ("backend is hf in the baseline and server here",)
    with pytest.raises(BaselineMismatchError):
        baseline.require_comparable(
            own, baseline.Conditions.of(texts), tmp_path / "own.json", "gate eval"
        )


def test_stored_answers_of_a_server_stay_those_of_a_server(tmp_path: Path) -> None:
    evaluation = results.result(results.task([1.0]), backend="replay", served=SERVED)
    with pytest.raises(AttestError, match="the server h:1 serves as a"):
        attest._require_own(_report(evaluation), tmp_path / "report.json")
    attest._require_own(_report(results.result(results.task([1.0]))), tmp_path / "report.json")


def _report(evaluation: Any) -> Report:
    return Report.model_construct(evaluation=evaluation)


@pytest.mark.parametrize(
    "url", ["ftp://host", "host:80", "http://", "http://me:key@host", "http://host/?a=b",
            "http://host#a", "http://ho st", "http://host:port", "http://host/\x1b[2J"],
)  # fmt: skip
def test_what_is_no_address_of_a_server(url: str) -> None:
    with pytest.raises(ValidationError):
        Server(url=url)


def test_the_address_of_a_server() -> None:
    for url in ("http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"):
        assert Server(url=url).url == "http://h:1"
    assert Server(url="https://h/a/v1").url == "https://h/a"
    with pytest.raises(ValidationError, match="backend: server needs server"):
        Settings(backend="server")


FIRST = {"version": 1, "backend": "server", "server": {"url": "http://127.0.0.1:9", "key_env": "K"}}


def test_a_pull_request_names_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "quant-gate.yaml"
    file.write_text(yaml.safe_dump(FIRST))
    assert asked_by("", file).settings.backend == "server"
    for event in settings.whole.PULL_REQUEST_EVENTS:
        monkeypatch.setenv("GITHUB_EVENT_NAME", event)
        with pytest.raises(SettingsError, match="server is not taken from the settings of a pull"):
            asked_by("", file)
    trusted = policy.Trusted.__new__(policy.Trusted)
    object.__setattr__(trusted, "settings", settings.read(file))
    object.__setattr__(trusted, "root", tmp_path)
    assert asked_by("", file, trusted=trusted).settings.backend == "server"


def test_a_change_that_brings_the_first_settings_names_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def git(*arguments: str) -> None:
        own = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        subprocess.run(own, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "first")
    Path("quant-gate.yaml").write_text(yaml.safe_dump(FIRST))
    git("add", ".")
    git("commit", "-q", "-m", "settings")
    with (
        pytest.raises(SettingsError, match="server is not taken from a change"),
        policy.opened("HEAD~", None),
    ):
        pass
    with policy.opened("HEAD", None) as trusted:
        assert trusted.settings.backend == "server"
