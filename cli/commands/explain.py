"""``ecdreg explain``: which modality, which pixels and which words carry what a model says of a crystal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.options.common import JsonOption, open_engine, settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from registry.model_store import ResolvedModel
    from train.analysis.explanation import Explanation, Parts

__all__ = ["check_page", "explain", "explained", "write_page"]


def explain(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME[:TARGET][@ALIAS or @VERSION].")],
    ident: Annotated[str, typer.Argument(metavar="ID", help="A crystal's id, or source:id.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="HTML file to write, with maps of the pixels.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Explain a prediction: the shares of modalities, pixels, words and other features.

    Shares of modalities, words and features are Shapley values, those of pixels integrated gradients: each kind
    sums to a difference of two predictions, without remainder (docs/concepts/attribution.md). A crystal of the model's
    cross-validation is explained with the model of the fold that left it out.

    \b
    Examples:
      ecdreg explain stacked:k_vrh mp-1022
      ecdreg explain stacked:k_vrh mp-1022 -o why.html
      ecdreg explain stacked mp-1022 --json
    """
    from sqlalchemy.orm import Session

    from registry.crystals import resolve
    from registry.model_store import resolve_model

    engine = open_engine()
    with Session(engine) as session:
        models = resolve_model(session, model)
        revision_id = resolve(session, ident).revision_id
        session.expunge_all()
    if out is not None:
        check_page(out)
    found = explained(engine, models, revision_id)
    if out is not None:
        from ecdreg.report.explanation import render

        write_page(out, render(found))
    elif json:
        output.json([_plain(one, interval) for one, interval in found])
    else:
        for one, interval in found:
            _print(one, interval)


def explained(
    engine: Engine, models: Sequence[ResolvedModel], revision_id: int
) -> list[tuple[Explanation, str | None]]:
    """What each model says of a crystal and why, with the 90 % interval in words where there is one.

    Parameters
    ----------
    engine
        Features that are missing are computed, and kept.
    models
        As ``registry.model_store.resolve_model`` gives them.
    revision_id
        The crystal.
    """
    from train.analysis.explanation import explain as explain_one
    from train.prediction.stored import predict_crystals

    found = []
    with output.progress() as progress:
        for model in models:
            (said,) = predict_crystals(engine, settings(), model, [revision_id], progress=progress)
            one = explain_one(engine, settings(), model, revision_id, progress=progress)
            interval = None if said.lower is None else f"{said.lower:.4g} to {said.upper:.4g} {one.unit}"
            if interval and said.out_of_domain:
                interval += ", out of domain"
            found.append((one, interval))
    return found


def check_page(out: Path) -> None:
    """Refuse a file that cannot be written, before the work.

    Raises
    ------
    ConfigurationError
        If its folder does not exist, or it is a folder itself.
    """
    from registry.errors import ConfigurationError

    if out.is_dir() or not out.absolute().parent.is_dir():
        raise ConfigurationError(f"cannot write {out}: no such folder, or a folder itself; give a file to -o")


def write_page(out: Path, page: str) -> None:
    """Write a page as a whole or not at all, and say so.

    Raises
    ------
    ConfigurationError
        If it cannot be written.
    """
    from registry.errors import ConfigurationError

    part = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigurationError(f"cannot write {out}: {error.strerror}; choose another file with -o") from error
    output.line(f"{out} ({len(page.encode()) / 1024:.0f} kB)")


def _print(one: Explanation, interval: str | None) -> None:
    where = "refit" if one.fold is None else f"model of fold {one.fold}"
    known = "" if one.known is None else f", known {one.known:.4g}{' (suspect)' if one.suspect else ''}"
    output.line(
        f"{one.model} says {one.predicted:.4g} {one.unit} of {one.formula} ({one.source_id}){known}; {where}"
        + (f"; 90 % interval {interval}" if interval else "")
    )
    output.table(
        _rows(one.modalities, one.unit),
        title=f"Modalities, from the mean of other crystals ({one.modalities.empty:.4g} {one.unit})",
    )
    if one.pixels is not None:
        sums = one.pixels.by_channel or {"all together": float(one.pixels.values.sum())}
        output.table(
            [{"channel": kind, f"share [{one.unit}]": share} for kind, share in sums.items()],
            title=f"Pixels, from the mean slice ({one.pixels.empty:.4g}) to its own ({one.pixels.full:.4g} {one.unit}):"
            f" {one.pixels.method}, {one.pixels.steps} steps, gap {one.pixels.gap:.1g}; -o draws them",
        )
    if one.words is not None:
        output.table(_rows(one.words, one.unit), title=f"Words, from none of them ({one.words.empty:.4g} {one.unit})")
    for name, parts in one.features.items():
        rows = sorted(_rows(parts, one.unit), key=lambda row: -abs(row[f"share [{one.unit}]"]))
        output.table(rows[:10], title=f"Largest of {len(rows)} groups of {name} features, from their mean")


def _rows(parts: Parts, unit: str) -> list[dict[str, Any]]:
    return [
        {"part": name, f"share [{unit}]": float(value)} | ({"±": float(error)} if error else {})
        for name, value, error in zip(parts.names, parts.values, parts.error, strict=True)
    ]


def _plain(one: Explanation, interval: str | None) -> dict[str, Any]:
    def plain(parts: Parts) -> dict[str, Any]:
        shares = [
            {"part": name, "share": float(value), "standard_error": float(error)}
            for name, value, error in zip(parts.names, parts.values, parts.error, strict=True)
        ]
        return {"empty": parts.empty, "full": parts.full, "shares": shares}

    pixels = one.pixels
    return {
        "model": one.model,
        "target": one.target,
        "unit": one.unit,
        "id": one.source_id,
        "formula": one.formula,
        "subset": one.subset,
        "fold": one.fold,
        "predicted": one.predicted,
        "interval": interval,
        "known": one.known,
        "suspect": one.suspect,
        "modalities": plain(one.modalities),
        "pixels": None
        if pixels is None
        else {
            "method": pixels.method,
            "steps": pixels.steps,
            "empty": pixels.empty,
            "full": pixels.full,
            "gap": pixels.gap,
            "channels": pixels.by_channel,
        },
        "text": one.text,
        "words": None if one.words is None else plain(one.words),
        "features": {name: plain(parts) for name, parts in one.features.items()},
    }
