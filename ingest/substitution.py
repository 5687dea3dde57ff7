"""New compositions in known structures: elements of a known crystal are replaced by such as could stand in for them.

Where the parent has charges that sum to zero and one of the usual anions, an ion is replaced by ions of the same
charge, as likely as they replace each other among known compounds (pymatgen's table; G. Hautier et al., Inorganic
Chemistry 50, 656 (2011)): what comes out is neutral as its parent was. Else, as in an alloy, an element is replaced by
its neighbours on Pettifor's chemical scale (D. G. Pettifor, Solid State Physics 31, 40 (1984)).

The new crystal has the parent's symmetry and fractional coordinates; free ones are not relaxed. Its volume is that of
the parent times the ratio of what :class:`Volumes` says of the two.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.checksums import json_sha256
from registry.crystals import CrystalData, DescriptionData
from registry.errors import InputError, NotFoundError
from registry.formulas import composition, composition_key
from registry.jobs.progress import Progress, Silent
from registry.models import Crystal, CrystalRevision

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = [
    "Parent",
    "Proposal",
    "Volumes",
    "as_crystal",
    "known_keys",
    "propose",
    "read_parents",
    "volumes_of",
    "write_cif",
]

IONIC = "ions of equal charge"
METALLIC = "neighbours on Pettifor's scale"

_ANIONS = frozenset(("N", "O", "F", "P", "S", "Cl", "As", "Se", "Br", "Te", "I"))
_NEVER = frozenset(("He", "Ne", "Ar", "Kr", "Xe", "Rn", "Tc", "Pm", "Po", "At", "Fr", "Ra", "Ac", "Pa"))
"""What a proposal does not hold: noble gases, and elements without a stable isotope (thorium and uranium may stay)."""

_LEAST = 1e-3
"""Conditional probability of an ion's replacement below which it is not tried, as in pymatgen's Substitutor."""

_REACH = 4
"""Places on Pettifor's scale up to which an element of an alloy is replaced."""

_FEWEST = 8
"""Crystals of a prototype that the volumes are fitted to; with fewer, the atomic radii alone decide."""


@dataclass(frozen=True)
class Parent:
    """A known crystal."""

    name: str
    """``source:id``"""
    formula: str
    prototype: str
    structure: Mapping[str, Any]
    """pymatgen ``Structure.as_dict()`` [Å]"""
    space_group_number: int
    space_group_symbol: str

    @property
    def volume_per_formula(self) -> float:
        """Volume [Å^3] for the formula as it is written."""
        sites = len(self.structure["sites"])
        return float(self.structure["lattice"]["volume"]) * sum(composition(self.formula).values()) / sites


@dataclass(frozen=True)
class Proposal:
    """A crystal that is not known."""

    formula: str
    parent: Parent
    replaced: tuple[tuple[str, str], ...]
    """(old, new) elements."""
    rule: str
    """Why these may stand in for each other: :data:`IONIC` or :data:`METALLIC`."""
    likeness: float
    """0 to 1; the product over the replacements. Ions: probability of the replacement over that of the likeliest
    one. Metals: 1 - distance / 5 on Pettifor's scale."""
    volume_per_formula: float
    """[Å^3]"""

    @property
    def prototype(self) -> str:
        """The parent's."""
        return self.parent.prototype

    def structure(self) -> Structure:
        """The crystal, unrelaxed, in the parent's cell [Å]."""
        from pymatgen.core.structure import Structure

        made = Structure.from_dict(dict(self.parent.structure))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of elements without an electronegativity
            made.remove_oxidation_states()
            made.replace_species(dict(self.replaced))
            made.scale_lattice(made.volume * self.volume_per_formula / self.parent.volume_per_formula)
        return made


