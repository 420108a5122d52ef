"""A release on a hub of its own, by the real client, and all that must keep it from happening."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from github_repository import Repository
from huggingface_hub import ModelCard, constants, snapshot_download
from writable_hub import TOKEN, Fault, Hub, writable

from gate import upload
from gate.cli import cli
from gate.errors import ChangedError, PublishError, SettingsError

MODEL, REPO = "quantized_model", "acme/model"
CARD = "---\n# the base's licence\nlicense: apache-2.0\nlanguage: no\n---\n# My model\n\nBy hand.\n"
Push = Callable[..., str]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a card that was judged and attested, and its report."""
    made = Repository(tmp_path_factory.mktemp("judged") / "models")
    made.change(sound=[MODEL])
    (made.root / MODEL / "README.md").write_text(CARD, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.root)
        patch.setenv("QUANT_GATE_CACHE", str(made.root.parent / "cache"))
        run("check", MODEL, "--full", "--report", "json=report.json")
        run("attest", "report.json", "--checkpoint", MODEL, "-o", "statement.json")
    return made.root


@pytest.fixture
def here(judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it for one test, which is the current directory."""
    own = Path(shutil.copytree(judged, tmp_path / "models"))
    monkeypatch.chdir(own)
    return own


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the real client of this process talks to."""
    with writable() as made:
        at(made, monkeypatch)
        yield made


def at(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    """What the client reads from the environment when it is imported; no wait between tries."""
    patch.setattr(constants, "ENDPOINT", hub.endpoint)
    template = "{endpoint}/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", template.replace("{endpoint}", hub.endpoint)
    )
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setenv("HF_TOKEN", TOKEN)
    patch.setattr(upload, "SMALL_BYTES", 5_000)
    patch.setattr(upload, "PAUSES_S", (0, 0))
    patch.setattr("time.sleep", lambda seconds: None)


@pytest.fixture
def push(here: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> Push:
    """Pushes by the command, with the report; what it prints."""

    def call(*options: str, code: int = 0) -> str:
        capsys.readouterr()
        files = ("--statement", "statement.json", "--report", "report.json")
        run("push", MODEL, REPO, *files, *options, code=code)
        return capsys.readouterr().out

    return call


def run(*arguments: str, code: int = 0) -> None:
    assert cli.main(list(arguments), standalone_mode=False) == code


def large(hub: Hub) -> list[tuple[str, str]]:
    return [request for request in hub.requests if request[0] == "PUT"]


def test_a_download_verifies_with_the_same_statement(
    here: Path, hub: Hub, push: Push, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"PUSHED  {hub.endpoint}/{REPO}/commit/" in push()
    assert hub.repos[REPO].private
    assert len(large(hub)) > 0, "the weights are large"
    own = here.parent / "download"
    snapshot_download(REPO, local_dir=own, cache_dir=here.parent / "cache", endpoint=hub.endpoint)
    published = {path.relative_to(own).as_posix() for path in own.rglob("*") if path.is_file()}
    assert {"quant-gate/report.json", "quant-gate/report.md", ".gitattributes"} < published
    run("verify", str(own), "--statement", str(own / "quant-gate" / "statement.json"))
    for name in sorted({p for p in published if ".cache" not in p} - {".gitattributes"}):
        if name == "quant-gate/statement.json":
            continue
        content = (own / name).read_bytes()
        (own / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
        capsys.readouterr()
        run("verify", str(own), "--statement", "statement.json", code=1)
        assert f"{name} " in capsys.readouterr().out
        (own / name).write_bytes(content)


def test_the_card_keeps_what_its_author_wrote(hub: Hub, push: Push) -> None:
    push()
    card = hub.content(REPO)["README.md"].decode()
    assert "# the base's licence\nlicense: apache-2.0\nlanguage: no\n" in card
    assert "# My model\n\nBy hand.\n" in card
    results = ModelCard(card).data.eval_results
    assert results is not None
    assert {r.metric_type for r in results} >= {"retention"}
    report = json.loads(hub.content(REPO)["quant-gate/report.json"])
    assert report["checkpoint"] == MODEL


def test_pushed_again_it_is_the_same_commit(hub: Hub, push: Push) -> None:
    push()
    commits, moved = len(hub.repos[REPO].trees), dict(hub.moved)
    push()
    assert (len(hub.repos[REPO].trees), dict(hub.moved)) == (commits, moved)


def test_what_was_not_judged_goes_nowhere(here: Path, hub: Hub, push: Push) -> None:
    (here / MODEL / "modeling_evil.py").write_text("", encoding="utf-8")
    assert "modeling_evil.py was added after the verdict" in push(code=1)
    assert hub.requests == []


def test_limits_and_age_are_asked_before_anything_is_uploaded(hub: Hub, push: Push) -> None:
    assert "1.5 is asked" in push("--require", "ifeval>=1.5", code=1)
    assert hub.requests == []


def test_a_dry_run_shows_all_of_it_and_asks_nobody(hub: Hub, push: Push) -> None:
    shown = push("--dry-run", "--revision", "next")
    assert "would go to acme/model on the branch next, private" in shown
    assert "model.safetensors" in shown and "quant-gate/report.md" in shown
    assert "+## Evaluated by quant-gate" in shown and "-# My model" not in shown
    assert hub.requests == []


def test_without_a_report_the_card_is_left_alone(
    here: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    run("push", MODEL, REPO, "--statement", "statement.json")
    assert hub.content(REPO)["README.md"].decode() == CARD
    with pytest.raises(SettingsError, match="nothing says that this checkpoint was judged"):
        run("push", MODEL, REPO)


def test_a_statement_is_made_of_the_report(here: Path, hub: Hub) -> None:
    run("push", MODEL, REPO, "--report", "report.json")
    made = json.loads(hub.content(REPO)["quant-gate/statement.json"])
    assert made == json.loads((here / "statement.json").read_text(encoding="utf-8"))


def test_a_report_that_was_not_attested_is_not_published(here: Path, hub: Hub, push: Push) -> None:
    report = json.loads((here / "report.json").read_text(encoding="utf-8"))
    report["verdict"]["reasons"] = ["better than the original"]
    (here / "report.json").write_text(json.dumps(report), encoding="utf-8")
    shown = push(code=1)
    assert "does not speak of README.md as this report would have it published" in shown
    assert hub.requests == []


def test_nothing_private_becomes_public_and_nothing_public_gets_a_checkpoint_unasked(
    hub: Hub, push: Push
) -> None:
    hub.add(REPO, private=True)
    with pytest.raises(SettingsError, match="is private"):
        push("--public")
    hub.add(REPO, private=False)
    with pytest.raises(SettingsError, match="is public"):
        push()
    assert large(hub) == []
    push("--public")
    assert not hub.repos[REPO].private


def test_files_that_nobody_judged_stay_only_as_long_as_nothing_is_published(
    hub: Hub, push: Push
) -> None:
    hub.add(REPO, {"pytorch_model.bin": b"old", "sub/old.json": b"{}"})
    with pytest.raises(SettingsError, match=r"not judged: pytorch_model.bin, sub/old.json"):
        push()
    assert large(hub) == []
    push("--delete")
    assert not {"pytorch_model.bin", "sub/old.json"} & hub.content(REPO).keys()
    assert len(hub.repos[REPO].trees) == 3, "removed by the same commit"


def test_a_card_on_the_hub_is_not_lost(here: Path, hub: Hub) -> None:
    (here / MODEL / "README.md").unlink()
    report = json.loads((here / "report.json").read_text(encoding="utf-8"))
    del report["digests"]["README.md"]
    (here / "report.json").write_text(json.dumps(report), encoding="utf-8")
    hub.add(REPO, {"README.md": CARD.encode()})
    with pytest.raises(SettingsError, match="acme/model has a model card"):
        run("push", MODEL, REPO, "--report", "report.json")
    run("push", MODEL, REPO, "--report", "report.json", "--delete")
    assert b"By hand." not in hub.content(REPO)["README.md"]
    run("push", MODEL, REPO, "--report", "report.json")


def test_a_branch_is_made_and_the_main_one_left_alone(hub: Hub, push: Push) -> None:
    push("--revision", "v1/candidate")
    assert "model.safetensors" in hub.content(REPO, "v1/candidate")
    assert hub.content(REPO).keys() == {".gitattributes"}


def test_gitignore_leaves_nothing_out(hub: Hub, push: Push) -> None:
    hub.add(REPO, {".gitignore": b"*.safetensors\n"})
    push("--delete")
    assert "model.safetensors" in hub.content(REPO)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PUT", ".", status=500),
        Fault("PUT", ".", status=429),
        Fault("POST", "/preupload/", status=503),
        Fault("POST", "objects/batch", status=429),
        Fault("POST", "/commit/", status=429),
        Fault("POST", "/commit/", status=500, times=2),
        Fault("PUT", ".", cut_after=1000),
    ],
    ids=lambda fault: f"{fault.method} {fault.status}",
)
def test_a_hub_that_is_busy_is_asked_again(hub: Hub, push: Push, fault: Fault) -> None:
    hub.faults.append(fault)
    push()
    assert "model.safetensors" in hub.content(REPO)


def test_an_upload_that_was_cut_goes_on_where_it_was(here: Path, hub: Hub, push: Push) -> None:
    hub.faults.append(Fault("POST", "/commit/", status=500, times=9))
    with pytest.raises(PublishError, match="cannot be uploaded"):
        push()
    assert hub.content(REPO).keys() == {".gitattributes"}
    moved = dict(hub.moved)
    hub.faults.clear()
    push()
    assert dict(hub.moved) == moved, "what was uploaded is not sent again"
    assert "model.safetensors" in hub.content(REPO)


def test_a_commit_whose_answer_was_lost_is_found(hub: Hub, push: Push) -> None:
    repo = hub.add(REPO)

    def lose() -> None:
        # The next answer is an error, though the commit is made.
        hub.before_commit = lambda: None
        hub.lose_answer = True

    hub.before_commit = lose
    assert "PUSHED" in push()
    assert len(repo.trees) == 2


def test_somebody_elses_commit_in_between_is_not_overwritten(hub: Hub, push: Push) -> None:
    repo = hub.add(REPO)

    def meanwhile() -> None:
        hub.before_commit = lambda: None
        repo.commit("main", {"README.md": b"theirs"}, "theirs")

    hub.before_commit = meanwhile
    with pytest.raises(PublishError, match="somebody else committed"):
        push()
    assert hub.content(REPO) == {"README.md": b"theirs"}


def test_a_file_that_changes_while_it_is_uploaded_is_not_published(
    here: Path, hub: Hub, push: Push
) -> None:
    weights = here / MODEL / "model.safetensors"

    def change() -> None:
        weights.write_bytes(weights.read_bytes())

    hub.on_upload = change
    with pytest.raises(ChangedError, match=r"model\.safetensors was written to"):
        push()
    assert hub.content(REPO).keys() == {".gitattributes"}


def test_what_changed_after_it_was_verified_is_not_published(
    here: Path, hub: Hub, push: Push
) -> None:
    weights, config = here / MODEL / "model.safetensors", here / MODEL / "config.json"
    verified = config.read_bytes()

    def later(path: Path) -> Callable[[], None]:
        def change() -> None:
            hub.on_request = lambda: None
            content = path.read_bytes()
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

        return change

    hub.on_request = later(weights)
    with pytest.raises(ChangedError, match=r"model\.safetensors changed: SHA-256"):
        push()
    assert hub.content(REPO).keys() == {".gitattributes"}
    later(weights)()
    hub.on_request = later(config)
    push()
    assert hub.content(REPO)["config.json"] == verified != config.read_bytes()


def test_bytes_that_the_hub_took_for_others_are_told(hub: Hub, push: Push) -> None:
    repo = hub.add(REPO)
    made = repo.commit

    def other(branch: str, tree: dict[str, bytes | str], title: str) -> str:
        return made(branch, {**tree, "config.json": b"{}"}, title)

    repo.commit = other  # type: ignore[method-assign]
    with pytest.raises(PublishError, match=r"other bytes than were verified: config\.json"):
        push()


def test_large_files_go_up_in_parts_where_the_hub_wants_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writable(part_bytes=4096) as hub:
        at(hub, monkeypatch)
        run("push", MODEL, REPO, "--report", "report.json")
        assert (
            hub.content(REPO)["model.safetensors"]
            == (here / MODEL / "model.safetensors").read_bytes()
        )
        assert len(large(hub)) > 2


def test_xet_says_itself_what_it_uploaded(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    weights = here / MODEL / "model.safetensors"
    verified = weights.read_bytes()
    with writable(xet=tmp_path / "xet") as hub:
        at(hub, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)

        def change() -> None:
            hub.on_request = lambda: None
            weights.write_bytes(verified[:-1] + bytes([verified[-1] ^ 1]))

        hub.on_request = change
        with pytest.raises(ChangedError, match=r"model\.safetensors changed: SHA-256"):
            run("push", MODEL, REPO, "--report", "report.json")
        assert hub.content(REPO).keys() == {".gitattributes"}
        weights.write_bytes(verified)
        run("push", MODEL, REPO, "--report", "report.json")
        tree = hub.repos[REPO].trees[hub.repos[REPO].branches["main"][-1]]
        assert tree["model.safetensors"] == hashlib.sha256(verified).hexdigest()
        assert large(hub) == [], "by Xet, not by LFS"


def test_the_token_goes_to_the_hub_only_and_is_shown_nowhere(
    here: Path, hub: Hub, tmp_path: Path
) -> None:
    hub.faults += [Fault("PUT", ".", status=500), Fault("PUT", ".", status=403)]
    environment = os.environ | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "home"),
    }
    command = [sys.executable, "-m", "gate", "push", MODEL, REPO, "--report", "report.json"]
    for code in (3, 0):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert TOKEN not in done.stdout + done.stderr
        assert "Signature" not in done.stdout + done.stderr
    assert {origin for origin, _ in hub.tokens} == {"_Api"}


def test_a_token_that_may_not_write_is_told_and_not_shown(
    hub: Hub, push: Push, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(PublishError, match="401") as raised:
        push()
    assert "hf_other" not in f"{raised.value}{raised.value.hint}"
    assert hub.repos == {}


@pytest.mark.parametrize("name", ["model", "a/b/c", "acme/..", "acme/mo del", "-x/y"])
def test_a_name_that_is_no_repository_is_refused(here: Path, hub: Hub, name: str) -> None:
    with pytest.raises(SettingsError, match="no repository"):
        run("push", MODEL, "--report", "report.json", "--", name)
    assert hub.requests == []
