"""Names and aliases of models.

A model is named ``NAME[:TARGET][@ALIAS | @N | @latest]``, for instance ``stacked``, ``stacked:k_vrh``,
``stacked:k_vrh@best`` or ``image@3``. Without ``@`` it is the newest finished version. The model that predicts is the
refit on all cv rows, in its last phase.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import case, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from registry.errors import ConfigurationError, NotFoundError
from registry.models import Experiment, ModelAlias, ModelVersion
from registry.properties import TARGETS, property_named

__all__ = ["ResolvedModel", "check_model_name", "resolve_model", "set_alias"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_MODEL = re.compile(rf"(?P<name>{_NAME.pattern})(:(?P<target>[^:@]+))?(@(?P<pick>[a-z0-9_.-]+))?")
_ALIAS = re.compile(r"[a-z][a-z0-9_.-]*")


@dataclass(frozen=True)
class ResolvedModel:
    """A model that can predict: an experiment and its refit in the last phase."""

    experiment: Experiment
    model_version: ModelVersion

    @property
    def name(self) -> str:
        """``name:target@version``, the full name of this model."""
        return f"{self.experiment.name}:{self.experiment.target}@{self.experiment.version}"


def check_model_name(name: str) -> None:
    """Raise for an invalid name of a model.

    Raises
    ------
    ConfigurationError
        If the name has other characters than lower case letters, digits, ``_``, ``.`` and ``-``, or does not start with
        a letter or a digit.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{name!r} cannot be the name of a model; use lower case letters, digits and _ . -")


def resolve_model(session: Session, model: str) -> list[ResolvedModel]:
    """Models of a name ``NAME[:TARGET][@ALIAS | @N | @latest]``.

    Returns
    -------
    list of ResolvedModel
        One model; without a target, one for each target with such a model, in the order of the targets.

    Raises
    ------
    ConfigurationError
        If the name does not have this form.
    UnknownNameError
        If there is no such target.
    NotFoundError
        If there is no such model with weights; the message lists the existing ones.
    """
    match = _MODEL.fullmatch(model)
    if match is None:
        raise ConfigurationError(
            f"{model!r} is not the name of a model; write NAME, NAME:TARGET, NAME@ALIAS or NAME@VERSION"
        )
    name, target, pick = match["name"], match["target"], match["pick"] or "latest"
    if target is not None:
        property_named(target)
    phase = case({"fit": 0, "align": 0, "readout": 1, "finetune": 2}, value=ModelVersion.phase)
    query = (
        select(Experiment, ModelVersion)
        .join(ModelVersion, ModelVersion.experiment_id == Experiment.id)
        .where(
            Experiment.name == name,
            Experiment.status == "finished",
            ModelVersion.fold.is_(None),
            ModelVersion.status == "ready",
        )
        .order_by(Experiment.version.desc(), phase.desc())
    )
    if target is not None:
        query = query.where(Experiment.target == target)
    if pick.isdecimal():
        query = query.where(Experiment.version == int(pick[:9]))
    elif pick != "latest":
        query = query.join(ModelAlias, ModelAlias.model_version_id == ModelVersion.id).where(ModelAlias.alias == pick)
    found: dict[str, ResolvedModel] = {}
    for experiment, version in session.execute(query):
        found.setdefault(experiment.target, ResolvedModel(experiment, version))
    if not found:
        raise NotFoundError(f"no model {model!r}; {_known_models(session)}")
    order = {name: i for i, name in enumerate(TARGETS)}
    return sorted(found.values(), key=lambda m: (order.get(m.experiment.target, len(order)), m.experiment.target))


def set_alias(session: Session, model: ResolvedModel, alias: str) -> None:
    """Set an alias, such as ``best``, of a model; an alias belongs to one model of a name and target.

    Raises
    ------
    ConfigurationError
        If it is not a valid alias.
    """
    if alias == "latest" or not _ALIAS.fullmatch(alias):
        raise ConfigurationError(
            f"{alias!r} cannot be an alias; start with a lower case letter; `latest` is reserved for the newest version"
        )
    experiment = model.experiment
    points_to = {"experiment_id": experiment.id, "model_version_id": model.model_version.id}
    session.execute(
        postgresql.insert(ModelAlias)
        .values(name=experiment.name, target=experiment.target, alias=alias, **points_to)
        .on_conflict_do_update(index_elements=[ModelAlias.name, ModelAlias.target, ModelAlias.alias], set_=points_to)
    )


def _known_models(session: Session) -> str:
    rows = session.execute(
        select(Experiment.name, Experiment.target, Experiment.version)
        .join(ModelVersion, ModelVersion.experiment_id == Experiment.id)
        .where(Experiment.status == "finished", ModelVersion.fold.is_(None), ModelVersion.status == "ready")
        .distinct()
        .order_by(Experiment.name, Experiment.target, Experiment.version.desc())
    )
    names = [f"{name}:{target}@{version}" for name, target, version in rows]
    names += session.scalars(
        select(ModelAlias.name + ":" + ModelAlias.target + "@" + ModelAlias.alias).order_by("name", "target", "alias")
    )
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"there are: {listed}" if names else "`ecdreg train` makes models"
