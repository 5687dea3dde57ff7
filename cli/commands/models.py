"""``ecdreg models``: trained models with their scores and aliases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from cli import output
from cli.connections import open_registry
from cli.groups import command_group
from cli.options.arguments import JsonOption, TargetOption
from ecdreg.models.listing import ModelCard, ModelSummary, VersionCard

__all__ = ["group"]

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="name[:target][@alias or @version].", show_default=False)
]
_METRICS = {"r2": "R2", "rmse": "RMSE", "mae": "MAE"}

group = command_group("List, show and compare trained models, and give them aliases.")


@group.command("list")
def list_(target: TargetOption = None, json: JsonOption = False) -> None:
    """List every trained model with its scores, newest first.

    Cross-validation scores are the mean over the folds with their standard deviation.

    \b
    Examples:
      ecdreg models list
      ecdreg models list --target k_vrh --json
    """
    found = open_registry().models(targets=target)
    if json:
        output.json(found.to_dicts())
    elif found:
        output.table([_list_row(row) for row in found])
    output.remarks(found)


@group.command()
def show(model: ModelArgument, json: JsonOption = False) -> None:
    """Show a model: its configuration, folds, epochs, scores, weights and encoders.

    \b
    Examples:
      ecdreg models show stacked:k_vrh
      ecdreg models show stacked:k_vrh@2 --json
    """
    cards = open_registry().show_model(model)
    if json:
        output.json(cards.to_dicts())
        return
    for i, card in enumerate(cards):
        if i:
            output.line()
        _print(card)


@group.command()
def compare(
    model: Annotated[str, typer.Argument(metavar="NAME", help="Name of a model.", show_default=False)],
    others: Annotated[list[str], typer.Argument(metavar="OTHER", help="Names of others.", show_default=False)],
    target: TargetOption = None,
    split: Annotated[
        list[str] | None, typer.Option("--split", metavar="NAME", help="Only this split; may be repeated.")
    ] = None,
    cv: Annotated[
        bool, typer.Option("--cv", help="Compare the out-of-fold predictions instead of those of the holdouts.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Compare a model with others on the same held-out crystals: a paired bootstrap of the difference.

    Holdouts are pooled over all splits and seeds that both models were trained on, and whole crystals are resampled.
    The two are tied if the 95 % interval of the difference of the RMSE contains zero.

    \b
    Examples:
      ecdreg models compare stacked baseline-magpie
      ecdreg models compare stacked composition density --target k_vrh
      ecdreg models compare stacked image --split default --cv --json
    """
    found = open_registry().compare_models(model, others, targets=target, splits=split, cv=cv)
    if json:
        output.json(found.to_dicts())
        return
    output.table(
        [
            {
                "target": one.target,
                "model": one.model,
                "other": one.other,
                "RMSE": f"{one.rmse:.4g}",
                "of the other": f"{one.other_rmse:.4g}",
                "difference": f"{one.difference:+.3g}",
                "95 %": f"{one.low:+.3g} to {one.high:+.3g}",
                "unit": one.unit,
                "verdict": one.verdict,
                "rows": one.n_rows,
                "crystals": one.n_crystals,
                "splits": len(one.splits),
            }
            for one in found
        ]
    )


@group.command()
def alias(
    model: ModelArgument,
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="Such as best or production.", show_default=False)],
    json: JsonOption = False,
) -> None:
    """Give a version of a model an alias; the alias moves if another version had it.

    \b
    Examples:
      ecdreg models alias stacked:k_vrh@2 production
      ecdreg predict stacked:k_vrh@production mp-1022
    """
    output.rows(open_registry().set_alias(model, name).to_dicts(), json=json)


