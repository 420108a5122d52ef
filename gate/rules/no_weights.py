"""Rule no-weights."""

from gate.rule import OpeningRule


class NoWeights(OpeningRule):
    """There is no weight file that may be opened.

    Flags:
        The directory holds no *.safetensors, or pickled weights only.
    Why:
        Opening a pickle runs the code in it, so pickles are never read.
    Repair:
        Export as safetensors: model.save_pretrained(directory).
    Source:
        https://huggingface.co/docs/hub/security-pickle
    """
