"""Candidates of a split: which crystals can be used, why others cannot, and the assignment by rule."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from registry.errors import ConfigurationError
from registry.image_recipes import find_recipe
from registry.properties import property_named

__all__ = ["Candidate", "assign", "candidates", "exclude_outliers"]

_IQR_RECIPES = {"spin": "paper", "total": "paper-total", "deformation": "paper-deformation"}


@dataclass(frozen=True)
class Candidate:
    """A current crystal of the registry, for one target."""

    crystal_id: int
    revision_id: int
    source: str
    source_id: str
    material_key: str
    reason: str | None
    """Reason why it cannot be used; None where it can."""

    @property
    def name(self) -> str:
        """``source:id``."""
        return f"{self.source}:{self.source_id}"


def candidates(session: Session, target: str, parameters: Mapping[str, Any]) -> list[Candidate]:
    """Every current crystal, with the reason why it cannot be used, if there is one.

    Parameters
    ----------
    target
        Property that models are trained on; a suspect or missing value is a reason.
    parameters
        Those of a split: ``recipe`` and ``text_level`` that every member must have, ``sources`` of the crystals;
        None: no such condition.

    Raises
    ------
    UnknownNameError
        If there is no such property.
    NotFoundError
        If no crystal has an image of the recipe.
    """
    property_named(target)
    recipe, text_level, sources = (parameters.get(key) for key in ("recipe", "text_level", "sources"))
    rows = session.execute(
        text(_CANDIDATES),
        {
            "target": target,
            "recipe_id": find_recipe(session, recipe).id if recipe is not None else None,
            "text_level": text_level,
            "sources": sources,
        },
    )
    found = []
    for row in rows:
        reason = None
        if row.value is None:
            reason = f"no value of {target}"
        elif row.suspect_reason is not None:
            reason = f"suspect: {row.suspect_reason}"
        elif not row.has_image:
            reason = f"no slice image of recipe {recipe!r}"
        elif not row.has_text:
            reason = f"no description of the text level {text_level!r}"
        found.append(Candidate(row.crystal_id, row.revision_id, row.source, row.source_id, row.material_key, reason))
    return found


# The value is that of the preferred level of theory, as in v_materials.
_CANDIDATES = """
    SELECT c.id AS crystal_id, r.id AS revision_id, c.source, c.source_id, c.material_key,
           p.value, p.suspect_reason,
           CAST(:recipe_id AS bigint) IS NULL OR EXISTS (
               SELECT FROM slice_images s WHERE s.revision_id = r.id AND s.recipe_id = :recipe_id
           ) AS has_image,
           CAST(:text_level AS text) IS NULL OR EXISTS (
               SELECT FROM descriptions d WHERE d.revision_id = r.id AND d.text_level = :text_level
           ) AS has_text
    FROM crystals c
    JOIN crystal_revisions r ON r.crystal_id = c.id AND r.is_current
    LEFT JOIN LATERAL (
        SELECT v.value, v.suspect_reason
        FROM property_values v JOIN levels_of_theory l ON l.name = v.level_of_theory
        WHERE v.revision_id = r.id AND v.property = :target
        ORDER BY l.preference, l.name
        LIMIT 1
    ) p ON true
    WHERE CAST(:sources AS text[]) IS NULL OR c.source = ANY(:sources)
    ORDER BY c.id
"""


def assign(candidate: Candidate, *, seed: int, n_folds: int, holdout: float) -> tuple[str, int | None]:
    """Subset and fold of a material, decided by a uniform number from seed and key alone.

    Parameters
    ----------
    seed
        Seed of the hash; another one gives another assignment.
    n_folds
        Folds of cv.
    holdout
        Share of the materials, between 0 and 1; does not depend on ``n_folds``.
    """
    digest = hashlib.sha256(f"{seed}:{candidate.material_key}".encode()).digest()
    uniform = int.from_bytes(digest[:8], "big") / 2**64
    if uniform < holdout:
        return "holdout", None
    return "cv", min(int((uniform - holdout) / (1 - holdout) * n_folds), n_folds - 1)


_FIELD = """
    WITH field AS (
        SELECT s.revision_id, u.low::float8, u.high::float8, u.position - 1 AS channel
        FROM slice_images s, unnest(s.pixel_min, s.pixel_max) WITH ORDINALITY AS u(low, high, position)
        WHERE s.recipe_id = :recipe_id AND s.revision_id = ANY(:revisions)
          AND (CAST(:channel AS integer) IS NULL OR u.position - 1 = :channel)
    )
