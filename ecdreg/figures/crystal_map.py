"""The map of an encoder: a point a crystal, coloured by a property; as a picture, or as a page that tells more."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from ecdreg.figures.canvas import SERIES
from registry.properties import PROPERTIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

    from train.analysis.projection import Projection

__all__ = ["CATEGORIES", "CrystalMap", "check_colour", "draw", "page", "read_crystals"]

CATEGORIES = {"prototype": "prototype", "space_group_symbol": "space group"}
"""What is no number and can colour a map all the same, with its words."""

_UNKNOWN = "#b8b8b8"
_MARKERS = ("o", "s", "^", "D", "v", "P")
_LABELS = 16


@dataclass(frozen=True)
class CrystalMap:
    """Crystals in a plane, N of them."""

    encoder: str
    projection: Projection
    crystals: Sequence[Mapping[str, Any]]
    """Rows of ``v_materials``."""

    def values(self, name: str) -> NDArray[np.float64]:
        """A property, (N,), in its unit; NaN where it is not known, or suspect."""
        return np.array(
            [
                np.nan if row[name] is None or name in (row["suspect"] or ()) else float(row[name])
                for row in self.crystals
            ]
        )

    def groups(self, name: str) -> list[str]:
        """A category, (N,): the six most frequent, and ``other``."""
        found = [str(row[name]) if row[name] is not None else "unknown" for row in self.crystals]
        frequent = [one for one, _ in sorted(Counter(found).items(), key=lambda item: (-item[1], item[0]))]
        kept = set(frequent[: len(SERIES)])
        return [one if one in kept else "other" for one in found]


def check_colour(name: str) -> None:
    """Refuse what a map cannot be coloured by.

    Raises
    ------
    UnknownNameError
        If it is neither a property nor one of :data:`CATEGORIES`; the message proposes the nearest name.
    """
    import difflib

    from registry.errors import UnknownNameError

    known = [*PROPERTIES, *CATEGORIES]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
        raise UnknownNameError(f"a map cannot be coloured by {name!r}; {hint}")


def read_crystals(
    session: Session, encoder_id: int, where: str | None = None
) -> tuple[list[dict[str, Any]], NDArray[np.float64]]:
    """Crystals that have a vector of an encoder, as ``v_materials`` shows them, and the vectors (N, D).

    Parameters
    ----------
    session
        Only read.
    encoder_id
        The encoder.
    where
        A filter, as of :mod:`registry.search.filters`.

    Raises
    ------
    QueryError
        If the filter cannot be used.
    """
    from sqlalchemy import select

    from registry.encoders import read_embeddings
    from registry.search.filters import materials, parse

    names = ("revision_id", "source", "source_id", "formula", "suspect", *CATEGORIES, *PROPERTIES)
    view = materials()
    query = select(*(view.c[name] for name in names)).order_by(view.c.crystal_id)
    if where is not None:
        query = query.where(parse(where))
    rows = [dict(row) for row in session.execute(query).mappings()]
    vectors = read_embeddings(session, encoder_id, [int(row["revision_id"]) for row in rows])
    kept = [row for row in rows if int(row["revision_id"]) in vectors]
    found = [vectors[int(row["revision_id"])][1] for row in kept]
    return kept, np.array(found, dtype=np.float64)


def draw(chart: CrystalMap, colour: str) -> Figure:
    """The map as a figure.

    Parameters
    ----------
    chart
        Crystals in a plane.
    colour
        A property, or one of :data:`CATEGORIES`.
    """
    figure = Figure(figsize=(7.6, 6.0), layout="constrained")
    panel = figure.add_subplot()
    x, y = chart.projection.points.T
    if colour in CATEGORIES:
        _categories(panel, x, y, chart.groups(colour))
    else:
        _numbers(figure, panel, x, y, chart.values(colour), colour)
    for i in _spread(chart.projection.points):
        panel.annotate(
            str(chart.crystals[i]["formula"]),
            (x[i], y[i]),
            xytext=(4, 3),
            textcoords="offset points",
            fontsize=7,
            color="#333333",
        )
    panel.set_xlabel(chart.projection.axes[0])
    panel.set_ylabel(chart.projection.axes[1])
    panel.margins(0.06)
    panel.set_title(f"{len(x)} crystals under {chart.encoder}", loc="left")
    return figure


def page(chart: CrystalMap, colour: str) -> str:
    """The map as a page of its own that asks nobody for anything; hovering tells what a point is.

    Parameters
    ----------
    chart
        Crystals in a plane.
    colour
        What it is coloured by at first; the page can change it.
    """
    names = [name for name in PROPERTIES if np.isfinite(chart.values(name)).any()]
    columns = {name: [None if np.isnan(v) else float(f"{v:.6g}") for v in chart.values(name)] for name in names}
    shades = [mpl.colors.to_hex(mpl.colormaps["viridis"](i / 63)) for i in range(64)]
    data = {
        "points": np.round(chart.projection.points, 5).tolist(),
        "ids": [f"{row['source']}:{row['source_id']}" for row in chart.crystals],
        "formulas": [row["formula"] for row in chart.crystals],
        "groups": {name: chart.groups(name) for name in CATEGORIES},
        "facts": {name: [row[name] for row in chart.crystals] for name in CATEGORIES},
        "values": columns,
        "units": {name: PROPERTIES[name].unit for name in names},
        "labels": {name: PROPERTIES[name].label for name in names} | CATEGORIES,
        "axes": chart.projection.axes,
        "shades": shades,
        "series": list(SERIES),
        "unknown": _UNKNOWN,
        "colour": colour if colour in names or colour in CATEGORIES else (names or list(CATEGORIES))[0],
    }
    # A formula or an id may hold anything; inside a script only "<" could end it.
    text = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    title = f"{len(chart.crystals)} crystals under {chart.encoder}"
    template = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    return (
        template.replace("@TITLE@", escape(title))
        .replace("@TOLD@", escape(chart.projection.told))
        .replace("@DATA@", text)
    )


def _numbers(
    figure: Figure, panel: Any, x: NDArray[np.float64], y: NDArray[np.float64], values: Any, name: str
) -> None:
    known = np.isfinite(values)
    if not known.all():
        panel.scatter(
            x[~known], y[~known], s=14, color=_UNKNOWN, marker="x", linewidths=0.8, label="not known, or suspect"
        )
        panel.legend(loc="best", frameon=False)
    if known.any():
        # A few extremes would leave no colour for the rest: the ends are the 2nd and the 98th percentile.
        low, high = np.percentile(values[known], [2, 98])
        order = np.argsort(values[known])
        dots = panel.scatter(
            x[known][order],
            y[known][order],
            c=values[known][order],
            s=24,
            cmap="viridis",
            vmin=low,
            vmax=high if high > low else low + 1.0,
            edgecolors="white",
            linewidths=0.3,
        )
        bar = figure.colorbar(dots, ax=panel, extend="both", pad=0.01, aspect=30)
        bar.set_label(f"{PROPERTIES[name].label} [{PROPERTIES[name].unit}]")


def _categories(panel: Any, x: NDArray[np.float64], y: NDArray[np.float64], groups: Sequence[str]) -> None:
    found = np.array(groups, dtype=object)
    frequent = [one for one, _ in Counter(groups).most_common() if one != "other"]
    looks = [*zip(frequent, SERIES, _MARKERS, strict=False), *[("other", _UNKNOWN, "x")][: "other" in groups]]
    handles = []
    for one, colour, marker in looks:
        rows = found == one
        edge = {} if marker == "x" else {"edgecolors": "white"}
        panel.scatter(x[rows], y[rows], s=22, color=colour, marker=marker, linewidths=0.4, **edge)
        handles.append(Line2D([], [], linestyle="none", marker=marker, color=colour, label=f"{one} ({rows.sum()})"))
    panel.legend(handles=handles, frameon=False)


def _spread(points: NDArray[np.float64]) -> list[int]:
    """Points to label, far from each other: the outermost one, then always the one farthest from those chosen."""
    scaled = (points - points.mean(axis=0)) / np.maximum(points.std(axis=0), 1e-12)
    chosen = [int(np.argmax(np.linalg.norm(scaled, axis=1)))]
    nearest = np.linalg.norm(scaled - scaled[chosen[0]], axis=1)
    while len(chosen) < min(_LABELS, len(points)) and nearest.max() > 0.35:
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[chosen[-1]], axis=1))
    return chosen
