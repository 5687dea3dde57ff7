"""Pre-trained networks of images and texts, from a package's resource, a folder or a hub; and the torch device.

It imports nothing else of ``train``. ``train.modalities``, ``train.models`` and ``train.analysis`` import it.
"""
