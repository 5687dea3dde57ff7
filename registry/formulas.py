"""Chemical formulas: composition, elements and chemical system."""

from __future__ import annotations

import re
from collections import defaultdict

from registry.errors import InputError

__all__ = ["chemical_system", "composition", "composition_key"]

_SYMBOLS = frozenset(
    re.findall(
        "[A-Z][a-z]?",
        "HDTHeLiBeBCNOFNeNaMgAlSiPSClArKCaScTiVCrMnFeCoNiCuZnGaGeAsSeBrKrRbSrYZrNbMoTcRuRhPdAgCdInSnSbTeIXeCsBaLaCePrNdPm"
        "SmEuGdTbDyHoErTmYbLuHfTaWReOsIrPtAuHgTlPbBiPoAtRnFrRaAcThPaUNpPuAmCmBkCfEsFmMdNoLrRfDbSgBhHsMtDsRgCnNhFlMcLvTsOg",
    )
)
_TOKEN = re.compile(r"([A-Z][a-z]?|[()])([0-9]+(?:\.[0-9]+)?)?")


def composition(formula: str) -> dict[str, float]:
    """Amounts of the elements in a formula, in the alphabetical order of their symbols.

    Parameters
    ----------
    formula
        Element symbols with amounts, and parentheses: ``"Ca3(PO4)2"``.

    Returns
    -------
    dict
        Element symbol to amount, as written (not reduced).

    Raises
    ------
    InputError
        If it is not a formula.

    Examples
    --------
    >>> composition("Ca3(PO4)2")
    {'Ca': 3.0, 'O': 8.0, 'P': 2.0}
    >>> composition("NaN")
    {'N': 1.0, 'Na': 1.0}
    """
    compact = "".join(formula.split())
    stack: list[dict[str, float]] = [defaultdict(float)]
    end = 0
    for match in _TOKEN.finditer(compact):
        token, count = match[1], float(match[2] or 1)
        if match.start() != end or count == 0 or (token == "(" and match[2]):
            break
        end = match.end()
        if token == "(":
            stack.append(defaultdict(float))
        elif token == ")":
            if len(stack) == 1:
                break
            for symbol, amount in stack.pop().items():
                stack[-1][symbol] += amount * count
        elif token in _SYMBOLS:
            stack[-1][token] += count
        else:
            raise InputError(
                f"formula {formula!r} contains {token!r}, which is not an element; give element symbols with amounts"
            )
    else:
        if compact and end == len(compact) and len(stack) == 1 and stack[0]:
            return dict(sorted(stack[0].items()))
    raise InputError(f"{formula!r} is not a chemical formula; give element symbols with amounts, as in 'Mg2SiO4'")


def chemical_system(formula: str) -> tuple[list[str], str]:
    """The elements of a formula in alphabetical order, and the same joined by ``-``.

    Raises
    ------
    InputError
        If it is not a formula.
    """
    elements = list(composition(formula))
    return elements, "-".join(elements)


def composition_key(formula: str) -> str:
    """Canonical formula of a composition: ``"H4O2"`` and ``"OH2"`` have the same.

    Raises
    ------
    InputError
        If it is not a formula.
    """
    amounts = composition(formula)
    total = sum(amounts.values())
    return " ".join(f"{symbol}{amount / total:.4f}" for symbol, amount in amounts.items())
