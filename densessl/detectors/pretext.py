"""The base of pretext tasks, which a pretraining of a whole detector adds to the detector."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn

from densessl.data.batch import Batch
from densessl.detectors.matches import Match


class Pretext(nn.Module):
    """Base: a task in addition to detection. Its parameters are kept under ``pretext.*``, apart from the detector's.

    A subclass creates its modules in :meth:`attach`, may change the inputs of the decoder in :meth:`queries`, and adds
    losses in :meth:`losses`.
    """

    def attach(self, detector: nn.Module) -> None:
        """Create the modules that depend on the detector, such as on its widths and number of queries.

        Raises:
            SettingError: the pretext does not work with this detector.
        """

    def init_backbone(self, checkpoint: str, branch: str | None) -> list[str]:
        """Load the backbone of a file into the frozen networks of the pretext. Returns a line for the log of each."""
        return []

    def begin(self) -> None:
        """Called before the first step.

        Raises:
            SettingError: something is missing, such as the weights of a frozen network.
        """

    def queries(self, detector: nn.Module, inputs: dict, batch: Batch) -> AbstractContextManager:
        """Change the inputs of the decoder, and the decoder during one forward pass.

        Args:
            detector: MMDetection's detector.
            inputs: arguments of its ``forward_decoder``, to be changed in place.
            batch: the preprocessed batch.

        Returns:
            A context in which the decoder runs.
        """
        return nullcontext()

    def losses(
        self, states: Sequence[Tensor], matches: Sequence[Sequence[Match]], batch: Batch, rows: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Losses, whose names begin with "loss", and figures to log.

        Args:
            states: outputs (N, Q, C) of each decoder layer, without denoising queries.
            matches: matches by layer and image.
            batch: the preprocessed batch.
            rows: for each image, the rows of its regions in ``batch.regions``.
        """
        return {}
