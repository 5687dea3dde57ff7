"""What ``ecdreg train`` does where it is told nothing: what cross-validation chose (docs/results.md).

The fields of :class:`train.config.config.TrainConfig` have the published values as their defaults; what has since been
measured to be better stands here, in one place, and gives way to whatever is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.config.config import FIXED_MODALITIES, NETWORK, TOWERS, TrainConfig

__all__ = ["recommended"]

_REGRESSOR = "gaussian-process"
_IMAGE = {"image_backbone": "pixel_statistics", "image_regressor": "kernel"}
_COMPOSITION = "elements"


def recommended(kind: str, asked: Mapping[str, Any], *, dense: bool = False) -> dict[str, Any]:
    """Fields of a configuration: those asked for, and the recommended ones beside them.

    A stack reads the features of all towers by one Gaussian process; its image and text towers are the published ones,
    its composition and density towers Gaussian processes. An image tower alone reads statistics of its pixels, where
    no other backbone is asked for. Asked for anything that only the published join has
    (``join`` of ``network``, ``stack_features``), it is the published stack of image and text.

    Parameters
    ----------
    kind
        Of the model.
    asked
        Fields that were asked for.
    dense
        Whether dense readouts are meant wherever nothing else is asked for.
    """
    fields: dict[str, Any] = {}
    if kind in FIXED_MODALITIES and not dense:
        fields[f"{kind}_regressor"] = _REGRESSOR
    if kind == "image" and not dense and "image_backbone" not in asked:
        fields |= _IMAGE
    if kind == "composition":
        fields["composition_backbone"] = _COMPOSITION
    if kind == "stacked":
        published = asked.get("join") == NETWORK or "stack_features" in asked
        fields["join"] = NETWORK if published else _REGRESSOR
        fields["stack_towers"] = TrainConfig.stack_towers if published else TOWERS
        towers = asked.get("stack_towers", fields["stack_towers"])
        if "composition" in towers:
            fields["composition_backbone"] = _COMPOSITION
        if not published and not dense:
            fields |= {f"{tower}_regressor": _REGRESSOR for tower in FIXED_MODALITIES if tower in towers}
    return {**fields, **asked}
