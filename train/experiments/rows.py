"""What a network is trained on: the rows of a split, with the holdout kept apart by construction.

A fit is given :attr:`SplitRows.cv` and nothing else; :attr:`SplitRows.holdout` is read once, by the
refit, after everything has been fitted. Values are physical (unit of the target), pixels are as the
recipe made them: whatever is fitted to them belongs to a model version, not to the rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.orm import Session

from registry.errors import IncompatibleInputError, NotFoundError, SplitError
from registry.models import Property
from registry.properties import FREE_ATOMS, property_named
from registry.splits.reading import find_split, members
from train.features.densities import DENSITY_KINDS, DensityFiles

__all__ = [
    "ChannelInputs",
    "Inputs",
    "Rows",
    "SplitRows",
    "crystal_inputs",
    "inner_stop",
    "known_values",
    "load_images",
    "load_rows",
    "suspect_values",
    "text_sha256",
]

ChannelInputs: TypeAlias = tuple[tuple[str, str], ...]
"""Per channel of an image, the density kind and the level of theory that it was cut from; empty for
images that were imported or are not there."""


@dataclass(frozen=True)
class Inputs:
    """Crystals and what can be shown to a network; N of them, aligned.

    Pixels are not here: features are cached, and :func:`load_images` reads them where they are needed.
    """

    revision_ids: NDArray[np.int64]
    """(N,)"""
    source_ids: tuple[str, ...]
    """``source:id``"""
    formulas: tuple[str, ...]
    image_sha256: tuple[str | None, ...]
    """of the pixels under the recipe that was asked for; None where there is no image"""
    image_inputs: tuple[ChannelInputs, ...]
    texts: tuple[str | None, ...]
    """at the text level that was asked for; None where there is none"""
    densities: tuple[DensityFiles | None, ...]
    """where they were asked for; None where a kind or the structure is missing"""

    def __len__(self) -> int:
        return len(self.revision_ids)

    def take(self, index: NDArray[np.integer[Any]] | NDArray[np.bool_]) -> Self:
        """The rows of an index or a mask, in its order."""
        positions = np.arange(len(self))[index]
        taken: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            taken[field.name] = (
                value[positions] if isinstance(value, np.ndarray) else tuple(value[i] for i in positions)
            )
        return type(self)(**taken)


@dataclass(frozen=True)
class Rows(Inputs):
    """Crystals with a target."""

    material_keys: tuple[str, ...]
    """equal for one material under several sources"""
    values: NDArray[np.float64]
    """(N,), in the unit of the target"""
    folds: NDArray[np.int64]
    """(N,), the fold that scores each row; -1 in the holdout"""


@dataclass(frozen=True)
class SplitRows:
    """The rows of a split for its target."""

    split_id: int
    split: str
    target: str
    unit: str
    recipe_id: int | None
    recipe_sha256: str | None
    text_level: str | None
    cv: Rows
    holdout: Rows
    auxiliary: NDArray[np.float64]
    """(N, A), of the cross-validated rows: values of A other targets in their units, NaN where one is not known or is
    suspect"""

    @property
    def taught(self) -> NDArray[np.float64]:
        """What a model learns of the cross-validated rows: (N,), or (N, 1 + A) with the auxiliary targets behind."""
        return np.column_stack([self.cv.values, self.auxiliary]) if self.auxiliary.shape[1] else self.cv.values

    @property
    def folds(self) -> list[int]:
        """The folds of the cross-validation, in order."""
        return [int(fold) for fold in np.unique(self.cv.folds)]

    def image_inputs(self) -> list[ChannelInputs]:
        """The distinct channel inputs of the cross-validated rows, sorted."""
        return sorted(set(self.cv.image_inputs))


def load_rows(
    session: Session,
    split: str,
    *,
    target: str,
    recipe: str | None = None,
    text_level: str | None = None,
    densities: bool = False,
    auxiliary: Sequence[str] = (),
) -> SplitRows:
    """Read the rows of a split in two queries.

    Parameters
    ----------
    session
        Only read.
    split
        Name of a split that was made for ``target``.
    target
        Property to learn, one value a row: that of the preferred level of theory, as ``v_materials`` shows.
    recipe
        Image recipe (its newest version that has images), or None for a model that sees no image.
    text_level
        ``formula``, ``keywords`` or ``all``, or None for a model that reads no text.
    densities
        Whether the model reads the densities themselves.
    auxiliary
        Other targets, whose values are read of the cross-validated rows alone.

    Raises
    ------
    NotFoundError
        If there is no such split or recipe.
    SplitError
        If a row has no image, text, density or value, or a suspect one: a split is made for what its models see.
    """
    found = find_split(session, split, target)
    recipe_id, recipe_sha256 = _recipe(session, recipe)
    roles = [m for m in members(session, found.id) if m.subset in ("cv", "holdout") and m.revision_id is not None]
    ids = np.array([m.revision_id for m in roles], dtype=np.int64)
    facts = _facts(session, ids, target=target, recipe_id=recipe_id, text_level=text_level, densities=densities)
    _check(facts, split=split, target=target, recipe=recipe, text_level=text_level, densities=densities)

    rows = _rows(facts, {int(m.revision_id): -1 if m.fold is None else m.fold for m in roles if m.revision_id})
    cv = np.array([m.subset == "cv" for m in roles], dtype=bool)
    if not cv.any():
        raise SplitError(f"split {split!r} for {target} has no rows to train on; see `ecdreg split show {split}`")
    unit = session.scalar(select(Property.unit).where(Property.name == target))
    return SplitRows(
        split_id=found.id,
        split=split,
        target=target,
        unit=unit or "",
        recipe_id=recipe_id,
        recipe_sha256=recipe_sha256,
        text_level=text_level,
        cv=rows.take(cv),
        holdout=rows.take(~cv),
        auxiliary=_auxiliary(session, auxiliary, rows.revision_ids[cv]),
    )


def crystal_inputs(
    session: Session,
    revision_ids: Iterable[int] | None = None,
    *,
    recipe_id: int | None = None,
    text_level: str | None = None,
    densities: bool = False,
) -> Inputs:
    """Read what can be shown to a network, whether or not a split knows the crystals.

    Parameters
    ----------
    session
        Only read.
    revision_ids
        The revisions asked for, in this order; None: the current revision of every crystal.
    recipe_id
        Recipe of the images.
    text_level
        Level of the texts.
    densities
        Whether to look up where the densities lie.
    """
    ids = None if revision_ids is None else np.array(list(revision_ids), dtype=np.int64)
    facts = _facts(session, ids, target=None, recipe_id=recipe_id, text_level=text_level, densities=densities)
    return Inputs(**_input_columns(facts))


def known_values(session: Session, target: str, revision_ids: Sequence[int]) -> dict[int, float]:
    """Known values of a property, in its unit, by revision; what is not known is missing in the answer.

    Parameters
    ----------
    session
        Only read.
    target
        The property; its value at the preferred level of theory counts, as ``v_materials`` shows it.
    revision_ids
        The revisions asked for.

    Raises
    ------
    NotFoundError
        If there is no such revision.
    """
    facts = _facts(session, np.array(revision_ids, dtype=np.int64), target=target, recipe_id=None, text_level=None)
    return {fact["revision_id"]: fact["value"] for fact in facts if fact["value"] is not None}


def suspect_values(session: Session, target: str, revision_ids: Sequence[int]) -> set[int]:
    """Of some revisions, those whose known value is marked suspect: outside its plausible range.

    Parameters
    ----------
    session, target, revision_ids
        As in :func:`known_values`, whose values these marks are of.

    Raises
    ------
    NotFoundError
        If there is no such revision.
    """
    facts = _facts(session, np.array(revision_ids, dtype=np.int64), target=target, recipe_id=None, text_level=None)
    return {fact["revision_id"] for fact in facts if fact["suspect"]}


def load_images(session: Session, revision_ids: Sequence[int], *, recipe_id: int) -> NDArray[np.float32]:
    """Pixels of slices, in the order of ``revision_ids``.

    Returns
    -------
    NDArray
        (N, C, H, W) float32, in the unit of the recipe.

    Raises
    ------
    NotFoundError
        If a revision has no image under the recipe.
    IncompatibleInputError
        If the images differ in shape, as imported ones may.
    """
    images: dict[int, NDArray[np.float32]] = {}
    connection = session.connection().connection.driver_connection
    # Binary results: as text, every pixel would cross as hexadecimal digits.
    with connection.cursor(binary=True) as cursor:  # type: ignore[union-attr]
        cursor.execute(
            "SELECT revision_id, channels, height, width, pixels FROM slice_images"
            " WHERE recipe_id = %s AND revision_id = ANY(%s)",
            (recipe_id, [int(i) for i in revision_ids]),
        )
        for revision_id, channels, height, width, pixels in cursor:
            images[revision_id] = np.frombuffer(pixels, dtype="<f4").reshape(channels, height, width)
    missing = [int(i) for i in revision_ids if int(i) not in images]
    if missing:
        raise NotFoundError(
            f"{len(missing)} crystals have no image under recipe {recipe_id} (first: revision {missing[0]});"
            " ingest them with this recipe"
        )
    if not len(revision_ids):
        return np.empty((0, 0, 0, 0), dtype=np.float32)
    shapes = {image.shape: revision_id for revision_id, image in images.items()}
    if len(shapes) > 1:
        (one, first), (other, second) = list(shapes.items())[:2]
        raise IncompatibleInputError(
            f"images under recipe {recipe_id} differ in shape: {one} of revision {first}, {other} of revision {second};"
            " bring imported images to one shape and ingest them again"
        )
    return np.stack([images[int(i)] for i in revision_ids])


def inner_stop(rows: Rows, fold: int | None, *, seed: int, share: float = 0.1) -> NDArray[np.bool_]:
    """Rows of a training fold that early stopping looks at; they are fitted to by nothing.

    Drawn by a seeded hash of the material, so that duplicates of a material stay together, and alike for
    every network of one seed and fold: a stack stops on rows that its towers have not been fitted to either.

    Parameters
    ----------
    rows
        The training fold: the rows that are not scored. N of them.
    fold
        The fold that is scored.
    seed
        Seed of the experiment.
    share
        Share of the materials, rounded up; at least one.

    Returns
    -------
    NDArray
        (N,) True for the rows that stopping looks at.

    Raises
    ------
    SplitError
        If fewer than two materials are left to fit.
    """
    ranks = {key: hashlib.sha256(f"{seed}:{fold}:stop:{key}".encode()).digest() for key in set(rows.material_keys)}
    count = max(1, int(np.ceil(share * len(ranks))))
    if len(ranks) - count < 2:
        raise SplitError(f"fold {fold} leaves {len(ranks)} materials to train on, which is too few; use fewer folds")
    chosen = set(sorted(ranks, key=ranks.__getitem__)[:count])
    return np.array([key in chosen for key in rows.material_keys], dtype=bool)


def text_sha256(value: str) -> str:
    """SHA-256 of a text in UTF-8, as embeddings record it."""
    return hashlib.sha256(value.encode()).hexdigest()


def _recipe(session: Session, name: str | None) -> tuple[int | None, str | None]:
    if name is None:
        return None, None
    from registry.image_recipes import find_recipe

    recipe = find_recipe(session, name)
    return recipe.id, recipe.sha256


_FACTS = """
SELECT r.id AS revision_id, c.source || ':' || c.source_id AS source_id, c.material_key, r.formula,
       s.sha256 AS image_sha256, i.inputs, d.text, v.value, v.suspect, e.level, e.uris, e.sha256s
