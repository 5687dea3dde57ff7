"""Explanations of similarity: elements, structure, properties and words that two crystals share.

An encoder gives no reasons. This module compares what is known of both crystals, which need not be what the encoder
used; a neighbour with nothing in common should be treated with caution.
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

__all__ = [
    "Facts",
    "common_words",
    "explain_neighbour",
    "explanation_sentence",
    "facts_from_row",
    "material_rows",
    "share_farther",
]

_CLOSE = 0.8
"""A property is called near where this share of the registry's crystals is farther from the query's value."""

_COMMON = 0.3
"""Words in more than this share of the descriptions do not count."""

_COUNTED = 2000
"""Number of descriptions in which the frequency of words is counted."""


@dataclass(frozen=True)
class Facts:
    """Known data of a crystal, in the registry or from a file."""

    name: str
    """``source:id``, or the file's name."""
    formula: str
    elements: tuple[str, ...]
    prototype: str | None = None
    space_group_symbol: str | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    """Properties that are known and not suspect, each in its unit."""
    description: str | None = None


def material_rows(session: Session, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of ``v_materials`` of given crystals, by (source, id).

    Parameters
    ----------
    keys
        (source, id) of crystals; those that the registry does not have are missing in the result.
    """
    wanted = list(keys)
    rows = session.execute(
        text(
            "SELECT m.* FROM unnest(:sources, :ids) AS given (source, source_id)"
            " JOIN v_materials m USING (source, source_id)"
        ).bindparams(bindparam("sources", type_=ARRAY(Text())), bindparam("ids", type_=ARRAY(Text()))),
        {"sources": [source for source, _ in wanted], "ids": [ident for _, ident in wanted]},
    )
    return {(row["source"], row["source_id"]): dict(row) for row in rows.mappings()}


def facts_from_row(row: Mapping[str, Any]) -> Facts:
    """Data of a row of ``v_materials``; suspect values are left out."""
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


def share_farther(session: Session, query: Facts, name: str, value: float) -> float | None:
    """Share of the registry's crystals with a property farther from the query's value than a given value is.

    Parameters
    ----------
    query
        The crystal of the query.
    name
        A property.
    value
        That of the neighbour, in the property's unit.

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
    """Words that a text has in common with descriptions, as stems, without those that many descriptions have.

    Parameters
    ----------
    query
        A sentence, or the description of the query's crystal.
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
            wanted AS (
                SELECT unnest(tsvector_to_array(to_tsvector('english'::regconfig, :query))) AS lexeme
                EXCEPT SELECT lexeme FROM everywhere
            )
            SELECT n, array_agg(lexeme ORDER BY lexeme) AS words
            FROM unnest(CAST(:texts AS text[])) WITH ORDINALITY AS given (text, n),
                 unnest(tsvector_to_array(to_tsvector('english'::regconfig, given.text))) AS lexeme
            WHERE lexeme IN (SELECT lexeme FROM wanted) AND lexeme ~ '[a-z]{3}'
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


def explain_neighbour(
    session: Session, query: Facts | None, neighbour: Facts, *, words: Sequence[str] = (), met: Sequence[str] = ()
) -> dict[str, Any]:
    """Compare a neighbour with the crystal of the query.

    Parameters
    ----------
    query
        The crystal of the query; None where the query was a sentence or a vector.
    neighbour
        One answer of the search.
    words
        Words in common, as :func:`common_words` returns them.
    met
        Words of the sentence with a filter that the neighbour meets.

    Returns
    -------
    dict
        ``shared_elements``, ``same_prototype`` and ``same_space_group`` (None where one of both is unknown),
        ``properties`` (by name: ``value``, ``query`` and their ``difference`` in the property's ``unit``, and
        ``nearer_than``, the share of crystals that are farther), ``words`` and ``met``.
    """
    explanation: dict[str, Any] = {
        "shared_elements": [],
        "same_prototype": None,
        "same_space_group": None,
        "properties": {},
        "words": list(words),
        "met": list(met),
    }
    if query is None:
        return explanation
    explanation["shared_elements"] = sorted(set(query.elements) & set(neighbour.elements))
    if query.prototype and neighbour.prototype:
        explanation["same_prototype"] = query.prototype == neighbour.prototype
    if query.space_group_symbol and neighbour.space_group_symbol:
        explanation["same_space_group"] = query.space_group_symbol == neighbour.space_group_symbol
    for name in target_names():
        if name not in query.values or name not in neighbour.values:
            continue
        value = neighbour.values[name]
        explanation["properties"][name] = {
            "value": value,
            "query": query.values[name],
            "difference": value - query.values[name],
            "unit": PROPERTIES[name].unit,
            "nearer_than": share_farther(session, query, name, value),
        }
    return explanation


def explanation_sentence(explanation: Mapping[str, Any], neighbour: Facts) -> str:
    """An explanation as one line of text.

    Parameters
    ----------
    explanation
        As :func:`explain_neighbour` returns it.
    neighbour
        The same neighbour.
    """
    parts = []
    if explanation["met"]:
        parts.append("is " + ", ".join(explanation["met"]))
    if explanation["shared_elements"]:
        parts.append("shares " + ", ".join(explanation["shared_elements"]))
    if explanation["same_prototype"]:
        parts.append(f"same prototype {neighbour.prototype}")
    elif explanation["same_space_group"]:
        parts.append(f"same space group {neighbour.space_group_symbol}, another prototype {neighbour.prototype}")
    elif explanation["same_space_group"] is False:
        parts.append(f"another space group {neighbour.space_group_symbol}")
    for name, one in explanation["properties"].items():
        if one["nearer_than"] is not None and one["nearer_than"] >= _CLOSE:
            share = min(99, int(100 * one["nearer_than"]))
            parts.append(
                f"{PROPERTIES[name].label} {one['value']:.4g} for {one['query']:.4g} {one['unit']}, nearer than"
                f" {share} % of crystals"
            )
    if explanation["words"]:
        some = explanation["words"][:8]
        more = len(explanation["words"]) - len(some)
        parts.append("words in common: " + " ".join(some) + (f" and {more} more" if more else ""))
    return "; ".join(parts) or "no element, structure, property or word in common"
