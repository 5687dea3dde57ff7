"""What made two crystals near: elements, structure, properties and words that they share, their places in rankings.

An encoder gives no reasons. What stands here is what can be seen of both crystals; it may or may not be what the
encoder went by, and a neighbour without any of it is one to be careful with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session
from sqlalchemy.types import Text

from registry.properties import PROPERTIES, property_named, target_names

__all__ = ["Facts", "common_words", "explain", "facts_of", "from_row", "nearness", "sentence"]

_CLOSE = 0.8
"""A property is called close where this share of the registry's crystals is farther from the one that was asked for."""

_COMMON = 0.3
"""Words that more than this share of the descriptions have say nothing of likeness."""

_COUNTED = 2000
"""Descriptions that the frequency of words is taken from."""


@dataclass(frozen=True)
class Facts:
    """What is known of a crystal, whether or not it is in the registry."""

    name: str
    """``source:id``, or the file's name."""
    formula: str
    elements: tuple[str, ...]
    prototype: str | None = None
    space_group_symbol: str | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    """Properties [the property's unit] that are known and not suspect."""
    description: str | None = None


def facts_of(session: Session, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of ``v_materials`` of some crystals, by (source, id).

    Parameters
    ----------
    keys
        (source, id) of crystals that are there; others are missing in the answer.
    """
    wanted = list(keys)
    rows = session.execute(
        text(
            "SELECT m.* FROM unnest(:sources, :ids) AS asked (source, source_id)"
            " JOIN v_materials m USING (source, source_id)"
        ).bindparams(bindparam("sources", type_=ARRAY(Text())), bindparam("ids", type_=ARRAY(Text()))),
        {"sources": [source for source, _ in wanted], "ids": [ident for _, ident in wanted]},
    )
    return {(row["source"], row["source_id"]): dict(row) for row in rows.mappings()}


def from_row(row: Mapping[str, Any]) -> Facts:
    """The facts of a row of ``v_materials``; suspect values are not believed."""
    suspect = set(row["suspect"] or ())
    return Facts(
        name=f"{row['source']}:{row['source_id']}",
        formula=row["formula"],
        elements=tuple(row["elements"]),
        prototype=row["prototype"],
        space_group_symbol=row["space_group_symbol"],
        values={n: float(row[n]) for n in PROPERTIES if row.get(n) is not None and n not in suspect},
        description=row["description"],
    )


def nearness(session: Session, query: Facts, name: str, value: float) -> float | None:
    """Share of the registry's crystals whose property lies farther from the asked crystal's than a value does.

    Parameters
    ----------
    query
        The crystal that was asked for.
    name
        A property.
    value
        Of the neighbour, in the property's unit.

    Returns
    -------
    float or None
        0 to 1; None where the query's own value is not known.
    """
    own = query.values.get(name)
    if own is None:
        return None
    share = session.scalar(
        text(
            """
            SELECT avg(CASE WHEN abs(v.value - :own) > :apart THEN 1.0 ELSE 0.0 END)
            FROM property_values v JOIN crystal_revisions r ON r.id = v.revision_id AND r.is_current
            WHERE v.property = :name AND NOT v.suspect
            """
        ),
        {"own": own, "apart": abs(value - own), "name": property_named(name).name},
    )
    return None if share is None else float(share)


def common_words(session: Session, query: str, descriptions: Mapping[tuple[str, str], str]) -> dict[Any, list[str]]:
    """Words that a text has in common with descriptions, by their stems, without those that most descriptions have.

    Parameters
    ----------
    query
        A sentence, or the description of the crystal that was asked for.
    descriptions
        By any key.

    Returns
    -------
    dict
        Sorted stems by key.
    """
    keys = list(descriptions)
    rows = session.execute(
        text(
            """
            WITH counted AS MATERIALIZED (
                SELECT to_tsvector('english'::regconfig, text) AS words FROM descriptions
                WHERE text_level = 'all' ORDER BY revision_id LIMIT :counted
            ),
            everywhere AS (
                SELECT lexeme FROM counted, unnest(tsvector_to_array(words)) AS lexeme
                GROUP BY lexeme HAVING count(*) > :common * (SELECT count(*) FROM counted)
            ),
            asked AS (
                SELECT unnest(tsvector_to_array(to_tsvector('english'::regconfig, :query))) AS lexeme
                EXCEPT SELECT lexeme FROM everywhere
            )
            SELECT n, array_agg(lexeme ORDER BY lexeme) AS words
            FROM unnest(CAST(:texts AS text[])) WITH ORDINALITY AS given (text, n),
                 unnest(tsvector_to_array(to_tsvector('english'::regconfig, given.text))) AS lexeme
            WHERE lexeme IN (SELECT lexeme FROM asked) AND lexeme ~ '[a-z]{3}'
            GROUP BY n
            """
        ),
        {
            "counted": _COUNTED,
            "common": _COMMON,
            "query": query,
            "texts": [descriptions[key] for key in keys],
        },
    )
    found: dict[Any, list[str]] = {key: [] for key in keys}
    found.update({keys[row.n - 1]: list(row.words) for row in rows})
    return found


def explain(
    session: Session, query: Facts | None, neighbour: Facts, *, words: Sequence[str] = (), met: Sequence[str] = ()
) -> dict[str, Any]:
    """What can be seen that makes a crystal near.

    Parameters
    ----------
    query
        The crystal that was asked for; None: a sentence or a vector was.
    neighbour
        The answer.
    words
        Words in common, as :func:`common_words` gives them.
    met
        Words of the sentence whose meaning the neighbour meets.

    Returns
    -------
    dict
        ``shared_elements``, ``same_prototype`` and ``same_space_group`` (None where it cannot be said), ``properties``
        (by name: ``value``, ``query`` and their ``difference`` in the property's ``unit``, and ``nearer_than``, the
        share of crystals that are farther), ``words`` and ``met``.
    """
    told: dict[str, Any] = {
        "shared_elements": [],
        "same_prototype": None,
        "same_space_group": None,
        "properties": {},
        "words": list(words),
        "met": list(met),
    }
    if query is None:
        return told
    told["shared_elements"] = sorted(set(query.elements) & set(neighbour.elements))
    if query.prototype and neighbour.prototype:
        told["same_prototype"] = query.prototype == neighbour.prototype
    if query.space_group_symbol and neighbour.space_group_symbol:
        told["same_space_group"] = query.space_group_symbol == neighbour.space_group_symbol
    for name in target_names():
        if name not in query.values or name not in neighbour.values:
            continue
        value = neighbour.values[name]
        told["properties"][name] = {
            "value": value,
            "query": query.values[name],
            "difference": value - query.values[name],
            "unit": PROPERTIES[name].unit,
            "nearer_than": nearness(session, query, name, value),
        }
    return told


def sentence(told: Mapping[str, Any], neighbour: Facts) -> str:
    """The explanation in words, one line.

    Parameters
    ----------
    told
        As :func:`explain` gives it.
    neighbour
        The answer.
    """
    parts = []
    if told["met"]:
        parts.append("is " + ", ".join(told["met"]))
    if told["shared_elements"]:
        parts.append("shares " + ", ".join(told["shared_elements"]))
    if told["same_prototype"]:
        parts.append(f"same prototype {neighbour.prototype}")
    elif told["same_space_group"]:
        parts.append(f"same space group {neighbour.space_group_symbol}, another prototype {neighbour.prototype}")
    elif told["same_space_group"] is False:
        parts.append(f"another space group {neighbour.space_group_symbol}")
    for name, one in told["properties"].items():
        if one["nearer_than"] is not None and one["nearer_than"] >= _CLOSE:
            share = min(99, int(100 * one["nearer_than"]))
            parts.append(
                f"{PROPERTIES[name].label} {one['value']:.4g} for {one['query']:.4g} {one['unit']}, nearer than"
                f" {share} % of crystals"
            )
    if told["words"]:
        some = told["words"][:8]
        more = len(told["words"]) - len(some)
        parts.append("words in common: " + " ".join(some) + (f" and {more} more" if more else ""))
    return "; ".join(parts) or "nothing that can be seen: no element, structure, property or word in common"
