"""The model card and the report as `gate push` publishes them beside a checkpoint.

A card with its results is not the card that was judged. So `gate attest` works out the published
files too and states their digests: `gate verify` takes a file as it was judged or as it is
published, and no other. All of this is a function of the report and of the card that was judged,
and of nothing else.
"""

from gate.card.files import BEGIN, CARD, END, MAX_BYTES, is_ours, published, with_results

__all__ = ["BEGIN", "CARD", "END", "MAX_BYTES", "is_ours", "published", "with_results"]
