"""Composition statistics: elements, number of elements, prototypes and values (figure 3 of the paper)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sqlalchemy import text
from sqlalchemy.orm import Session

from ecdreg.figures.style import INK, SERIES, style
from registry.errors import NotFoundError
from registry.formulas import composition
from registry.properties import TARGETS, property_named

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ecdreg.connection import RegistryConnection

__all__ = ["Crystal", "composition_figure", "draw_composition", "read_crystals"]

# The periodic table; a dot is an empty position.
_TABLE = """
H  .  .  .  .  .  .  .  .  .  .  .  .  .  .  .  .  He
Li Be .  .  .  .  .  .  .  .  .  .  B  C  N  O  F  Ne
Na Mg .  .  .  .  .  .  .  .  .  .  Al Si P  S  Cl Ar
K  Ca Sc Ti V  Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
Rb Sr Y  Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I  Xe
Cs Ba .  Hf Ta W  Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn
.  .  La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu .
.  .  Ac Th Pa U  Np Pu Am Cm Bk Cf Es Fm Md No Lr .
"""


@dataclass(frozen=True)
class Crystal:
    """Properties of one crystal that the statistics count."""

    formula: str
    prototype: str | None
    values: dict[str, float]
    """Value by target, in the unit of the target; without suspect values."""


def composition_figure(registry: RegistryConnection, split: str | None = None) -> Figure:
    """Draw the composition statistics of the crystals of the registry, or of a split.

    Parameters
    ----------
    registry
        An open registry; only read.
    split
        Name of a split; None: every crystal.

    Raises
    ------
    NotFoundError
        If there are no crystals.
    """
    with Session(registry.engine) as session:
        crystals = read_crystals(session, split)
    source = f"split {split}" if split else "all crystals"
    return draw_composition(crystals, title=f"{len(crystals)} crystals, {source}")


def read_crystals(session: Session, split: str | None = None) -> list[Crystal]:
    """Read the crystals of the registry, or the members (cv and holdout) of a split for any of its targets.

    Parameters
    ----------
    session
        Only read.
    split
        Name of a split; None: every crystal.

    Raises
    ------
    NotFoundError
        If there are no crystals.
    """
    columns = ", ".join(f"CASE WHEN '{name}' = ANY (suspect) THEN NULL ELSE {name} END AS {name}" for name in TARGETS)
    where = (
        " WHERE revision_id IN (SELECT m.revision_id FROM split_members m JOIN splits s ON s.id = m.split_id"
        " WHERE s.name = :split AND m.subset <> 'excluded')"
    )
    found = session.execute(
        text(f"SELECT formula, prototype, {columns} FROM v_materials{where if split else ''} ORDER BY crystal_id"),
        {"split": split} if split else {},
    ).mappings()
    crystals = [
        Crystal(row["formula"], row["prototype"], {name: row[name] for name in TARGETS if row[name] is not None})
        for row in found
    ]
    if not crystals:
        raise NotFoundError(
            f"no crystals in split {split!r}; `ecdreg split list` shows the splits"
            if split
            else "no crystals yet; `ecdreg ingest` adds some"
        )
    return crystals


@style()
def draw_composition(crystals: Sequence[Crystal], *, title: str) -> Figure:
    """Draw the statistics: periodic table, number of elements, prototypes, and a histogram for each target.

    Parameters
    ----------
    crystals
        At least one.
    title
        Title of the figure.
    """
    figure = Figure(label="Composition statistics", figsize=(11.0, 9.6), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    grid = figure.add_gridspec(3, 6, height_ratios=[2.6, 1.1, 1.0])
    _periodic_table(figure, figure.add_subplot(grid[0, :]), crystals)
    _element_numbers(figure.add_subplot(grid[1, :2]), crystals)
    _prototypes(figure.add_subplot(grid[1, 2:]), crystals)
    for column, target in enumerate(TARGETS):
        _histogram(figure.add_subplot(grid[2, 2 * column : 2 * column + 2]), crystals, target, SERIES[column])
    return figure


def _periodic_table(figure: Figure, panel: Axes, crystals: Sequence[Crystal]) -> None:
    counts = Counter(symbol for crystal in crystals for symbol in composition(crystal.formula))
    norm = LogNorm(vmin=1, vmax=max(2, *counts.values()))
    colours = mpl.colormaps["YlGnBu"]
    for line, symbols in enumerate(_TABLE.strip().splitlines()):
        row = line + (1.4 if line >= 6 else 1.0)
        for column, symbol in enumerate(symbols.split()):
            if symbol == ".":
                continue
            n = counts.get(symbol, 0)
            colour: Any = colours(norm(n)) if n else "#f2f2f2"
            panel.add_patch(Rectangle((column, row), 0.94, 0.94, facecolor=colour, edgecolor="none"))
            ink = "white" if n and norm(n) > 0.6 else INK if n else "#b5b5b5"
            panel.text(column + 0.47, row + 0.40, symbol, ha="center", va="center", color=ink, fontsize=10)
            if n:
                panel.text(column + 0.47, row + 0.75, str(n), ha="center", va="center", color=ink, fontsize=6.5)
    panel.set(xlim=(-0.1, 18.1), ylim=(9.5, 0.9), aspect="equal", title="a  Crystals that contain the element")
    panel.set_axis_off()
    bar = figure.colorbar(mpl.cm.ScalarMappable(norm, colours), ax=panel, shrink=0.55, aspect=22, pad=0.01)
    bar.set_label("crystals")
    bar.outline.set_visible(False)


def _element_numbers(panel: Axes, crystals: Sequence[Crystal]) -> None:
    counts = Counter(len(composition(crystal.formula)) for crystal in crystals)
    bars = panel.bar([str(n) for n in sorted(counts)], [counts[n] for n in sorted(counts)], color=SERIES[0], width=0.7)
    panel.bar_label(bars, fontsize=8)
    panel.margins(y=0.15)
    panel.set(xlabel="elements", ylabel="crystals", title="b  Elements per crystal")


def _prototypes(panel: Axes, crystals: Sequence[Crystal], most_common: int = 7) -> None:
    counts = Counter(crystal.prototype or "unknown" for crystal in crystals)
    most = counts.most_common(most_common)
    if rest := len(crystals) - sum(n for _, n in most):
        most.append((f"{len(counts) - len(most)} others", rest))
    names, numbers = [name for name, _ in most][::-1], [n for _, n in most][::-1]
    bars = panel.barh(names, numbers, color=SERIES[2], height=0.7)
    panel.bar_label(bars, fontsize=8, padding=2)
    panel.margins(x=0.1)
    panel.set(xlabel="crystals", title="c  Prototypes")


def _histogram(panel: Axes, crystals: Sequence[Crystal], target: str, colour: str) -> None:
    values = np.array([crystal.values[target] for crystal in crystals if target in crystal.values])
    if len(values):
        panel.hist(values, bins=30, color=colour, alpha=0.85)
        panel.axvline(float(values.mean()), color=INK, linewidth=0.9, linestyle="--")
        panel.set_title(f"n = {len(values)}, mean {values.mean():.3g}", loc="right", fontsize=8, fontweight="normal")
    letter = "def"[TARGETS.index(target)] if target in TARGETS[:3] else ""
    panel.set(xlabel=f"{target} [{property_named(target).unit}]", ylabel="crystals", title=f"{letter}  {target}")
