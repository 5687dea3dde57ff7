"""Training: the split is found or made, models are trained for each target, and scored beside the baselines."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from ecdreg.models.leaderboard import LeaderboardRow, leaderboard
from ecdreg.notes import Notes
from registry.database import session_scope
from registry.errors import ConfigurationError, EcdregError, NotFoundError
from registry.files.grids import GridStore
from registry.image_recipes import find_recipe
from registry.jobs.progress import Progress, Silent
from registry.model_store import check_model_name
from registry.properties import TARGETS, property_named
from registry.splits.creation import DEFAULT_SPLIT, ensure_default_split
from registry.splits.reading import find_split, growth_since, list_splits, split_summary

if TYPE_CHECKING:
    from ecdreg.connection import RegistryConnection
    from train.config.config import TrainConfig
    from train.experiments.results import ExperimentResult
    from train.models.options import ModelOptions


__all__ = ["BASELINES", "TrainingResult", "train", "views_of"]

BASELINES = ("baseline-mean", "baseline-magpie")
"""Kinds of models that the kind ``baseline`` stands for."""

_READS_IMAGES_AND_TEXTS = ("clip", "dual-encoder")
_log = logging.getLogger("ecdreg")


@dataclass(frozen=True)
class TrainingResult:
    """Result of a training."""

    experiments: tuple[ExperimentResult, ...]
    """One for each target; the baselines and towers that were trained first are their prerequisites."""
    leaderboard: tuple[LeaderboardRow, ...]
    """All models of these targets on the split."""
    notes: tuple[str, ...]
    """Remarks: a split that was made, crystals outside of it, models that had been trained already."""
    warnings: tuple[str, ...]
    """Steps that failed; the models are trained nevertheless."""

    def to_dict(self) -> dict[str, Any]:
        """The experiments and the leaderboard, as the command line prints them with ``--json``."""
        return {
            "experiments": [asdict(one) for one in self.experiments],
            "leaderboard": [asdict(row) for row in self.leaderboard],
        }


def train(
    registry: RegistryConnection,
    kind: str = "stacked",
    *,
    targets: Sequence[str] | None = None,
    split: str = DEFAULT_SPLIT,
    recipe: str | None = "metric",
    text_level: str | None = "keywords",
    seed: int = 0,
    name: str | None = None,
    config: Path | None = None,
    again: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> TrainingResult:
    """Train models of one kind, with the baselines and the towers that they need.

    Parameters
    ----------
    registry
        An open registry; committed to after each fold.
    kind
        ``image``, ``text``, ``composition``, ``density``, ``stacked``, ``clip`` or ``baseline``; or a modality or a
        model kind that another package adds.
    targets
        Properties to predict, a model for each; None: the three of the paper.
    split
        Name of the split; ``default`` is made where it is missing.
    recipe
        Image recipe, which the default split requires where it is made; None requires no image.
    text_level
        Text level, which the default split requires where it is made; None requires no text.
    seed
        Seed of weights, order and dropout.
    name
        Name of the model; None: its kind.
    config
        TOML file with fields of the configuration; they take precedence over the options.
    again
        Train a new version even if the same one is finished.
    progress
        Receives folds, epochs and notes.
    **options
        Options of the model, as ``join="network"``: fields of :class:`train.models.options.ModelOptions`. What is left
        out is as recommended for the kind.

    Raises
    ------
    ConfigurationError
        If there is no such option, it cannot be used, or it has no effect on the kind.
    UnknownNameError
        If there is no such property.
    NotFoundError, SplitError, ModelError
        As :func:`train.experiments.run.run_experiment`.
    """
    progress = progress or Silent()
    notes = Notes(progress)
    chosen = list(dict.fromkeys(targets or TARGETS))
    for target in chosen:
        property_named(target)
    if name is not None:
        check_model_name(name)
    model = _model_options(recipe, text_level, options)
    configs = _configs(kind, chosen, model, config)
    if kind == "clip" and model.clip is None:
        notes.add("no CLIP is named: this trains the dual encoder, which stands in for a CLIP and is not one")
    _note_options_without_effect(model, configs, notes)
    for target in chosen:
        with session_scope(registry.engine) as session:
            _prepare_split(session, kind, target, split, model, notes)
    _log.info("training %s for %s on split %r, seed %d", kind, ", ".join(chosen), split, seed)
    from train.experiments.context import ExperimentContext
    from train.experiments.run import run_experiment

    context = ExperimentContext.open(registry.engine, registry.settings, progress=progress)
    results = [run_experiment(context, one, split=split, seed=seed, name=name, again=again) for one in configs]
    warnings = []
    if any("density" in one.modalities for one in configs):
        warnings += _add_fingerprint(registry, progress)
    for result in results:
        if result.outcome == "unchanged":
            notes.add(f"{result.model} had been trained already; --again trains a new version")
    rows = leaderboard(registry, targets=chosen, split=split).rows
    return TrainingResult(tuple(results), rows, notes.lines, tuple(warnings))


def views_of(recipe: str | None) -> int | None:
    """Number of views of a crystal in the images of a recipe; None where the recipe is not known here.

    Imported images, and recipes of other versions of ``ingest``, count as one view each.
    """
    from ingest.slices.recipes import RECIPES

    if recipe is None or recipe not in RECIPES:
        return None
    found = RECIPES[recipe]
    return len(getattr(getattr(found, "of", found), "views", (0,)))


# ------------------------------------------------------------------------- configurations


def _model_options(recipe: str | None, text_level: str | None, given: Mapping[str, Any]) -> ModelOptions:
    from train.models.options import ModelOptions

    known = [field.name for field in fields(ModelOptions) if field.name not in ("recipe", "text_level")]
    if unknown := set(given) - set(known):
        raise ConfigurationError(f"no option {min(unknown)!r}; there are: {', '.join(known)}")
    return ModelOptions(recipe=recipe, text_level=text_level, **given)


def _configs(kind: str, targets: Sequence[str], options: ModelOptions, file: Path | None) -> list[TrainConfig]:
    from train.config.files import read_config
    from train.models.options import ModelOptions, build_config

    modalities = _modalities(kind, options)
    if "image" in modalities and options.recipe is None:
        raise ConfigurationError(f"a model of kind {kind!r} reads images, and the recipe is none; name a recipe")
    # A model without texts has no text level, but its split may be made with one.
    if options.text_level is not None or "text" in modalities:
        build_config("text", targets[0], ModelOptions(text_level=options.text_level or "none"))
    if kind in _READS_IMAGES_AND_TEXTS and options.clip is not None:
        for field in ("image_backbone", "image_size", "text_backbone"):
            if getattr(options, field) is not None:
                raise ConfigurationError(
                    f"{field} is an option of the dual encoder, and the CLIP {options.clip} has its own; leave out one"
                )
    elif "image" in modalities and kind not in _READS_IMAGES_AND_TEXTS and options.views is None:
        options = replace(options, views=views_of(options.recipe))
    configs = []
    for target in targets:
        for one in BASELINES if kind == "baseline" else (kind,):
            of_kind = "dual-encoder" if one == "clip" and options.clip is None else one
            fields = {} if file is None else read_config(file, of_kind)
            configs.append(build_config(one, target, replace(options, fields={**options.fields, **fields})))
    return configs


def _modalities(kind: str, options: ModelOptions) -> set[str]:
    """Modalities among image and text that a model of this kind reads."""
    if kind in _READS_IMAGES_AND_TEXTS:
        return {"image", "text"}
    if kind == "stacked":
        return {"image", "text"} & set(options.towers or ("image", "text"))
    return {"image", "text"} & {kind}


def _note_options_without_effect(options: ModelOptions, configs: Sequence[TrainConfig], notes: Notes) -> None:
    given = [name for name, on in (("--multi-task", options.multi_task), ("--finetune", options.finetune)) if on]
    if given and any(config.joins_features for config in configs):
        notes.add(
            f"{' and '.join(given)} acts on the towers beside this stack; the stack itself reads frozen features"
            " (--join network joins trained towers)"
        )


# -------------------------------------------------------------------------------- splits


def _prepare_split(session: Session, kind: str, target: str, name: str, options: ModelOptions, notes: Notes) -> None:
    """Find the split, or make the default one; note the members of a new one, and crystals that an old one lacks."""
    exists = any(summary.name == name and summary.target == target for summary in list_splits(session))
    if name != DEFAULT_SPLIT or exists:
        split = find_split(session, name, target)
        if grown := growth_since(session, split):
            notes.add(
                f"{grown} crystals came after split {name!r} for {target} was made;"
                f" `ecdreg split create NAME --target {target}` makes one with them"
            )
        return
    recipe = options.recipe
    if recipe is not None and "image" not in _modalities(kind, options):
        # All kinds of models share one split where they can; without any image there is none to share.
        try:
            find_recipe(session, recipe)
        except NotFoundError:
            notes.add(f"no images of recipe {recipe!r}: the split for {target} is made without them")
            recipe = None
    split = ensure_default_split(session, target, recipe=recipe, text_level=options.text_level)
    (summary,) = [s for s in split_summary(session, name) if s.target == target]
    reasons = ", ".join(f"{n} {reason}" for reason, n in summary.reasons.items())
    notes.add(
        f"made split {name!r} for {target}: {summary.cv} crystals in {split.n_folds} folds, {summary.holdout} held out,"
        f" {summary.excluded} excluded" + (f" ({reasons})" if reasons else "")
    )


# -------------------------------------------------------------------------- fingerprints


def _add_fingerprint(registry: RegistryConnection, progress: Progress) -> list[str]:
    """Make the fingerprints of all crystals, and return warnings.

    A model that reads densities has computed most of the features that a fingerprint contains, so that they cost
    little more.
    """
    from train.experiments.publish import update_default_encoder
    from train.features.cache import add_encoder
    from train.featurizers.fingerprint import FINGERPRINT

    warnings = []
    grids = GridStore(registry.settings.grids_url)
    try:
        add_encoder(registry.engine, FINGERPRINT, models=registry.settings.models, progress=progress, grids=grids)
    except EcdregError as error:  # the models are trained and stored; missing fingerprints are only a warning
        warnings.append(
            f"not every crystal has a fingerprint: {error}; `ecdreg encoders add {FINGERPRINT}` makes the rest"
        )
    with session_scope(registry.engine) as session:
        update_default_encoder(session)
    return warnings