class Volumes:
    """Volumes of the crystals of one prototype and one kind of bonding as sums of volumes of their atoms.

    ``V = sum_i n_i v_i``: the v_i are fitted to the known crystals by least squares of the relative error, drawn to the
    cubes of radii by a ridge whose strength is chosen by leaving one out: atomic radii (Slater's) in metals, Shannon's
    ionic ones between ions, both as pymatgen has them. With fewer than eight crystals the radii alone decide.

    Parameters
    ----------
    amounts
        Atoms of N known crystals, by symbol; ions with their charge behind it, as ``"Ti 4"``.
    volumes
        (N,), per formula [Å^3].
    """

    def __init__(self, amounts: Sequence[Mapping[str, float]], volumes: Sequence[float]) -> None:
        self.n = len(volumes)
        atoms = sorted({atom for one in amounts for atom in one})
        prior = np.array([_cube(atom) for atom in atoms])
        counts = np.array([[one.get(atom, 0.0) for atom in atoms] for one in amounts]).reshape(self.n, len(atoms))
        known = np.asarray(volumes, dtype=np.float64)
        self._scale = float(np.median(known / (counts @ prior))) if self.n else 1.0
        fitted = prior * self._scale
        self.error: float | None = None
        """Median relative error of a crystal that the fit left out [1]; None for the radii alone."""
        if self.n >= _FEWEST:
            x = counts * fitted / known[:, None]  # the unknowns are v_i over their prior
            fits = [_ridge(x, strength) for strength in (1e-3, 1e-2, 1e-1, 1.0)]
            factors, self.error = min(fits, key=lambda fit: fit[1])
            fitted = fitted * np.clip(factors, 0.3, 3.0)
        self._atoms = dict(zip(atoms, fitted.tolist(), strict=True))

    def __call__(self, amounts: Mapping[str, float]) -> float:
        """Volume [Å^3] of the atoms of a formula."""
        return float(sum(n * self._atoms.get(atom, _cube(atom) * self._scale) for atom, n in amounts.items()))

    def told(self) -> str:
        """One line: what the volumes come from."""
        if self.error is None:
            return f"cubes of radii ({self.n} known crystals are too few to fit)"
        return f"fit on {self.n} known crystals (median error of one left out: {100 * self.error:.1f} %)"


