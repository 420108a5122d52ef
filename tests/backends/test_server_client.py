"""Requests to a server that fails, lies, redirects or never ends."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import openai_server
import pytest
from openai_server import Fault, Served

from gate.backends import server_client
from gate.backends.server_client import Client, parallel
from gate.errors import BackendUnavailableError, ServerError, SettingsError
from gate.settings import Server

KEY = "sk-" + "k" * 30


class Parrot:
    """Behind a server that is only asked for its models, or told what to reply."""


@pytest.fixture
def served() -> Iterator[Served]:
    with openai_server.serve(Parrot()) as found:  # type: ignore[arg-type]
        yield found


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited between two requests; nobody waits here."""
    found: list[float] = []
    monkeypatch.setattr(server_client.time, "sleep", found.append)
    return found


REPLY = Fault("reply", b'{"fine": 1}')


def client(served: Served, **stated: Any) -> Client:
    return Client(Server(url=served.url, **stated))


def post(asking: Client) -> Any:
    return asking.post("completions", {"prompt": "a"}, "answer")


@pytest.mark.parametrize(
    ("faults", "waited"),
    [
        ([Fault("status", 500)], [1]),
        ([Fault("status", 503), Fault("status", 502), Fault("cut")], [1, 2, 4]),
        ([Fault("status", 429, {"Retry-After": "7"})], [7]),
        ([Fault("status", 429, {"Retry-After": "900000000"})], [server_client.MOST_WAIT_S]),
        ([Fault("status", 429, {"Retry-After": "tomorrow"})], [1]),
        ([Fault("status", 429, {"Retry-After": "-5"})], [1]),
    ],
)
def test_what_may_pass_is_asked_for_again(
    served: Served, waits: list[float], faults: list[Fault], waited: list[float]
) -> None:
    served.faults.extend([*faults, REPLY])
    assert post(client(served)) == {"fine": 1}
    assert waits == waited


@pytest.mark.parametrize(
    ("fault", "said", "hint"),
    [
        (Fault("status", 500), "did not answer: told to say 500 (500)", "server's log"),
        (Fault("status", 429), "told to say 429 (429)", "server.concurrency"),
        (Fault("cut"), "was asked to answer, and ", "Start the server"),
    ],
)
def test_what_does_not_pass_ends_the_run(
    served: Served, waits: list[float], fault: Fault, said: str, hint: str
) -> None:
    served.faults.extend([fault] * server_client.ATTEMPTS + [REPLY])
    with pytest.raises(ServerError) as caught:
        post(client(served))
    assert said in caught.value.message and hint in caught.value.hint
    assert len(waits) == server_client.ATTEMPTS - 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("status", 400), r"told to say 400 \(400\)"),
        (Fault("status", 401), r"told to say 401 \(401\)"),
        (Fault("reply", b"<html>"), "replied no JSON"),
        (Fault("reply", b"[" * 4000), "replied no JSON"),
        (Fault("huge", 5000), "larger than 4,096 bytes"),
        (Fault("slow", 1.5), "did not answer within 1 s"),
    ],
)
def test_what_would_be_the_same_again_is_not_asked_again(
    served: Served, monkeypatch: pytest.MonkeyPatch, fault: Fault, said: str
) -> None:
    monkeypatch.setattr(server_client, "MOST_REPLY_BYTES", 4096)
    served.faults.extend([fault, REPLY])
    with pytest.raises(ServerError, match=said):
        post(client(served, timeout_s=1))
    assert len(served.seen) == 1


def test_a_server_that_is_not_there(served: Served, waits: list[float]) -> None:
    asking = Client(Server(url="http://127.0.0.1:1"))
    with pytest.raises(ServerError, match="the connection failed or was dropped"):
        asking.get("models", "list its models")
    assert len(waits) == server_client.ATTEMPTS - 1


def test_the_key_goes_to_the_server_alone(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_KEY", f"{KEY}\n")
    with openai_server.serve(Parrot()) as other:  # type: ignore[arg-type]
        elsewhere = {"Location": f"{other.url}/v1/completions"}
        served.faults.append(Fault("status", 307, elsewhere))
        asking = client(served, key_env="SERVER_KEY")
        with pytest.raises(ServerError) as caught:
            post(asking)
    assert served.seen[0][1]["Authorization"] == f"Bearer {KEY}"
    assert other.seen == []
    assert "redirects elsewhere: it was not followed (307)" in caught.value.message
    assert KEY not in f"{caught.value.message}{caught.value.hint}"


def test_without_a_key_none_is_sent(
    served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login me password {KEY}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    client(served).get("models", "list its models")
    assert "Authorization" not in served.seen[0][1]


@pytest.mark.parametrize("value", [None, "", "  ", "a b", "a\nb", "naïve"])
def test_a_key_that_is_none(
    served: Served, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("SERVER_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("SERVER_KEY", value)
    with pytest.raises(BackendUnavailableError) as caught:
        client(served, key_env="SERVER_KEY")
    assert "SERVER_KEY" in caught.value.message
    assert not value or not value.strip() or value not in caught.value.message


def test_cookies_are_not_kept(served: Served) -> None:
    served.faults.append(Fault("reply", b"{}", {"Set-Cookie": "a=b; Path=/"}))
    served.faults.append(REPLY)
    asking = client(served)
    post(asking), post(asking)
    assert "Cookie" not in served.seen[1][1]


def test_plain_http_stays_in_the_private_network() -> None:
    with pytest.raises(SettingsError, match="beyond the private network"):
        Client(Server(url="http://8.8.8.8:8000"))
    for allowed in ("http://10.1.2.3", "http://[::1]:8000", "https://8.8.8.8"):
        Client(Server(url=allowed))
    Client(Server(url="http://8.8.8.8", plain_http=True))


def test_a_failure_is_not_waited_out() -> None:
    hanging = threading.Event()

    def ask(number: int) -> int:
        if number == 3:
            raise ServerError("no", "none")
        hanging.wait(60)
        return number

    with pytest.raises(ServerError):
        parallel(ask, range(40), 8)
    assert not hanging.is_set(), "what hangs is left"
    hanging.set()
    assert parallel(lambda n: -n, range(40), 8) == [-n for n in range(40)]
    assert parallel(lambda n: n, [], 8) == []


def test_words_of_a_server_are_made_plain(served: Served) -> None:
    words = json.dumps({"error": {"message": "\x1b[2Jgone " + "x" * 10_000}}).encode()
    said = server_client._words(words)
    assert said.startswith("gone xxx") and len(said) <= server_client.MOST_QUOTED_CHARS + 1
