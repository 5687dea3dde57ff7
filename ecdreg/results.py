"""Results of the use cases: a sequence of typed rows, with notes about the work.

>>> import pandas
>>> result = registry.predict("stacked:k_vrh", ["mp-1022"])  # doctest: +SKIP
>>> result[0].predicted, result.notes  # doctest: +SKIP
>>> pandas.DataFrame(result)  # doctest: +SKIP
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

__all__ = ["Results", "Row", "row_dict"]

Row = TypeVar("Row", covariant=True)
"""A frozen dataclass. Its method ``to_dict``, where it has one, gives the row of the command line's JSON output."""


@dataclass(frozen=True)
class Results(Sequence[Row], Generic[Row]):
    """Rows of the result of a use case, in their order; ``pandas.DataFrame`` takes it as it is."""

    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    """Remarks about the work, or what to do next; one line each. The command line prints them on stderr."""
    warnings: tuple[str, ...] = ()
    """Warnings for the user; one line each."""

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows as dictionaries of JSON values, as the command line prints them with ``--json``."""
        return [row_dict(row) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Row, ...]: ...

    def __getitem__(self, index: int | slice) -> Row | tuple[Row, ...]:
        return self.rows[index]


def row_dict(row: Any) -> dict[str, Any]:
    """A row as a dictionary: by its method ``to_dict``, else its fields."""
    if hasattr(row, "to_dict"):
        made: Mapping[str, Any] = row.to_dict()
        return dict(made)
    return dataclasses.asdict(row)
