"""Properties of crystals: names, units, plausible ranges, and the levels of theory of their values.

The built-in properties are defined here and copied to the table ``properties``. Properties that a user adds
(:func:`registry.property_store.add_property`) are stored in that table only. :data:`PROPERTIES` has both: it is read
again from the database when :func:`registry.database.connect` makes an engine, and when a property is added or removed.

A value outside its plausible range is kept and marked ``suspect`` with the reason; splits exclude it by default. The
ranges are wide: they find impossible values (a negative bulk modulus), not rare ones.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields

from sqlalchemy import Connection, case, func, or_, text
from sqlalchemy.dialects.postgresql import insert

from registry.errors import ConfigurationError, UnknownNameError

__all__ = [
    "BUILTIN_PROPERTIES",
    "DEFAULT_COLOUR",
    "DEFAULT_OBJECTIVE",
    "DEFAULT_PREFERENCE",
    "FREE_ATOMS",
    "LEVELS_OF_THEORY",
    "PROPERTIES",
    "TARGETS",
    "LevelDefinition",
    "PropertyCatalog",
    "PropertyDefinition",
    "property_named",
    "read_added_properties",
    "refresh_properties",
    "suspect_reason",
    "sync_properties",
    "target_names",
]

DEFAULT_PREFERENCE = 1000
"""Preference of a level of theory that is not in :data:`LEVELS_OF_THEORY`: after all that are."""


@dataclass(frozen=True)
class PropertyDefinition:
    """A property: its name, unit, meaning and plausible range (both ends are plausible)."""

    name: str
    unit: str
    """Unit of every value, prediction and error of this property."""
    description: str
    label: str
    """Words for axes and tables, without the unit."""
    plausible_min: float
    plausible_max: float
    range_reason: str
    """Reason why a value outside the range is suspect."""
    lower_bound: float | None = None
    """Physical lower bound, where prediction intervals end; None where there is none."""
    target: bool = False
    """Whether similarity searches report it for each neighbour. The built-in targets are also trained by default."""

    @property
    def builtin(self) -> bool:
        """Whether it is defined in this module, not added by a user."""
        return self.name in BUILTIN_PROPERTIES


@dataclass(frozen=True)
class LevelDefinition:
    """A level of theory; of two values the one with the smaller ``preference`` is shown."""

    name: str
    preference: int
    description: str


BUILTIN_PROPERTIES: dict[str, PropertyDefinition] = {
    definition.name: definition
    for definition in (
        PropertyDefinition(
            "formation_energy_per_atom",
            "eV/atom",
            "energy of the crystal minus that of its elements in their reference states, per atom",
            "formation energy",
            -8.0,
            6.0,
            "no compound has a formation energy this large",
            target=True,
        ),
        PropertyDefinition(
            "efermi",
            "eV",
            "Fermi energy on the scale of the calculation (average electrostatic potential is zero)",
            "Fermi energy",
            -30.0,
            30.0,
            "no crystal has a Fermi energy this far from the average electrostatic potential",
            target=True,
        ),
        PropertyDefinition(
            "k_vrh",
            "GPa",
            "bulk modulus, average of Voigt's and Reuss's bounds (Hill)",
            "bulk modulus",
            0.1,
            700.0,
            "a stable crystal has a positive bulk modulus, and none is far above that of diamond (443 GPa)",
            lower_bound=0.0,
            target=True,
        ),
        PropertyDefinition(
            "g_vrh",
            "GPa",
            "shear modulus, average of Voigt's and Reuss's bounds (Hill)",
            "shear modulus",
            0.1,
            800.0,
            "a stable crystal has a positive shear modulus, and none is far above that of diamond (535 GPa)",
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
            "no cell of a few hundred atoms has a magnetic moment this large",
            # No lower bound: some sources give the moment's sign, which is an accident of the calculation.
        ),
        PropertyDefinition(
            "energy_above_hull",
            "eV/atom",
            "energy above the convex hull of the competing phases, per atom",
            "energy above hull",
            -1e-3,
            10.0,
            "no phase is below its convex hull, and none is this far above it",
            lower_bound=-1e-3,  # not 0: values of phases on the hull are rounded
        ),
    )
}
"""The built-in properties by name."""

TARGETS: tuple[str, ...] = tuple(name for name, definition in BUILTIN_PROPERTIES.items() if definition.target)
"""The properties that are trained where none is named, in the order in which they are reported."""

DEFAULT_COLOUR = "k_vrh"
"""The property that figures colour and order crystals by where none is named."""

DEFAULT_OBJECTIVE = "formation_energy_per_atom=min"
"""The objective of proposals where neither a constraint nor an objective is given."""


class PropertyCatalog(Mapping[str, PropertyDefinition]):
    """Definitions of properties by name: the built-in ones, then those that users added, sorted by name.

    Parameters
    ----------
    builtin
        The built-in definitions.
    """

    def __init__(self, builtin: Mapping[str, PropertyDefinition]) -> None:
        self._builtin = dict(builtin)
        self._all = self._builtin

    def __getitem__(self, name: str) -> PropertyDefinition:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def replace_added(self, added: Iterable[PropertyDefinition]) -> None:
        """Take other definitions of users in the place of those so far."""
        # A new dictionary: other threads may be iterating over the old one.
        self._all = {**self._builtin, **{definition.name: definition for definition in added}}


PROPERTIES = PropertyCatalog(BUILTIN_PROPERTIES)
"""Every property of the registry that this process connected to last."""

FREE_ATOMS = "-free-atoms"
"""Suffix to the level of theory of a total density: the deformation density was made by subtracting tabulated free
atoms.

