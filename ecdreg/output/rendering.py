"""HTML pages from Jinja2 templates; text is escaped unless it is marked as HTML.

The templates of a package are stored in its folder ``templates``; ``report/model.html.j2`` names one of
``ecdreg.report``.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache

from jinja2 import Environment, PackageLoader, PrefixLoader, StrictUndefined
from markupsafe import Markup

__all__ = ["environment", "number", "plus_minus", "render"]

PACKAGES = ("report", "figures")
"""Sub-packages of ``ecdreg`` that have templates."""


def render(template: str, **values: object) -> str:
    """Render a template.

    Parameters
    ----------
    template
        Package and file name, as ``report/model.html.j2``.
    **values
        Variables of the template. A variable that is missing raises ``jinja2.UndefinedError``.
    """
    return environment().get_template(template).render(**values)


@cache
def environment() -> Environment:
    """The environment of all templates, with the filters that the pages use."""
    made = Environment(
        loader=PrefixLoader({name: PackageLoader(f"ecdreg.{name}") for name in PACKAGES}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "number": number,
        "plus_minus": plus_minus,
        "signed": _signed,
        "signed_number": _signed_number,
        "moment": _moment,
        "with_label": _with_label,
    }
    return made


def number(value: float | None) -> str:
    """Format a number with three significant digits; None gives an empty text."""
    if value is None:
        return ""
    return f"{value:#.3g}".rstrip(".") if abs(value) < 1000 else f"{value:.0f}"


def plus_minus(mean: float | None, sd: float | None) -> str:
    """Format a mean with its standard deviation, if there is one."""
    if mean is None:
        return ""
    return number(mean) if sd is None else f"{number(mean)} ± {sd:#.2g}".rstrip(".")


def _signed(value: float) -> str:
    return f"{value:+.3g}"


def _signed_number(value: float) -> str:
    return f"{value:+#.3g}".rstrip(".")


def _moment(value: datetime | None) -> str:
    return f"{value:%Y-%m-%d %H:%M %Z}" if value is not None else ""


def _with_label(svg: str, label: str) -> Markup:
    """An ``<svg>`` element with a text alternative for screen readers."""
    opening = str(Markup('<svg role="img" aria-label="{}" ').format(label))
    return Markup(str(svg).replace("<svg ", opening, 1))