"""
_QUARTILES = (
    _FIELD
    + """
    SELECT channel, percentile_cont(ARRAY[0.25, 0.75]) WITHIN GROUP (ORDER BY low) AS low,
           percentile_cont(ARRAY[0.25, 0.75]) WITHIN GROUP (ORDER BY high) AS high
    FROM field GROUP BY channel ORDER BY channel
"""
)


def exclude_outliers(
    session: Session, found: Sequence[Candidate], *, factor: float, slices: str, held_out: Collection[int] = ()
) -> tuple[list[Candidate], dict[str, Any]]:
    """Exclude crystals with slices beyond Tukey's fences, which are computed from usable crystals outside the holdout.

    Parameters
    ----------
    found
        As :func:`candidates` gives them.
    factor
        Interquartile ranges between quartile and fence (1.5: J. W. Tukey, Exploratory Data Analysis, 1977).
    slices
        spin, total or deformation (as published), or a recipe as ``NAME`` or ``NAME:CHANNEL``; without a
        channel, each channel has its own fences.
    held_out
        Revisions that are compared with the fences but do not contribute to them: the holdout influences no fit.

    Returns
    -------
    candidates, bounds
        The candidates with their reasons, and the fences on minimum and maximum per channel [unit of the recipe].

    Raises
    ------
    NotFoundError
        If no crystal has an image of the recipe.
    ConfigurationError
        If the recipe has no such channel.
    """
    recipe, _, suffix = _IQR_RECIPES.get(slices, slices).partition(":")
    if suffix and not suffix.isdecimal():
        raise ConfigurationError(f"channel {suffix!r} of recipe {recipe!r}; give a number from 0")
    channel = int(suffix) if suffix else None
    values: dict[str, Any] = {
        "recipe_id": find_recipe(session, recipe).id,
        "revisions": [candidate.revision_id for candidate in found if candidate.reason is None],
        "channel": channel,
    }
    contributing = [revision_id for revision_id in values["revisions"] if revision_id not in held_out]
    fences: dict[int, dict[str, tuple[float, float]]] = {}
    for row in session.execute(text(_QUARTILES), values | {"revisions": contributing}):
        fences[row.channel] = {"minimum": _fence(row.low, factor), "maximum": _fence(row.high, factor)}
    if not fences and contributing:
        raise ConfigurationError(f"no slice of recipe {recipe!r} has channel {channel}; choose another to clean by")
    reasons: dict[int, str | None] = {}
    for row in session.execute(text(_FIELD + "SELECT * FROM field ORDER BY channel"), values):
        for end, value in (("minimum", row.low), ("maximum", row.high)):
            if row.channel not in fences:
                continue
            low, high = fences[row.channel][end]
            if not low <= value <= high and reasons.get(row.revision_id) is None:
                reasons[row.revision_id] = (
                    f"IQR: {end} {value:.4g} of channel {row.channel}, recipe {recipe!r}, is outside"
                    f" [{low:.4g}, {high:.4g}]"
                )
        reasons.setdefault(row.revision_id, None)
    missing = f"no slice image of recipe {recipe!r}"
    cleaned = [
        candidate
        if candidate.reason is not None
        else replace(candidate, reason=reasons.get(candidate.revision_id, missing))
        for candidate in found
    ]
    return cleaned, {"recipe": recipe, "factor": factor, "channels": {str(c): fence for c, fence in fences.items()}}


def _fence(quartiles: Sequence[float], factor: float) -> tuple[float, float]:
    q1, q3 = quartiles
    return q1 - factor * (q3 - q1), q3 + factor * (q3 - q1)
