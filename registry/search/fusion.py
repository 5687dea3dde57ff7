"""Fusion of rankings: crystals ranked under several encoders or by full text, joined by reciprocal ranks.

Distances of two encoders cannot be compared, ranks can: a crystal scores the sum over the rankings of
``1 / (60 + rank)``, and nothing for a ranking without it (G. V. Cormack, C. L. A. Clarke, S. Büttcher, SIGIR 2009,
758).

Words that can be checked decide before the score: crystals that meet more of them come first, then those that fail
fewer of them, so that an unknown value counts between met and not met. The score orders crystals that are equal in
this.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Text, case, func, literal, null, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from registry.errors import QueryError
from registry.search.filters import materials, parse
from registry.search.text import Meaning
from registry.search.vectors import Neighbour, similar_to_text

__all__ = [
    "DAMPING",
    "FULL_TEXT",
    "FusedHit",
    "Hit",
    "WordCheck",
    "as_ranking",
    "check_sentence",
    "check_words",
    "fuse",
    "ids_of_best_tiers",
    "ranking_depth",
    "search_descriptions",
]

DAMPING = 60
"""Constant of Cormack et al.; a larger one makes the first ranks count less against the later ones."""

FULL_TEXT = "full text"
"""Name of the ranking by full-text search of the descriptions."""

_LONGEST = 2000


@dataclass(frozen=True)
class Hit:
    """A crystal in one ranking."""

    source: str
    source_id: str
    rank: int
    """From 1; equal crystals share the better rank."""
    distance: float | None = None
    """Of the embeddings, by the metric of the search; None for full text."""

    @property
    def key(self) -> tuple[str, str]:
        """Source and id."""
        return self.source, self.source_id


@dataclass(frozen=True)
class WordCheck:
    """Words of a sentence that hold for a crystal."""

    crystal_id: int
    met: tuple[str, ...] = ()
    """Words with a filter that it meets."""
    unmet: tuple[str, ...] = ()
    """Words with a filter that it does not meet."""
    unknown: tuple[str, ...] = ()
    """Words about a value that is unknown or suspect."""

    @property
    def tier(self) -> tuple[int, int]:
        """Sort key, smaller is better: more words met, then fewer not met."""
        return -len(self.met), len(self.unmet)


@dataclass(frozen=True)
class FusedHit:
    """A crystal with its ranks in all rankings."""

    source: str
    source_id: str
    score: float
    """Sum of reciprocal ranks, at most (number of rankings) / 61."""
    hits: Mapping[str, Hit] = field(default_factory=dict)
    """By name of the ranking; rankings without the crystal are left out."""
    checked: WordCheck | None = None
    """Words that hold for it; None where none was checked."""


def ranking_depth(k: int) -> int:
    """Number of crystals to take from each ranking for the best k: ten times as many, at least 200."""
    return min(max(10 * k, 200), 100_000)


def as_ranking(neighbours: Sequence[Neighbour]) -> list[Hit]:
    """The answer of a similarity search as a ranking."""
    return [Hit(n.source, n.source_id, rank, n.distance) for rank, n in enumerate(neighbours, start=1)]


def fuse(
    rankings: Mapping[str, Sequence[Hit]],
    *,
    k: int,
    checked: Mapping[tuple[str, str], WordCheck] | None = None,
) -> list[FusedHit]:
    """Fuse rankings: the best crystals by the sum of their reciprocal ranks, best first.

    Parameters
    ----------
    rankings
        By name.
    k
        Number of crystals. Of equal ones, the crystal in more rankings comes first, then by id.
    checked
        As :func:`check_words` returns it: its tiers come before the sum. A crystal that meets a word is included even
        where no ranking has it.

    Raises
    ------
    QueryError
        If ``k`` is less than 1.
    """
    if k < 1:
        raise QueryError(f"k is {k}; give at least 1")
    hits: dict[tuple[str, str], dict[str, Hit]] = {}
    for name, ranking in rankings.items():
        for hit in ranking:
            hits.setdefault(hit.key, {})[name] = hit
    checked = checked or {}
    for key, one in checked.items():
        if one.met:
            hits.setdefault(key, {})
    fused = [
        FusedHit(*key, sum(1.0 / (DAMPING + hit.rank) for hit in found.values()), found, checked.get(key))
        for key, found in hits.items()
    ]

    def place(one: FusedHit) -> tuple[tuple[int, int], float, int, str, str]:
        tier = one.checked.tier if one.checked else (0, 0)
        return tier, -one.score, -len(one.hits), one.source, one.source_id

    return sorted(fused, key=place)[:k]


def search_descriptions(
    session: Session, sentence: str, *, limit: int, where: str | None = None, within: Sequence[int] | None = None
) -> list[Hit]:
    """Crystals with descriptions that contain words of a sentence, best first, as ``similar_to_text`` ranks them.

    Parameters
    ----------
    sentence
        Any words; none is parsed as an operator.
    limit
        Largest number of crystals.
    where
        A filter, as of :mod:`registry.search.filters`.
    within
        Search only among crystals of these ids; with ``where``, both hold.

    Raises
    ------
    QueryError
        As :func:`check_sentence`, or if the filter cannot be used.
    """
    if not re.search(r"[^\W_]", sentence):
        return []
    check_sentence(sentence)
    # "The" and "of" are stop words; the search refuses a sentence of these alone.
    if not session.scalar(text("SELECT length(to_tsvector('english', :sentence))"), {"sentence": sentence}):
        return []
    found = similar_to_text(session, sentence, k=limit, where=where, within=within)
    return [Hit(one.source, one.source_id, one.words_rank) for one in found if one.words_rank is not None]


def check_words(
    session: Session, meanings: Sequence[Meaning], *, where: str | None = None
) -> dict[tuple[str, str], WordCheck]:
    """Check which words hold for each crystal, by (source, id).

    A suspect value counts as unknown.

    Parameters
    ----------
    meanings
        As :func:`registry.search.text.interpret` returns them.
    where
        Only crystals that pass this filter; see :mod:`registry.search.filters`.

    Raises
    ------
    QueryError
        If the filter cannot be used.
    """
    view = materials()
    query = select(view.c.source, view.c.source_id, view.c.crystal_id)
    for meaning in meanings:
        # True, false, or null where a value is null.
        condition = parse(meaning.where)
        if meaning.properties:
            names = literal(list(meaning.properties), ARRAY(Text()))
            is_suspect = func.coalesce(view.c.suspect.bool_op("&&")(names), False)
            query = query.add_columns(case((is_suspect, null()), else_=condition))
        else:
            query = query.add_columns(condition)
    if where is not None:
        query = query.where(parse(where))
    words = [meaning.word for meaning in meanings]
    checked = {}
    for row in session.execute(query):
        source, source_id, crystal_id = row[:3]
        results: tuple[bool | None, ...] = tuple(row[3:])
        met, unmet, unknown = (
            tuple(word for word, result in zip(words, results, strict=True) if result is kind)
            for kind in (True, False, None)
        )
        checked[source, source_id] = WordCheck(int(crystal_id), met, unmet, unknown)
    return checked


def ids_of_best_tiers(checked: Mapping[tuple[str, str], WordCheck], *, k: int) -> list[int]:
    """Ids of the crystals in the best tiers, as many whole tiers as the first k need; rankings order them.

    Parameters
    ----------
    checked
        As :func:`check_words` returns it.
    k
        Number of crystals in the final answer.
    """
    tiers = sorted(one.tier for one in checked.values())
    if not tiers:
        return []
    last = tiers[min(k, len(tiers)) - 1]
    return sorted(one.crystal_id for one in checked.values() if one.tier <= last)


def check_sentence(sentence: str) -> None:
    """Refuse a text that cannot be searched for.

    Raises
    ------
    QueryError
        If the text is empty, has no word, is too long, or has a character that a database cannot store.
    """
    if not sentence.strip():
        raise QueryError("the text is empty; describe the crystals")
    if not re.search(r"[^\W_]", sentence):
        raise QueryError(f"the text {sentence.strip()[:40]!r} has no word; describe the crystals")
    if len(sentence) > _LONGEST:
        raise QueryError(f"the text has {len(sentence)} characters; at most {_LONGEST} are allowed")
    if "\x00" in sentence or any("\ud800" <= c <= "\udfff" for c in sentence):
        raise QueryError("the text has a character that a database cannot store; remove it")
