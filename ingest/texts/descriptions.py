"""Descriptions of crystals by robocrystallographer, and the three text levels derived from them.

A **text level** is the part of a description that a model reads:

``formula``
    The composition name: ``"TiWMn2"``.
``keywords``
    The composition name and the bond lengths:
    ``"TiWMn2: Ti-W 2.97 Å, Ti-Mn 2.57 Å, W-Mn 2.57 Å"``.
``all``
    The description itself.

Only :func:`describe` needs robocrystallographer. Its import takes ten seconds or more and one
crystal two to six, so the pipeline calls it in worker processes. The tokenizer of a model
truncates a text to the token limit of that model.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from registry.catalog import Catalog
from registry.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = ["GENERATOR", "TEXT_LEVELS", "bond_lengths", "describe", "robocrys_version", "texts_by_level"]

GENERATOR = "robocrystallographer"
"""Value of the column ``descriptions.generator`` for a text of :func:`describe`."""

TextLevel = Callable[[str, str], str]
"""Function from (description, formula) to the text of one text level."""

TEXT_LEVELS: Catalog[TextLevel] = Catalog("text_levels")
"""Text levels by name."""


def describe(structure: Structure) -> str:
    """Describe a structure with robocrystallographer; the text of text level ``all``.

    Sites have labels, ``Ti(1)``, and no oxidation states, as in the descriptions of metals in the
    Materials Project: guessed charges would add information that a density does not contain.

    Parameters
    ----------
    structure
        Any cell [Å]; the description refers to the conventional cell. Not modified.

    Returns
    -------
    str
        Sentences in English, bond lengths in Å with two decimals. The same in every process.

    Raises
    ------
    InputError
        If robocrystallographer cannot describe this structure.

    References
    ----------
    A. M. Ganose, A. Jain, MRS Communications 9, 874 (2019).
    """
    condenser, describer = _robocrys()
    bare = structure.copy()
    bare.remove_oxidation_states()
    with warnings.catch_warnings():
        # CrystalNN warns of every crystal without charges; they are left out on purpose.
        warnings.simplefilter("ignore")
        try:
            # robocrystallographer raises errors of many types; all of them concern this crystal.
            text = str(describer.describe(condenser.condense_structure(bare)))
        except Exception as error:
            raise InputError(
                f"no description: robocrystallographer raised {type(error).__name__}: {error or 'no message'}"
            ) from error
    return _ordered(text)


def texts_by_level(description: str, formula: str) -> dict[str, str]:
    """Derive the text of every text level from a description.

    Parameters
    ----------
    description
        Text of text level ``all``, from :func:`describe` or from a source.
    formula
        Composition name.

    Returns
    -------
    dict
        Text level to text, for every entry of :data:`TEXT_LEVELS`.

    Raises
    ------
    InputError
        If the description or the formula is blank.

    Examples
    --------
    >>> texts_by_level("All Ti(1)-W(1) bond lengths are 2.97 Å.", "TiW")["keywords"]
    'TiW: Ti-W 2.97 Å'
    """
    description, formula = " ".join(description.split()), formula.strip()
    if not description or not formula:
        raise InputError(f"no texts: the {'formula' if description else 'description'} is blank")
    return {name: TEXT_LEVELS[name](description, formula) for name in TEXT_LEVELS}


def bond_lengths(description: str) -> list[tuple[str, str, str]]:
    """Bonds in the sentences of a description, in order, each once.

    Parameters
    ----------
    description
        Robocrystallographer's sentences: with hyphens or dashes between the elements, with
        or without site labels, ``Ti(1)`` or ``Pt(2,2)``, and oxidation states.

    Returns
    -------
    list of (element, element, length)
        The length as written [Å]: ``"2.97"``, or ``"3.55-3.57"`` where the sentence gives a range.
        A pair with two lengths (shorter and longer ones) occurs twice.

    Examples
    --------
    >>> bond_lengths("There are three shorter (2.30 Å) and one longer (2.41 Å) Ti–O bond lengths.")
    [('Ti', 'O', '2.30'), ('Ti', 'O', '2.41')]
    """
    found: dict[tuple[frozenset[str], str], tuple[str, str, str]] = {}
    for sentence in _SENTENCE.finditer(description):
        first, second = sentence["first"], sentence["second"]
        text = sentence["after"] or sentence["before"]
        lengths = ["-".join(_NUMBER.findall(text))] if sentence["range"] else _NUMBER.findall(text)
        for length in lengths:
            found.setdefault((frozenset((first, second)), length), (first, second, length))
    return list(found.values())


@cache
def robocrys_version() -> str:
    """Version of the installed robocrystallographer, without an import of it."""
    return version("robocrys")


@TEXT_LEVELS.register("formula")
def _formula_level(_description: str, formula: str) -> str:
    return formula


@TEXT_LEVELS.register("keywords")
def _keywords_level(description: str, formula: str) -> str:
    bonds = ", ".join(f"{first}-{second} {length} Å" for first, second, length in bond_lengths(description))
    return f"{formula}: {bonds}" if bonds else formula


@TEXT_LEVELS.register("all")
def _all_level(description: str, _formula: str) -> str:
    return description


_LABEL = r"(?:\([\d,\s]+\))?"  # Ti(1), Pt(2,2)
_DASH = r"[-\u2010-\u2015\u2212]"
_CHARGE = rf"(?:[\d.]*[+\-\u2212](?={_DASH}|\s)|[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]*[\u207a\u207b])?"  # 4+, ⁴⁺
_PAIR = rf"(?P<first>[A-Z][a-z]?){_LABEL}{_CHARGE}{_LABEL}\s?{_DASH}\s?(?P<second>[A-Z][a-z]?){_LABEL}{_CHARGE}{_LABEL}"
_LENGTH = r"\d+\.\d+\s*(?:\u00c5|\u212b|angstroms?)"  # Å, in both of its code points
# All|Both X-Y bond lengths are 2.97 Å. / The X-Y bond length is 2.76 Å.
# There are six shorter (2.66 Å) and two longer (2.67 Å) X-Y bond lengths.
# There are a spread of X-Y bond distances ranging from 3.55-3.57 Å.
_SENTENCE = re.compile(
    rf"(?P<before>shorter \({_LENGTH}\) and [\w-]+ longer \({_LENGTH}\) )?{_PAIR} bond (?:lengths?|distances?)"
    rf"(?P<after> (?:is|are) {_LENGTH}|(?P<range> ranging from \d+\.\d+\s*{_DASH}\s*{_LENGTH}))?"
)
_NUMBER = re.compile(r"\d+\.\d+")

_SHARING = re.compile(r"(?:(?:corner|edge|face)(?:, and |, | and ))+(?:corner|edge|face)(?=-sharing)")


def _ordered(text: str) -> str:
    # robocrystallographer joins a set of strings, in an order that differs between processes.
    def put(match: re.Match[str]) -> str:
        words = [word for word in ("edge", "face", "corner") if word in match[0]]
        return " and ".join(words) if len(words) < 3 else f"{', '.join(words[:-1])}, and {words[-1]}"

    return _SHARING.sub(put, text)


@cache
def _robocrys() -> tuple[Any, Any]:
    with warnings.catch_warnings():
        # Deprecations in its dependencies, during the import.
        warnings.simplefilter("ignore")
        from robocrys import StructureCondenser, StructureDescriber

        return StructureCondenser(), StructureDescriber(describe_oxidation_states=False, describe_symmetry_labels=True)
