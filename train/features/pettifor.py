"""Compositions on Pettifor's chemical scale, where elements that replace each other in crystals are neighbours.

D. G. Pettifor, Solid State Physics 31, 40 (1984); the places are pymatgen's ``Element.mendeleev_no``, 1 to 103.
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
"""Width of an element's bell on the scale [places], a standard deviation."""

STOICHIOMETRY = 2.0
"""Weight of the amounts beside the elements."""

_PLACES = 103
_AMOUNTS = 6

PETTIFOR_DIM = _PLACES + _AMOUNTS
"""Numbers of a vector: the scale's places, and the largest amounts in order."""


def pettifor_features(formulas: Sequence[str]) -> NDArray[np.float64]:
    """Compositions as smooth curves over Pettifor's scale, with their amounts: a space to look for neighbours in.

    Each element is a bell of :data:`WIDTH` about its place, as high as its share; a bell alone has norm 1. Behind it
    stand the six largest shares in order, times :data:`STOICHIOMETRY`: crystals of one anonymous formula, and so mostly
    of one prototype, agree in these. Nothing is fitted.

    Parameters
    ----------
    formulas
        N chemical formulas.

    Returns
    -------
    NDArray
        (N, 109), no unit.

    Raises
    ------
    InputError
        If a formula cannot be read, or has an element without a place on the scale.
    """
    places = np.arange(1, _PLACES + 1)
    rows = np.zeros((len(formulas), PETTIFOR_DIM))
    for row, formula in zip(rows, formulas, strict=True):
        shares = _shares(formula)
        for symbol, share in shares.items():
            row[:_PLACES] += share * np.exp(-0.5 * ((places - _place(symbol)) / WIDTH) ** 2)
        largest = sorted(shares.values(), reverse=True)[:_AMOUNTS]
        row[_PLACES : _PLACES + len(largest)] = STOICHIOMETRY * np.array(largest)
    # The norm of a bell over the whole line: (pi ** 0.5 * width) ** 0.5.
    rows[:, :_PLACES] /= np.sqrt(np.sqrt(np.pi) * WIDTH)
    return rows


def pettifor_distances(formulas: Sequence[str], others: Sequence[str]) -> NDArray[np.float64]:
    """Earth mover's distances of compositions on Pettifor's scale, in its places.

    On a line the cheapest way to move one distribution onto another costs the area between their cumulative sums.

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
        warnings.simplefilter("ignore")  # that of an element without one says so; the answer below does, too
        place = Element("H" if symbol in ("D", "T") else symbol).mendeleev_no
    if place is None or not np.isfinite(place):
        raise InputError(f"element {symbol} has no place on Pettifor's scale; it ends at lawrencium")
    return float(place)
