"""Tables of free atoms from H to Cm: radial densities of their shells, and possible valence shells.

The tables beside this module are calculated (see ``README.md``); they contain nothing of published
pseudopotentials except the number of valence electrons.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.errors import InputError

__all__ = ["TABLE_VERSION", "FreeAtom", "RadialDensity", "free_atoms", "possible_valences", "radial_density"]

TABLE_VERSION = "free-atoms 1 (PBE, scalar-relativistic, spherical)"
"""Version of tables and method in the provenance of a density; increased when derived densities change."""

_FOLDER = Path(__file__).parent
_F_CLOSED = 14


@dataclass(frozen=True, eq=False)
class FreeAtom:
    """One electron configuration of one element: shells from the outermost inwards."""

    element: str
    names: tuple[str, ...]
    """Such as 3d."""
    occupations: tuple[float, ...]
    squares: NDArray[np.float64]
    """u(r)^2 of one electron, each with integral 1, shape (shells, points) [1/Å]."""


@dataclass(frozen=True, eq=False)
class RadialDensity:
    """Valence density of a free atom."""

    radii: NDArray[np.float64]
    """From 0 to 16 [Å]; dense near the nucleus."""
    values: NDArray[np.float64]
    """4 pi r^2 n(r); its integral is the number of valence electrons [e/Å]."""
    shells: tuple[str, ...]
    """Contributing shells with their occupation, such as 3d6."""


@cache
def free_atoms() -> tuple[NDArray[np.float64], Mapping[str, FreeAtom]]:
    """Radii [Å] and all atoms by name: an element, or (Nd_3) its trivalent configuration 4f^(n-1) 5d 6s^2."""
    about = json.loads((_FOLDER / "atoms.json").read_text(encoding="utf-8"))
    atoms = {}
    with np.load(_FOLDER / "atoms.npz", allow_pickle=False) as tables:
        radii = np.asarray(tables["r"], dtype=np.float64)
        for name, atom in about["atoms"].items():
            energies = [energy for _, _, energy in atom["shells"]]
            order = sorted(range(len(energies)), key=energies.__getitem__, reverse=True)
            atoms[name] = FreeAtom(
                element=atom["element"],
                names=tuple(atom["shells"][j][0] for j in order),
                occupations=tuple(float(atom["shells"][j][1]) for j in order),
                squares=np.asarray(tables[name], dtype=np.float64)[order],
            )
    return radii, atoms


@cache
def radial_density(element: str, electrons: int) -> RadialDensity:
    """Density of the ``electrons`` outermost electrons of a free atom.

    Shells are added from the outermost inwards until their occupations give the number. For 4f and
    5f shells: an open shell is valence and a closed one core; only if the number cannot be reached
    this way, the opposite is assumed (as in the pseudopotentials Er_3, Lu). Where n - 1 of the n f
    electrons of a lanthanide are core, its trivalent configuration is used.

    Raises
    ------
    InputError
        If there is no such element in the tables, or no set of shells with so many electrons.
    """
    radii, atoms = free_atoms()
    if element not in atoms:
        raise InputError(f"no table of the free atom {element}; there are those of H to Cm")
    chosen = _shells(element, electrons)
    if chosen is None:
        raise InputError(f"no shells of a free {element} atom hold {electrons} valence electrons")
    atom, indices = chosen
    weights = np.array([atom.occupations[j] for j in indices])
    names = tuple(f"{atom.names[j]}{atom.occupations[j]:g}" for j in indices)
    return RadialDensity(radii, weights @ atom.squares[list(indices)], names)


def possible_valences(amounts: Mapping[str, int], n_electrons: float) -> list[dict[str, int]]:
    """Combinations of valence electrons per element for which a crystal has ``n_electrons``.

    All combinations of published pseudopotentials with this total number. The first are those of
    published sets: the Materials Project's (MPRelaxSet, then MPScanRelaxSet), then GPAW's. The others
    are sorted by the number of elements that differ from MPRelaxSet, then by the size of the change,
    then by the numbers of the elements in order.

    Parameters
    ----------
    amounts
        Number of atoms per cell of each element.
    n_electrons
        Integral of the crystal's total density [e]; a difference of 0.05 e or 0.2 % is allowed.

    Raises
    ------
    InputError
        If an element has no table, or no combination gives the number.
    """
    _, atoms = free_atoms()
    missing = sorted(element for element in amounts if element not in atoms)
    if missing:
        raise InputError(f"no table of a free atom of {', '.join(missing)}; there are those of H to Cm")
    elements = sorted(amounts)
    conventions, published = _valences()
    options = [[n for n in published.get(element, ()) if _shells(element, n)] for element in elements]
    tolerance = max(0.05, 2e-3 * n_electrons)
    sets = [tuple(convention.get(element, 0) for element in elements) for convention in conventions.values()]

    def order(combination: tuple[int, ...]) -> tuple[Any, ...]:
        published_set = sets.index(combination) if combination in sets else len(sets)
        changes = [abs(count - usual) for count, usual in zip(combination, sets[0], strict=True)]
        return published_set, sum(map(bool, changes)), sum(changes), combination

    found = [
        combination
        for combination in product(*options)
        if abs(sum(amounts[e] * n for e, n in zip(elements, combination, strict=True)) - n_electrons) <= tolerance
    ]
    if not found:
        cell = " ".join(f"{element}{amounts[element]}" for element in elements)
        choices = "; ".join(f"{e} {'/'.join(map(str, n)) or 'none'}" for e, n in zip(elements, options, strict=True))
        raise InputError(
            f"total density of {cell} contains {n_electrons:.3f} electrons, which no choice of valence shells gives "
            f"({choices}); free atoms cannot be subtracted from it"
        )
    return [dict(zip(elements, combination, strict=True)) for combination in sorted(found, key=order)]


@cache
def _valences() -> tuple[dict[str, dict[str, int]], dict[str, list[int]]]:
    content: dict[str, Any] = json.loads((_FOLDER / "valences.json").read_text(encoding="utf-8"))
    conventions = content["conventions"]
    published = {element: set(counts) for element, counts in content["published"].items()}
    for convention in conventions.values():
        for element, count in convention.items():
            published.setdefault(element, set()).add(count)
    return conventions, {element: sorted(counts) for element, counts in published.items()}


@cache
def _shells(element: str, electrons: int) -> tuple[FreeAtom, tuple[int, ...]] | None:
    _, atoms = free_atoms()
    ground = atoms[element]
    f_electrons = sum(n for n, name in zip(ground.occupations, ground.names, strict=True) if name in ("4f", "5f"))
    is_open = 0 < f_electrons < _F_CLOSED
    trials = [(ground, is_open), (atoms.get(f"{element}_3", ground), False), (ground, False), (ground, True)]
    if electrons % 2 == 0:  # divalent ones, such as Eu_2 and Yb_2, have all f electrons in the core
        trials = [trials[0], trials[2], trials[1], trials[3]]
    for atom, with_f in trials:
        indices: list[int] = []
        included = 0.0
        for j, (name, occupation) in enumerate(zip(atom.names, atom.occupations, strict=True)):
            if name in ("4f", "5f") and not with_f:
                continue
            indices.append(j)
            included += occupation
            if included >= electrons:
                break
        if included == electrons:
            return atom, tuple(indices)
    return None
