"""Configurations that the registry stores."""

from __future__ import annotations

from registry.models import Experiment
from train.config.config import TrainConfig
from train.config.kinds import parse_config

__all__ = ["config_of"]


def config_of(experiment: Experiment) -> TrainConfig:
    """The configuration of an experiment; the checksums of its inputs are stored beside it.

    Raises
    ------
    ConfigurationError
        If it was written by another version of this code, with fields that are not known here.
    """
    return parse_config({name: value for name, value in experiment.config.items() if name != "inputs"})
