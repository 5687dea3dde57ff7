"""Result of the preparation of one crystal, and the collection of its problems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from registry.crystals import CrystalData
from registry.errors import EcdregError, InputError

__all__ = ["Prepared", "Problems", "one_line"]

T = TypeVar("T")

_MAX_LENGTH = 600


@dataclass(frozen=True, eq=False)
class Prepared:
    """A crystal that is ready to be written, or the reason why it is not.

    ``rejected``
        nothing of the crystal is written, for the given reason;
    ``deferred``
        the same, but a later run may succeed (a file that could not be read now);
    ``problems``
        the crystal is written without the parts that these lines name.
    """

    source_id: str
    data: CrystalData | None = None
    problems: tuple[str, ...] = ()
    rejected: str | None = None
    deferred: str | None = None
    retry: bool = False
    """Whether the next run prepares the crystal again although its source may be unchanged."""


@dataclass
class Problems:
    """Lines about parts of a crystal that are left out."""

    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        """Add a line."""
        self.lines.append(line)

    def attempt(self, part: str, compute: Callable[[], T]) -> T | None:
        """Result of ``compute``; where it fails, None and a line with the reason.

        Parameters
        ----------
        part
            Part of the crystal, the beginning of the line.
        compute
            Computation of this part.

        Raises
        ------
        MemoryError
            As of ``compute``.
        EcdregError
            As of ``compute``, if it is not an :class:`~registry.errors.InputError`.
        """
        try:
            return compute()
        except EcdregError as error:
            if not isinstance(error, InputError):
                raise
            self.add(f"{part}: {one_line(error)}")
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  pymatgen, spglib and robocrystallographer raise errors of many types
            self.add(f"{part}: {one_line(error)}")
        return None


def one_line(error: BaseException) -> str:
    """Message of an error on one line, with the type of an error that is not of ecdreg."""
    text = " ".join(str(error).split())
    if not isinstance(error, EcdregError):
        text = f"{type(error).__name__}: {text or 'no message'}"
    return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 1] + "…"
