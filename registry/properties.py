"""The properties that crystals can have, what they may be worth, and at which level of theory.

A value outside its plausible range is kept and marked ``suspect`` with the reason: splits leave
it out by default and say so. The ranges are wide; they catch what no crystal can be (a negative
bulk modulus), not what is merely rare.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

from sqlalchemy import Connection, case, func, or_
from sqlalchemy.dialects.postgresql import insert

from registry.errors import UnknownNameError

__all__ = [
    "DEFAULT_PREFERENCE",
    "FREE_ATOMS",
    "LEVELS_OF_THEORY",
    "PROPERTIES",
    "TARGETS",
    "LevelDefinition",
    "PropertyDefinition",
    "property_named",
    "suspect_reason",
    "sync_properties",
]

DEFAULT_PREFERENCE = 1000
"""Objective of a level of theory that only the data name: shown after every known one."""


@dataclass(frozen=True)
class PropertyDefinition:
    """A property: its name, unit, meaning and plausible range (both ends belong to it)."""

    name: str
    unit: str
    """Unit of every value, prediction and error of this property."""
    description: str
    label: str
    """Words for axes and tables, without the unit."""
    plausible_min: float
    plausible_max: float
    why: str
    """Why a value outside the range is suspect."""
    lower_bound: float | None = None
    """What no true value is below, whatever the crystal; None where nothing bounds it. Intervals end here."""


@dataclass(frozen=True)
class LevelDefinition:
    """A level of theory; of two values the one with the smaller ``preference`` is shown."""

    name: str
    preference: int
    description: str


PROPERTIES: dict[str, PropertyDefinition] = {
    definition.name: definition
    for definition in (
        PropertyDefinition(
            "formation_energy_per_atom",
            "eV/atom",
            "energy of the crystal minus that of its elements in their reference states, per atom",
            "formation energy",
            -8.0,
            6.0,
            "no compound binds or is unstable by so much",
        ),
        PropertyDefinition(
            "efermi",
            "eV",
            "Fermi energy on the scale of the calculation (average electrostatic potential is zero)",
            "Fermi energy",
            -30.0,
            30.0,
            "no crystal's Fermi energy lies so far from the average potential",
        ),
        PropertyDefinition(
            "k_vrh",
            "GPa",
            "bulk modulus, average of Voigt's and Reuss's bounds (Hill)",
            "bulk modulus",
            0.1,
            700.0,
            "a stable crystal resists compression, and none more than diamond by far (443 GPa)",
            lower_bound=0.0,
        ),
        PropertyDefinition(
            "g_vrh",
            "GPa",
            "shear modulus, average of Voigt's and Reuss's bounds (Hill)",
            "shear modulus",
            0.1,
            800.0,
            "a stable crystal resists shear, and none more than diamond by far (535 GPa)",
            lower_bound=0.0,
        ),
        PropertyDefinition(
            "band_gap",
            "eV",
            "energy between the highest occupied and the lowest empty state; 0 for a metal",
            "band gap",
            0.0,
            25.0,
            "a gap is not negative, and none exceeds that of solid helium and neon (22 eV)",
            lower_bound=0.0,
        ),
        PropertyDefinition(
            "total_magnetization",
            "mu_B",
            "magnetic moment of the cell that was calculated",
            "magnetisation",
            -1000.0,
            1000.0,
            "no cell of a few hundred atoms has such a moment",
            # No lower bound: some sources give the moment's sign, which is an accident of the calculation.
        ),
        PropertyDefinition(
            "energy_above_hull",
            "eV/atom",
            "energy above the convex hull of the competing phases, per atom",
            "energy above hull",
            -1e-3,
            10.0,
            "no phase lies below its hull, and none so far above it",
            lower_bound=-1e-3,  # not 0: values of phases on the hull are rounded
        ),
    )
}
"""Every property that a source can bring, by name."""

TARGETS: tuple[str, ...] = ("formation_energy_per_atom", "efermi", "k_vrh")
"""The properties that models are trained on, in the order in which they are reported."""

FREE_ATOMS = "-free-atoms"
"""Ends the level of theory of a deformation density that tabulated free atoms make of a total one; before it stands
that of the total one.

