"""Warnings of libraries that a user can do nothing about, kept out of the log."""

import logging
import re
import warnings

# From MMEngine about its own older names, and from MMDetection about data sets of a vendor.
NOISE = re.compile(
    r'"FileClient" will be deprecated|"HardDiskBackend" is the alias|Could not import OneDL|'
    r"method `get_instance` should not accept any other arguments"
)


class NoiseFilter(logging.Filter):
    """Drops the records that match :data:`NOISE`."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not NOISE.search(record.getMessage())


def silence(logger: logging.Logger) -> None:
    """Keep the noise out of a logger, and out of Python's warnings."""
    if not any(isinstance(each, NoiseFilter) for each in logger.filters):
        logger.addFilter(NoiseFilter())
    warnings.filterwarnings("ignore", message=rf".*({NOISE.pattern})")
