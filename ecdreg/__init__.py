"""The library: every use case of the registry as a function, and :class:`Registry`, its entry point.

It imports ``train``, ``ingest`` and ``registry``, and joins them; ``cli`` imports it. Nothing in it prints.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecdreg.registry import Registry

__all__ = ["Registry"]


def __getattr__(name: str) -> Any:
    # Registry imports every use case, which a command that needs one of them does not.
    if name != "Registry":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ecdreg.registry import Registry

    return Registry
