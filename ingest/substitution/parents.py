"""Parent crystals of the registry, in which elements are replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.crystals import resolve
from registry.errors import NotFoundError
from registry.formulas import composition, composition_key
from registry.models import Crystal, CrystalRevision

__all__ = ["Parent", "known_keys", "read_parents"]


@dataclass(frozen=True)
class Parent:
    """A crystal of the registry of which elements are replaced."""

    name: str
    """``source:id``."""
    formula: str
    prototype: str
    structure: Mapping[str, Any]
    """pymatgen ``Structure.as_dict()`` [Å]."""
    space_group_number: int
    space_group_symbol: str

    @property
    def volume_per_formula(self) -> float:
        """Volume of one formula unit, as the formula is written [Å^3]."""
        sites = len(self.structure["sites"])
        return float(self.structure["lattice"]["volume"]) * sum(composition(self.formula).values()) / sites


def read_parents(
    session: Session, *, prototype: str | None = None, ident: str | None = None
) -> tuple[list[Parent], list[Parent]]:
    """Crystals of which elements are replaced, and all crystals of their prototypes.

    Parameters
    ----------
    session
        Session on the registry's database; only read.
    prototype
        Prototype of the crystals, such as ``AB-cF8-225``; None: all prototypes.
    ident
        Id of a single crystal, or ``source:id``.

    Returns
    -------
    parents
        Crystals of which elements are replaced.
    family
        All crystals of the prototypes, to which the volumes are fitted.

    Raises
    ------
    NotFoundError
        If there is no such crystal or prototype, or it has no structure.
    """
    query = (
        select(Crystal.id, Crystal.source, Crystal.source_id, CrystalRevision)
        .join(CrystalRevision, CrystalRevision.crystal_id == Crystal.id)
        .where(CrystalRevision.is_current, CrystalRevision.structure.is_not(None))
        .order_by(Crystal.id)
    )
    chosen = None
    if ident is not None:
        chosen = resolve(session, ident).crystal_id
        own = session.scalar(
            select(CrystalRevision.prototype).where(CrystalRevision.crystal_id == chosen, CrystalRevision.is_current)
        )
        if own is None:
            raise NotFoundError(f"{ident} has no structure in which elements could be replaced; choose another crystal")
        if prototype not in (None, own):
            raise NotFoundError(f"{ident} is of prototype {own}, not {prototype}; leave out one of the two")
        prototype = own
    if prototype is not None:
        query = query.where(CrystalRevision.prototype == prototype)
    family, parents = [], []
    for crystal_id, source, source_id, revision in session.execute(query):
        # A constraint of the table: a crystal with a structure has a space group.
        parent = Parent(
            f"{source}:{source_id}",
            revision.formula,
            revision.prototype or "",
            revision.structure or {},
            revision.space_group_number or 0,
            revision.space_group_symbol or "",
        )
        family.append(parent)
        if chosen in (None, crystal_id):
            parents.append(parent)
    if not parents:
        prototypes = session.scalars(
            select(CrystalRevision.prototype)
            .where(CrystalRevision.is_current, CrystalRevision.prototype.is_not(None))
            .distinct()
            .order_by(CrystalRevision.prototype)
        ).all()
        missing = "crystal with a structure" if prototype is None else f"crystal of prototype {prototype!r}"
        raise NotFoundError(f"no {missing}; there are: {', '.join(name for name in prototypes if name) or 'none'}")
    return parents, family


def known_keys(session: Session) -> set[tuple[str, str]]:
    """(composition key, prototype) of every revision of every crystal in the registry."""
    rows = session.execute(
        select(CrystalRevision.formula, CrystalRevision.prototype).where(CrystalRevision.prototype.is_not(None))
    )
    return {(composition_key(formula), prototype or "") for formula, prototype in rows}
