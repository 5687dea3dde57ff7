"""Features of a composition beyond Magpie's: fractions of elements, roles of elements, and rules of mixtures.

The columns are in five groups, named by :func:`composition_groups`:

``magpie``
    the 132 Magpie features (:func:`train.featurizers.magpie.magpie_features`);
``mixing``
    means, deviations and ranges of further element properties; means of the elements' bulk moduli, cohesive energies,
    melting points and volumes as for mixtures (geometric, harmonic, Voigt, Reuss); and sums over pairs of elements of
    squared differences (electronegativity, Miedema's potential and density, size);
``elements``
    the atomic fraction of every element from H to Cm;
``roles``
    properties of the most abundant element, and of the most electropositive and the most electronegative of the
    others (X, Y and Z of a Heusler compound X2YZ), with their fractions.

All features follow from the formula and from tables of the pure elements: Magpie's, and the cohesive energies in
matminer (C. Kittel, Introduction to Solid State Physics, 2005).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from train.featurizers.magpie import magpie_features, magpie_labels

if TYPE_CHECKING:
    from pymatgen.core.composition import Composition

__all__ = ["PARAMETERS", "composition_features", "composition_groups", "composition_labels"]

_HEAVIEST = 96
"""Largest atomic number with a column."""
_MIXED = (
    "cohesive energy", "phi", "n_ws^third", "BulkModulus", "ShearModulus", "HeatVaporization", "FirstIonizationEnergy",
    "ElectronAffinity", "Polarizability", "ZungerPP-r_s", "ZungerPP-r_p", "MiracleRadius", "AtomicVolume",
    "AllenElectronegativity",
)  # fmt: skip
_AVERAGED = ("BulkModulus", "cohesive energy", "MeltingT", "GSvolume_pa")
_ROLES = (
    "Number", "MendeleevNumber", "Column", "Row", "CovalentRadius", "AtomicRadius", "Electronegativity",
    "AllenElectronegativity", "NsValence", "NpValence", "NdValence", "NfValence", "NValence", "NsUnfilled",
    "NpUnfilled", "NdUnfilled", "NUnfilled", "GSvolume_pa", "GSbandgap", "GSmagmom", "BulkModulus", "ShearModulus",
    "MeltingT", "BoilingT", "HeatFusion", "HeatVaporization", "FirstIonizationEnergy", "SecondIonizationEnergy",
    "ElectronAffinity", "phi", "n_ws^third", "MiracleRadius", "AtomicVolume", "MolarVolume", "Density",
    "Polarizability", "ZungerPP-r_s", "ZungerPP-r_p", "ZungerPP-r_sigma", "ZungerPP-r_pi", "AtomicWeight",
    "LogThermalConductivity", "ICSDVolume", "cohesive energy",
)  # fmt: skip
_MIEDEMA_RATIO = 9.4
"""Q/P of transition metals, (V / density unit^(1/3))^2: A. R. Miedema, Physica B 100, 1 (1980)."""
_SMALLEST = 1e-3
"""Lower limit of values in logarithms and reciprocals."""

PARAMETERS: dict[str, Any] = {
    "version": 1,
    "heaviest": _HEAVIEST,
    "mixed": list(_MIXED),
    "averaged": list(_AVERAGED),
    "roles": list(_ROLES),
    "miedema_ratio": _MIEDEMA_RATIO,
}
"""Parameters of the features apart from matminer's tables; the version changes with the features."""


def composition_features(formulas: Sequence[str]) -> NDArray[np.float64]:
    """Compute features of compositions.

    A property that a table lacks for an element is replaced by the mean over the elements that have it, which does not
    depend on the data set.

    Parameters
    ----------
    formulas
        N chemical formulas, for instance ``"Ru2TiGe"``.

    Returns
    -------
    NDArray
        Shape (N, D), columns in the order of :func:`composition_labels`, each in the unit of its property.

    Raises
    ------
    InputError
        If a formula cannot be read, or has an element that is not in Magpie's table.
    """
    if not len(formulas):
        return np.empty((0, len(composition_labels())))
    magpie = magpie_features(formulas)
    rest = [_row(str(formula)) for formula in formulas]
    return np.hstack([magpie, np.array(rest)])


def composition_labels() -> tuple[str, ...]:
    """Names of the columns of :func:`composition_features`, each beginning with its group."""
    return (*(f"magpie {name.removeprefix('MagpieData ')}" for name in magpie_labels()), *_values(_of("Fe")))


def composition_groups() -> dict[str, int]:
    """Number of columns of each group, in order, for regressors with groups of features."""
    groups: dict[str, int] = {}
    for label in composition_labels():
        group = label.split(" ", 1)[0]
        groups[group] = groups.get(group, 0) + 1
    return groups