@group.command()
def coverage(
    model: ModelArgument,
    confidence: Annotated[
        list[float] | None,
        typer.Option(
            "--confidence",
            "--interval",
            metavar="SHARE",
            help="Confidence of the intervals, for example 0.8; may be repeated.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Measure the share of true values inside their intervals, with the exact binomial interval of that share.

    Without --confidence the stored intervals of 90 % are counted; for a model that has none they are made and stored.
    Cross-validated crystals are counted around their out-of-fold predictions.

    \b
    Examples:
      ecdreg models coverage stacked:k_vrh
      ecdreg models coverage stacked --confidence 0.5 --confidence 0.8 --confidence 0.95 --json
    """
    with output.progress() as progress:
        rows = open_registry().model_coverage(model, confidences=confidence, progress=progress)
    if json:
        output.json(rows.to_dicts())
        return
    for name, unit in dict.fromkeys((row.model, row.unit) for row in rows):
        chosen = [asdict(row) for row in rows if row.model == name]
        table = [{"interval": f"{100 * row['confidence']:g} %"} | _coverage(row["subset"], row, unit) for row in chosen]
        output.table(table, title=name)


def _list_row(row: ModelSummary) -> dict[str, Any]:
    aliases = "".join(f" @{name}" for name in row.aliases)
    return {
        "model": row.name + aliases,
        "target": row.target,
        "version": row.version,
        "kind": row.kind,
        "split": row.split,
        "R2 cv": _pm(row.cv_r2, row.cv_r2_sd),
        "RMSE cv": _pm(row.cv_rmse, row.cv_rmse_sd),
        "R2 holdout": row.holdout_r2,
        "RMSE holdout": row.holdout_rmse,
        "unit": row.unit,
        "status": row.status,
        "created": f"{row.created:%Y-%m-%d %H:%M}",
    }


def _print(card: ModelCard) -> None:
    aliases = "".join(f" @{name}" for name in card.aliases)
    output.line(f"{card.model}:{card.target} [{card.unit}] version {card.version}{aliases}")
    facts = {
        "kind": card.kind,
        "status": card.status + (f" {card.finished:%Y-%m-%d %H:%M}" if card.finished else ""),
        "split": card.split,
        "seed": card.seed,
        "code": card.code_version,
        "config": card.config_sha256,
        "encoders": ", ".join(card.encoders),
    }
    for name, value in facts.items():
        if value != "":
            output.line(f"  {name:9}{value}")
    if card.versions:
        output.table([_version_row(version) for version in card.versions], title="Versions")
    scores = []
    if card.cv.folds:
        cv = asdict(card.cv)
        scores.append(
            {"subset": f"cv, {card.cv.folds} folds, mean ± sd", "n": card.cv.n}
            | {heading: _pm(cv[name], cv[f"{name}_sd"]) for name, heading in _METRICS.items()}
        )
    if card.holdout:
        scores.append(
            {"subset": "holdout, refit", "n": card.holdout.n}
            | {heading: _pm(getattr(card.holdout, name), None) for name, heading in _METRICS.items()}
        )
    if scores:
        output.table(scores, title=f"Scores of the last phase, RMSE and MAE in {card.unit}")
    if card.coverage:
        output.table(
            [_coverage(subset, one, card.unit) for subset, one in card.coverage.items()],
            title="Coverage of the 90 % intervals",
        )
    output.line("config")
    for name, value in sorted(_flat(card.config).items()):
        output.line(f"  {name} = {value}")


def _coverage(subset: str, found: Mapping[str, Any], unit: str) -> dict[str, Any]:
    """One line of a table of coverages."""
    return {
        "subset": {"validation": "cv, out of fold", "holdout": "holdout, refit"}.get(subset, subset),
        "n": found["n"],
        "covered": found["covered"],
        "share": f"{100 * found['share']:.1f} %",
        "95 % binomial interval": f"{100 * found['low']:.1f} to {100 * found['high']:.1f} %",
        f"median width [{unit}]": found["median_width"],
        "out of domain": found["out_of_domain"],
    }


def _version_row(version: VersionCard) -> dict[str, Any]:
    score = version.scores.get("holdout" if version.fold is None else "validation")
    return {
        "fold": "refit" if version.fold is None else version.fold,
        "phase": version.phase,
        "fitted to": version.n_train,
        "epochs": version.epochs or None,
        "kept": version.best_epoch,
        "scored": None if score is None else score.n,
        "R2": None if score is None else score.r2,
        "RMSE": None if score is None else score.rmse,
        "weights": version.artifact_uri or version.status,
        "sha256": (version.artifact_sha256 or "")[:12],
    }


def _pm(mean: float | None, sd: float | None) -> str:
    if mean is None:
        return ""
    if sd is None:
        return output.number(mean, ".4g")
    return f"{output.number(mean, '.3g')} ± {output.number(sd, '.2g')}"


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings by their dotted names."""
    if isinstance(value, dict) and value:
        return {k: v for name, inner in value.items() for k, v in _flat(inner, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): str(value)}
