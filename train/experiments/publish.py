"""Publication of a finished training: the vectors of its tower, and the aliases of models and encoders.

Only the refit's tower becomes an encoder, never that of a fold: a search must not mix models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session, aliased

from registry.encoders import EncoderKey, ensure_encoder, set_encoder_alias, write_embeddings
from registry.model_store import ResolvedModel, set_alias
from registry.models import Embedding, Encoder, EncoderAlias, Experiment, Metric, ModelVersion
from train.features.inputs import ModelInputs
from train.featurizers.fingerprint import FINGERPRINT
from train.modalities import MODALITIES
from train.models.network_fitting import FittedNetwork

__all__ = ["AUTOMATIC", "publish_encoder", "update_best", "update_default_encoder"]

AUTOMATIC = "automatic"
"""Alias of the encoder that the rule of :func:`update_default_encoder` chose last."""


def publish_encoder(
    session: Session,
    experiment: Experiment,
    *,
    version: ModelVersion,
    model: FittedNetwork,
    inputs: ModelInputs,
    preprocessing: Mapping[str, Any],
) -> int:
    """Make a refitted network an encoder, ``name:target@version``, and write its vectors.

    Every crystal of the registry that has the inputs gets one, whether or not it is in the split. In a space that
    images and texts share, a crystal's vector is its image's.

    Parameters
    ----------
    session
        Written to, not committed.
    experiment, version, model
        The experiment, its refit and the network itself.
    inputs
        Of all crystals.
    preprocessing
        Processing of inputs before the weights.

    Returns
    -------
    int
        Number of vectors.
    """
    config = model.config
    columns = inputs.crystals.columns
    identities = [MODALITIES[name].encoder(config.inputs[name], columns[name]) for name in config.embedded]
    encoder = ensure_encoder(
        session,
        EncoderKey(
            weights_sha256=version.artifact_sha256 or "",
            recipe_id=next((one.recipe_id for one in identities if one.recipe_id is not None), None),
            text_level=next((one.text_level for one in identities if one.text_level is not None), None),
            preprocessing=dict(preprocessing),
        ),
        name=f"{experiment.name}:{experiment.target}@{experiment.version}",
        modality=config.kind if config.embedded == config.modalities else config.embedded[0],
        dim=model.network.width,
        model_version_id=version.id,
    )
    written = 0
    for ids, shas, batch in inputs.complete():
        vectors = model.encode(batch)
        rows = [(int(rid), vector, sha) for rid, vector, sha in zip(ids, vectors, shas, strict=True)]
        write_embeddings(session, encoder, rows)
        written += len(rows)
    return written


def update_best(session: Session, name: str, target: str) -> None:
    """Give the alias ``best`` to the version with the lowest error in cross-validation.

    The mean RMSE over the scored folds decides, among the finished experiments of one name and target that were
    trained on the same split as the newest of them, because scores on other crystals are not comparable. The holdout is
    not used.
    """
    finished = (Experiment.name == name, Experiment.target == target, Experiment.status == "finished")
    newest = select(Experiment.split_id).where(*finished).order_by(Experiment.version.desc()).limit(1)
    fold, refit = aliased(ModelVersion), aliased(ModelVersion)
    found = session.execute(
        select(Experiment, refit)
        .join(refit, (refit.experiment_id == Experiment.id) & refit.fold.is_(None) & (refit.status == "ready"))
        .join(fold, (fold.experiment_id == Experiment.id) & fold.fold.is_not(None) & (fold.status == "ready"))
        .join(Metric, Metric.model_version_id == fold.id)
        .where(
            *finished,
            Experiment.split_id == newest.scalar_subquery(),
            Metric.subset == "validation",
            Metric.name == "rmse",
        )
        .group_by(Experiment.id, refit.id)
        .order_by(func.avg(Metric.value), Experiment.id.desc())
        .limit(1)
    ).one_or_none()
    if found is not None:
        set_alias(session, ResolvedModel(*found), "best")


def update_default_encoder(session: Session) -> str | None:
    """Choose the encoder that a search uses when none is named, unless the user has chosen.

    The rule: the fingerprint where there is one, else the oldest frozen encoder that has vectors, images before texts
    before compositions. It is not fitted to labels, so that it treats all crystals alike and does not change with
    each training; ``docs/lab/similarity.md`` measures its neighbours. The choice carries the alias ``automatic`` beside
    ``default``; where the two differ, a user has set ``default``, and it is kept.

    Returns
    -------
    str or None
        Name of the encoder that is the default now; None if there is no encoder.
    """
    aliases = dict(
        session.execute(
            select(EncoderAlias.alias, EncoderAlias.encoder_id).where(EncoderAlias.alias.in_(("default", AUTOMATIC)))
        ).all()
    )
    by_hand = "default" in aliases and aliases["default"] != aliases.get(AUTOMATIC)
    chosen = _rule(session)
    if chosen is not None:
        set_encoder_alias(session, AUTOMATIC, chosen)
        if not by_hand:
            set_encoder_alias(session, "default", chosen)
    return session.scalar(
        select(Encoder.name)
        .join(EncoderAlias, EncoderAlias.encoder_id == Encoder.id)
        .where(EncoderAlias.alias == "default")
    )


def _rule(session: Session) -> Encoder | None:
    has_vectors = exists().where(Embedding.encoder_id == Encoder.id)
    return session.scalars(
        select(Encoder)
        .where(Encoder.model_version_id.is_(None), has_vectors)
        .order_by(Encoder.name != FINGERPRINT, Encoder.modality != "image", Encoder.modality != "text", Encoder.id)
        .limit(1)
    ).one_or_none()
