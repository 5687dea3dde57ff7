"""Several searches made one: crystals ranked under several encoders, or by words, joined by their ranks.

Distances of two encoders do not compare, ranks do: a crystal scores the sum over the rankings of ``1 / (60 + rank)``,
and nothing where a ranking does not have it (G. V. Cormack, C. L. A. Clarke, S. Büttcher, SIGIR 2009, 758).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import text
from sqlalchemy.orm import Session

from registry.errors import QueryError
from registry.search import Neighbour, similar_to_text
from registry.words import Meaning

__all__ = [
    "DAMPING",
    "FULL_TEXT",
    "Fused",
    "Hit",
    "check_sentence",
    "depth",
    "fuse",
    "ranked",
    "search_descriptions",
    "search_meanings",
]

DAMPING = 60
"""The constant of Cormack et al.: how little the first places outweigh those behind."""

FULL_TEXT = "full text"
"""Name of the ranking by words of the descriptions."""

_LONGEST = 2000


@dataclass(frozen=True)
class Hit:
    """A crystal in one ranking."""

    source: str
    source_id: str
    rank: int
    """From 1; equals share the better one."""
    distance: float | None = None
    """Of an encoder's vectors, by its measure; None for words."""

    @property
    def key(self) -> tuple[str, str]:
        """Source and id."""
        return self.source, self.source_id


@dataclass(frozen=True)
class Fused:
    """A crystal and its places in all rankings."""

    source: str
    source_id: str
    score: float
    """Sum of reciprocal ranks, at most (number of rankings) / 61."""
    hits: Mapping[str, Hit] = field(default_factory=dict)
    """By ranking, where it has the crystal."""


def depth(k: int) -> int:
    """How far each ranking is looked into for the best k: ten times as far, 200 at least."""
    return min(max(10 * k, 200), 100_000)


def ranked(neighbours: Sequence[Neighbour]) -> list[Hit]:
    """The ranking that a similarity search is."""
    return [Hit(n.source, n.source_id, rank, n.distance) for rank, n in enumerate(neighbours, start=1)]


def fuse(rankings: Mapping[str, Sequence[Hit]], *, k: int) -> list[Fused]:
    """The best crystals of several rankings by the sum of their reciprocal ranks, best first.

    Parameters
    ----------
    rankings
        By name.
    k
        How many; of equals the one comes first that more rankings have, then by id.

    Raises
    ------
    QueryError
        If ``k`` is less than 1.
    """
    if k < 1:
        raise QueryError(f"k is {k}; ask for at least 1 crystal")
    hits: dict[tuple[str, str], dict[str, Hit]] = {}
    for name, ranking in rankings.items():
        for hit in ranking:
            hits.setdefault(hit.key, {})[name] = hit
    fused = [
        Fused(source, source_id, sum(1.0 / (DAMPING + hit.rank) for hit in found.values()), found)
        for (source, source_id), found in hits.items()
    ]
    return sorted(fused, key=lambda one: (-one.score, -len(one.hits), one.source, one.source_id))[:k]


def search_descriptions(session: Session, sentence: str, *, limit: int, where: str | None = None) -> list[Hit]:
    """Crystals whose descriptions hold words of a sentence, the best first, as ``similar_to_text`` ranks them.

    Parameters
    ----------
    sentence
        Any words; none of them is an operator.
    limit
        How many at most.
    where
        A filter, as of :mod:`registry.filters`.

    Raises
    ------
    QueryError
        If the sentence is too long or holds a zero character, or if the filter cannot be used.
    """
    if not sentence.strip():
        return []
    check_sentence(sentence)
    # "The" and "of" are no words to a search; asked of them alone, it would refuse.
    if not session.scalar(text("SELECT numnode(plainto_tsquery('english', :sentence))"), {"sentence": sentence}):
        return []
    found = similar_to_text(session, sentence, k=limit, where=where)
    return [Hit(one.source, one.source_id, one.words_rank) for one in found if one.words_rank is not None]


def search_meanings(session: Session, meanings: Sequence[Meaning], *, where: str | None = None) -> dict[str, list[Hit]]:
    """A ranking for each word that means something: who meets it shares the first place, the others are not in it.

    Parameters
    ----------
    meanings
        As :func:`registry.words.interpret` gives them.
    where
        A filter, as of :mod:`registry.filters`.

    Raises
    ------
    QueryError
        If the filter cannot be used.
    """
    from sqlalchemy import select

    from registry.filters import MATERIALS, parse

    rankings = {}
    for meaning in meanings:
        query = select(MATERIALS.c.source, MATERIALS.c.source_id).where(parse(meaning.where))
        if where is not None:
            query = query.where(parse(where))
        rankings[meaning.word] = [Hit(row.source, row.source_id, 1) for row in session.execute(query)]
    return rankings


def check_sentence(sentence: str) -> None:
    """Refuse what cannot be searched for.

    Raises
    ------
    QueryError
        If the sentence is empty, too long, or holds a zero character.
    """
    if not sentence.strip():
        raise QueryError("the text is empty; write what the crystals should be like")
    if len(sentence) > _LONGEST:
        raise QueryError(f"the text has {len(sentence)} characters; {_LONGEST} are the most")
    if "\x00" in sentence or any("\ud800" <= c <= "\udfff" for c in sentence):
        raise QueryError("the text holds a character that no text has; write it without")
