"""Fit and restore of a model of any kind, as ``MODEL_KINDS`` lists them."""

from __future__ import annotations

from collections.abc import Iterator

from train.config.config import TrainConfig
from train.config.kinds import MODEL_KINDS
from train.models.fitted import FitContext, FittedModel, RestoreContext

__all__ = ["fit_model", "restore_model"]


def fit_model(context: FitContext) -> Iterator[FittedModel]:
    """Fit a model from fresh weights; yields it after each phase, and changes it in the next.

    Raises
    ------
    ModelError
        If a stack comes without towers, or the loss is not finite.
    """
    return MODEL_KINDS[context.config.type].fit(context)


def restore_model(config: TrainConfig, data: bytes, context: RestoreContext | None = None) -> FittedModel:
    """The model that :meth:`FittedModel.to_bytes` wrote.

    Parameters
    ----------
    config
        Its kind decides how the bytes are read.
    data
        safetensors.
    context
        Where its featurizers come from.

    Raises
    ------
    ArtifactError
        If the bytes are not such a model, or a featurizer is another one.
    ConfigurationError
        If the architecture of a fine-tuned backbone cannot be found here.
    """
    return MODEL_KINDS[config.type].restore(config, data, context or RestoreContext())
