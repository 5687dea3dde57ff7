"""What a search varies, kind by kind: a table of parameters, each a field of the configuration.

Of a network that is how it is trained; a regressor finds its own parameters, so that there it is which regressor reads
which features, and which towers a stack joins. A parameter of a phase is named ``readout.learning_rate``; widths are
written ``512-256``, towers ``text-density``. Whatever is not in the table stays as the configuration has it. The
configuration's own value always belongs to the space, so that it can be the first trial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

from registry.errors import ConfigurationError
from train.config.config import PhaseConfig, TrainConfig

__all__ = ["CHOICES", "SPACES", "Parameter", "apply", "every_choice", "space_of"]


@dataclass(frozen=True)
class Parameter:
    """One dimension of a space: a range, or a choice."""

    name: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    """Whether a range is searched on a logarithmic scale."""
    choices: tuple[Any, ...] = ()

    def value_in(self, config: TrainConfig) -> Any:
        """The configuration's value, as the search knows it."""
        value: Any = config
        for part in self.name.split("."):
            value = getattr(value, part)
        return "-".join(map(str, value)) if isinstance(value, tuple) else value

    def holding(self, config: TrainConfig) -> Parameter:
        """The parameter, widened where the configuration's own value lies outside."""
        value = self.value_in(config)
        if self.choices:
            return self if value in self.choices else replace(self, choices=(*self.choices, value))
        assert self.low is not None
        assert self.high is not None
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    def suggest(self, trial: Any) -> Any:
        """Ask an Optuna trial for a value."""
        if self.choices:
            return trial.suggest_categorical(self.name, list(self.choices))
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


def _phase(name: str, low: float, high: float) -> tuple[Parameter, ...]:
    return (
        Parameter(f"{name}.learning_rate", low, high, log=True),
        Parameter(f"{name}.weight_decay", choices=(0.0, 1e-4, 1e-3, 1e-2, 1e-1)),
        Parameter(f"{name}.batch_size", choices=(16, 32, 64)),
    )


def _tower(kind: str, *widths: str) -> tuple[Parameter, ...]:
    return (
        Parameter(f"{kind}_widths", choices=widths),
        Parameter(f"{kind}_dropout", 0.0, 0.6),
        *_phase("readout", 1e-4, 5e-3),
    )


SPACES: Mapping[str, tuple[Parameter, ...]] = {
    "image": _tower("image", "1024-512-256", "512-256", "256", "1024-256"),
    "text": _tower("text", "512-512-256", "512-256", "256", "128"),
    "composition": _tower("composition", "512-512-256", "256-256", "256", "128-64"),
    "density": _tower("density", "512-512-256", "256-256", "256", "128-64"),
    "stacked": (
        Parameter("stacked_widths", choices=("256", "512-256", "128", "64")),
        Parameter("stacked_dropout", 0.0, 0.6),
        *_phase("readout", 1e-4, 5e-3),
        Parameter("finetune.learning_rate", 1e-6, 1e-3, log=True),
    ),
    "dual-encoder": (
        Parameter("projection_dim", choices=(128, 256, 512)),
        Parameter("align.learning_rate", 1e-4, 1e-2, log=True),
        Parameter("align.weight_decay", choices=(0.0, 1e-3, 1e-2, 1e-1)),
        *_phase("readout", 3e-5, 3e-3),
    ),
    "clip": _phase("readout", 3e-5, 3e-3),
    "baseline-magpie": (Parameter("n_estimators", choices=(100, 200, 400, 800)),),
}
"""What is searched for each kind of network. Rates of a stack act on its towers too, trained anew in every trial."""


_REGRESSORS = ("gaussian-process", "gradient-boosting", "kernel", "ridge", "trees")

CHOICES: Mapping[str, tuple[Parameter, ...]] = {
    "image": (
        Parameter("image_backbone", choices=("pixel_statistics", "efficientnet_lite0")),
        Parameter("image_regressor", choices=_REGRESSORS),
    ),
    "text": (Parameter("text_regressor", choices=_REGRESSORS),),
    "composition": (
        Parameter("composition_backbone", choices=("elements", "magpie")),
        Parameter("composition_regressor", choices=_REGRESSORS),
    ),
    "density": (Parameter("density_regressor", choices=_REGRESSORS),),
}
"""What is searched for each kind that a regressor reads."""


def _joined(config: TrainConfig) -> tuple[Parameter, ...]:
    """The space of a stack that a regressor joins: which of its towers, joined how, and what they read."""
    subsets = ["-".join(towers) for n in range(len(config.towers), 1, -1) for towers in combinations(config.towers, n)]
    # What is joined by features has no regressors of single towers to search; elsewhere these stay as they are.
    read = [p for tower in config.towers for p in CHOICES[tower] if p.name.endswith("_backbone")]
    return (
        *((Parameter("stack_towers", choices=tuple(subsets)),) if len(subsets) > 1 else ()),
        Parameter("join", choices=_REGRESSORS),
        *read,
    )


def space_of(config: TrainConfig) -> tuple[Parameter, ...]:
    """The space of a configuration's kind, its own values included.

    Parameters
    ----------
    config
        What the search begins with.

    Raises
    ------
    ConfigurationError
        If the kind has no space, or a stack's towers are too many to search with.
    """
    if config.kind not in SPACES:
        raise ConfigurationError(f"nothing to search for kind {config.kind!r}; choose from {', '.join(SPACES)}")
    if not config.is_baseline and not config.is_network:
        space = _joined(config) if config.kind == "stacked" else CHOICES[config.kind]
        return tuple(parameter.holding(config) for parameter in space)
    if config.kind == "stacked" and config.stack_features != "in-sample":
        raise ConfigurationError(
            f"stack_features is {config.stack_features!r}, whose towers are too many to search with; search in-sample,"
            " and train with what was found"
        )
    acting = config.to_dict()
    return tuple(p.holding(config) for p in SPACES[config.kind] if p.name.partition(".")[0] in acting)


def every_choice(space: Sequence[Parameter]) -> list[dict[str, Any]] | None:
    """All that a space of choices alone holds, in a fixed order; None where a parameter has a range.

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
        By name of the parameter, as :meth:`Parameter.suggest` gave them.
    """
    fields: dict[str, Any] = {}
    for name, value in values.items():
        head, _, inner = name.partition(".")
        if inner:
            phase: PhaseConfig = fields.get(head, getattr(config, head))
            fields[head] = replace(phase, **{inner: value})
        elif name.endswith("_widths"):
            fields[name] = tuple(int(width) for width in value.split("-"))
        elif name == "stack_towers":
            fields[name] = tuple(value.split("-"))
        else:
            fields[name] = value
    return replace(config, **fields)
