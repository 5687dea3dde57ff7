"""Modalities: how each kind of input is found, loaded, checked, and read from a file.

:data:`MODALITIES` lists them; another package adds an entry through the entry-point group ``ecdreg.modalities``. It
imports ``train.config_base``, ``train.featurizers`` and ``train.backbones``. ``train.config``, ``train.features``,
``train.models``, ``train.experiments``, ``train.prediction``, ``train.analysis`` and ``train.paper`` import it.
"""

from train.modalities.base import MODALITIES, Column, EncoderIdentity, Modality, modality_order, restore_featurizer
from train.modalities.composition import CompositionModality
from train.modalities.density import DensityModality
from train.modalities.image import ImageModality
from train.modalities.text import TextModality

__all__ = ["MODALITIES", "Column", "EncoderIdentity", "Modality", "modality_order", "restore_featurizer"]

for _modality in (ImageModality(), TextModality(), CompositionModality(), DensityModality()):
    MODALITIES.add(_modality.name, _modality)
