"""Pieces of the self-contained HTML pages: inline CSS, inline SVG, no script, no request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["CSS", "document", "escaped", "figure", "number", "plus_minus", "table"]

CSS = """
:root { color-scheme: light; --ink: #1a1a1a; --soft: #5c5c5c; --line: #d9d9d9; --wash: #f5f6f8; --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 68rem; background: #fff; color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; padding-bottom: .25rem; border-bottom: 2px solid var(--accent); }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p, figcaption { max-width: 52rem; }
.lead, figcaption, .soft { color: var(--soft); }
.lead { margin: 0 0 1.2rem; font-size: 1.05rem; }
nav { margin: .8rem 0 0; } nav a { margin-right: 1rem; }
a { color: var(--accent); }
figure { margin: .8rem 0 0; } figure svg { width: 100%; height: auto; display: block; }
figcaption { font-size: .9rem; margin-top: .4rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(12.5rem, 1fr)); gap: .8rem; margin: 1rem 0; }
.card { background: var(--wash); border-left: 3px solid var(--accent); padding: .6rem .9rem; }
.card b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .88rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .3rem; }
th, td { padding: .32rem .7rem .32rem 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { border-bottom: 1.5px solid var(--ink); font-weight: 600; }
td:first-child { white-space: nowrap; }
td.n, th.n { text-align: right; padding-right: .9rem; white-space: nowrap; }
tr.this td { font-weight: 700; background: var(--wash); }
tr.sum td { font-weight: 700; border-top: 1.5px solid var(--ink); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: .6rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
code, pre { font: .88em/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
pre { background: var(--wash); padding: .8rem; overflow-x: auto; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--accent); }
footer { margin-top: 3rem; color: var(--soft); font-size: .88rem; border-top: 1px solid var(--line);
  padding-top: .6rem; }
@media print { body { max-width: none; padding: 0; } h2 { break-after: avoid; } figure, table { break-inside: avoid; } }
"""


def document(title: str, body: str, *, css: str = "") -> str:
    """A whole page that requests nothing from anywhere.

    Parameters
    ----------
    title
        Text.
    body
        HTML.
    css
        Beside :data:`CSS`.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{CSS}{css}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: Iterable[int] = (), classes: Sequence[str] = ()
) -> str:
    """A table; every cell is text.

    Parameters
    ----------
    head, rows
        Headings, and the cells below them.
    numeric
        Columns that are set to the right.
    classes
        Of the rows.
    """
    right = set(numeric)

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if i in right else ''}>{escaped(value)}</{tag}>" for i, value in enumerate(values)
        )

    body = "".join(
        f"<tr{f' class={classes[i]}' if i < len(classes) and classes[i] else ''}>{cells('td', row)}</tr>"
        for i, row in enumerate(rows)
    )
    return f"<div class=wide><table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table></div>"


def figure(svg: str, label: str, caption: str, *, raw_caption: bool = False) -> str:
    """A figure with its caption.

    Parameters
    ----------
    svg
        One ``<svg>`` element.
    label
        For who cannot see it.
    caption
        Text; HTML with ``raw_caption``.
    raw_caption
        Whether the caption is HTML.
    """
    described = svg.replace("<svg ", f'<svg role="img" aria-label="{escaped(label)}" ', 1)
    return f"<figure>{described}<figcaption>{caption if raw_caption else escaped(caption)}</figcaption></figure>"


def number(value: float | None) -> str:
    """Three digits; nothing for None."""
    if value is None:
        return ""
    return f"{value:#.3g}".rstrip(".") if abs(value) < 1000 else f"{value:.0f}"


def plus_minus(mean: float | None, sd: float | None) -> str:
    """A mean with its standard deviation, where there is one."""
    if mean is None:
        return ""
    return number(mean) if sd is None else f"{number(mean)} ± {sd:#.2g}".rstrip(".")


def escaped(value: object) -> str:
    """Text that HTML takes as text."""
    return escape(str(value), quote=True)
