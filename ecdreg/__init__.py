"""The library: every use case of the registry as a function, and :class:`Registry`, its entry point.

It imports ``train``, ``ingest`` and ``registry``, and joins them; ``cli`` imports it. Nothing in it prints.
"""

from ecdreg.registry import Registry

__all__ = ["Registry"]
