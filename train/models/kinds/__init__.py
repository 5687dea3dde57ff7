"""Kinds of models: how towers, stacks, contrastive models and baselines are fitted and restored.

``train.config.kinds`` names these modules; nothing imports them directly but their tests.
"""
