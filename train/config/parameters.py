"""Parameters of a search: fields of a configuration that are varied, each named by the path to it.

A path is ``training.readout.learning_rate`` or ``towers.image.features.backbone``. Widths are written ``512-256``,
towers ``text-density``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from train.config.config import TrainConfig

__all__ = ["Parameter", "holder_of"]


@dataclass(frozen=True)
class Parameter:
    """One dimension of a space: a range, or a choice."""

    name: str
    """Path to the field."""
    low: float | None = None
    high: float | None = None
    log: bool = False
    """Whether a range is searched on a logarithmic scale."""
    choices: tuple[Any, ...] = ()

    def value_in(self, config: TrainConfig) -> Any:
        """The configuration's value, as the search represents it."""
        values = config.to_dict()
        if self.name == "towers":
            return "-".join(tower["modality"] for tower in values["towers"])
        value = holder_of(values, self.name)[self.name.rpartition(".")[2]]
        return "-".join(map(str, value)) if isinstance(value, list) else value

    def including(self, config: TrainConfig) -> Parameter:
        """The parameter, widened where the configuration's own value is outside of it."""
        value = self.value_in(config)
        if self.choices:
            return self if value in self.choices else replace(self, choices=(*self.choices, value))
        assert self.low is not None
        assert self.high is not None
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    def suggest(self, trial: Any) -> Any:
        """Take a value from an Optuna trial."""
        if self.choices:
            return trial.suggest_categorical(self.name, list(self.choices))
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


def holder_of(fields: dict[str, Any], path: str) -> dict[str, Any]:
    """The mapping that holds the field of a path.

    Parameters
    ----------
    fields
        A configuration, as :meth:`train.config.config.TrainConfig.to_dict` gives it.
    path
        Path to the field; a tower of a stack is named by its modality.
    """
    holder: Any = fields
    for part in path.split(".")[:-1]:
        if isinstance(holder, list):
            holder = next(tower for tower in holder if tower["modality"] == part)
        else:
            holder = holder[part]
    found: dict[str, Any] = holder
    return found
