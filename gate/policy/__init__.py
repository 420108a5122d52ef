"""Whose settings, baselines and tasks decide: those of a commit, whatever a change makes of them.

A pull request must not lower its own limit, swap the baseline, or bring code that runs. So what the
settings name is written from the commit's tree into a private directory, without a checkout: no
filter, hook or attribute of the repository runs. Only the checkpoint, and a reference that is a
directory, are looked up in the working tree; the reference is known by its bytes, and its baseline
has to be in the commit's store.
"""

from gate.policy.files import Named, named, present, working
from gate.policy.trusted import Trusted, opened

__all__ = ["Named", "Trusted", "named", "opened", "present", "working"]
