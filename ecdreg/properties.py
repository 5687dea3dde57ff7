"""Properties of crystals: add, list and remove the definitions that users bring.

An added property is a column of ``v_materials`` and of dataset folders, can be filtered by, and can be trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecdreg.results import Results
from registry import property_store
from registry.database import session_scope
from registry.errors import ConfigurationError
from registry.properties import PropertyDefinition

if TYPE_CHECKING:
    from ecdreg.connection import RegistryConnection
    from registry.property_store import StoredProperty

__all__ = ["PropertySummary", "add_property", "list_properties", "parse_range", "remove_property"]


@dataclass(frozen=True)
class PropertySummary:
    """A property: definition and use."""

    name: str
    unit: str
    label: str
    """Words for axes and tables, without the unit."""
    description: str
    plausible_min: float
    """In the unit; a value below it is suspect."""
    plausible_max: float
    """In the unit; a value above it is suspect."""
    range_reason: str
    """Reason why a value outside the range is suspect."""
    lower_bound: float | None
    """In the unit; prediction intervals end here."""
    target: bool
    """Whether similarity searches report it for each neighbour."""
    builtin: bool
    """Whether ecdreg defines it; else a user added it."""
    values: int
    """Values of all revisions and levels of theory."""
    splits: int
    """Splits that have it as their target."""


def add_property(
    registry: RegistryConnection,
    name: str,
    *,
    unit: str,
    plausible_range: tuple[float, float],
    label: str | None = None,
    description: str | None = None,
    range_reason: str | None = None,
    lower_bound: float | None = None,
    as_target: bool = False,
) -> Results[PropertySummary]:
    """Add a property of the user's own, and its column of ``v_materials``.

    Parameters
    ----------
    registry
        An open registry.
    name
        Lower-case letters, digits and underscores; also the name of its column.
    unit
        Unit of every value, as ``GPa``; ``1`` for a number without a unit.
    plausible_range
        Smallest and largest plausible value [unit]; splits exclude values outside it.
    label
        Words for axes and tables; by default the name with spaces.
    description
        One line; by default the label.
    range_reason
        Why a value outside the range is suspect; by default that the user gave this range.
    lower_bound
        Physical lower bound [unit], where prediction intervals end; None where there is none.
    as_target
        Report it for each neighbour of a similarity search, as the built-in targets are.

    Returns
    -------
    Results of PropertySummary
        The property as it is stored.

    Raises
    ------
    ConfigurationError, DatabaseError, SchemaBehindError
        As :func:`registry.property_store.add_property`.
    """
    words = label if label is not None else name.replace("_", " ")
    low, high = plausible_range
    property_store.add_property(
        registry.engine,
        PropertyDefinition(
            name=name,
            unit=unit,
            description=description if description is not None else words,
            label=words,
            plausible_min=float(low),
            plausible_max=float(high),
            range_reason=range_reason if range_reason is not None else "outside the range given for this property",
            lower_bound=None if lower_bound is None else float(lower_bound),
            target=as_target,
        ),
    )
    return Results(
        tuple(one for one in list_properties(registry) if one.name == name),
        notes=(
            f"next: a column {name} in properties.csv of a dataset folder; `ecdreg ingest --source DIR/`;"
            f" `ecdreg train composition --target {name}`",
        ),
    )


def list_properties(registry: RegistryConnection) -> Results[PropertySummary]:
    """All properties: the built-in ones in the order of their columns, then those that users added, by name.

    Parameters
    ----------
    registry
        An open registry.
    """
    with session_scope(registry.engine) as session:
        return Results(tuple(_summary(one) for one in property_store.list_properties(session)))


def remove_property(registry: RegistryConnection, name: str) -> PropertySummary:
    """Remove a property that a user added and nothing uses.

    Parameters
    ----------
    registry
        An open registry.
    name
        Its name.

    Returns
    -------
    PropertySummary
        The property that was removed.

    Raises
    ------
    UnknownNameError, ConfigurationError, DatabaseError, SchemaBehindError
        As :func:`registry.property_store.remove_property`.
    """
    before = list_properties(registry)
    property_store.remove_property(registry.engine, name)
    return next(one for one in before if one.name == name)


def parse_range(text: str) -> tuple[float, float]:
    """Both ends of a range that is written as ``LOW:HIGH``.

    Raises
    ------
    ConfigurationError
        If it is not written so.

    Examples
    --------
    >>> parse_range("0:150")
    (0.0, 150.0)
    """
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise ConfigurationError(
            f"{text[:60]!r} is not a range; write it as 0:150, in the unit of the property"
        ) from None


def _summary(stored: StoredProperty) -> PropertySummary:
    definition = stored.definition
    return PropertySummary(
        name=definition.name,
        unit=definition.unit,
        label=definition.label,
        description=definition.description,
        plausible_min=definition.plausible_min,
        plausible_max=definition.plausible_max,
        range_reason=definition.range_reason,
        lower_bound=definition.lower_bound,
        target=definition.target,
        builtin=definition.builtin,
        values=stored.values,
        splits=stored.splits,
    )
