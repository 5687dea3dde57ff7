"""Default towers and joins of each kind of model, chosen by cross-validation (docs/results.md).

The types of :mod:`train.config.schema` have the paper's protocol with substitute backbones as their defaults. This
module contains the values that were measured to be better; requested values take precedence over them.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ALL_TOWERS", "PAPER_TOWERS", "RECOMMENDED_JOIN", "recommended_tower"]

ALL_TOWERS = ("image", "text", "composition", "density")
"""Towers of the recommended stack: one Gaussian process reads the features of all of them."""

PAPER_TOWERS = ("image", "text")
"""Towers of the stack in the paper's protocol; their default backbones are substitutes for those of the paper."""

RECOMMENDED_JOIN = "gaussian-process"
"""Regressor of the recommended stack, and of composition and density towers."""

_ALONE: dict[str, tuple[str, str]] = {
    "image": ("pixel_statistics", "kernel"),
    "composition": ("elements", RECOMMENDED_JOIN),
    "density": ("density-statistics", RECOMMENDED_JOIN),
}
"""By modality: featurizer and regressor of a tower that is a model of its own."""


def recommended_tower(modality: str, *, in_stack: bool, dense: bool) -> dict[str, Any]:
    """Recommended features and head of a tower, where they differ from the paper's protocol.

    Parameters
    ----------
    modality
        Name in ``MODALITIES``.
    in_stack
        Whether the tower belongs to a stack; its image tower follows the paper's protocol,
        with a substitute backbone.
    dense
        Whether to use dense layers where nothing else is requested.
    """
    if modality not in _ALONE or (modality == "image" and (in_stack or dense)):
        return {}
    featurizer, regressor = _ALONE[modality]
    head = {} if dense else {"head": {"type": "regressor", "name": regressor}}
    return {"features": {"backbone": featurizer}, **head}
