"""Features and distances of compositions on Pettifor's chemical scale.

Elements that replace each other in crystals are close on the scale (D. G. Pettifor, Solid State Physics 31, 40 (1984)).
Positions are pymatgen's ``Element.mendeleev_no``, 1 to 103.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from registry.errors import InputError
from registry.formulas import composition

__all__ = ["PETTIFOR_DIM", "STOICHIOMETRY", "WIDTH", "pettifor_distances", "pettifor_features"]

WIDTH = 2.0
"""Standard deviation of an element's Gaussian on the scale [positions]."""

STOICHIOMETRY = 2.0
"""Weight of the amounts relative to the elements."""

_PLACES = 103
_AMOUNTS = 6

PETTIFOR_DIM = _PLACES + _AMOUNTS
"""Number of features: the positions of the scale, and the largest amounts in decreasing order."""


def pettifor_features(formulas: Sequence[str]) -> NDArray[np.float64]:
    """Compute smooth curves of compositions on Pettifor's scale, with their amounts, for similarity search.

    Each element contributes a Gaussian of :data:`WIDTH` at its position, proportional to its fraction; that of a pure
    element has norm 1. The last features are the six largest fractions in decreasing order, times
    :data:`STOICHIOMETRY`, which are equal for crystals of one anonymous formula. Nothing is fitted.

    Parameters
    ----------
    formulas
        N chemical formulas.

    Returns
    -------
    NDArray
        (N, 109), dimensionless.

    Raises
    ------
    InputError
        If a formula cannot be read, or has an element that is not on the scale.
    """
    places = np.arange(1, _PLACES + 1)
    rows = np.zeros((len(formulas), PETTIFOR_DIM))
    for row, formula in zip(rows, formulas, strict=True):
        shares = _shares(formula)
        for symbol, share in shares.items():
            row[:_PLACES] += share * np.exp(-0.5 * ((places - _place(symbol)) / WIDTH) ** 2)
        largest = sorted(shares.values(), reverse=True)[:_AMOUNTS]
        row[_PLACES : _PLACES + len(largest)] = STOICHIOMETRY * np.array(largest)
    # Norm of a Gaussian on the whole line: (pi ** 0.5 * width) ** 0.5.
    rows[:, :_PLACES] /= np.sqrt(np.sqrt(np.pi) * WIDTH)
    return rows


def pettifor_distances(formulas: Sequence[str], others: Sequence[str]) -> NDArray[np.float64]:
    """Compute earth mover's distances of compositions on Pettifor's scale [positions].

    In one dimension the distance is the area between the cumulative distributions.

    Parameters
    ----------
    formulas, others
        M and N formulas.

    Returns
    -------
    NDArray
        (M, N)

    Raises
    ------
    InputError
        As :func:`pettifor_features`.

    Examples
    --------
    >>> pettifor_distances(["TiC"], ["TiC", "ZrC"]).tolist()
    [[0.0, 1.0]]
    """
    amounts = [_shares(formula) for formula in (*formulas, *others)]
    order = sorted({symbol for one in amounts for symbol in one}, key=_place)
    shares = np.array([[one.get(symbol, 0.0) for symbol in order] for one in amounts])
    gaps = np.diff([_place(symbol) for symbol in order])
    sums = np.cumsum(shares, axis=1)[:, :-1] * gaps
    left, right = sums[: len(formulas)], sums[len(formulas) :]
    distances = np.empty((len(formulas), len(others)))
    for i, row in enumerate(left):
        distances[i] = np.abs(right - row).sum(axis=1)
    return distances


def _shares(formula: str) -> dict[str, float]:
    amounts = composition(formula)
    total = sum(amounts.values())
    return {symbol: n / total for symbol, n in amounts.items()}


@cache
def _place(symbol: str) -> float:
    import warnings

    from pymatgen.core.periodic_table import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about an element without a position, for which the error below is raised
        place = Element("H" if symbol in ("D", "T") else symbol).mendeleev_no
    if place is None or not np.isfinite(place):
        raise InputError(f"element {symbol} is not on Pettifor's scale, which ends at lawrencium")
    return float(place)