FROM crystal_revisions r
JOIN crystals c ON c.id = r.crystal_id
LEFT JOIN slice_images s ON s.revision_id = r.id AND s.recipe_id = :recipe_id
LEFT JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_array(kind, level_of_theory) ORDER BY channel) AS inputs
    FROM slice_inputs WHERE revision_id = r.id AND recipe_id = :recipe_id
) i ON true
LEFT JOIN descriptions d ON d.revision_id = r.id AND d.text_level = :text_level
LEFT JOIN LATERAL (
    SELECT p.value, p.suspect FROM property_values p JOIN levels_of_theory l ON l.name = p.level_of_theory
    WHERE p.revision_id = r.id AND p.property = :target
    ORDER BY l.preference, l.name LIMIT 1
) v ON true
LEFT JOIN LATERAL (
    SELECT p.level_of_theory AS level, ARRAY[t.uri, p.uri] AS uris, ARRAY[t.sha256, p.sha256] AS sha256s
    FROM densities p
    JOIN densities t ON t.revision_id = p.revision_id AND t.kind = 'total'
        AND t.level_of_theory = regexp_replace(p.level_of_theory, :free_atoms, '')
    JOIN levels_of_theory l ON l.name = p.level_of_theory
    WHERE :densities AND r.structure IS NOT NULL AND p.revision_id = r.id AND p.kind = 'deformation'
    ORDER BY l.preference, l.name LIMIT 1
) e ON true
"""


def _facts(
    session: Session,
    ids: NDArray[np.int64] | None,
    *,
    target: str | None,
    recipe_id: int | None,
    text_level: str | None,
    densities: bool = False,
) -> list[Mapping[str, Any]]:
    where = "WHERE r.is_current ORDER BY r.id" if ids is None else "WHERE r.id = ANY(:ids)"
    statement = text(_FACTS + where)
    parameters: dict[str, Any] = {
        "recipe_id": recipe_id,
        "text_level": text_level,
        "target": target,
        "densities": densities,
        "free_atoms": f"{FREE_ATOMS}$",
    }
    if ids is not None:
        statement = statement.bindparams(bindparam("ids", type_=ARRAY(BIGINT)))
        parameters["ids"] = ids.tolist()
    found: list[Mapping[str, Any]] = [dict(row) for row in session.execute(statement, parameters).mappings()]
    if ids is None:
        return found
    by_id = {row["revision_id"]: row for row in found}
    missing = [int(i) for i in ids if int(i) not in by_id]
    if missing:
        raise NotFoundError(f"no crystal revision {missing[0]} in the registry")
    return [by_id[int(i)] for i in ids]


def _auxiliary(session: Session, targets: Sequence[str], ids: NDArray[np.int64]) -> NDArray[np.float64]:
    columns = []
    for target in targets:
        property_named(target)
        facts = _facts(session, ids, target=target, recipe_id=None, text_level=None)
        columns.append([np.nan if f["value"] is None or f["suspect"] else f["value"] for f in facts])
    return np.array(columns, dtype=np.float64).T.reshape(len(ids), len(targets))


def _check(
    facts: Sequence[Mapping[str, Any]],
    *,
    split: str,
    target: str,
    recipe: str | None,
    text_level: str | None,
    densities: bool,
) -> None:
    lacking = {
        f"no value of {target}": [f for f in facts if f["value"] is None],
        f"a suspect value of {target}": [f for f in facts if f["suspect"]],
    }
    if recipe is not None:
        lacking[f"no image under recipe {recipe!r}"] = [f for f in facts if f["image_sha256"] is None]
    if text_level is not None:
        lacking[f"no text of level {text_level!r}"] = [f for f in facts if f["text"] is None]
    if densities:
        lacking[f"no {' and '.join(DENSITY_KINDS)} density"] = [f for f in facts if f["level"] is None]
    for what, rows in lacking.items():
        if rows:
            raise SplitError(
                f"split {split!r} for {target} holds {len(rows)} crystals with {what} (first: {rows[0]['source_id']});"
                " make a split for these inputs with `ecdreg split create`, or leave their tower out"
            )


def _input_columns(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "revision_ids": np.array([f["revision_id"] for f in facts], dtype=np.int64),
        "source_ids": tuple(f["source_id"] for f in facts),
        "formulas": tuple(f["formula"] for f in facts),
        "image_sha256": tuple(f["image_sha256"] for f in facts),
        "image_inputs": tuple(tuple((kind, level) for kind, level in f["inputs"] or ()) for f in facts),
        "texts": tuple(f["text"] for f in facts),
        "densities": tuple(
            DensityFiles(f["level"], tuple(f["uris"]), tuple(f["sha256s"])) if f["level"] is not None else None
            for f in facts
        ),
    }


def _rows(facts: Sequence[Mapping[str, Any]], folds: Mapping[int, int]) -> Rows:
    return Rows(
        **_input_columns(facts),
        material_keys=tuple(f["material_key"] for f in facts),
        values=np.array([f["value"] for f in facts], dtype=np.float64),
        folds=np.array([folds[f["revision_id"]] for f in facts], dtype=np.int64),
    )
