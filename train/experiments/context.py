"""Context of experiments: the registry, the folders, the progress and the caches that they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from sqlalchemy import Engine

from registry.files.artifacts import ArtifactStore
from registry.files.grids import GridStore
from registry.jobs.progress import Progress, Silent
from registry.settings import Settings
from train.config.config import TrainConfig
from train.features.cache import FeatureCache
from train.features.inputs import ModelInputs

__all__ = ["ExperimentContext"]


@dataclass(frozen=True)
class ExperimentContext:
    """Objects that the experiments of one process share; made by :meth:`open`."""

    engine: Engine
    """Of the registry; committed to fold by fold."""
    settings: Settings
    """Folders of backbones, weights and grids."""
    progress: Progress
    """Receives folds and epochs."""
    cache: FeatureCache
    """Features and featurizers that experiments share."""

    @classmethod
    def open(
        cls,
        engine: Engine,
        settings: Settings,
        *,
        progress: Progress | None = None,
        cache: FeatureCache | None = None,
    ) -> Self:
        """A context on a registry.

        Parameters
        ----------
        engine
            Of the registry.
        settings
            Folders of backbones, weights and grids.
        progress
            Receives folds and epochs; None: nothing does.
        cache
            Features and featurizers of an earlier context; None: an empty cache.
        """
        progress = progress or Silent()
        grids = GridStore(settings.grids_url)
        cache = cache or FeatureCache(engine, models=settings.models, progress=progress, grids=grids)
        return cls(engine, settings, progress, cache)

    @property
    def store(self) -> ArtifactStore:
        """Store of weights."""
        return ArtifactStore(self.settings.artifacts)

    def inputs(
        self, config: TrainConfig, revision_ids: list[int] | None, *, recipe_sha256: str | None = None
    ) -> ModelInputs:
        """Inputs of a model for crystals of the registry.

        Parameters
        ----------
        config
            Of the model.
        revision_ids
            Revisions; None: the current one of every crystal.
        recipe_sha256
            Version of the image recipe; None: the newest that has images.
        """
        return ModelInputs(
            self.engine,
            config,
            revision_ids,
            cache=self.cache,
            trained_on=None if recipe_sha256 is None else {"recipe_sha256": recipe_sha256},
            grids=GridStore(self.settings.grids_url),
        )
