"""Features of the electron density of a crystal.

The columns are in seven groups, named by :func:`density_groups`:

``size``
    volume and electrons per atom, mean density and its powers;
``quantiles``
    quantiles, moments and magnitudes of the total and of the deformation density;
``means``
    means of powers of the density, as in local functionals, and of the local exchange and correlation potentials, and
    their differences from those of superposed free atoms;
``gradients``
    reduced gradient, von Weizsäcker's kinetic energy, gradients and Laplacian;
``between``
    the density far from all atoms, and on the faces between Voronoi cells;
``sites``
    charges, electrons and volumes of the atoms; averages over spheres around them, integrals over balls;
``bonds``
    the density along the lines between neighbours, in particular its minimum, which correlates with the bulk modulus.

The inputs are the total and the deformation density (their difference is the superposition of the free atoms), the
lattice and the positions of the atoms, without their elements. The features are independent of the origin, the setting
and the choice of the cell, up to the resolution of the grid. The density near the nuclei depends on the
pseudopotentials, so that a model is valid for one level of theory.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from registry.errors import InputError
from train.featurizers.density_fields import Waves, lda_potential
from train.featurizers.density_sites import (
    BOND_PARAMETERS,
    Surroundings,
    bond_statistics,
    site_statistics,
    surroundings,
)

__all__ = ["DENSITY_FEATURE_KINDS", "PARAMETERS", "density_features", "density_groups", "density_labels"]

DENSITY_FEATURE_KINDS = ("total", "deformation")
"""Required density kinds."""

_QUANTILES = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 98.0, 99.0, 99.5)
"""Quantiles of the densities [%]."""
_POWERS = {"1/3": 1 / 3, "2/3": 2 / 3, "4/3": 4 / 3, "5/3": 5 / 3}
_FARTHEST = (1.0, 5.0, 10.0, 20.0, 35.0, 50.0)
"""Shares of the cell that are farthest from atoms [%]."""
_BEYOND = (1.0, 1.25, 1.5, 1.75)
"""Smallest distances from all atoms [Å]."""
_FACE = 0.25
"""Width of the faces between Voronoi cells, as a difference of distances [Å]."""
_LEAST = 1e-3
"""Lower limit of densities in ratios and logarithms [e/Å^3]."""
_LEAST_IN_GRADIENTS = 5e-3
"""Lower limit of densities in reduced gradients [e/Å^3]."""
_LARGEST_REDUCED = 10.0
"""Upper limit of reduced gradients in their mean."""
_SAME = 1e-6
"""Tolerance of equal distances [Å]."""

PARAMETERS: dict[str, Any] = {
    "version": 1,
    "kinds": list(DENSITY_FEATURE_KINDS),
    "quantiles": list(_QUANTILES),
    "powers": list(_POWERS),
    "farthest": list(_FARTHEST),
    "beyond": list(_BEYOND),
    "face": _FACE,
    "least": [_LEAST, _LEAST_IN_GRADIENTS, _LARGEST_REDUCED],
    **BOND_PARAMETERS,
}
"""Parameters of the features [%, Å, e/Å^3]; the version changes with the features."""


def density_features(
    values: Mapping[str, ArrayLike], lattice: ArrayLike, structure: Mapping[str, Any] | Any
) -> NDArray[np.float64]:
    """Compute the features of the electron density of one crystal.

    Parameters
    ----------
    values
        Densities by kind, at least those of :data:`DENSITY_FEATURE_KINDS`: (n1, n2, n3) along the lattice vectors,
        without a repeated end point [e/Å^3].
    lattice
        (3, 3), lattice vectors as rows [Å].
    structure
        Atoms in that cell: a pymatgen ``Structure``, or its ``as_dict()``. Only their positions are used.

    Returns
    -------
    NDArray
        Shape (D,), in the order of :func:`density_labels`. Units are products of e, Å and eV.

    Raises
    ------
    InputError
        If a kind is missing, shapes do not fit, a number is not finite, or there is no atom or no electron.
    """
    return np.array(list(_described(values, lattice, structure).values()), dtype=np.float64)


@functools.cache
def density_labels() -> tuple[str, ...]:
    """Names of the features, each beginning with its group."""
    # Labels do not depend on the crystal, so that they are taken from one atom in a nearly uniform density.
    grid = 1 + 0.1 * np.cos(2 * np.pi * np.arange(8) / 8)[:, None, None] * np.ones((8, 8, 8))
    atom = {"sites": [{"abc": [0.0, 0.0, 0.0]}]}
    return tuple(_described({"total": grid, "deformation": grid - 1}, 3 * np.eye(3), atom))


def density_groups() -> dict[str, int]:
    """Number of columns of each group, in order, for regressors with groups of features."""
    groups: dict[str, int] = {}
    for label in density_labels():
        group = label.split(" ", 1)[0]
        groups[group] = groups.get(group, 0) + 1
    return groups


def _described(values: Mapping[str, ArrayLike], lattice: ArrayLike, structure: Any) -> dict[str, float]:
    total, deformation, cell, atoms = _checked(values, lattice, structure)
    volume = float(abs(np.linalg.det(cell)))
    per_atom = volume / len(atoms)
    waves = Waves(total.shape, cell)
    around = surroundings(total.shape, cell, atoms)
    found = {
        **_size(total, per_atom),
        **_quantiles(total, deformation, per_atom),
        **_means(total, deformation, per_atom),
        **_gradients(total, deformation, waves=waves, per_atom=per_atom),
        **_between(total, deformation, around=around, per_atom=per_atom),
        **site_statistics(total, deformation, waves=waves, around=around, volume=volume),
        **bond_statistics(total, deformation, lattice=cell, around=around),
    }
    return {name: float(value) for name, value in found.items()}


def _checked(
    values: Mapping[str, ArrayLike], lattice: ArrayLike, structure: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    missing = [kind for kind in DENSITY_FEATURE_KINDS if kind not in values]
    if missing:
        raise InputError(
            f"density features need the {' and '.join(DENSITY_FEATURE_KINDS)} density; {missing[0]} is missing, ingest"
            " the crystal with it"
        )
    total, deformation = (np.asarray(values[kind], dtype=np.float64) for kind in DENSITY_FEATURE_KINDS)
    cell = np.asarray(lattice, dtype=np.float64)
    if total.ndim != 3 or total.shape != deformation.shape or cell.shape != (3, 3):
        raise InputError(
            f"densities of shapes {total.shape} and {deformation.shape} with a lattice {cell.shape}; give both on one"
            " grid (n1, n2, n3) and (3, 3)"
        )
    if not (np.isfinite(total).all() and np.isfinite(deformation).all() and np.isfinite(cell).all()):
        raise InputError("a density or its lattice has values that are not finite; ingest the crystal again")
    sites = structure["sites"] if isinstance(structure, Mapping) else structure.as_dict()["sites"]
    atoms = np.array([site["abc"] for site in sites], dtype=np.float64).reshape(-1, 3)
    if not len(atoms) or total.mean() <= 0:
        raise InputError(f"{len(atoms)} atoms and a mean density of {total.mean():.3g} e/Å^3; both must be positive")
    return total, deformation, cell, atoms


def _size(total: NDArray[np.float64], per_atom: float) -> dict[str, float]:
    mean = float(total.mean())
    return {
        "size volume per atom": per_atom,
        "size volume per atom log": np.log(per_atom),
        "size length": np.cbrt(per_atom),
        "size electrons per atom": mean * per_atom,
        "size density": mean,
        "size density 1/3": mean ** (1 / 3),
        "size density 2/3": mean ** (2 / 3),
    }


def _quantiles(total: NDArray[np.float64], deformation: NDArray[np.float64], per_atom: float) -> dict[str, float]:
    found: dict[str, float] = {}
    for kind, field in (("total", total), ("deformation", deformation)):
        quantiles = np.percentile(field, _QUANTILES)
        found |= {f"quantiles {kind} {q:g} %": v for q, v in zip(_QUANTILES, quantiles, strict=True)}
        if kind == "total":
            logs = np.log(np.maximum(quantiles, _LEAST))
            found |= {f"quantiles {kind} {q:g} % log": v for q, v in zip(_QUANTILES, logs, strict=True)}
        around_mean = field - field.mean()
        std = float(around_mean.std())
        found[f"quantiles {kind} std"] = std
        # A uniform field has no skewness and no kurtosis.
        found[f"quantiles {kind} skewness"] = float(np.mean(around_mean**3)) / std**3 if std > 0 else 0.0
        found[f"quantiles {kind} kurtosis"] = float(np.mean(around_mean**4)) / std**4 if std > 0 else 0.0
    size = float(np.abs(deformation).mean())
    found["quantiles deformation size"] = size
    found["quantiles deformation size per atom"] = size * per_atom
    found["quantiles deformation gathered"] = float(np.maximum(deformation, 0).mean())
    found["quantiles deformation square per atom"] = float(np.mean(deformation**2) * per_atom)
    return found


def _means(total: NDArray[np.float64], deformation: NDArray[np.float64], per_atom: float) -> dict[str, float]:
    crystal, atoms = np.maximum(total, 0), np.maximum(total - deformation, 0)
    electrons = float(total.mean()) * per_atom
    found: dict[str, float] = {}
    for name, power in _POWERS.items():
        mean = float(np.mean(crystal**power))
        more = mean - float(np.mean(atoms**power))
        found[f"means {name}"] = mean
        found[f"means {name} per atom"] = mean * per_atom
        found[f"means {name} per electron"] = mean * per_atom / electrons
        found[f"means {name} more"] = more
        found[f"means {name} more per atom"] = more * per_atom
    exchange, correlation = lda_potential(crystal)
    potential = exchange + correlation
    found["means exchange potential"] = float(exchange.mean())
    found["means potential"] = float(potential.mean())
    found["means potential of electrons per atom"] = float(np.mean(potential * total) * per_atom)
    found["means potential more"] = float(np.mean(potential - sum(lda_potential(atoms))))
    return found


def _gradients(
    total: NDArray[np.float64], deformation: NDArray[np.float64], *, waves: Waves, per_atom: float
) -> dict[str, float]:
    coefficients = waves.coefficients(total)
    slope, laplacian = waves.gradient(coefficients), waves.laplacian(coefficients)
    change = waves.gradient(waves.coefficients(deformation))
    floored, positive = np.maximum(total, _LEAST_IN_GRADIENTS), np.maximum(total, 0)
    reduced = slope / (2 * (3 * np.pi**2) ** (1 / 3) * floored ** (4 / 3))
    found: dict[str, float] = {
        "gradients reduced of electrons": np.sum(reduced * positive) / np.sum(positive),
        "gradients reduced": np.minimum(reduced, _LARGEST_REDUCED).mean(),
        "gradients von Weizsäcker per atom": np.mean(slope**2 / (8 * floored)) * per_atom,
        "gradients deformation": float(change.mean()),
        "gradients negative laplacian": float(np.mean(laplacian < 0)),
    }
    for name, field, quantiles in (
        ("reduced", reduced, (10, 50, 90)),
        ("total", slope, (10, 50, 90)),
        ("deformation", change, (50, 90)),
        ("laplacian", laplacian, (10, 25, 50, 75, 90)),
    ):
        found |= {f"gradients {name} {q} %": np.percentile(field, q) for q in quantiles}
    return found


def _between(
    total: NDArray[np.float64], deformation: NDArray[np.float64], *, around: Surroundings, per_atom: float
) -> dict[str, float]:
    crystal, change, far = total.ravel(), deformation.ravel(), around.nearest
    found: dict[str, float] = {}
    for percent in _FARTHEST:
        # Points at equal distance, which symmetry produces, are all included or all excluded.
        chosen = far >= np.percentile(far, 100 - percent, method="lower") - _SAME
        mean, moved = float(crystal[chosen].mean()), float(change[chosen].mean())
        found[f"between farthest {percent:g} % total"] = mean
        found[f"between farthest {percent:g} % total log"] = np.log(max(mean, _LEAST))
        found[f"between farthest {percent:g} % deformation"] = moved
        found[f"between farthest {percent:g} % gain"] = mean / max(mean - moved, _LEAST)
        found[f"between farthest {percent:g} % distance"] = far[chosen].mean()
    for distance in _BEYOND:
        chosen = far > distance
        # If no point is so far from all atoms, the farthest points are used.
        used = chosen if chosen.any() else far >= far.max() - _SAME
        found[f"between beyond {distance:g} Å total"] = float(crystal[used].mean())
        found[f"between beyond {distance:g} Å deformation"] = float(change[used].mean())
        found[f"between beyond {distance:g} Å electrons per atom"] = np.sum(crystal * chosen) / far.size * per_atom
    weights = np.exp(-((around.gap / _FACE) ** 2))
    weights /= weights.sum()
    face = float(weights @ crystal)
    found["between faces total"] = face
    found["between faces total log"] = np.log(max(face, _LEAST))
    found["between faces total 1/3"] = float(np.cbrt(weights @ np.maximum(crystal, 0)))
    found["between faces total std"] = float(np.sqrt(weights @ (crystal - face) ** 2))
    found["between faces deformation"] = float(weights @ change)
    return found
