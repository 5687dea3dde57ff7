"""``ecdreg models``: what was trained, how it scored, and under which name it goes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import output
from cli.options.common import JsonOption, TargetOption, command_group
from cli.options.sessions import open_session

__all__ = ["group"]

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="name[:target][@alias or @version].", show_default=False)
]

group = command_group("List and show trained models, and give them aliases.")


@group.command("list")
def list_(target: TargetOption = None, json: JsonOption = False) -> None:
    """List every trained model with its scores, newest first.

    Cross-validation scores are the mean over the folds with their standard deviation.

    \b
    Examples:
      ecdreg models list
      ecdreg models list --target k_vrh --json
    """
    from ecdreg.scores import list_models
    from registry.properties import property_named

    with open_session() as session:
        for one in target or ():
            property_named(one)
        rows = list_models(session, targets=target)
    if json:
        output.json(rows)
    elif not rows:
        output.note("no models yet; `ecdreg train stacked` makes some")
    else:
        output.table([_list_row(row) for row in rows])


@group.command("show")
def show(model: ModelArgument, json: JsonOption = False) -> None:
    """Show a model: its configuration, folds, epochs, scores, weights and encoders.

    \b
    Examples:
      ecdreg models show stacked:k_vrh
      ecdreg models show stacked:k_vrh@2 --json
    """
    from ecdreg.scores import model_card
    from registry.model_store import resolve_model

    with open_session() as session:
        cards = [model_card(session, found.experiment) for found in resolve_model(session, model)]
    if json:
        output.json(cards)
        return
    for i, card in enumerate(cards):
        if i:
            output.line()
        _print(card)


@group.command("compare")
def compare(
    model: Annotated[str, typer.Argument(metavar="NAME", help="Name of a model.", show_default=False)],
    others: Annotated[list[str], typer.Argument(metavar="OTHER...", help="Names of others.", show_default=False)],
    target: TargetOption = None,
    split: Annotated[
        list[str] | None, typer.Option("--split", metavar="NAME", help="Only this split; may be repeated.")
    ] = None,
    cv: Annotated[
        bool, typer.Option("--cv", help="Compare what the folds said of rows that they had not seen, not the holdouts.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Compare a model with others on the same held-out crystals: a paired bootstrap of the difference.

    Holdouts are pooled over all splits and seeds that both were trained on, and whole crystals are drawn. Where
    the 95 % interval of the difference of the RMSE holds zero, it is a tie.

    \b
    Examples:
      ecdreg models compare stacked baseline-magpie
      ecdreg models compare stacked composition density --target k_vrh
      ecdreg models compare stacked image --split default --cv --json
    """
    from dataclasses import asdict
    from itertools import product

    from registry.errors import NotFoundError
    from registry.properties import TARGETS
    from train.analysis.comparison import compare_models

    subset = "validation" if cv else "holdout"
    with open_session() as session:
        found = []
        for one, other in product(target or TARGETS, others):
            try:
                found.append(compare_models(session, model, other, one, splits=split, subset=subset))
            except NotFoundError:
                # Of all targets, those count that both were trained for.
                if target or (one == TARGETS[-1] and not any(made.other == other for made in found)):
                    raise
    if json:
        output.json([{**asdict(one), "verdict": one.verdict} for one in found])
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


@group.command("alias")
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
    from registry.model_store import resolve_model, set_alias

    with open_session() as session:
        rows = []
        for found in resolve_model(session, model):
            set_alias(session, found, name)
            run = found.experiment
            rows.append({"model": run.name, "target": run.target, "version": run.version, "alias": name})
    output.rows(rows, json=json)


