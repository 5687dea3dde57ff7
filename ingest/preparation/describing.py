"""Texts of a crystal: those of its source, or computed ones, on every text level."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingest.preparation.options import IngestOptions
from ingest.preparation.outcome import Problems
from ingest.sources.base import RawDescription
from ingest.texts.descriptions import GENERATOR, describe, robocrys_version, texts_by_level
from registry.crystals import DescriptionData

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = ["make_descriptions"]


def make_descriptions(
    formula: str,
    structure: Structure | None,
    *,
    source: str,
    given: RawDescription | None,
    options: IngestOptions,
    problems: Problems,
) -> list[DescriptionData]:
    """Texts of a crystal, one per text level; only that of ``formula`` without a description.

    Parameters
    ----------
    formula
        Reduced formula.
    structure
        Structure of the crystal, if there is one.
    source
        Name of the source.
    given
        Description that the source provides.
    options
        Options of the ingest; ``texts`` selects the origin of the texts.
    problems
        Receives the reason where there is no description.
    """
    if options.texts == "none":
        return []
    if given is None or options.texts == "compute":
        given = None if structure is None else _computed(structure, problems)
        if structure is None:
            problems.add("no structure to describe, so only the formula as text")
    if given is None:
        return [DescriptionData("formula", formula, source)]
    description = given
    texts = problems.attempt("description", lambda: texts_by_level(description.text, formula)) or {}
    return [
        DescriptionData(text_level, text, description.generator, description.generator_version)
        for text_level, text in texts.items()
    ]


def _computed(structure: Structure, problems: Problems) -> RawDescription | None:
    text = problems.attempt("description", lambda: describe(structure))
    return None if text is None else RawDescription(text, GENERATOR, robocrys_version())