Inside the atoms it differs from a deformation density that the calculation itself provides; models refuse a level of
theory that they were not trained on.
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
        LevelDefinition("unspecified", 900, "the source does not state it"),
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


def target_names() -> tuple[str, ...]:
    """Properties that similarity searches report for each neighbour, in the order of their columns."""
    return tuple(name for name, definition in PROPERTIES.items() if definition.target)


def suspect_reason(name: str, value: float) -> str | None:
    """Reason why a value is suspect, or None where it is plausible.

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
        f"{name} = {value:.6g} {definition.unit} is outside its plausible range [{low:g}, {high:g}]:"
        f" {definition.range_reason}"
    )


def read_added_properties(connection: Connection) -> list[PropertyDefinition]:
    """The definitions that users added to a database, sorted by name.

    Parameters
    ----------
    connection
        On a registry with the current tables.
    """
    names = [field.name for field in fields(PropertyDefinition)]
    rows = connection.execute(text(f"SELECT {', '.join(names)} FROM properties WHERE NOT builtin ORDER BY name"))
    # A name that a later version defines itself is built in as soon as the schema is upgraded.
    return [PropertyDefinition(**row) for row in rows.mappings() if row["name"] not in BUILTIN_PROPERTIES]


def refresh_properties(connection: Connection) -> None:
    """Read the definitions of users into :data:`PROPERTIES`; those of another database are forgotten.

    Parameters
    ----------
    connection
        On a registry with the current tables.
    """
    PROPERTIES.replace_added(read_added_properties(connection))


def sync_properties(connection: Connection) -> None:
    """Write :data:`BUILTIN_PROPERTIES` and :data:`LEVELS_OF_THEORY` into their tables.

    Rows are added or updated, none is removed; repeating it changes nothing. A preference that a user set for a
    level of theory stays. Does not commit.

    Parameters
    ----------
    connection
        On a registry with the current tables.

    Raises
    ------
    ConfigurationError
        If a user added a property of a built-in name with another unit.
    """
    from registry.models import LevelOfTheory, Property  # all tables: 0.1 s that a search does without

    _check_units(connection)
    upsert = insert(Property).values([asdict(p) | {"builtin": True} for p in BUILTIN_PROPERTIES.values()])
    changing = [column.name for column in Property.__table__.columns if column.name != "name"]
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


def _check_units(connection: Connection) -> None:
    """Refuse to turn a user's property into a built-in one of another unit: its values would change their meaning."""
    added = connection.execute(text("SELECT name, unit FROM properties WHERE NOT builtin"))
    for name, unit in added:
        builtin = BUILTIN_PROPERTIES.get(name)
        if builtin is not None and builtin.unit != unit:
            raise ConfigurationError(
                f"the property {name!r} was added with the unit {unit!r}, and this version of ecdreg defines it in"
                f" {builtin.unit!r}; convert its values and its unit in the database, then run `ecdreg db upgrade`"
            )
