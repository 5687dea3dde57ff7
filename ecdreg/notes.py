"""Remarks of a use case on its work."""

from __future__ import annotations

from registry.jobs.progress import Progress, Silent

__all__ = ["Notes"]


class Notes:
    """Remarks on the work: each is reported at once, and kept for the result.

    Parameters
    ----------
    progress
        Receives each remark when it is added.
    """

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress or Silent()
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Report a remark and keep it."""
        self._progress.message(line)
        self._lines.append(line)

    @property
    def lines(self) -> tuple[str, ...]:
        """All remarks in their order."""
        return tuple(self._lines)
