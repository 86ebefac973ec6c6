"""What a pretraining of a whole detector adds to the detector."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn

from densessl.data.batch import Batch
from densessl.detectors.matches import Match


class Pretext(nn.Module):
    """Base: a task beside detection. Its parameters are kept under ``pretext.*``, apart from the detector's.

    A subclass makes its modules in :meth:`attach`, may change what the decoder is asked in :meth:`queries`, and adds
    losses in :meth:`losses`.
    """

    def attach(self, detector: nn.Module) -> None:
        """Make what depends on the detector: widths, numbers of queries."""

    def init_backbone(self, checkpoint: str, branch: str | None) -> list[str]:
        """Load the backbone of a file into frozen networks of its own; what to tell of each."""
        return []

    def begin(self) -> None:
        """Before the first step: tell by raising what is missing."""

    def queries(self, detector: nn.Module, inputs: dict, batch: Batch) -> AbstractContextManager:
        """Change the decoder's inputs, and the decoder for the time of one forward pass.

        Args:
            detector: MMDetection's.
            inputs: arguments of its ``forward_decoder``; changed in place.
            batch: preprocessed.

        Returns:
            a context that the decoder runs in.
        """
        return nullcontext()

    def losses(
        self, states: Sequence[Tensor], matches: Sequence[Sequence[Match]], batch: Batch, rows: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Losses, whose names begin with "loss", and figures to log.

        Args:
            states: of each decoder layer the queries (N, Q, C), denoising queries left out.
            matches: by layer and image.
            batch: preprocessed.
            rows: of each image, its regions' rows in ``batch.regions``.
        """
        return {}