@group.command("coverage")
def coverage(
    model: ModelArgument,
    interval: Annotated[
        list[float] | None,
        typer.Option("--interval", metavar="LEVEL", help="Share of true values that intervals hold; repeatable."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show how many true values lie in their intervals, with the exact binomial interval of that share.

    Without --interval the kept intervals of 90 % count; those of a model that was trained before there were any are
    made and kept. Cross-validated crystals are counted around their out-of-fold predictions.

    \b
    Examples:
      ecdreg models coverage stacked:k_vrh
      ecdreg models coverage stacked --interval 0.5 --interval 0.8 --interval 0.95 --json
    """
    from sqlalchemy.orm import Session

    from cli.options.common import open_engine, settings
    from registry.model_store import resolve_model
    from registry.properties import property_named
    from train.prediction.intervals import fill_intervals, split_intervals
    from train.prediction.predictor import Predictor
    from train.prediction.uncertainty import CONFIDENCE, coverage

    confidences = tuple(interval or (CONFIDENCE,))
    if wrong := [one for one in confidences if not 0 < one < 1]:
        raise typer.BadParameter(f"--interval is {wrong[0]:g}; give a number between 0 and 1, for instance 0.9")
    engine = open_engine()
    with Session(engine) as session:
        models = resolve_model(session, model)
        session.expunge_all()
    rows: list[dict[str, Any]] = []
    with output.progress() as progress:
        for found in models:
            with Session(engine) as session:
                predictor = Predictor.load(session, settings(), found)
            parts = split_intervals(predictor, engine, confidences, progress=progress)
            if interval is None:
                fill_intervals(predictor, engine, progress=progress)
            for part in parts:
                for confidence, intervals in part.by_confidence.items():
                    counted = coverage(intervals, part.truth)
                    flags = intervals.out_of_domain
                    rows.append(
                        {"model": found.name, "level": confidence, "subset": part.subset, "n": counted.n}
                        | {"covered": counted.covered, "share": counted.share, "low": counted.low}
                        | {"high": counted.high, "median_width": counted.median_width}
                        | {"unit": property_named(found.experiment.target).unit}
                        | {"out_of_domain": None if flags is None else int(flags.sum())}
                    )
    if json:
        output.json(rows)
        return
    for name, unit in dict.fromkeys((row["model"], row["unit"]) for row in rows):
        chosen = [row for row in rows if row["model"] == name]
        shown = [{"interval": f"{100 * row['level']:g} %"} | coverage_row(row["subset"], row, unit) for row in chosen]
        output.table(shown, title=name)


def _list_row(row: dict[str, Any]) -> dict[str, Any]:
    aliases = "".join(f" @{name}" for name in row["aliases"])
    return {
        "model": row["name"] + aliases,
        "target": row["target"],
        "version": row["version"],
        "kind": row["kind"],
        "split": row["split"],
        "R2 cv": _pm(row["cv_r2"], row["cv_r2_sd"]),
        "RMSE cv": _pm(row["cv_rmse"], row["cv_rmse_sd"]),
        "R2 holdout": row["holdout_r2"],
        "RMSE holdout": row["holdout_rmse"],
        "unit": row["unit"],
        "status": row["status"],
        "created": f"{row['created']:%Y-%m-%d %H:%M}",
    }


def _print(card: dict[str, Any]) -> None:
    aliases = "".join(f" @{name}" for name in card["aliases"])
    finished = card["finished"]
    output.line(f"{card['model']}:{card['target']} [{card['unit']}] version {card['version']}{aliases}")
    facts = {
        "kind": card["kind"],
        "status": card["status"] + (f" {finished:%Y-%m-%d %H:%M}" if finished else ""),
        "split": card["split"],
        "seed": card["seed"],
        "code": card["code_version"],
        "config": card["config_sha256"],
        "encoders": ", ".join(card["encoders"]),
    }
    for name, value in facts.items():
        if value != "":
            output.line(f"  {name:9}{value}")
    rows = [_version_row(version) for version in card["versions"]]
    if rows:
        output.table(rows, title="Versions")
    cv, holdout = card["cv"], card["holdout"]
    scores = []
    if cv["folds"]:
        scores.append(
            {"subset": f"cv, {cv['folds']} folds, mean ± sd", "n": cv["n"]}
            | {heading: _pm(cv[name], cv[f"{name}_sd"]) for name, heading in _METRICS.items()}
        )
    if holdout:
        scores.append(
            {"subset": "holdout, refit", "n": holdout["n"]}
            | {heading: _pm(holdout[name], None) for name, heading in _METRICS.items()}
        )
    if scores:
        output.table(scores, title=f"Scores of the last phase, RMSE and MAE in {card['unit']}")
    if card["coverage"]:
        output.table(
            [coverage_row(subset, one, card["unit"]) for subset, one in card["coverage"].items()],
            title="Coverage of the 90 % intervals",
        )
    output.line("config")
    for name, value in sorted(_flat(card["config"]).items()):
        output.line(f"  {name} = {value}")


def coverage_row(subset: str, found: dict[str, Any], unit: str) -> dict[str, Any]:
    """A line of a table of coverages.

    Parameters
    ----------
    subset
        validation or holdout.
    found
        As ``ecdreg.scores.coverages`` has it.
    unit
        Of the width.
    """
    return {
        "subset": {"validation": "cv, out of fold", "holdout": "holdout, refit"}.get(subset, subset),
        "n": found["n"],
        "covered": found["covered"],
        "share": f"{100 * found['share']:.1f} %",
        "95 % binomial interval": f"{100 * found['low']:.1f} to {100 * found['high']:.1f} %",
        f"median width [{unit}]": found["median_width"],
        "out of domain": found["out_of_domain"],
    }


_METRICS = {"r2": "R2", "rmse": "RMSE", "mae": "MAE"}


def _version_row(version: dict[str, Any]) -> dict[str, Any]:
    score = version["scores"].get("holdout" if version["fold"] is None else "validation") or {}
    return {
        "fold": "refit" if version["fold"] is None else version["fold"],
        "phase": version["phase"],
        "fitted to": version["n_train"],
        "epochs": version["epochs"] or None,
        "kept": version["best_epoch"],
        "scored": score.get("n"),
        "R2": score.get("r2"),
        "RMSE": score.get("rmse"),
        "weights": version["artifact_uri"] or version["status"],
        "sha256": (version["artifact_sha256"] or "")[:12],
    }


def _pm(mean: float | None, sd: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.4g}" if sd is None else f"{mean:.3g} ± {sd:.2g}"


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings by their dotted names."""
    if isinstance(value, dict) and value:
        return {k: v for name, inner in value.items() for k, v in _flat(inner, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): str(value)}
