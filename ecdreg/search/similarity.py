"""Similarity search: the crystals most like one of the registry, a text, an image or files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from ecdreg.files import CrystalFiles, warnings_on_error
from ecdreg.results import Results
from ecdreg.search.similarity_query import WORDS, SimilarityQuery, explanations
from registry.properties import target_names
from registry.search.explanations import material_rows
from registry.search.fusion import FULL_TEXT, Hit, WordCheck, fuse, ids_of_best_tiers
from registry.search.indexes import index_advice

if TYPE_CHECKING:
    from ecdreg.connection import RegistryConnection
    from registry.models import Encoder

__all__ = ["WORDS", "Rank", "SimilarCrystal", "similar"]


@dataclass(frozen=True)
class Rank:
    """Place of a crystal in one ranking."""

    rank: int
    """From 1."""
    distance: float | None
    """Of the vectors of an encoder; None for words."""


@dataclass(frozen=True)
class SimilarCrystal:
    """One crystal of the answer of a similarity search."""

    rank: int
    """From 1."""
    crystal_id: int
    source: str
    source_id: str
    formula: str
    space_group_symbol: str | None
    properties: Mapping[str, float | None]
    """By target property, in the unit of the property; None where it is not known."""
    distance: float | None = None
    """Distance by the metric of the search, cosine: 0 (same direction) to 2 (opposite); None where rankings are
    fused."""
    score: float | None = None
    """Sum of 1 / (60 + rank) over the rankings; None for a single ranking."""
    ranks: Mapping[str, Rank] = field(default_factory=dict)
    """Place in each ranking, by name; for a single ranking only where explanations are requested."""
    checked: WordCheck | None = None
    """Words of the text that are true of it, not true, and unknown; None where no word can be checked."""
    why: Mapping[str, Any] | None = None
    """Properties that it shares with the query (``registry.search.explanations.explain_neighbour``), and that as a
    ``sentence``; None where explanations are not requested."""

    @property
    def id(self) -> str:
        """``source:id``"""
        return f"{self.source}:{self.source_id}"

    def to_dict(self) -> dict[str, Any]:
        """The row of the JSON output."""
        row: dict[str, Any] = {
            "rank": self.rank,
            "crystal_id": self.crystal_id,
            "source": self.source,
            "source_id": self.source_id,
            "formula": self.formula,
            "space_group_symbol": self.space_group_symbol,
            **self.properties,
        }
        if self.checked is not None:
            row["checked"] = {kind: list(getattr(self.checked, kind)) for kind in ("met", "unmet", "unknown")}
        row |= {"distance": self.distance} if self.score is None else {"score": self.score}
        if self.ranks or self.score is not None:
            row["ranks"] = {name: {"rank": one.rank, "distance": one.distance} for name, one in self.ranks.items()}
        return row if self.why is None else row | {"why": dict(self.why)}


def similar(
    registry: RegistryConnection,
    id: str | None = None,
    *,
    text: str | None = None,
    image: str | Path | None = None,
    structure: str | Path | None = None,
    density: str | Path | None = None,
    reference: str | Path | None = None,
    level_of_theory: str | None = None,
    encoder: str | Sequence[str] | None = None,
    k: int = 10,
    where: str | None = None,
    metric: str = "cosine",
    explain: bool = False,
) -> Results[SimilarCrystal]:
    """Find the crystals most like one of the registry, a text, an image or files; the most similar comes first.

    Give one of ``id``, ``text``, ``image``, or ``structure`` and ``density``. Files pass through the same slices and
    texts as an ingest.

    Parameters
    ----------
    registry
        An open registry; only read.
    id
        Id of a crystal, or ``source:id``.
    text
        What the crystals should be like, in words. Words with a meaning that can be checked (hard, metallic, oxide,
        TiN, "not magnetic") come first: a crystal that meets more of them is before one that meets fewer.
    image
        A slice: ``.npy`` of shape (C, H, W) [e/Å^3], or a grey ``.png``.
    structure
        Crystal structure: CIF, POSCAR, ``.vasp`` or pymatgen JSON.
    density
        Charge density: CHGCAR, cube or HDF5, also ``.gz``.
    reference
        Density of the superposed free atoms on the same grid, as CHGCAR.
    level_of_theory
        Level of theory of the density, where its file does not state it.
    encoder
        Name or alias of an encoder, or several, which are fused by their reciprocal ranks; :data:`WORDS` stands for
        the words of the text themselves. None: the alias ``default`` for a crystal, else what reads the query.
    k
        Number of crystals; fewer come where the registry has fewer.
    where
        Filter on the columns of ``v_materials``: ``"k_vrh > 100 AND 'O' = ANY (elements)"``.
    metric
        ``cosine``, ``l2`` or ``inner_product`` (the distance is minus the inner product).
    explain
        Whether each row has ``ranks`` and ``why``: elements, structure, properties and words in common.

    Returns
    -------
    Results of SimilarCrystal
        Notes: the encoder that was chosen, the meaning of the words, and advice about an index.

    Raises
    ------
    ConfigurationError
        If not exactly one query is given, or an argument belongs to another one that is missing.
    NotFoundError, AmbiguousIdError
        If there is no such crystal or encoder, or several crystals have the id.
    QueryError
        If the text, the filter, ``k`` or the metric cannot be used.
    InputError, IncompatibleInputError
        If a file cannot be read, or the encoder reads something else.
    """
    names = (encoder,) if isinstance(encoder, str) else tuple(encoder or ())
    with Session(registry.engine) as session:
        query = SimilarityQuery(
            session,
            registry.settings,
            id=id,
            text=text,
            image=None if image is None else Path(image),
            files=CrystalFiles.of(structure, density, reference, level_of_theory),
            encoder_names=names,
            metric=metric,
        )
        with warnings_on_error(query.warnings):
            encoders = query.encoders
            if len(encoders) == 1 and not query.by_words:
                rows = _single(query, encoders[0], k=k, where=where)
                notes = [] if rows else [_nothing(query, where)]
            else:
                rows, notes = _fused(query, k=k, where=where)
            if explain:
                compared = [{"source": r.source, "source_id": r.source_id, "met": _met(r)} for r in rows]
                rows = [replace(row, why=why) for row, why in zip(rows, explanations(query, compared), strict=True)]
            elif len(encoders) == 1 and not query.by_words:
                rows = [replace(row, ranks={}) for row in rows]
            notes = [*query.notes, *_about(query, encoders), *notes]
        return Results(tuple(rows), tuple(notes), tuple(query.warnings))


def _single(query: SimilarityQuery, encoder: Encoder, *, k: int, where: str | None) -> list[SimilarCrystal]:
    """The neighbours under one encoder, with their distances."""
    return [
        SimilarCrystal(
            rank=rank,
            distance=neighbour.distance,
            ranks={encoder.name: Rank(rank, neighbour.distance)},
            **_facts(neighbour.as_row()),
        )
        for rank, neighbour in enumerate(query.nearest(encoder, k=k, where=where), start=1)
    ]


def _fused(query: SimilarityQuery, *, k: int, where: str | None) -> tuple[list[SimilarCrystal], list[str]]:
    """The best crystals of several rankings with their scores; and why there are none, or no words in them."""
    checked = query.checked(where=where)
    # A ranking cannot change what the words decide: it only orders the crystals that are left.
    within = ids_of_best_tiers(checked, k=k) if query.meanings else None
    rankings = query.rankings(k=k, where=where, within=within)
    best = fuse(rankings, k=k, checked=checked)
    facts = material_rows(query.session, [(one.source, one.source_id) for one in best])
    rows = [
        SimilarCrystal(
            rank=rank,
            score=one.score,
            ranks={name: _rank(hit) for name, hit in one.hits.items()},
            checked=one.checked,
            **_facts(facts[one.source, one.source_id]),
        )
        for rank, one in enumerate(best, start=1)
    ]
    notes = []
    if query.by_words and not query.meanings and not rankings[FULL_TEXT]:
        among = " of those that pass the filter" if where else ""
        order = ": the order is the text encoder's alone" if rows else ""
        notes.append(f"no word of {query.text!r} is checkable or found in descriptions{among}{order}")
    return rows, notes if rows else [*notes, _nothing(query, where)]


def _about(query: SimilarityQuery, encoders: Sequence[Encoder]) -> list[str]:
    """Notes about the encoders and the words of a query."""
    notes = []
    for encoder in encoders if query.id is None or not query.encoder_names else ():
        notes.append(f"encoder: {encoder.name}")
        if unread := query.unread_density(encoder):
            notes.append(unread)
    notes += [f"word: {meaning.summary}" for meaning in query.meanings]
    advice = [index_advice(query.session, encoder, query.metric) for encoder in encoders]
    return notes + [one for one in advice if one]


def _nothing(query: SimilarityQuery, where: str | None) -> str:
    """Reason why the answer is empty."""
    if not query.by_words:
        return "no crystal passes the filter" if where else "no crystal has a vector of this encoder"
    if query.meanings:
        passing = "that passes the filter " if where else ""
        return f"no crystal {passing}meets a word of {query.text!r} or has one in its description"
    return "write others: what a crystal is (hard, metallic, oxide), or words of its description"


def _facts(row: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of :class:`SimilarCrystal` from a row of ``v_materials``."""
    names = ("crystal_id", "source", "source_id", "formula", "space_group_symbol")
    return {name: row[name] for name in names} | {"properties": {name: row[name] for name in target_names()}}


def _rank(hit: Hit) -> Rank:
    return Rank(hit.rank, hit.distance)


def _met(row: SimilarCrystal) -> tuple[str, ...]:
    return () if row.checked is None else row.checked.met
