"""How long work reports what it does, without knowing who listens."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Told of long work; ``cli.output`` draws it as bars on a terminal, as plain lines otherwise."""

    def begin(self, label: str, total: int | None = None) -> None:
        """A task starts; ``total`` steps, or None where that is not known. Tasks do not nest."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Steps are done; ``note`` says what is being worked on."""

    def end(self) -> None:
        """The task is over."""

    def say(self, line: str) -> None:
        """One line that the user should read, whether or not a task is under way."""


class Silent:
    """A :class:`Progress` that shows nothing."""

    def begin(self, label: str, total: int | None = None) -> None: ...

    def advance(self, steps: int = 1, note: str = "") -> None: ...

    def end(self) -> None: ...

    def say(self, line: str) -> None: ...
