"""New compositions in known structures: proposals with replaced elements.

A new crystal has the symmetry and the fractional coordinates of its parent; free coordinates are not
relaxed. Its volume is that of the parent times the ratio of the two volumes of
:class:`~ingest.substitution.volumes.Volumes`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingest.substitution.parents import Parent
from ingest.substitution.replacements import IONIC, METALLIC, combinations, oxidation_states, replacements
from ingest.substitution.volumes import count_atoms, volumes_of
from ingest.texts.descriptions import GENERATOR, describe, robocrys_version, texts_by_level
from registry.checksums import json_sha256
from registry.crystals import CrystalData, DescriptionData
from registry.formulas import composition, composition_key
from registry.jobs.progress import Progress, Silent

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = ["Proposal", "as_crystal", "propose"]


@dataclass(frozen=True)
class Proposal:
    """A crystal that is not in the registry."""

    formula: str
    parent: Parent
    replaced: tuple[tuple[str, str], ...]
    """Pairs of (old, new) elements."""
    rule: str
    """Rule of the replacement: ``IONIC`` or ``METALLIC`` of :mod:`ingest.substitution.replacements`."""
    likeness: float
    """Product over the replacements, 0 to 1. Ions: probability of the replacement over that of the likeliest one.
    Metals: 1 - distance / 5 on Pettifor's scale."""
    volume_per_formula: float
    """Volume of one formula unit [Å^3]."""

    @property
    def prototype(self) -> str:
        """Prototype of the parent."""
        return self.parent.prototype

    def structure(self) -> Structure:
        """Structure of the crystal in the scaled cell of the parent, not relaxed [Å]."""
        from pymatgen.core.structure import Structure

        made = Structure.from_dict(dict(self.parent.structure))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about elements without an electronegativity
            made.remove_oxidation_states()
            made.replace_species(dict(self.replaced))
            made.scale_lattice(made.volume * self.volume_per_formula / self.parent.volume_per_formula)
        return made


def propose(
    parents: Sequence[Parent],
    family: Sequence[Parent],
    *,
    known: set[tuple[str, str]],
    depth: int = 1,
    progress: Progress | None = None,
) -> Iterator[Proposal]:
    """Replace elements of known crystals; each new composition of a prototype occurs once, with the greatest likeness.

    Two elements of a crystal never become one, so that the prototype is kept. The parent determines the element of each
    site: other distributions of the same elements are not distinguished, neither here nor among known crystals.

    Parameters
    ----------
    parents
        Crystals of which elements are replaced.
    family
        All known crystals of their prototypes, to which the volumes are fitted.
    known
        (composition key, prototype) of known crystals; they are not proposed.
    depth
        Maximum number of replaced elements of a parent, 1 or 2.
    progress
        Receives each parent.

    Yields
    ------
    Proposal
        Sorted by likeness, the greatest first.
    """
    progress = progress or Silent()
    progress.begin("replacements", len(parents))
    sizes = volumes_of(family)
    best: dict[tuple[str, str], Proposal] = {}
    for parent in parents:
        amounts = composition(parent.formula)
        charges = oxidation_states(parent.formula)
        rule = METALLIC if charges is None else IONIC
        volumes = sizes[parent.prototype, rule]
        parent_volume = volumes(count_atoms(amounts, charges))
        for replaced, likeness in combinations(replacements(parent.formula), depth):
            after = dict(replaced)
            made = {after.get(symbol, symbol): n for symbol, n in amounts.items()}
            if len(made) < len(amounts):
                continue
            formula = _formula(made)
            key = (composition_key(formula), parent.prototype)
            if key in known or (key in best and best[key].likeness >= likeness):
                continue
            new_charges = None if charges is None else {after.get(s, s): charge for s, charge in charges.items()}
            volume = parent.volume_per_formula * volumes(count_atoms(made, new_charges)) / parent_volume
            best[key] = Proposal(formula, parent, replaced, rule, likeness, volume)
        progress.advance(1, parent.formula)
    progress.end()
    yield from sorted(best.values(), key=lambda one: (-one.likeness, one.formula))


def as_crystal(proposal: Proposal, *, structure: bool = True, texts: bool = False) -> CrystalData:
    """Convert a proposal to the data that models read.

    Parameters
    ----------
    proposal
        The proposed crystal.
    structure
        Whether the structure is built; composition models do not need it, and thousands take minutes.
    texts
        Whether robocrystallographer describes the crystal, which takes seconds.

    Raises
    ------
    InputError
        If the crystal cannot be described.
    """
    made = proposal.structure() if structure or texts else None
    descriptions: tuple[DescriptionData, ...] = ()
    if texts and made is not None:
        by_level = texts_by_level(describe(made), proposal.formula)
        descriptions = tuple(
            DescriptionData(text_level, text, GENERATOR, robocrys_version()) for text_level, text in by_level.items()
        )
    return CrystalData(
        source="proposed",
        source_id=proposal.formula,
        formula=proposal.formula,
        structure=None if made is None else made.as_dict(),
        space_group_number=proposal.parent.space_group_number,
        space_group_symbol=proposal.parent.space_group_symbol,
        prototype=proposal.prototype,
        n_sites=None if made is None else len(made),
        volume=None if made is None else float(made.volume),
        content_sha256=json_sha256([proposal.formula, proposal.prototype, proposal.parent.name]),
        descriptions=descriptions,
    )


def _formula(amounts: Mapping[str, float]) -> str:
    from pymatgen.core.composition import Composition

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return str(Composition(dict(amounts)).reduced_formula)
