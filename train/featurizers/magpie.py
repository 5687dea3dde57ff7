"""Magpie features of compositions."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.errors import InputError

__all__ = ["MAGPIE_DIM", "magpie_features", "magpie_labels"]

MAGPIE_DIM = 132
"""Number of features: 22 element properties x (minimum, maximum, range, mean, average deviation, mode)."""


def magpie_features(formulas: Sequence[str]) -> NDArray[np.float64]:
    """Compute Magpie features of compositions.

    L. Ward et al., npj Computational Materials 2, 16028 (2016), from matminer's preset
    ``magpie``. A property that the table lacks for an element (for instance the electronegativity of He, Ne and Ar) is
    replaced by the mean over all elements, as in matminer, which does not depend on the data set.

    Parameters
    ----------
    formulas
        N chemical formulas, for instance ``"Ru2TiGe"``; "NaN" is sodium nitride.

    Returns
    -------
    NDArray
        Shape (N, 132), columns in the order of :func:`magpie_labels`, each in the unit of its property. Rows are
        cached by formula.

    Raises
    ------
    InputError
        If a formula cannot be read, or has an element that is not in the table.
    """
    if not len(formulas):
        return np.empty((0, MAGPIE_DIM))
    return np.array([_magpie_row(str(formula)) for formula in formulas])


def magpie_labels() -> tuple[str, ...]:
    """Names of the columns of :func:`magpie_features`."""
    return tuple(_featurizer().feature_labels())


@functools.cache
def _featurizer() -> Any:
    from matminer.featurizers.composition import ElementProperty

    return ElementProperty.from_preset("magpie", impute_nan=True)


@functools.cache
def _known_elements() -> frozenset[str]:
    from matminer.utils.data import MagpieData

    # The table without imputation; the copy of the featurizer has no missing values.
    numbers = MagpieData(impute_nan=False).all_elemental_props["Number"]
    return frozenset(symbol for symbol, number in numbers.items() if np.isfinite(number))


@functools.lru_cache(maxsize=65536)
def _magpie_row(formula: str) -> tuple[float, ...]:
    from pymatgen.core.composition import Composition

    try:
        composition = Composition(formula)
    except (ValueError, KeyError) as error:
        raise InputError(f"formula {formula!r} cannot be read ({error}); write it as Ru2TiGe") from None
    unknown = [element.symbol for element in composition if element.symbol not in _known_elements()]
    if unknown or not composition:
        raise InputError(f"formula {formula!r}: Magpie's table has no element {', '.join(unknown) or 'in it'}")
    with warnings.catch_warnings():
        # pymatgen warns of each missing property, which is imputed.
        warnings.simplefilter("ignore")
        return tuple(float(value) for value in _featurizer().featurize(composition))
