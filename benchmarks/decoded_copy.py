"""Write a checkpoint's weights, as gate decodes them, as a plain checkpoint that any tool loads.

python benchmarks/decoded_copy.py CHECKPOINT DIRECTORY
"""

import os
import shutil
import sys
from pathlib import Path

from gate.backends import hf_model
from gate.checkpoint import open_checkpoint
from gate.containers import CONTAINERS
from gate.formats import FORMATS
from gate.quantization import identify

TOKENIZER = ("tokenizer*", "special_tokens_map.json", "chat_template*", "vocab*", "merges.txt")


def save(source: Path, directory: Path) -> None:
    """Decode on the CPU and save with the tokenizer's files."""
    checkpoint = open_checkpoint(source, CONTAINERS)
    form = identify(checkpoint, FORMATS)
    hf_model.load(checkpoint, form, reserve=lambda needed: {}).save_pretrained(directory)
    for pattern in TOKENIZER:
        for file in source.glob(pattern):
            shutil.copy(file, directory)


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    save(Path(sys.argv[1]), Path(sys.argv[2]))
