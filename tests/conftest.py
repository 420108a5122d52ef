"""Real exports, made once a session, and where the shared data lies."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

# A shell that starts a job in the background has it ignore SIGINT, and so would all that is started
# here; a handler is not inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED_DATA = Path(__file__).parent.parent.parent / "shared" / "data"


def _of_all_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes of one run share what is made once."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A real SmolLM2-135M-Instruct checkpoint: `bf16`, or ModelOpt's export of it, `fp8`, `nvfp4`.

    QUANT_GATE_TEST_CHECKPOINTS names a directory that keeps them between runs.
    """
    from gate import demo

    kept = os.environ.get("QUANT_GATE_TEST_CHECKPOINTS")
    root = Path(kept) if kept else _of_all_processes(tmp_path_factory) / "checkpoints"
    root.mkdir(exist_ok=True)

    def make(name: str) -> Path:
        path = root / name
        original = make("bf16") if name != "bf16" else None
        # Whoever waits here finds it finished.
        with FileLock(f"{path}.lock"):
            if (path / "config.json").is_file():
                return path
            if original is None:
                demo.make_reference(path)
            else:
                demo.quantize(original, path, name)
        return path

    return make


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Public data sets beside the project; skips, saying so, where they are absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"{SHARED_DATA.name}: the shared data sets are not on this machine")
    return SHARED_DATA


@pytest.fixture(scope="session")
def sentence_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """NLTK's sentence data, which lm-eval's IFEval scorer wants; trained here if it is absent.

    One for the whole session: the scorer keeps what it loaded first.
    """
    import nltk

    from gate import demo

    directory = SHARED_DATA / "nltk_data"
    if not directory.is_dir():
        directory = tmp_path_factory.mktemp("nltk_data")
        demo.make_sentence_data(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLTK_DATA", str(directory))
        patch.setattr(nltk.data, "path", [str(directory), *nltk.data.path])
        yield directory
