"""Who signed a statement: bundles of a Sigstore of our own, with logs and with timestamps."""

import base64
import copy
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sigstore_stub import PAYLOAD_TYPE, REPOSITORY, WORKFLOW, Sigstore, b64

from gate import records, signature
from gate.cli import cli
from gate.errors import BackendUnavailableError, SettingsError
from gate.records import Resource, Statement, TestResult
from gate.signature import Signer
from gate.statements import Refusal

CONTENT = b"weights"
Verify = Callable[..., str]
Change = Callable[[dict[str, Any]], object]


def statement(content: bytes = CONTENT) -> bytes:
    """That a checkpoint of one file passed."""
    digest = {"sha256": hashlib.sha256(content).hexdigest()}
    report = Resource(name="report", annotations={"date": records.now()})
    passed = TestResult(result="PASSED", configuration=(report,), passed_tests=("lint",))
    made = Statement(subject=(Resource(name="model.safetensors", digest=digest),), predicate=passed)
    return made.model_dump_json(by_alias=True, exclude_none=True).encode()


@pytest.fixture(scope="module")
def instances(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sigstore]:
    """The public instance, GitHub's, and a stranger's with the names of the public one."""
    root = tmp_path_factory.mktemp("instances")
    return {
        "public": Sigstore(root / "public", logged=True, organization="public"),
        "github": Sigstore(root / "github", logged=False, organization="GitHub, Inc."),
        "stranger": Sigstore(root / "stranger", logged=True, organization="public"),
        "imitator": Sigstore(root / "imitator", logged=False, organization="GitHub, Inc."),
    }