@functools.lru_cache(maxsize=65536)
def _row(formula: str) -> tuple[float, ...]:
    return tuple(_values(_of(formula)).values())


def _of(formula: str) -> Composition:
    from pymatgen.core.composition import Composition

    return Composition(formula).fractional_composition


def _values(composition: Composition) -> dict[str, float]:
    table = _table()
    symbols = [element.symbol for element in composition]
    fractions = np.array([composition[symbol] for symbol in symbols])
    of = {name: np.array([values[symbol] for symbol in symbols]) for name, values in table.items()}
    return {
        **_mixing(of, fractions),
        **{f"elements {symbol}": float(composition[symbol]) for symbol in _symbols()},
        **_roles(table, composition, symbols),
    }


def _mixing(of: Mapping[str, NDArray[np.float64]], fractions: NDArray[np.float64]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in _MIXED:
        mean = float(fractions @ of[name])
        found[f"mixing mean {name}"] = mean
        found[f"mixing deviation {name}"] = float(fractions @ np.abs(of[name] - mean))
        found[f"mixing range {name}"] = np.ptp(of[name])
    for name in _AVERAGED:
        values = np.maximum(of[name], _SMALLEST)
        found[f"mixing geometric {name}"] = float(np.exp(fractions @ np.log(values)))
        found[f"mixing harmonic {name}"] = 1 / float(fractions @ (1 / values))
    volumes, moduli = of["GSvolume_pa"], of["BulkModulus"]
    volume = float(fractions @ volumes)
    found["mixing Voigt BulkModulus"] = float(fractions @ (volumes * moduli)) / volume
    found["mixing Reuss BulkModulus"] = volume / float(fractions @ (volumes / np.maximum(moduli, 0.5)))  # [GPa]
    pairs = np.outer(fractions, fractions)

    def unlike(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(values[:, None] - values[None, :])

    radii = of["MiracleRadius"]
    squared = {
        "Electronegativity": unlike(of["Electronegativity"]) ** 2,
        "phi": unlike(of["phi"]) ** 2,
        "n_ws^third": unlike(of["n_ws^third"]) ** 2,
        "size": (unlike(radii) / (radii[:, None] + radii[None, :])) ** 2,
    }
    for name, values in squared.items():
        found[f"mixing pairs {name}"] = np.sum(pairs * values)
    found["mixing pairs Miedema"] = np.sum(pairs * (_MIEDEMA_RATIO * squared["n_ws^third"] - squared["phi"]))
    found["mixing pairs polarity"] = np.sum(pairs * np.abs(unlike(of["Electronegativity"])))
    return {name: float(value) for name, value in found.items()}


def _roles(
    table: Mapping[str, Mapping[str, float]], composition: Composition, symbols: Sequence[str]
) -> dict[str, float]:
    electronegativity = table["Electronegativity"]
    # Ties are broken by atomic number, so that the order does not depend on that of the formula.
    number = table["Number"]
    most, *others = sorted(symbols, key=lambda s: (-composition[s], -electronegativity[s], number[s]))
    others = sorted(others, key=lambda s: (electronegativity[s], number[s])) or [most]
    chosen = {"X": most, "Y": others[0], "Z": others[-1]}
    found = {f"roles {role} {name}": table[name][symbol] for role, symbol in chosen.items() for name in _ROLES}
    found |= {f"roles {role} fraction": float(composition[symbol]) for role, symbol in chosen.items()}
    return found | {"roles number of elements": float(len(symbols))}


@functools.cache
def _symbols() -> tuple[str, ...]:
    from pymatgen.core.periodic_table import Element

    return tuple(Element.from_Z(number).symbol for number in range(1, _HEAVIEST + 1))


@functools.cache
def _table() -> dict[str, dict[str, float]]:
    """Properties of the elements by name and symbol, with missing values replaced by the mean over others."""
    from matminer.utils.data import CohesiveEnergyData, MagpieData

    magpie = MagpieData(impute_nan=False).all_elemental_props
    known: dict[str, Mapping[str, Any]] = {name: magpie[name] for name in {*_ROLES, *_MIXED} - {"cohesive energy"}}
    known["cohesive energy"] = CohesiveEnergyData().cohesive_energy_data
    table: dict[str, dict[str, float]] = {}
    for name, properties in known.items():
        values = np.array([_number(properties.get(symbol)) for symbol in _symbols()])
        values = np.where(np.isfinite(values), values, np.nanmean(values))
        table[name] = dict(zip(_symbols(), values.tolist(), strict=True))
    return table


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float, np.number)) else np.nan
