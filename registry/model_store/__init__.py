"""The model store: experiments, model versions, their results, and the names of models.

Weights are stored in files (:mod:`registry.files.artifacts`). ``train`` and ``ecdreg`` import it.
"""

from __future__ import annotations

from registry.model_store.experiments import (
    add_model_version,
    config_sha256,
    find_experiment,
    finish_experiment,
    start_experiment,
)
from registry.model_store.names import ResolvedModel, check_model_name, resolve_model, set_alias
from registry.model_store.results import (
    METRICS,
    EpochRow,
    IntervalColumns,
    write_epochs,
    write_intervals,
    write_metrics,
    write_predictions,
)

__all__ = [
    "METRICS",
    "EpochRow",
    "IntervalColumns",
    "ResolvedModel",
    "add_model_version",
    "check_model_name",
    "config_sha256",
    "find_experiment",
    "finish_experiment",
    "resolve_model",
    "set_alias",
    "start_experiment",
    "write_epochs",
    "write_intervals",
    "write_metrics",
    "write_predictions",
]