@pytest.fixture(params=["public", "github"])
def sigstore(request: pytest.FixtureRequest, instances: dict[str, Sigstore]) -> Sigstore:
    """Each of the two that are trusted."""
    return instances[request.param]


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instances: dict[str, Sigstore]
) -> Iterator[Path]:
    """A directory with a checkpoint, and the roots of trust as `gh` prints them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(CONTENT)
    trust("public", "github", instances=instances)
    yield tmp_path


def trust(*names: str, instances: dict[str, Sigstore]) -> None:
    lines = [json.dumps(instances[name].trusted_root()) for name in names]
    Path("roots.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def verify(here: Path, capsys: pytest.CaptureFixture[str]) -> Verify:
    """Verifies a bundle by the command; what it prints."""

    def call(bundle: dict[str, Any], *options: str, code: int = 0) -> str:
        Path("bundle.json").write_text(json.dumps(bundle), encoding="utf-8")
        asked = options or ("--repository", "acme/models")
        trusted = ("--trusted-root", "roots.jsonl") if options != ("--max-age", "1d") else ()
        capsys.readouterr()
        arguments = ["verify", "model", "--statement", "bundle.json", *asked, *trusted]
        assert cli.main(arguments, standalone_mode=False) == code, capsys.readouterr().out
        return " ".join(capsys.readouterr().out.split())

    return call


def material(bundle: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = bundle["verificationMaterial"]
    return found


@pytest.mark.parametrize(
    "asked",
    [
        ("--repository", "acme/models"),
        ("--repository", "acme/models", "--workflow", ".github/workflows/release.yml"),
        ("--repository", "acme/models", "--workflow", WORKFLOW.partition("models/")[2]),
        ("--repository", "acme/models", "--workflow", WORKFLOW.removeprefix("https://github.com/")),
        ("--signer", WORKFLOW),
    ],
    ids=["repository", "workflow", "ref", "whole", "identity"],
)
def test_who_signed_is_believed(sigstore: Sigstore, verify: Verify, asked: tuple[str, ...]) -> None:
    shown = verify(sigstore.bundle(statement()), *asked)
    assert shown.startswith("VERIFIED model")
    assert "Signed by" in shown and "no signature was checked" not in shown


def test_without_a_signer_it_is_said_that_none_was_asked_for(
    sigstore: Sigstore, verify: Verify
) -> None:
    shown = verify(sigstore.bundle(statement()), "--max-age", "1d")
    assert "no signature was checked" in shown


@pytest.mark.parametrize(
    "content",
    [
        statement(),
        json.dumps(
            {"payload": b64(statement()), "payloadType": PAYLOAD_TYPE, "signatures": []}
        ).encode(),
    ],
    ids=["statement", "envelope"],
)
def test_what_nobody_signed_blocks(verify: Verify, content: bytes) -> None:
    assert "is not signed" in verify(json.loads(content), code=1)


@pytest.mark.parametrize(
    "signed",
    [
        {"identity": f"{REPOSITORY}-fork/.github/workflows/release.yml@refs/heads/main"},
        {"repository": f"{REPOSITORY}-fork"},
        {"issuer": "https://accounts.example"},
        {"identity": "https://github.com/acme/other/.github/workflows/release.yml@refs/heads/x"},
    ],
    ids=["workflow", "repository", "issuer", "called-workflow"],
)
def test_another_signer_blocks(sigstore: Sigstore, verify: Verify, signed: dict[str, str]) -> None:
    shown = verify(sigstore.bundle(statement(), **signed), code=1)
    assert "not by a workflow in acme/models" in shown
    # Wherever a terminal breaks the line.
    assert next(iter(signed.values())) in shown.replace(" ", "")


@pytest.mark.parametrize(
    "asked",
    [
        ("--repository", "acme/models", "--workflow", ".github/workflows/other.yml"),
        ("--repository", "acme/models", "--workflow", ".github/workflows/release.yml@refs/tags/v1"),
        ("--repository", "acme/model"),
        ("--signer", WORKFLOW[:-1]),
        ("--signer", WORKFLOW, "--issuer", "https://accounts.example"),
    ],
)
def test_one_who_is_only_alike_blocks(
    sigstore: Sigstore, verify: Verify, asked: tuple[str, ...]
) -> None:
    assert f"was signed by {WORKFLOW}" in verify(sigstore.bundle(statement()), *asked, code=1)


def test_of_several_the_one_about_a_test_that_was_signed_as_asked_counts(
    sigstore: Sigstore, here: Path
) -> None:
    provenance = sigstore.bundle(b'{"predicateType": "https://slsa.dev/provenance/v1"}')
    other = sigstore.bundle(statement(), repository=f"{REPOSITORY}-fork")
    lines = [json.dumps(each) for each in (provenance, other, sigstore.bundle(statement()))]
    asked = ["--repository", "acme/models", "--trusted-root", "roots.jsonl"]
    for number, code in ((3, 0), (2, 1)):
        Path("all.jsonl").write_text("\n".join(lines[:number]) + "\n", encoding="utf-8")
        command = ["verify", "model", "--statement", "all.jsonl", *asked]
        assert cli.main(command, standalone_mode=False) == code


def test_a_reusable_workflow_signs_for_its_caller(sigstore: Sigstore, verify: Verify) -> None:
    called = "acme/shared/.github/workflows/gate.yml"
    bundle = sigstore.bundle(statement(), identity=f"https://github.com/{called}@refs/tags/v1")
    verify(bundle, "--repository", "acme/models", "--workflow", called)
    assert "not by" in verify(bundle, code=1)


def test_a_changed_statement_blocks(sigstore: Sigstore, verify: Verify) -> None:
    bundle = sigstore.bundle(statement(b"judged"))
    bundle["dsseEnvelope"]["payload"] = b64(statement())
    assert "altered after it was signed" in verify(bundle, code=1)


def test_a_signed_statement_is_still_held_against_the_files(
    sigstore: Sigstore, verify: Verify
) -> None:
    shown = verify(sigstore.bundle(statement(b"judged")), code=1)
    assert "model.safetensors changed" in shown


@pytest.mark.parametrize("begins", [timedelta(hours=-1), timedelta(hours=1)], ids=["old", "early"])
def test_a_certificate_out_of_its_time_blocks(
    sigstore: Sigstore, verify: Verify, begins: timedelta
) -> None:
    bundle = sigstore.bundle(statement(), begins=datetime.now(UTC) + begins)
    assert "a certificate that had expired or was not valid yet" in verify(bundle, code=1)


def test_a_certificate_for_something_else_blocks(
    sigstore: Sigstore, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sigstore.issuer, "purpose", ExtendedKeyUsageOID.CLIENT_AUTH)
    assert "its signature cannot be believed" in verify(sigstore.bundle(statement()), code=1)


def test_something_else_that_was_signed_is_no_statement(sigstore: Sigstore, verify: Verify) -> None:
    bundle = sigstore.bundle(statement(), payload_type="text/plain")
    assert "'text/plain', and no statement" in verify(bundle, code=1)
    assert "no statement about a test" in verify(sigstore.bundle(b"{}"), code=1)


@pytest.mark.parametrize(
    ("name", "trusted"), [("stranger", "public"), ("imitator", "github")], ids=["public", "github"]
)
def test_an_authority_that_only_has_the_name_blocks(
    verify: Verify, instances: dict[str, Sigstore], name: str, trusted: str
) -> None:
    bundle = instances[name].bundle(statement())
    if trusted == "github":  # its own timestamp would be refused before
        stamp = instances["github"].stamped(base64.b64decode(signature_of(bundle)))
        material(bundle)["timestampVerificationData"] = stamps(stamp)
    assert "a certificate that no trusted authority issued" in verify(bundle, code=1)


def test_an_authority_that_is_not_trusted_blocks(
    verify: Verify, instances: dict[str, Sigstore]
) -> None:
    trust("public", instances=instances)
    shown = verify(instances["github"].bundle(statement()), code=1)
    assert "by no trusted authority" in shown and "gh attestation trusted-root" in shown


def signature_of(bundle: dict[str, Any]) -> str:
    found: str = bundle["dsseEnvelope"]["signatures"][0]["sig"]
    return found


def stamps(*found: bytes) -> dict[str, Any]:
    return {"rfc3161Timestamps": [{"signedTimestamp": b64(stamp)} for stamp in found]}


def entry(bundle: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = material(bundle)["tlogEntries"][0]
    return found


def other_root(bundle: dict[str, Any]) -> None:
    entry(bundle)["inclusionProof"]["rootHash"] = b64(bytes(32))


def without_promise(bundle: dict[str, Any]) -> None:
    del entry(bundle)["inclusionPromise"]


def later(bundle: dict[str, Any]) -> None:
    entry(bundle)["integratedTime"] = str(int(entry(bundle)["integratedTime"]) + 60)


@pytest.mark.parametrize(
    "change",
    [lambda bundle: material(bundle)["tlogEntries"].clear(), other_root, without_promise, later],
    ids=["absent", "another-tree", "no-time", "another-time"],
)
def test_what_is_not_in_the_log_blocks(
    verify: Verify, instances: dict[str, Sigstore], change: Change
) -> None:
    bundle = instances["public"].bundle(statement())
    change(bundle)
    assert "its signature cannot be believed" in verify(bundle, code=1)


def test_the_log_entry_of_another_signature_blocks(
    verify: Verify, instances: dict[str, Sigstore]
) -> None:
    bundle = instances["public"].bundle(statement())
    material(bundle)["tlogEntries"] = [entry(instances["public"].bundle(statement(b"other")))]
    assert "its signature cannot be believed" in verify(bundle, code=1)


def test_the_public_authority_does_not_do_with_a_timestamp(
    verify: Verify, instances: dict[str, Sigstore]
) -> None:
    public, github = instances["public"], instances["github"]
    bundle = public.bundle(statement())
    for instance in (public, github):
        stamp = instance.stamped(base64.b64decode(signature_of(bundle)))
        material(bundle).update(tlogEntries=[], timestampVerificationData=stamps(stamp))
        assert "its signature cannot be believed" in verify(bundle, code=1)


@pytest.mark.parametrize("which", ["logs", "certificates"])
def test_a_log_that_is_not_trusted_blocks(
    verify: Verify, instances: dict[str, Sigstore], which: str
) -> None:
    public, stranger = instances["public"], instances["stranger"]
    root, other = public.trusted_root(), stranger.trusted_root()
    name = "tlogs" if which == "logs" else "ctlogs"
    Path("roots.jsonl").write_text(json.dumps(root | {name: other[name]}), encoding="utf-8")
    assert "its signature cannot be believed" in verify(public.bundle(statement()), code=1)


def test_a_signature_without_its_timestamp_blocks(
    verify: Verify, instances: dict[str, Sigstore]
) -> None:
    github = instances["github"]
    bundle = github.bundle(statement())
    signed = base64.b64decode(signature_of(bundle))
    for stamp in (github.stamped(b"something else"), instances["imitator"].stamped(signed)):
        material(bundle)["timestampVerificationData"] = stamps(stamp)
        assert "no trusted authority confirms when" in verify(bundle, code=1)
    del material(bundle)["timestampVerificationData"]
    assert "no trusted authority confirms when" in verify(bundle, code=1)


@pytest.mark.parametrize("which", ["timestampAuthorities", "certificateAuthorities"])
def test_an_authority_that_was_given_up_blocks(
    verify: Verify, instances: dict[str, Sigstore], which: str
) -> None:
    github = instances["github"]
    root = github.trusted_root()
    root[which][0]["validFor"]["end"] = "2026-01-01T00:00:00Z"
    Path("roots.jsonl").write_text(json.dumps(root), encoding="utf-8")
    shown = verify(github.bundle(statement()), code=1)
    assert "no trusted authority" in shown


@pytest.mark.parametrize(
    "options",
    [
        ("--signer", WORKFLOW, "--repository", "acme/models"),
        ("--repository", "acme"),
        ("--repository", "acme/models", "--workflow", "release.yml"),
        ("--workflow", ".github/workflows/release.yml"),
        ("--trusted-root", "roots.jsonl"),
    ],
)
def test_a_signer_that_is_none_is_a_wrong_command_line(
    here: Path, options: tuple[str, ...]
) -> None:
    with pytest.raises(SettingsError):
        cli.main(["verify", "model", "--statement", "x", *options], standalone_mode=False)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"mediaType": "x"}', "\x00", "[" * 100_000])
def test_roots_that_are_none_are_a_wrong_command_line(verify: Verify, content: str) -> None:
    Path("roots.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError, match="trusted roots"):
        verify({})


def test_a_missing_library_is_named(verify: Verify, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sigstore.verify", None)
    with pytest.raises(BackendUnavailableError) as raised:
        verify({})
    assert "quant-gate[signatures]" in raised.value.hint


def test_the_public_root_is_at_hand_without_a_network() -> None:
    """And it is not this one's, which has other names."""
    found = signature.check(statement(), Path("x"), Signer(repository="acme/models"))
    assert isinstance(found, Refusal)


