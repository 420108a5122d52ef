"""Answers that lie: scores that say less about the model than about how its answers were made.

A cut answer, an unfinished thought, a missing BOS and another language all move a score. They are
counted for baseline and candidate alike and told beside the verdict; they decide nothing.
"""

from gate.answers.counting import beside, counted
from gate.answers.telling import explained

__all__ = ["beside", "counted", "explained"]
