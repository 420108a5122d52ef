"""Why there is no verdict: the exception tree and the exit codes.

A defect in the checkpoint is a `Finding`, never an exception. An exception means that nothing
could be judged::

    GateError                   3
      SettingsError             2   command line or settings wrong
      CheckpointError           3   the checkpoint cannot be judged here
        UnknownFormatError      3   no decoder for what is declared
      BaselineError             3
        BaselineMissingError    3
        BaselineMismatchError   3   another suite, template, ...
      BackendError              3   the model could not be run
        BackendUnavailableError 3   an extra, a device or data is missing
        OutOfMemoryError        3   the driver halves the batch first
        NonFiniteLogitsError    3   for a candidate, the driver makes it a FAIL
        ServerError             3   the server that runs the model refused, or gave no usable reply
      AttestError               3   a report does not speak of these bytes, or not of all
        CardError               3   the model card cannot take the results
      ChangedError              1   a release changed after it was verified
      ImportedError             3   another evaluator's log cannot be taken over
      MergeError                3   results are not the shards of one run
      StoreError                3   kept results cannot be read or written
      GitError                  3   git has no answer, or not that commit
      PublishError              3   a report or a release could not be delivered
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process tells its caller."""

    PASS = 0
    FAIL = 1
    USAGE = 2
    NO_VERDICT = 3
    INCONCLUSIVE = 4
    INTERRUPTED = 130


class GateError(Exception):
    """No verdict was reached.

    Args:
        message: What happened, naming the file, task or tensor.
        hint: What to do: one imperative sentence, ideally a command.
    """

    exit_code = ExitCode.NO_VERDICT

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SettingsError(GateError):
    """The command line or quant-gate.yaml is wrong."""

    exit_code = ExitCode.USAGE


class CheckpointError(GateError):
    """The checkpoint cannot be judged on this machine."""


class UnknownFormatError(CheckpointError):
    """The declared quantization has no decoder here."""


class BaselineError(GateError):
    """The stored baseline cannot be used."""


class BaselineMissingError(BaselineError):
    """No stored baseline fits."""


class BaselineMismatchError(BaselineError):
    """The stored baseline measured something else."""


class BackendError(GateError):
    """The model could not be run to the end."""


class BackendUnavailableError(BackendError):
    """A package, a device or data that the evaluation needs is missing."""


class OutOfMemoryError(BackendError):
    """A batch did not fit; smaller ones may."""


class NonFiniteLogitsError(BackendError):
    """The model computed NaN or infinity: a defect of what is judged, not of the machine."""


class ServerError(BackendError):
    """The server that runs the model refused, did not reply, or not as it should.

    Args:
        message: See `GateError`.
        hint: See `GateError`.
        status: The server's, where it refused.
    """

    def __init__(self, message: str, hint: str, *, status: int | None = None) -> None:
        super().__init__(message, hint)
        self.status = status


class AttestError(GateError):
    """A report cannot be turned into a statement about these files."""


class CardError(AttestError):
    """The model card cannot be read, or the results not be written into it."""


class ChangedError(GateError):
    """What was to be released is no longer what was verified; it was not released."""

    exit_code = ExitCode.FAIL


class ImportedError(GateError):
    """What another evaluator logged cannot be read, or not as a result."""


class MergeError(GateError):
    """Results are no shards of one run, or not all of them."""


class StoreError(GateError):
    """Where results are kept cannot be read or written, or holds what is damaged."""


class GitError(GateError):
    """Git failed, or this clone does not hold what was asked for."""


class PublishError(GateError):
    """A report could not be written or delivered, or GitHub did not answer as it should.

    Args:
        message: See `GateError`.
        hint: See `GateError`.
        status: GitHub's, where it refused.
        uncertain: What was asked may have been done: look before asking again.
    """

    def __init__(
        self, message: str, hint: str, *, status: int | None = None, uncertain: bool = False
    ) -> None:
        super().__init__(message, hint)
        self.status = status
        self.uncertain = uncertain
