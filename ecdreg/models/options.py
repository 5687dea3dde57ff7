"""Options of a model, by the same names on the command line, in Python and on the web."""

from train.config.options import KINDS, ModelOptions

__all__ = ["KINDS", "ModelOptions"]
