"""Pre-trained networks of images and texts, from a package's resource, a folder or a hub.

It imports nothing of ``train`` but ``train.models.devices``. Features, models and prediction import it.
"""
