"""Colours and matplotlib settings that all figures share.

The colours are those of Okabe and Ito, which colour-blind readers can distinguish. What differs in colour also differs
in shape, hatching or line style, so that a grey print keeps the distinction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl

__all__ = ["BLUE", "GREY", "INK", "ORANGE", "SERIES", "VERMILION", "style"]

BLUE = "#0072B2"
ORANGE = "#E69F00"
VERMILION = "#D55E00"
INK = "#1a1a1a"
GREY = "#767676"

SERIES = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", VERMILION)
"""Colours of series, in their order."""

_SETTINGS: Any = {  # Any: matplotlib's own type lists every key
    "font.size": 9.0,
    "font.family": ["DejaVu Sans"],
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "savefig.transparent": False,
    "savefig.facecolor": "white",
}


@contextmanager
def style() -> Iterator[None]:
    """Apply the settings while a figure is drawn and while it is written; also a decorator."""
    with mpl.rc_context(_SETTINGS):
        yield
