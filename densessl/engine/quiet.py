"""Keep library warnings that a user cannot act on out of the log."""

import logging
import re
import warnings

# MMEngine warns of its own deprecated names, and MMDetection of a missing package for a vendor's data sets.
NOISE = re.compile(
    r'"FileClient" will be deprecated|"HardDiskBackend" is the alias|Could not import OneDL|'
    r"method `get_instance` should not accept any other arguments"
)


class NoiseFilter(logging.Filter):
    """Drops the records that match :data:`NOISE`."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not NOISE.search(record.getMessage())


def silence(logger: logging.Logger) -> None:
    """Drop the records that match :data:`NOISE` from a logger and from Python's warnings."""
    if not any(isinstance(each, NoiseFilter) for each in logger.filters):
        logger.addFilter(NoiseFilter())
    warnings.filterwarnings("ignore", message=rf".*({NOISE.pattern})")
