"""Figures as files (PNG, SVG, PDF or HTML by their ending) and as elements of an HTML page."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ecdreg.figures.style import style
from ecdreg.output.files import check_output_path, write_output
from ecdreg.output.rendering import render

__all__ = ["SUFFIXES", "InteractiveFigure", "check_figure_path", "image_element", "inline_svg", "write_figure"]

SUFFIXES = (".png", ".svg", ".pdf", ".html")
"""Endings of the files that :func:`write_figure` makes."""

DPI = 150


class InteractiveFigure(Figure):
    """A figure with an interactive HTML page of its own."""

    def page(self) -> str:
        """The page, which requests nothing."""
        raise NotImplementedError


def check_figure_path(path: Path) -> None:
    """Check that a figure can be written to a path, before the work for it is done.

    Raises
    ------
    ConfigurationError
        If its ending is none of :data:`SUFFIXES`, or its folder does not exist.
    """
    check_output_path(path, SUFFIXES)


def write_figure(figure: Figure, path: Path) -> Path:
    """Write a figure to a file of the format that its ending names.

    Parameters
    ----------
    figure
        Its label is the title of an HTML page and the text alternative of the image there. An
        :class:`InteractiveFigure` has an HTML page of its own.
    path
        One that :func:`check_figure_path` accepts.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    ConfigurationError
        If the file cannot be written, or its ending is none of :data:`SUFFIXES`.
    """
    check_figure_path(path)
    kind = path.suffix.removeprefix(".").lower()
    return write_output(path, _page(figure) if kind == "html" else _bytes(figure, kind))


def image_element(figure: Figure) -> Markup:
    """A figure as one HTML ``<img>`` with its data inside.

    Parameters
    ----------
    figure
        Its label is the text alternative.
    """
    encoded = base64.b64encode(_bytes(figure, "png")).decode()
    element = '<img alt="{}" style="max-width:100%" src="data:image/png;base64,{}">'
    return Markup(element).format(str(figure.get_label()), encoded)


def inline_svg(figure: Figure, name: str) -> Markup:
    """A figure as one ``<svg>`` element.

    Parameters
    ----------
    figure
        Any figure.
    name
        Beginning of the ids inside, different for each figure of a page.
    """
    buffer = io.StringIO()
    with style(), mpl.rc_context({"svg.hashsalt": "ecdreg"}):  # else every call has other ids
        FigureCanvasSVG(figure).print_svg(  # type: ignore[no-untyped-call]
            buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Figures of one page must not share ids: ids that are referred to get the name, the others are removed.
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    return Markup(re.sub(r'(href="|url\()#', rf"\1#{name}-", text))


def _page(figure: Figure) -> str:
    if isinstance(figure, InteractiveFigure):
        return figure.page()
    return render("figures/figure.html.j2", title=str(figure.get_label()), image=image_element(figure))


def _bytes(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    # Without dates, so that the same figure gives the same file.
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    with style(), mpl.rc_context({"svg.hashsalt": "ecdreg"}):
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()
