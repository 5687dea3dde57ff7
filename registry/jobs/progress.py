"""Protocol by which long work reports its progress to its caller."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Receiver of progress reports; ``cli.output`` shows bars on a terminal, and plain lines otherwise."""

    def begin(self, label: str, total: int | None = None) -> None:
        """Start a task of ``total`` steps; None if the number is not known. Tasks do not nest."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count finished steps; ``note`` names the current item."""

    def end(self) -> None:
        """Finish the task."""

    def message(self, line: str) -> None:
        """Show a line to the user, during a task or outside of one."""


class Silent:
    """A :class:`Progress` that shows nothing."""

    def begin(self, label: str, total: int | None = None) -> None: ...

    def advance(self, steps: int = 1, note: str = "") -> None: ...

    def end(self) -> None: ...

    def message(self, line: str) -> None: ...
