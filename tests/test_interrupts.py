"""Told to end, a run ends: by itself where it can, and in any case soon."""

import signal
import subprocess
import sys

import pytest

RUN = """
import hashlib, sys, threading, time
from gate import interrupts
try:
    with interrupts.handled(grace_s=float(sys.argv[1])):
        {started}
        {work}
except KeyboardInterrupt:
    {then}
    print("unwound", flush=True)
    sys.exit(130)
"""

SLEEPS = "time.sleep(600)"
COMPUTES = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2_000_000_000)"


NOW = "print('started', flush=True)"
LATER = f"threading.Timer(0.5, lambda: {NOW}).start()"
"""From another thread, once this one no longer comes back to Python."""


def ended(
    signum: signal.Signals, work: str, grace_s: float, started: str = NOW, then: str = "pass"
) -> tuple[int, str]:
    """Start, signal once it runs; the exit code and what was printed."""
    code = RUN.format(started=started, work=work, then=then)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(grace_s)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(signum)
    printed, _ = process.communicate(timeout=60)
    return process.returncode, printed


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_run_unwinds(signum: signal.Signals) -> None:
    assert ended(signum, SLEEPS, grace_s=60) == (130, "unwound\n")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_computes_is_ended(signum: signal.Signals) -> None:
    code, printed = ended(signum, COMPUTES, grace_s=0.1, started=LATER)
    assert code == 130
    assert "interrupted" in printed and "unwound" not in printed


def test_a_run_that_does_not_come_to_its_end_is_ended() -> None:
    code, printed = ended(signal.SIGTERM, SLEEPS, grace_s=0.1, then=SLEEPS)
    assert code == 130
    assert "interrupted" in printed


def test_a_finished_run_leaves_the_process_as_it_was() -> None:
    code = (
        "import os, signal, threading\n"
        "from gate import interrupts\n"
        "for _ in range(3):\n"
        "    with interrupts.handled():\n"
        "        pass\n"
        "for thread in threading.enumerate():\n"
        "    if thread is not threading.main_thread(): thread.join(30)\n"
        "print(threading.active_count(), signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,\n"
        "      signal.set_wakeup_fd(-1), len(os.listdir('/proc/self/fd')) - 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "1 True -1 3\n", done.stderr
