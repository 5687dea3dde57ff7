"""Several searches made one: crystals ranked under several encoders, or by words, joined by their ranks.

Distances of two encoders do not compare, ranks do: a crystal scores the sum over the rankings of ``1 / (60 + rank)``,
and nothing where a ranking does not have it (G. V. Cormack, C. L. A. Clarke, S. Büttcher, SIGIR 2009, 758).

Words that can be checked are no votes: who meets more of them comes first, then who fails fewer of them, so that what
is not known lies between met and not met; the score orders those that are equal in this.
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
    "Checked",
    "Fused",
    "Hit",
    "check_sentence",
    "check_words",
    "contenders",
    "depth",
    "fuse",
    "ranked",
    "search_descriptions",
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
class Checked:
    """What of a sentence's words is true of a crystal."""

    crystal_id: int
    met: tuple[str, ...] = ()
    """Words whose meaning it meets."""
    unmet: tuple[str, ...] = ()
    """Words whose meaning it does not meet."""
    unknown: tuple[str, ...] = ()
    """Words about a value that is not known, or is suspect."""

    @property
    def tier(self) -> tuple[int, int]:
        """The smaller, the more of the sentence is true: more words met, then fewer not met."""
        return -len(self.met), len(self.unmet)


@dataclass(frozen=True)
class Fused:
    """A crystal and its places in all rankings."""

    source: str
    source_id: str
    score: float
    """Sum of reciprocal ranks, at most (number of rankings) / 61."""
    hits: Mapping[str, Hit] = field(default_factory=dict)
    """By ranking, where it has the crystal."""
    checked: Checked | None = None
    """Which words are true of it; None where none was checked."""


def depth(k: int) -> int:
    """How far each ranking is looked into for the best k: ten times as far, 200 at least."""
    return min(max(10 * k, 200), 100_000)


def ranked(neighbours: Sequence[Neighbour]) -> list[Hit]:
    """The ranking that a similarity search is."""
    return [Hit(n.source, n.source_id, rank, n.distance) for rank, n in enumerate(neighbours, start=1)]


def fuse(
    rankings: Mapping[str, Sequence[Hit]],
    *,
    k: int,
    checked: Mapping[tuple[str, str], Checked] | None = None,
) -> list[Fused]:
    """The best crystals of several rankings by the sum of their reciprocal ranks, best first.

    Parameters
    ----------
    rankings
        By name.
    k
        How many; of equals the one comes first that more rankings have, then by id.
    checked
        As :func:`check_words` gives it: its tiers come before the sum. Who meets a word needs no ranking.

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
    checked = checked or {}
    for key, one in checked.items():
        if one.met:
            hits.setdefault(key, {})
    fused = [
        Fused(*key, sum(1.0 / (DAMPING + hit.rank) for hit in found.values()), found, checked.get(key))
        for key, found in hits.items()
    ]

    def place(one: Fused) -> tuple[tuple[int, int], float, int, str, str]:
        tier = one.checked.tier if one.checked else (0, 0)
        return tier, -one.score, -len(one.hits), one.source, one.source_id

    return sorted(fused, key=place)[:k]


def search_descriptions(
    session: Session, sentence: str, *, limit: int, where: str | None = None, within: Sequence[int] | None = None
) -> list[Hit]:
    """Crystals whose descriptions hold words of a sentence, the best first, as ``similar_to_text`` ranks them.

    Parameters
    ----------
    sentence
        Any words; none of them is an operator.
    limit
        How many at most.
    where
        A filter, as of :mod:`registry.search.filters`.
    within
        Search only among crystals of these ids; with ``where``, both hold.

    Raises
    ------
    QueryError
        If the sentence is too long or holds a zero character, or if the filter cannot be used.
    """
    if not re.search(r"[^\W_]", sentence):
        return []
    check_sentence(sentence)
    # "The" and "of" are no words to a search; asked of them alone, it would refuse.
    if not session.scalar(text("SELECT length(to_tsvector('english', :sentence))"), {"sentence": sentence}):
        return []
    found = similar_to_text(session, sentence, k=limit, where=where, within=within)
    return [Hit(one.source, one.source_id, one.words_rank) for one in found if one.words_rank is not None]


def check_words(
    session: Session, meanings: Sequence[Meaning], *, where: str | None = None
) -> dict[tuple[str, str], Checked]:
    """Which words are true of each crystal, by (source, id).

    A value that is suspect is not believed, and counts as not known.

    Parameters
    ----------
    meanings
        As :func:`registry.search.text.interpret` gives them.
    where
        Only crystals that this filter lets through; see :mod:`registry.search.filters`.

    Raises
    ------
    QueryError
        If the filter cannot be used.
    """
    view = materials()
    query = select(view.c.source, view.c.source_id, view.c.crystal_id)
    for meaning in meanings:
        # True, false, or null where a value is null.
        verdict = parse(meaning.where)
        if meaning.properties:
            names = literal(list(meaning.properties), ARRAY(Text()))
            doubted = func.coalesce(view.c.suspect.bool_op("&&")(names), False)
            query = query.add_columns(case((doubted, null()), else_=verdict))
        else:
            query = query.add_columns(verdict)
    if where is not None:
        query = query.where(parse(where))
    words = [meaning.word for meaning in meanings]
    checked = {}
    for row in session.execute(query):
        source, source_id, crystal_id = row[:3]
        verdicts: tuple[bool | None, ...] = tuple(row[3:])
        met, unmet, unknown = (
            tuple(word for word, verdict in zip(words, verdicts, strict=True) if verdict is kind)
            for kind in (True, False, None)
        )
        checked[source, source_id] = Checked(int(crystal_id), met, unmet, unknown)
    return checked


def contenders(checked: Mapping[tuple[str, str], Checked], *, k: int) -> list[int]:
    """Ids of the crystals among which the first k are, by the words alone: whole tiers, for rankings to order.

    Parameters
    ----------
    checked
        As :func:`check_words` gives it.
    k
        How many will be shown.
    """
    tiers = sorted(one.tier for one in checked.values())
    if not tiers:
        return []
    last = tiers[min(k, len(tiers)) - 1]
    return sorted(one.crystal_id for one in checked.values() if one.tier <= last)


def check_sentence(sentence: str) -> None:
    """Refuse what cannot be searched for.

    Raises
    ------
    QueryError
        If the sentence is empty or holds no word, is too long, or holds a zero character.
    """
    if not sentence.strip():
        raise QueryError("the text is empty; write what the crystals should be like")
    if not re.search(r"[^\W_]", sentence):
        raise QueryError(f"the text {sentence.strip()[:40]!r} holds no word; write what the crystals should be like")
    if len(sentence) > _LONGEST:
        raise QueryError(f"the text has {len(sentence)} characters; {_LONGEST} are the most")
    if "\x00" in sentence or any("\ud800" <= c <= "\udfff" for c in sentence):
        raise QueryError("the text holds a character that no text has; write it without")