@pytest.fixture(scope="module")
def signed(instances: dict[str, Sigstore]) -> dict[str, Any]:
    """A bundle of each instance."""
    return {name: instances[name].bundle(statement()) for name in ("public", "github")}


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Everything in a document, as what holds it and under which name."""
    names = value.keys() if isinstance(value, dict) else range(len(value))
    for name in names:
        yield value, name
        if isinstance(value[name], dict | list):
            yield from places(value[name])


def changed(value: Any, draw: st.DataObject) -> Any:
    """Another value; of bytes, others that differ in one bit."""
    if isinstance(value, str) and len(value) > 40 and draw.draw(st.booleans()):
        try:
            content = bytearray(base64.b64decode(value, validate=True))
        except ValueError:
            content = bytearray(value.encode())
        content[draw.draw(st.integers(0, len(content) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
        return b64(bytes(content))
    other = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just([])
    return draw.draw(other | st.just({}) | st.sampled_from(["0", "1", "0.0.2", "-1", "AAAA"]))


@pytest.mark.parametrize("name", ["public", "github"])
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=150,
    deadline=None,
)
@given(data=st.data())
def test_no_change_of_a_bundle_makes_another_statement_believed(
    here: Path, signed: dict[str, Any], name: str, data: st.DataObject
) -> None:
    signer = Signer(repository="acme/models", trusted_root=Path("roots.jsonl"))
    bundle = copy.deepcopy(signed[name])
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    for _ in range(data.draw(st.integers(1, 3))):
        holder, place = data.draw(st.sampled_from(list(places(bundle))))
        holder[place] = changed(holder[place], data)
    found = signature.check(json.dumps(bundle).encode(), Path("bundle.json"), signer)
    assert isinstance(found, Refusal) or found.payload == payload
