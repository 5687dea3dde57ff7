"""Kinds of models: how towers, stacks, contrastive models and baselines are fitted and restored.

``train.config.kinds`` names these modules, and loads one when it is needed; no module imports them directly. They
import ``train.config``, ``train.features`` and ``train.models``.
"""
