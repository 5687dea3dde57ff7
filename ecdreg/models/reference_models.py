"""Reference models: published models of other groups, scored on the rows of a split.

They were trained elsewhere, on data that may contain the crystals that they are scored on; see
:mod:`train.paper.reference_models`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from ecdreg.notes import Notes
from ecdreg.results import Results
from registry.jobs.progress import Progress, Silent
from registry.splits.creation import DEFAULT_SPLIT

if TYPE_CHECKING:
    from ecdreg.connection import RegistryConnection

__all__ = [
    "ReferenceModelInfo",
    "ReferenceScore",
    "list_reference_models",
    "score_reference_model",
]

_log = logging.getLogger("ecdreg")


@dataclass(frozen=True)
class ReferenceModelInfo:
    """A reference model that can be scored."""

    model: str
    package: str
    """Distribution that contains its weights."""
    installed: str | None
    """Version of the package; None where it is not installed."""
    targets: tuple[str, ...]
    trained_on: str


@dataclass(frozen=True)
class ReferenceScore:
    """Scores of a reference model on one subset of a split."""

    model: str
    target: str
    subset: str
    """``validation``, all cross-validated rows together, or ``holdout``."""
    n: int
    r2: float
    rmse: float
    """In the unit of the target."""
    mae: float
    """In the unit of the target."""
    trained_on: str


def list_reference_models() -> Results[ReferenceModelInfo]:
    """List the reference models, and the data that they were trained on."""
    from train.paper.reference_models import REFERENCE_MODELS

    models = {name: REFERENCE_MODELS[name] for name in REFERENCE_MODELS}
    return Results(
        tuple(
            ReferenceModelInfo(name, one.package, _installed(one.package), tuple(one.targets), one.trained_on)
            for name, one in models.items()
        )
    )


def score_reference_model(
    registry: RegistryConnection,
    name: str,
    *,
    targets: Sequence[str] | None = None,
    split: str = DEFAULT_SPLIT,
    holdout_only: bool = False,
    progress: Progress | None = None,
) -> Results[ReferenceScore]:
    """Score a reference model on the rows of a split; the leaderboard shows it beside the other models.

    Parameters
    ----------
    registry
        An open registry.
    name
        Name of the reference model.
    targets
        Properties; None: all that the model predicts.
    split
        Name of the split.
    holdout_only
        Leave out the cross-validated rows.
    progress
        Receives each crystal and the notes.

    Returns
    -------
    Results of ReferenceScore
        Without a target that was scored on the same rows before; the notes name it, and crystals that the model
        cannot read.

    Raises
    ------
    UnknownNameError, ConfigurationError, NotFoundError, ModelError
        As :func:`train.paper.reference_models.run_reference_model`.
    """
    from train.paper.reference_models import REFERENCE_MODELS, run_reference_model

    progress = progress or Silent()
    notes = Notes(progress)
    model = REFERENCE_MODELS[name]
    subsets = ("holdout",) if holdout_only else ("cv", "holdout")
    found: list[ReferenceScore] = []
    for target in targets or model.targets:
        _log.info("scoring %s for %s on split %r", name, target, split)
        result = run_reference_model(
            registry.engine, name, target=target, split=split, subsets=subsets, progress=progress
        )
        if result.status == "unchanged":
            notes.add(f"{name} was scored on these rows for {target} before; ecdreg leaderboard shows it")
        if result.missing:
            some = ", ".join(result.missing[:5]) + (", ..." if len(result.missing) > 5 else "")
            notes.add(f"{name} cannot read {len(result.missing)} crystals for {target}: {some}")
        found += [
            ReferenceScore(name, target, subset, result.n[subset], **scores, trained_on=model.trained_on)
            for subset, scores in result.scores.items()
        ]
    return Results(tuple(found), notes.lines)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
