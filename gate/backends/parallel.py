"""Questions asked at the same time, by threads that nothing has to wait for."""

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


def parallel(ask: Callable[[Q], A], questions: Sequence[Q], workers: int) -> list[A]:
    """As `map`, at most so many at a time; the first failure is raised at once.

    The threads are daemons: a request that hangs keeps no process alive.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, A | None, BaseException | None]] = queue.SimpleQueue()
    stopped = threading.Event()
    for number in range(len(questions)):
        waiting.put(number)

    def work() -> None:
        while not stopped.is_set():
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((number, ask(questions[number]), None))
            except BaseException as error:  # handed to whoever waits
                stopped.set()
                done.put((number, None, error))

    for _ in range(min(workers, len(questions))):
        threading.Thread(target=work, daemon=True).start()
    answers: dict[int, Any] = {}
    for _ in questions:
        number, answer, error = done.get()
        if error is not None:
            raise error
        answers[number] = answer
    return [answers[number] for number in range(len(questions))]
