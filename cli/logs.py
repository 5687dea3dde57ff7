"""Log lines on stderr: one logger for each package, at the level of ``--verbose``."""

from __future__ import annotations

import logging
import sys

__all__ = ["LOGGERS", "reset", "set_verbosity"]

LOGGERS = ("registry", "ingest", "train", "ecdreg", "cli")
"""Names of the loggers, one for each package."""

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


class _Stderr(logging.Handler):
    """Writes to the ``sys.stderr`` of the moment, which a progress bar or a test may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{record.levelname.lower()}: {record.name}: {self.format(record)}\n")


_handler = _Stderr()


def set_verbosity(count: int) -> None:
    """Print log lines of all packages on stderr.

    Parameters
    ----------
    count
        0 prints warnings and errors, 1 also what is done (``INFO``), 2 and more also details (``DEBUG``).
    """
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(_LEVELS[min(count, len(_LEVELS) - 1)])
        logger.addHandler(_handler)


def reset() -> None:
    """Leave the loggers as they were before :func:`set_verbosity`."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.NOTSET)
        logger.removeHandler(_handler)