Inside the atoms it is another quantity than a deformation density that its own calculation offers, and a model must
not be shown one for the other: models refuse a level of theory that they were not trained on.
"""

LEVELS_OF_THEORY: dict[str, LevelDefinition] = {
    level.name: level
    for level in (
        # The levels that most labels share come first: a model compares like with like.
        LevelDefinition("GGA_GGA+U", 10, "mixing scheme of the Materials Project: PBE, with +U where it applies"),
        LevelDefinition(
            "GGA_GGA+U_R2SCAN", 15, "mixing scheme of the Materials Project since 2022: r2SCAN where it is known too"
        ),
        LevelDefinition("GGA", 20, "generalised gradient approximation (PBE)"),
        LevelDefinition("GGA+U", 30, "PBE with Hubbard corrections for localised d and f states"),
        LevelDefinition("r2SCAN", 40, "meta-GGA r2SCAN"),
        LevelDefinition("PBEsol", 50, "PBE revised for solids"),
        LevelDefinition("SCAN", 60, "meta-GGA SCAN"),
        LevelDefinition("HSE06", 70, "screened hybrid functional HSE06"),
        LevelDefinition("LDA", 80, "local density approximation"),
        LevelDefinition("GGA-free-atoms", 210, "deformation density: a GGA total less tabulated free atoms"),
        LevelDefinition("GGA+U-free-atoms", 220, "deformation density: a GGA+U total less tabulated free atoms"),
        LevelDefinition("unspecified", 900, "the source does not say"),
    )
}
"""The levels of theory that are known from the start; ingestion adds what the data name."""


def property_named(name: str) -> PropertyDefinition:
    """The definition of a property.

    Raises
    ------
    UnknownNameError
        If there is no such property; the message proposes the nearest name.
    """
    try:
        return PROPERTIES[name]
    except KeyError:
        near = difflib.get_close_matches(name, PROPERTIES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(PROPERTIES)}"
        raise UnknownNameError(f"no property {name!r}; {hint}") from None


def suspect_reason(name: str, value: float) -> str | None:
    """Why a value cannot be right, or None where it can.

    Parameters
    ----------
    name
        One of :data:`PROPERTIES`.
    value
        In the property's unit; finite.

    Raises
    ------
    UnknownNameError
        If there is no such property.
    ValueError
        If the value is not finite: such a value is never stored.
    """
    definition = property_named(name)
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; only finite values can be judged")
    low, high = definition.plausible_min, definition.plausible_max
    if low <= value <= high:
        return None
    return (
        f"{name} = {value:.6g} {definition.unit} is outside its plausible range [{low:g}, {high:g}]: {definition.why}"
    )


def sync_properties(connection: Connection) -> None:
    """Write :data:`PROPERTIES` and :data:`LEVELS_OF_THEORY` into their tables.

    Rows are added or updated, none is removed; doing it again changes nothing. A preference that
    somebody set for a level of theory stays. Does not commit.
    """
    from registry.models import LevelOfTheory, Property  # all tables: 0.1 s that a search does without

    rows = [
        {
            "name": p.name,
            "unit": p.unit,
            "description": p.description,
            "plausible_min": p.plausible_min,
            "plausible_max": p.plausible_max,
        }
        for p in PROPERTIES.values()
    ]
    upsert = insert(Property).values(rows)
    changing = ("unit", "description", "plausible_min", "plausible_max")
    connection.execute(
        upsert.on_conflict_do_update(
            index_elements=[Property.name],
            set_={column: upsert.excluded[column] for column in changing},
            where=or_(*(getattr(Property, c).is_distinct_from(upsert.excluded[c]) for c in changing)),
        )
    )
    levels = insert(LevelOfTheory).values(
        [{"name": v.name, "preference": v.preference, "description": v.description} for v in LEVELS_OF_THEORY.values()]
    )
    preference = case(
        (LevelOfTheory.preference == DEFAULT_PREFERENCE, levels.excluded.preference), else_=LevelOfTheory.preference
    )
    connection.execute(
        levels.on_conflict_do_update(
            index_elements=[LevelOfTheory.name],
            set_={"preference": preference, "description": levels.excluded.description},
            where=func.row(LevelOfTheory.preference, LevelOfTheory.description).is_distinct_from(
                func.row(preference, levels.excluded.description)
            ),
        )
    )
