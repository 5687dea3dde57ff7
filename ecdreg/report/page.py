"""A report as one self-contained HTML page: inline CSS, inline SVG, no script, no request."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ecdreg.report import explanation, figures
from ecdreg.report.markup import document
from ecdreg.report.markup import escaped as _e
from ecdreg.report.markup import figure as _figure
from ecdreg.report.markup import number as _num
from ecdreg.report.markup import plus_minus as _pm
from ecdreg.report.markup import table as _table
from ecdreg.scores import mean_sd

if TYPE_CHECKING:
    from ecdreg.report.content import Point, ReportContent, Rival
    from ecdreg.scores import Fold, Score
    from train.analysis.explanation import Explanation

__all__ = ["render"]

N_WORST = 12
"""Rows of the table of worst predictions."""


def render(contents: Sequence[ReportContent], *, explanations: Sequence[tuple[Explanation, str | None]] = ()) -> str:
    """The page of one model, a section per target.

    Parameters
    ----------
    contents
        One item per target.
    explanations
        Predictions that are explained, with their 90 % intervals in words.

    Returns
    -------
    str
        A whole HTML document that requests nothing from anywhere.

    Raises
    ------
    ValueError
        If there is nothing to report.
    """
    if not contents:
        raise ValueError("no experiments to report")
    several = len(contents) > 1
    first = contents[0]
    name = f"{first.experiment.name}: {', '.join(c.target for c in contents)}"
    parts = [f"<h1>{_e(first.experiment.name)}</h1>" if several else ""]
    if several:
        links = "".join(f'<a href="#{_e(c.target)}">{_e(c.target)}</a>' for c in contents)
        parts.append(f"<p class=lead>{len(contents)} targets</p><nav>{links}</nav>")
    parts += [_target(c) for c in contents]
    parts += [explanation.section(one, interval=interval) for one, interval in explanations]
    parts.append(
        f"<footer>Made by ecdreg ({_e(first.code_version)}) on {first.made_at:%Y-%m-%d %H:%M %Z} from the registry's"
        " tables; <code>ecdreg report</code> makes it anew.</footer>"
    )
    body = "\n".join(part for part in parts if part)
    return document(f"{name} · ecdreg report", body, css=explanation.CSS if explanations else "")


# ----------------------------------------------------------------------------- sections


def _target(content: ReportContent) -> str:
    return f'<section id="{_e(content.target)}">' + "\n".join(
        [
            _header(content),
            _cards(content),
            _scores(content),
            _parity(content),
            _intervals(content),
            _worst(content),
            _curves(content),
            _inputs(content),
            _excluded(content),
            _provenance(content),
            "</section>",
        ]
    )


def _header(content: ReportContent) -> str:
    run, split = content.experiment, content.split
    aliases = f" ({', '.join('@' + a for a in content.aliases)})" if content.aliases else ""
    return (
        f"<h1>{_e(run.name)} for {_e(content.target)} [{_e(content.unit)}]</h1>"
        f"<p class=lead>Version {run.version}{_e(aliases)}, a <code>{_e(run.kind)}</code> model of"
        f" {_e(_lower(content.target_description))}; split <code>{_e(split.name)}</code>:"
        f" {content.members['cv']} crystals in {split.n_folds} folds, {content.members['holdout']} held out,"
        f" {content.members['excluded']} excluded; trained {_e(_when(run.finished_at or run.created_at))}.</p>"
    )


def _cards(content: ReportContent) -> str:
    cards = []
    r2, rmse = (mean_sd([_get(f.score, name) for f in content.folds]) for name in ("r2", "rmse"))
    if r2[0] is not None:
        cards.append((_pm(*r2), f"R² in cross-validation, mean ± sd of {len(content.folds)} folds"))
        cards.append((f"{_pm(*rmse)} {content.unit}", "RMSE in cross-validation"))
    if content.holdout is not None:
        cards.append((_num(content.holdout.r2), f"R² on the holdout, n = {content.holdout.n}"))
        cards.append((f"{_num(content.holdout.rmse)} {content.unit}", "RMSE on the holdout, predicted once"))
    inner = "".join(f"<div class=card><b>{_e(value)}</b><span>{_e(label)}</span></div>" for value, label in cards)
    return f"<div class=cards>{inner}</div>" if cards else ""


def _scores(content: ReportContent) -> str:
    unit = content.unit
    parts = ["<h2>Scores</h2>"]
    if content.folds:
        head = ["fold", "fitted to", "kept epoch", "scored", "R²", f"RMSE [{unit}]", f"MAE [{unit}]"]
        rows = [_fold_row(fold) for fold in content.folds]
        names = ("r2", "rmse", "mae")
        summary = [_pm(*mean_sd([_get(f.score, name) for f in content.folds])) for name in names]
        rows.append(["mean ± sd", "", "", str(sum(f.score.n for f in content.folds)), *summary])
        classes = [""] * len(content.folds) + ["sum"]
        if content.holdout is not None:
            h = content.holdout
            epoch = "" if content.refit.best_epoch is None else str(content.refit.best_epoch)
            rows.append(
                ["holdout (refit)", str(content.refit.n_train), epoch, str(h.n), _num(h.r2), _num(h.rmse), _num(h.mae)]
            )
            classes.append("")
        parts.append(_table(head, rows, numeric=range(1, 7), classes=classes))
    parts.append(
        "<p>“±” is the standard deviation over the folds: it says how much a score hangs on which crystals were left"
        " out, and is no error bar of the mean, because the folds share most of their training rows. The holdout is one"
        " draw; it was predicted once, by the model refitted on all folds.</p>"
    )
    if content.rivals:
        parts.append("<h3>Beside the other models of this split and target</h3>")
        head = ["model", "version", "n cv", "R² cv", f"RMSE cv [{unit}]", "n holdout", "R² holdout", "RMSE holdout"]
        parts.append(
            _table(
                [*head, "same rows"],
                [_rival_row(r) for r in content.rivals],
                numeric=range(1, 8),
                classes=["this" if r.this else "" for r in content.rivals],
            )
        )
        parts += [
            f"<p class=soft>* {_e(r.model)} was trained elsewhere, on: {_e(r.trained_on)}.</p>"
            for r in content.rivals
            if r.trained_on
        ]
        differing = [r.model for r in content.rivals if not r.same_rows]
        parts.append(
            "<p class=soft>From <code>v_leaderboard</code>. "
            + (
                "Every model above was scored on exactly the same crystals.</p>"
                if not differing
                else f"Scored on other rows, so not comparable row by row: {_e(', '.join(sorted(set(differing))))}.</p>"
            )
        )
    return "".join(parts)


def _parity(content: ReportContent) -> str:
    if not content.points:
        return "<h2>Predicted against true</h2><p>This version has no predictions of labelled crystals.</p>"
    svg = figures.parity(content.points, target=content.target, unit=content.unit)
    return "<h2>Predicted against true</h2>" + _figure(
        svg,
        f"Parity plot of {content.target}",
        "Each crystal of cv is predicted by the model of the fold that did not see it (open circles); the holdout by"
        " the refit (filled diamonds). The line is perfect agreement. Right: predicted minus true, each histogram of"
        " area one.",
    )


def _intervals(content: ReportContent) -> str:
    if not any(p.lower is not None for p in content.points):
        return ""
    unit = content.unit
    head = ["crystals", "n", "in their interval", "share", "95 % binomial", f"median width [{unit}]", "out of domain"]
    rows = [
        [
            "cv, out of fold" if subset == "validation" else "holdout",
            str(found["n"]),
            str(found["covered"]),
            f"{100 * found['share']:.1f} %",
            f"{100 * found['low']:.1f} to {100 * found['high']:.1f} %",
            _num(found["median_width"]),
            str(found["out_of_domain"]),
        ]
        for subset, found in sorted(content.coverage.items(), key=lambda item: item[0] != "validation")
    ]
    svg = figures.intervals(content.points, content.calibration, target=content.target, unit=unit)
    return (
        "<h2>How far off it may be</h2>"
        + _table(head, rows, numeric=range(1, 7))
        + _figure(
            svg,
            f"Intervals and calibration of {content.target}",
            "Intervals of CV+ from the errors on crystals that a model had not seen, wider for crystals far from those"
            " that it was fitted to. Left: the holdout, sorted by its true values. Right: the share of true values that"
            " intervals of each level hold; on the line they hold what they promise. “Out of domain” is a crystal"
            " farther from the cross-validated ones than 99 % of these from those of other folds.",
        )
    )


def _worst(content: ReportContent) -> str:
    if not content.points:
        return ""
    worst = sorted(content.points, key=lambda p: -abs(p.error))[:N_WORST]
    unit = content.unit
    head = ["id", "formula", "prototype", "subset", f"true [{unit}]", "predicted", "90 % interval", "error", "spread"]
    note = (
        "<p class=soft>“spread” is the standard deviation of the fold models' predictions for a crystal that none of"
        " them saw: where it is large they disagree; it is no error bar. Out-of-fold predictions come from one model"
        " and have none.</p>"
    )
    return (
        "<h2>Worst predictions</h2>"
        + _table(head, [_point_row(p) for p in worst], numeric=range(4, 9))
        + (note if any(p.spread is not None for p in worst) else "")
    )


def _curves(content: ReportContent) -> str:
    if not content.curves:
        return "<h2>Learning curves</h2><p>None: this model is fitted in one go, without epochs.</p>"
    seconds = sum(c.seconds for c in content.curves)
    return "<h2>Learning curves</h2>" + _figure(
        figures.learning_curves(content.curves, target=content.target),
        "Learning curves per fold",
        "Mean squared error of the standardised target. Early stopping looks at an inner tenth of the training fold,"
        " never at the fold that is scored; the triangle marks the epoch whose weights were kept. The refit has no such"
        f" rows and runs for the folds' median number of epochs. Epochs took {_num(seconds)} s in all.",
    )


def _inputs(content: ReportContent) -> str:
    parts = []
    if content.recipe is not None and any(s.pixels is not None for s in content.samples):
        shown = [s for s in content.samples if s.pixels is not None]
        extent = content.window
        plane = (
            f"window {extent[0]:g} Å × {extent[1]:g} Å" if extent else "axes in pixels: the recipe has no metric in Å"
        )
        values = f"values in {content.recipe.unit}" if content.recipe.unit else "values without a unit"
        parts.append(
            _figure(
                figures.slices(
                    shown, channels=content.channels, extent=extent, unit=content.recipe.unit, target=content.target
                ),
                f"Sample slices of recipe {content.recipe.name}",
                f"Recipe <code>{_e(content.recipe.name)}</code>, {_e(values)}, {_e(plane)}. From the smallest to the"
                " largest label. All crystals share a channel's colours, cut at the 1 % and 99 % quantiles, so that"
                " absolute densities can be compared; the scale is linear around zero and logarithmic far from it."
                " Contours on fields with a sign, at 5 % and 50 % of the scale: solid above zero, dashed below.",
                raw_caption=True,
            )
        )
    texts = [s for s in content.samples if s.text]
    if texts:
        rows = [[s.source_id, s.formula, s.space_group or "", _num(s.true), s.text or ""] for s in texts]
        head = ["id", "formula", "space group", f"{content.target} [{content.unit}]", "text"]
        parts.append(f"<h3>Texts at level <code>{_e(content.text_level or '')}</code></h3>")
        parts.append(_table(head, rows, numeric=[3]))
    if not parts:
        return ""
    return "<h2>Some of the crystals</h2>" + "".join(parts)


def _excluded(content: ReportContent) -> str:
    if not content.excluded:
        return "<h2>Excluded from the split</h2><p>None.</p>"
    # What stands before the first colon is the kind of reason.
    counts = Counter(reason.partition(":")[0] for _, reason in content.excluded)
    summary = _table(["reason", "crystals"], [[r, str(n)] for r, n in counts.most_common()], numeric=[1])
    is_open = " open" if len(content.excluded) <= 10 else ""
    listing = _table(["id", "reason"], [list(pair) for pair in content.excluded])
    return (
        f"<h2>Excluded from the split</h2>{summary}"
        f"<details{is_open}><summary>Every one of them</summary>{listing}</details>"
    )


def _provenance(content: ReportContent) -> str:
    run, refit, split = content.experiment, content.refit, content.split
    pairs = [
        ("experiment", f"{run.id}: {run.name}:{run.target}@{run.version}, {run.status}, seed {run.seed}"),
        ("code version", run.code_version),
        ("config sha256", run.config_sha256),
        ("model version", f"{refit.id}, phase {refit.phase}, fitted to {refit.n_train} rows"),
        ("artifact", refit.artifact_uri or f"{refit.status}: its weights were not kept"),
        ("artifact sha256", refit.artifact_sha256 or ""),
        ("split", f"{split.name}, {split.origin}, {_when(split.created_at)}"),
    ]
    if content.recipe is not None:
        pairs.append(("image recipe", f"{content.recipe.name}, sha256 {content.recipe.sha256}"))
    pairs += [
        ("encoder", f"{e.name}: {e.modality}, {e.dim} wide, weights {e.weights_sha256}") for e in content.encoders
    ]
    inner = "".join(f"<dt>{_e(k)}</dt><dd><code>{_e(v)}</code></dd>" for k, v in pairs if v)
    blocks = [("Configuration", run.config), ("Rule of the split", split.parameters), ("Scalers", refit.scalers)]
    if split.iqr_bounds:
        blocks.append(("IQR bounds of the split", split.iqr_bounds))
    if content.recipe is not None:
        blocks.append(("Parameters of the image recipe", content.recipe.parameters))
    details = "".join(
        f"<details><summary>{_e(title)}</summary><pre>{_e(json.dumps(value, indent=2, sort_keys=True))}</pre></details>"
        for title, value in blocks
        if value
    )
    return f"<h2>Provenance</h2><dl>{inner}</dl>{details}"


# --------------------------------------------------------------------------------- rows


def _fold_row(fold: Fold) -> list[str]:
    score = fold.score
    epoch = "" if fold.best_epoch is None else str(fold.best_epoch)
    return [
        str(fold.fold), str(fold.n_train), epoch, str(score.n), _num(score.r2), _num(score.rmse), _num(score.mae),
    ]  # fmt: skip


def _rival_row(rival: Rival) -> list[str]:
    holdout = rival.holdout
    return [
        rival.model + ("*" if rival.trained_on else ""),
        str(rival.version) + (f" ({rival.n_runs} runs)" if rival.n_runs > 1 else ""),
        str(rival.cv.n),
        _pm(rival.cv.r2, rival.cv_r2_sd),
        _pm(rival.cv.rmse, rival.cv_rmse_sd),
        "" if holdout is None else str(holdout.n),
        "" if holdout is None else _num(holdout.r2),
        "" if holdout is None else _num(holdout.rmse),
        "yes" if rival.same_rows else "no",
    ]


def _point_row(point: Point) -> list[str]:
    subset = "holdout" if point.subset == "holdout" else f"fold {point.fold}"
    return [
        point.source_id,
        point.formula,
        point.prototype or "",
        subset,
        _num(point.true),
        _num(point.predicted),
        "" if point.lower is None else f"{_num(point.lower)} to {_num(point.upper)}",
        f"{point.error:+#.3g}".rstrip("."),
        _num(point.spread),
    ]


# ------------------------------------------------------------------------------ helpers


def _get(score: Score, name: str) -> float | None:
    value: float | None = getattr(score, name)
    return value


def _when(moment: object) -> str:
    return f"{moment:%Y-%m-%d %H:%M %Z}" if moment is not None else ""


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].rstrip(".")