def read_parents(
    session: Session, *, prototype: str | None = None, ident: str | None = None
) -> tuple[list[Parent], list[Parent]]:
    """Crystals whose elements are to be replaced, and all known ones of their prototypes.

    Parameters
    ----------
    session
        Only read.
    prototype
        Only of this one, as ``AB-cF8-225``; None: of all.
    ident
        One crystal alone: its id, or ``source:id``.

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
        from registry.crystals import resolve

        chosen = resolve(session, ident).crystal_id
        own = session.scalar(
            select(CrystalRevision.prototype).where(CrystalRevision.crystal_id == chosen, CrystalRevision.is_current)
        )
        if own is None:
            raise NotFoundError(f"{ident} has no structure whose elements could be replaced; choose another crystal")
        if prototype not in (None, own):
            raise NotFoundError(f"{ident} is of prototype {own}, not {prototype}; leave out one of the two")
        prototype = own
    if prototype is not None:
        query = query.where(CrystalRevision.prototype == prototype)
    family, parents = [], []
    for crystal_id, source, source_id, revision in session.execute(query):
        # A constraint of the table: who has a structure has a space group.
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
        there = session.scalars(
            select(CrystalRevision.prototype)
            .where(CrystalRevision.is_current, CrystalRevision.prototype.is_not(None))
            .distinct()
            .order_by(CrystalRevision.prototype)
        ).all()
        what = "crystal with a structure" if prototype is None else f"crystal of prototype {prototype!r}"
        raise NotFoundError(f"no {what}; there are: {', '.join(name for name in there if name) or 'none'}")
    return parents, family


def known_keys(session: Session) -> set[tuple[str, str]]:
    """Composition and prototype of every crystal of the registry, whatever its revision."""
    rows = session.execute(
        select(CrystalRevision.formula, CrystalRevision.prototype).where(CrystalRevision.prototype.is_not(None))
    )
    return {(composition_key(formula), prototype or "") for formula, prototype in rows}


def propose(
    parents: Sequence[Parent],
    family: Sequence[Parent],
    *,
    known: set[tuple[str, str]],
    depth: int = 1,
    progress: Progress | None = None,
) -> Iterator[Proposal]:
    """Replace elements of known crystals; each new composition of a prototype comes once, as like its parent as can be.

    Two elements of a crystal never become one, so that the prototype stays. Which element sits on which site is the
    parent's doing: other orders of the same elements are not told apart, neither here nor in what is known.

    Parameters
    ----------
    parents
        Crystals whose elements are replaced.
    family
        All known crystals of their prototypes, which the volumes are fitted to.
    known
        (composition key, prototype) of what is known; it is not proposed.
    depth
        How many elements of a parent are replaced at most, 1 or 2.
    progress
        Told of each parent.

    Yields
    ------
    Proposal
        By likeness, the greatest first.
    """
    progress = progress or Silent()
    progress.begin("replacements", len(parents))
    sizes = volumes_of(family)
    best: dict[tuple[str, str], Proposal] = {}
    for parent in parents:
        amounts = composition(parent.formula)
        charges = _charges(parent.formula)
        rule = METALLIC if charges is None else IONIC
        volumes = sizes[parent.prototype, rule]
        before = volumes(_atoms(amounts, charges))
        for replaced, likeness in _combinations(_replacements(parent.formula), depth):
            after = dict(replaced)
            made = {after.get(symbol, symbol): n for symbol, n in amounts.items()}
            if len(made) < len(amounts):
                continue
            formula = _formula(made)
            key = (composition_key(formula), parent.prototype)
            if key in known or (key in best and best[key].likeness >= likeness):
                continue
            kept = None if charges is None else {after.get(s, s): charge for s, charge in charges.items()}
            volume = parent.volume_per_formula * volumes(_atoms(made, kept)) / before
            best[key] = Proposal(formula, parent, replaced, rule, likeness, volume)
        progress.advance(1, parent.formula)
    progress.end()
    yield from sorted(best.values(), key=lambda one: (-one.likeness, one.formula))


def volumes_of(family: Iterable[Parent]) -> dict[tuple[str, str], Volumes]:
    """The volumes of every prototype and rule, fitted to known crystals.

    Parameters
    ----------
    family
        Known crystals, of any prototypes.
    """
    groups: dict[tuple[str, str], list[Parent]] = {}
    for parent in family:
        rule = METALLIC if _charges(parent.formula) is None else IONIC
        groups.setdefault((parent.prototype, rule), []).append(parent)
    return {
        group: Volumes(
            [_atoms(composition(parent.formula), _charges(parent.formula)) for parent in members],
            [parent.volume_per_formula for parent in members],
        )
        for group, members in groups.items()
    }


def as_crystal(proposal: Proposal, *, structure: bool = True, texts: bool = False) -> CrystalData:
    """A proposal as what models read.

    Parameters
    ----------
    proposal
        The crystal.
    structure
        Whether it is made; models of compositions do without, and thousands take minutes.
    texts
        Whether robocrystallographer describes it, which takes seconds.

    Raises
    ------
    InputError
        If it cannot be described.
    """
    made = proposal.structure() if structure or texts else None
    descriptions: tuple[DescriptionData, ...] = ()
    if texts and made is not None:
        from ingest.texts.descriptions import GENERATOR, describe, levels, robocrys_version

        written = levels(describe(made), proposal.formula)
        descriptions = tuple(DescriptionData(n, text, GENERATOR, robocrys_version()) for n, text in written.items())
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


def write_cif(proposal: Proposal, folder: Path) -> Path:
    """Write the structure into a folder, as ``FORMULA_PROTOTYPE.cif`` with its symmetry.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    from pymatgen.io.cif import CifWriter

    path = folder / f"{proposal.formula}_{proposal.prototype}.cif"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # spglib's, about ways to call it
        text = str(CifWriter(proposal.structure(), symprec=0.01))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another folder") from error
    return path


# ---------------------------------------------------------------------------- replacements


def _replacements(formula: str) -> dict[str, list[tuple[str, float]]]:
    """For each element of a formula those that may stand in for it, with their likeness."""
    charges = _charges(formula)
    if charges is not None:
        return {symbol: _ions(symbol, charge) for symbol, charge in charges.items()}
    return {symbol: _neighbours(symbol) for symbol in composition(formula)}


