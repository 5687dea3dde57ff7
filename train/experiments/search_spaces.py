"""Search spaces: the parameters that tuning varies, by kind of model, and their values in a configuration.

Whatever is not in the space stays as the configuration has it. The configuration's own value always belongs to the
space, so that it can be the first trial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from registry.errors import ConfigurationError
from train.config.config import TrainConfig
from train.config.kinds import MODEL_KINDS, parse_config
from train.config.parameters import Parameter, holder_of
from train.models.options import KINDS
from train.models.regressors.catalog import REGRESSORS

__all__ = ["apply", "every_choice", "space_of"]


def space_of(config: TrainConfig) -> tuple[Parameter, ...]:
    """The space of a configuration, its own values included.

    Parameters
    ----------
    config
        What the search begins with.

    Raises
    ------
    ConfigurationError
        If the kind has no space, or a stack's towers are too many to search with.
    """
    kind = MODEL_KINDS[config.type]
    space = kind.space(config) if kind.space is not None else ()
    if not space:
        choices = ", ".join(name for name in KINDS if name != "baseline-mean")
        raise ConfigurationError(f"nothing to search for kind {config.kind!r}; choose from {choices}")
    return tuple(parameter.including(config) for parameter in space)


def every_choice(space: Sequence[Parameter]) -> list[dict[str, Any]] | None:
    """All members of a space of choices alone, in a fixed order; None where a parameter has a range.

    Parameters
    ----------
    space
        As :func:`space_of` gives it.
    """
    if any(not parameter.choices for parameter in space):
        return None
    names = [parameter.name for parameter in space]
    return [dict(zip(names, values, strict=True)) for values in product(*(parameter.choices for parameter in space))]


def apply(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """A configuration with the values of a trial.

    Parameters
    ----------
    config
        What the search began with.
    values
        By name of the parameter, as :meth:`train.config.parameters.Parameter.suggest` gave them.
    """
    fields = config.to_dict()
    for name, value in values.items():
        if name == "towers":
            continue
        holder, field = holder_of(fields, name), name.rpartition(".")[2]
        if isinstance(holder[field], list):
            value = [int(width) for width in value.split("-")]
        holder[field] = value
        if name == "join.name":
            holder["reads"] = "features" if REGRESSORS[value].joins_features else "predictions"
    if "towers" in values:
        chosen = values["towers"].split("-")
        fields["towers"] = [tower for tower in fields["towers"] if tower["modality"] in chosen]
    return parse_config(fields)
