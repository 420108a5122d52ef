"""A run that is told to end does so within seconds, and nothing that was measured is lost."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from gate.errors import ExitCode

GRACE_S = 2.5
"""For the run to end by itself. GitHub's runner sends SIGINT, after 7.5 s SIGTERM, after 2.5 s
SIGKILL, and the action has its report to write in that time."""

ENDED = b"gate: interrupted, and ended while the machine was still computing: no verdict\n"


@contextlib.contextmanager
def handled(grace_s: float = GRACE_S) -> Iterator[None]:
    """Let SIGTERM interrupt like SIGINT, and end what does not stop in time.

    Python handles a signal only between two of its own instructions, and a kernel or a read of a
    large file may keep it from them for minutes. So a thread watches, and ends the process: the
    journal is on the disk after every batch, and the driver frees the GPU.

    Args:
        grace_s: From the signal to the end, in seconds.

    Raises:
        KeyboardInterrupt: At either signal.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    woken = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(told, grace_s), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGTERM, before)
        # The watch ends here, unless it was told: then it sees the process to its end.
        os.close(tell)


def _watch(told: int, grace_s: float) -> None:
    """End the process `grace_s` after the first signal; a closed pipe ends the watch."""
    while signals := os.read(told, 64):
        if {signal.SIGINT, signal.SIGTERM} & set(signals):
            threading.Event().wait(grace_s)
            os.write(2, ENDED)
            os._exit(ExitCode.INTERRUPTED)
    os.close(told)
