"""Figures as files, PNG, SVG, PDF or HTML by their ending, and as images inside a page.

Colours are those of Okabe and Ito, as in :mod:`ecdreg.report.figures`; what differs in colour differs in
shape or hatching too.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ecdreg.report.figures import STYLE
from registry.errors import ConfigurationError

__all__ = ["FORMATS", "SERIES", "as_image", "check_path", "style", "write"]

FORMATS = ("png", "svg", "pdf", "html")
"""Endings of the files that :func:`write` makes."""

SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Colours of series, in their order (Okabe and Ito)."""

DPI = 150


@contextmanager
def style() -> Iterator[None]:
    """The look that all figures share, while one is made and written."""
    changes: Any = {**STYLE, "savefig.transparent": False, "savefig.facecolor": "white"}
    with mpl.rc_context(changes):
        yield


def check_path(path: Path) -> None:
    """Refuse a file that cannot be written, before the work for it is done.

    Raises
    ------
    ConfigurationError
        If its ending is none of :data:`FORMATS`, or its folder does not exist.
    """
    if path.suffix.removeprefix(".").lower() not in FORMATS:
        raise ConfigurationError(f"cannot draw into {path}: give -o a name that ends in .{', .'.join(FORMATS)}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ConfigurationError(f"cannot write {path}: no such folder, or a folder itself; give a file to -o")


def write(figure: Figure, path: Path, *, title: str) -> None:
    """Write a figure to a file of the format that its ending names.

    Parameters
    ----------
    figure
        What was drawn under :func:`style`.
    path
        As :func:`check_path` lets it pass.
    title
        Of the HTML page, and alternative text of its image.

    Raises
    ------
    ConfigurationError
        If the file cannot be written.
    """
    kind = path.suffix.removeprefix(".").lower()
    data = _page(figure, title).encode() if kind == "html" else _bytes(figure, kind)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigurationError(f"cannot write {path}: {error.strerror}; choose another file with -o") from error


def as_image(figure: Figure, *, title: str) -> str:
    """The figure as one HTML ``<img>`` that holds its own data, ids and all.

    Parameters
    ----------
    figure
        What was drawn under :func:`style`.
    title
        Alternative text.
    """
    encoded = base64.b64encode(_bytes(figure, "png")).decode()
    return f'<img alt="{escape(title, quote=True)}" style="max-width:100%" src="data:image/png;base64,{encoded}">'


def _page(figure: Figure, title: str) -> str:
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<body style="margin:2rem;background:#fff">{as_image(figure, title=title)}</body></html>\n'
    )


def _bytes(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    # Without dates, so that the same figure is the same file.
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    with mpl.rc_context({"svg.hashsalt": "ecdreg"}):
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()