@cache
def _charges(formula: str) -> dict[str, int] | None:
    """Whole charges of the elements that sum to zero; None for a metal."""
    from pymatgen.core.composition import Composition

    symbols = set(composition(formula))
    if not symbols & _ANIONS:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        guesses = Composition(formula).oxi_state_guesses()
    if not guesses or any(value != round(value) or value == 0 for value in guesses[0].values()):
        return None
    return {str(symbol): round(value) for symbol, value in guesses[0].items()}


@cache
def _table() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pymatgen.analysis.structure_prediction.substitution_probability import SubstitutionProbability

        return SubstitutionProbability()


@cache
def _ions(symbol: str, charge: int) -> list[tuple[str, float]]:
    from pymatgen.core.periodic_table import Species

    table = _table()
    own = Species(symbol, charge)
    if own not in table.species:
        return []
    likely = {}
    for species in table.species:
        other = str(species.element)
        if other != symbol and species.oxi_state == charge and other not in _NEVER and _radius(other):
            probability = table.cond_prob(species, own)
            if probability >= _LEAST:
                likely[other] = float(probability)
    most = max(likely.values(), default=1.0)
    return sorted(((other, p / most) for other, p in likely.items()), key=lambda one: (-one[1], one[0]))


@cache
def _neighbours(symbol: str) -> list[tuple[str, float]]:
    from pymatgen.core.periodic_table import Element

    own = float(Element(symbol).mendeleev_no)
    found = []
    for element in Element:
        other = element.symbol
        if element.Z > 92 or other in _NEVER or not _radius(other):
            continue
        apart = abs(float(element.mendeleev_no) - own)
        if 0 < apart <= _REACH:
            found.append((other, 1.0 - apart / (_REACH + 1)))
    return sorted(found, key=lambda one: (-one[1], one[0]))


def _combinations(
    choices: Mapping[str, Sequence[tuple[str, float]]], depth: int
) -> Iterator[tuple[tuple[tuple[str, str], ...], float]]:
    symbols = sorted(choices)
    for i, first in enumerate(symbols):
        for new, likeness in choices[first]:
            yield ((first, new),), likeness
            if depth < 2:
                continue
            for second in symbols[i + 1 :]:
                for other, also in choices[second]:
                    if other != new:
                        yield ((first, new), (second, other)), likeness * also


def _formula(amounts: Mapping[str, float]) -> str:
    from pymatgen.core.composition import Composition

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return str(Composition(dict(amounts)).reduced_formula)


def _atoms(amounts: Mapping[str, float], charges: Mapping[str, int] | None) -> dict[str, float]:
    """Atoms as :class:`Volumes` counts them: ``Ti`` in a metal, ``Ti 4`` among ions."""
    if charges is None:
        return dict(amounts)
    return {f"{symbol} {charges[symbol]}": n for symbol, n in amounts.items()}


@cache
def _radius(atom: str) -> float | None:
    """Radius [Å] of an atom, or of an ion where it has a charge behind it."""
    from pymatgen.core.periodic_table import Element, Species

    symbol, _, charge = atom.partition(" ")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of elements without one
        radius = Species(symbol, int(charge)).ionic_radius if charge else None
        radius = radius or Element(symbol).atomic_radius
    return float(radius) if radius else None


def _cube(atom: str) -> float:
    """Volume of a sphere of the radius [Å^3]; of 1.5 Å where none is known."""
    return 4.0 / 3.0 * math.pi * (_radius(atom) or 1.5) ** 3


def _ridge(x: NDArray[np.float64], strength: float) -> tuple[NDArray[np.float64], float]:
    """Factors f near 1 with ``x @ f`` near 1, and the median error of a row that the fit left out."""
    gram = x.T @ x + strength * np.eye(x.shape[1])
    inverse = np.linalg.inv(gram)
    residual = 1.0 - x.sum(axis=1)
    factors = 1.0 + inverse @ (x.T @ residual)
    leverage = np.einsum("ni,ij,nj->n", x, inverse, x)
    left_out = (1.0 - x @ factors) / np.maximum(1.0 - leverage, 1e-6)
    return factors, float(np.median(np.abs(left_out)))
