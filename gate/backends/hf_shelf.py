"""Hidden states of many batches on the host: in memory while they are few, then in a file."""

import tempfile
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from gate.errors import BackendUnavailableError

if TYPE_CHECKING:
    import torch

KEPT_BYTES = 2**28
"""Kept in memory (256 MiB); more of them lie in a temporary file."""


class Shelf:
    """One tensor a batch: of any shape and dtype, which stay as they are first.

    Args:
        kept_bytes: From how many on they lie in a file.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._file = tempfile.SpooledTemporaryFile(kept_bytes)  # noqa: SIM115 - closed below
        self._places: dict[int, tuple[int, torch.dtype, torch.Size]] = {}
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def put(self, batch: int, tensor: "torch.Tensor") -> None:
        """Keep a batch's tensor in place of its last one.

        Raises:
            BackendUnavailableError: There is no room for the file.
        """
        import torch

        if batch not in self._places:
            self._places[batch] = (self._end, tensor.dtype, tensor.shape)
            self._end += tensor.nbytes
        values = tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy()
        try:
            self._file.seek(self._places[batch][0])
            self._file.write(values.data)
        except OSError as error:
            raise BackendUnavailableError(
                f"{tempfile.gettempdir()} has no room for {self._end:,} bytes of hidden states: "
                f"{error}",
                "Free it, or set TMPDIR to a directory with more room.",
            ) from error

    def take(self, batch: int, device: "torch.device") -> "torch.Tensor":
        """A batch's tensor on a device."""
        import torch

        begin, dtype, shape = self._places[batch]
        values = np.empty(shape.numel() * dtype.itemsize, np.uint8)
        self._file.seek(begin)
        self._file.readinto(values.data)
        return torch.from_numpy(values).view(dtype).reshape(shape).to(device)
