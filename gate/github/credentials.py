"""The token for git: in the environment of one process, written nowhere."""

import base64
import os
from collections.abc import Mapping

from gate.errors import GitError
from gate.git import Repository


def credentials(repository: Repository, server_url: str, token: str | None) -> Mapping[str, str]:
    """Settings of git with which it, and Git LFS, may read from the server and nowhere else.

    None where there is no token, or where the checkout kept credentials of its own: two headers
    of them are refused by GitHub.
    """
    server = server_url.rstrip("/")
    if not token or not server.startswith(("https://", "http://")):
        return {}
    try:
        if repository.run("config", "--get-urlmatch", "http.extraheader", f"{server}/"):
            return {}
    except GitError:
        pass  # git's way to say that there is none
    basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    return {f"http.{server}/.extraheader": f"AUTHORIZATION: basic {basic}"}


def config(values: Mapping[str, str]) -> Mapping[str, str]:
    """Settings of git as variables, after those that are there already.

    Source: https://git-scm.com/docs/git-config#ENVIRONMENT
    """
    inherited = os.environ.get("GIT_CONFIG_COUNT", "")
    first = int(inherited) if inherited.isdecimal() else 0
    variables = {"GIT_CONFIG_COUNT": str(first + len(values))}
    for number, (key, value) in enumerate(values.items(), first):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return variables
