"""Options of a model, by the same names on the command line, in Python and on the web."""

from train.models.options import KINDS, ModelOptions

__all__ = ["KINDS", "ModelOptions"]
