"""Volumes of new crystals, fitted to known crystals of the same prototype."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ingest.substitution.parents import Parent
from ingest.substitution.radii import sphere_volume
from ingest.substitution.replacements import IONIC, METALLIC, oxidation_states
from registry.formulas import composition

__all__ = ["Volumes", "count_atoms", "volumes_of"]

_MIN_CRYSTALS = 8
"""Minimum number of crystals of a prototype for a fit of the volumes."""


class Volumes:
    """Model of the volumes of crystals of one prototype and one kind of bonding: sums of atomic volumes.

    ``V = sum_i n_i v_i``: the v_i are fitted to the known crystals by least squares of the relative error, with a ridge
    penalty towards the cubes of the radii; its strength is selected by leave-one-out errors. The radii are Slater's
    atomic ones in metals and Shannon's ionic ones in ionic crystals. With fewer than eight crystals there is no fit,
    and the volumes are proportional to the cubes of the radii.

    Parameters
    ----------
    amounts
        Atoms of N known crystals, by symbol; ions with their charge, such as ``"Ti 4"``.
    volumes
        Volumes per formula, shape (N,) [Å^3].
    """

    def __init__(self, amounts: Sequence[Mapping[str, float]], volumes: Sequence[float]) -> None:
        self.n = len(volumes)
        atoms = sorted({atom for one in amounts for atom in one})
        prior = np.array([sphere_volume(atom) for atom in atoms])
        counts = np.array([[one.get(atom, 0.0) for atom in atoms] for one in amounts]).reshape(self.n, len(atoms))
        known = np.asarray(volumes, dtype=np.float64)
        self._scale = float(np.median(known / (counts @ prior))) if self.n else 1.0
        fitted = prior * self._scale
        self.error: float | None = None
        """Median relative leave-one-out error of the fit [1]; None without a fit."""
        if self.n >= _MIN_CRYSTALS:
            x = counts * fitted / known[:, None]  # the unknowns are the v_i relative to their prior
            fits = [_ridge(x, strength) for strength in (1e-3, 1e-2, 1e-1, 1.0)]
            factors, self.error = min(fits, key=lambda fit: fit[1])
            fitted = fitted * np.clip(factors, 0.3, 3.0)
        self._atoms = dict(zip(atoms, fitted.tolist(), strict=True))

    def __call__(self, amounts: Mapping[str, float]) -> float:
        """Volume [Å^3] of the atoms of a formula."""
        return float(sum(n * self._atoms.get(atom, sphere_volume(atom) * self._scale) for atom, n in amounts.items()))

    def describe(self) -> str:
        """Origin of the volumes, on one line."""
        if self.error is None:
            return f"cubes of radii ({self.n} known crystals are too few to fit)"
        return f"fit to {self.n} known crystals (median leave-one-out error {100 * self.error:.1f} %)"


def volumes_of(family: Iterable[Parent]) -> dict[tuple[str, str], Volumes]:
    """Fit the volumes of every prototype and replacement rule to known crystals.

    Parameters
    ----------
    family
        Known crystals, of any prototypes.

    Returns
    -------
    dict
        Volumes by (prototype, rule).
    """
    groups: dict[tuple[str, str], list[Parent]] = {}
    for parent in family:
        rule = METALLIC if oxidation_states(parent.formula) is None else IONIC
        groups.setdefault((parent.prototype, rule), []).append(parent)
    return {
        group: Volumes(
            [count_atoms(composition(parent.formula), oxidation_states(parent.formula)) for parent in members],
            [parent.volume_per_formula for parent in members],
        )
        for group, members in groups.items()
    }


def count_atoms(amounts: Mapping[str, float], charges: Mapping[str, int] | None) -> dict[str, float]:
    """Amounts of atoms for :class:`Volumes`: ``Ti`` in a metal, ``Ti 4`` in an ionic crystal."""
    if charges is None:
        return dict(amounts)
    return {f"{symbol} {charges[symbol]}": n for symbol, n in amounts.items()}


def _ridge(x: NDArray[np.float64], strength: float) -> tuple[NDArray[np.float64], float]:
    """Ridge regression of 1 on ``x`` with a penalty on the deviation of the factors from 1.

    Own code: the leave-one-out errors follow from the leverages without a fit per crystal.

    Parameters
    ----------
    x
        Relative volumes of the atoms in each crystal, shape (N, atoms).
    strength
        Strength of the penalty.

    Returns
    -------
    factors
        Shape (atoms,).
    error
        Median absolute leave-one-out error.
    """
    gram = x.T @ x + strength * np.eye(x.shape[1])
    inverse = np.linalg.inv(gram)
    residual = 1.0 - x.sum(axis=1)
    factors = 1.0 + inverse @ (x.T @ residual)
    leverage = np.einsum("ni,ij,nj->n", x, inverse, x)
    left_out = (1.0 - x @ factors) / np.maximum(1.0 - leverage, 1e-6)
    return factors, float(np.median(np.abs(left_out)))
