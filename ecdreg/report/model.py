"""Report of a model as one self-contained HTML page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from ecdreg.explanation import explain
from ecdreg.figures.fields import slices_figure
from ecdreg.figures.files import inline_svg
from ecdreg.figures.fold_curves import fold_curves_figure
from ecdreg.figures.predictions import intervals_figure, parity_figure
from ecdreg.models.scores import mean_sd
from ecdreg.output.files import check_output_path, write_output
from ecdreg.output.rendering import number, plus_minus, render
from ecdreg.report.calibration import interval_calibration
from ecdreg.report.content import read_content
from ecdreg.report.explanation import explanation_views
from registry.model_store import resolve_model

if TYPE_CHECKING:
    from markupsafe import Markup

    from ecdreg.connection import RegistryConnection
    from ecdreg.explained_prediction import ExplainedPrediction
    from ecdreg.report.content import Point, ReportContent
    from registry.jobs.progress import Progress

__all__ = ["model_page", "model_report", "write_model_report"]

N_WORST = 12
"""Number of rows of the table of the largest errors."""


def model_report(
    registry: RegistryConnection,
    model: str,
    *,
    samples: int = 4,
    crystals: Sequence[str] = (),
    progress: Progress | None = None,
) -> str:
    """Make the report of a model: scores, comparison with baselines, parity plot, intervals, learning curves.

    Parameters
    ----------
    registry
        An open registry. Missing features and intervals are computed and stored.
    model
        ``name[:target][@alias or @version]``; without a target, every target has a section.
    samples
        Number of crystals whose slices and texts are shown.
    crystals
        Ids of crystals; the prediction for each is explained at the end.
    progress
        Receives the progress of the explanations.

    Returns
    -------
    str
        An HTML document that requests nothing.

    Raises
    ------
    NotFoundError, AmbiguousIdError
        If there is no such model, target or crystal, or several.
    IncompatibleInputError
        If a crystal lacks an input of the model.
    """
    with Session(registry.engine) as session:
        found = resolve_model(session, model)
        explanations = explain(registry, model, crystals, progress=progress) if crystals else ()
        contents = [
            read_content(
                session,
                one.experiment,
                one.model_version,
                n_samples=samples,
                calibration=interval_calibration(registry.engine, registry.settings, one),
            )
            for one in found
        ]
        return model_page(contents, explanations=explanations)


def write_model_report(
    registry: RegistryConnection,
    model: str,
    path: Path,
    *,
    samples: int = 4,
    crystals: Sequence[str] = (),
    progress: Progress | None = None,
) -> Path:
    """Write the report of a model to an HTML file; the path is checked before the work.

    Parameters
    ----------
    registry, model, samples, crystals, progress
        As in :func:`model_report`.
    path
        The file.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    ConfigurationError
        If the file cannot be written.
    """
    check_output_path(path)
    page = model_report(registry, model, samples=samples, crystals=crystals, progress=progress)
    return write_output(path, page)


def model_page(contents: Sequence[ReportContent], *, explanations: Sequence[ExplainedPrediction] = ()) -> str:
    """Render the report of a model.

    Parameters
    ----------
    contents
        One item for each target.
    explanations
        Explanations of predictions, as :func:`ecdreg.explanation.explain` returns them.

    Raises
    ------
    ValueError
        If there are no contents.
    """
    if not contents:
        raise ValueError("no experiments to report")
    return render(
        "report/model.html.j2",
        targets=[_view(content) for content in contents],
        explanations=explanation_views(explanations),
    )


@dataclass(frozen=True)
class _TargetView:
    """Values of the template ``model_target.html.j2``."""

    content: ReportContent
    description: str
    """Description of the target, to continue a sentence."""
    cards: list[tuple[str, str]]
    """Main scores as pairs of value and label."""
    summary: dict[str, str]
    """Mean and standard deviation over the folds, by score."""
    other_rows: list[str]
    """Models of the leaderboard that were scored on other rows."""
    parity: Markup | None
    intervals: Markup | None
    worst: list[Point]
    curves: Markup | None
    seconds: float
    slices: Markup | None
    reasons: list[tuple[str, int]]
    """Kinds of reasons for an exclusion, with the number of crystals."""
    provenance: list[tuple[str, str]]
    documents: list[tuple[str, str]]
    """Titles and JSON texts."""


def _view(content: ReportContent) -> _TargetView:
    target, unit, points = content.target, content.unit, content.points
    has_intervals = any(p.lower is not None for p in points)
    return _TargetView(
        content=content,
        description=content.target_description[:1].lower() + content.target_description[1:].rstrip("."),
        cards=_cards(content),
        summary={name: plus_minus(*_mean_sd(content, name)) for name in ("r2", "rmse", "mae")},
        other_rows=sorted({entry.model for entry in content.leaderboard if not entry.same_rows}),
        parity=inline_svg(parity_figure(points, target=target, unit=unit), f"{target}-parity") if points else None,
        intervals=inline_svg(
            intervals_figure(points, content.calibration, target=target, unit=unit), f"{target}-intervals"
        )
        if has_intervals
        else None,
        worst=sorted(points, key=lambda p: -abs(p.error))[:N_WORST],
        curves=inline_svg(fold_curves_figure(content.curves), f"{target}-epochs") if content.curves else None,
        seconds=sum(curve.seconds for curve in content.curves),
        slices=_slices(content),
        # The text before the first colon is the kind of the reason.
        reasons=Counter(reason.partition(":")[0] for _, reason in content.excluded).most_common(),
        provenance=[(term, value) for term, value in _provenance(content) if value],
        documents=[
            (title, json.dumps(value, indent=2, sort_keys=True)) for title, value in _documents(content) if value
        ],
    )


def _mean_sd(content: ReportContent, name: str) -> tuple[float | None, float | None]:
    return mean_sd([getattr(fold.score, name) for fold in content.folds])


def _cards(content: ReportContent) -> list[tuple[str, str]]:
    cards = []
    r2, rmse = _mean_sd(content, "r2"), _mean_sd(content, "rmse")
    if r2[0] is not None:
        cards.append((plus_minus(*r2), f"R² in cross-validation, mean ± sd of {len(content.folds)} folds"))
        cards.append((f"{plus_minus(*rmse)} {content.unit}", "RMSE in cross-validation"))
    if content.holdout is not None:
        cards.append((number(content.holdout.r2), f"R² on the holdout, n = {content.holdout.n}"))
        cards.append((f"{number(content.holdout.rmse)} {content.unit}", "RMSE on the holdout, predicted once"))
    return cards


def _slices(content: ReportContent) -> Markup | None:
    drawn = [sample for sample in content.samples if sample.pixels is not None]
    if content.recipe is None or not drawn:
        return None
    figure = slices_figure(drawn, channels=content.channels, extent=content.window, unit=content.recipe.unit)
    return inline_svg(figure, f"{content.target}-slices")


def _provenance(content: ReportContent) -> list[tuple[str, str]]:
    run, refit, split = content.experiment, content.refit, content.split
    pairs = [
        ("experiment", f"{run.id}: {run.name}:{run.target}@{run.version}, {run.status}, seed {run.seed}"),
        ("code version", run.code_version),
        ("config sha256", run.config_sha256),
        ("model version", f"{refit.id}, phase {refit.phase}, fitted to {refit.n_train} rows"),
        ("artifact", refit.artifact_uri or f"{refit.status}: its weights were not kept"),
        ("artifact sha256", refit.artifact_sha256 or ""),
        ("split", f"{split.name}, {split.origin}, {split.created_at:%Y-%m-%d %H:%M %Z}"),
    ]
    if content.recipe is not None:
        pairs.append(("image recipe", f"{content.recipe.name}, sha256 {content.recipe.sha256}"))
    pairs += [
        ("encoder", f"{e.name}: {e.modality}, {e.dim} dimensions, weights {e.weights_sha256}") for e in content.encoders
    ]
    return pairs


def _documents(content: ReportContent) -> list[tuple[str, Any]]:
    documents: list[tuple[str, Any]] = [
        ("Configuration", content.experiment.config),
        ("Rule of the split", content.split.parameters),
        ("Scalers", content.refit.scalers),
        ("IQR bounds of the split", content.split.iqr_bounds),
    ]
    if content.recipe is not None:
        documents.append(("Parameters of the image recipe", content.recipe.parameters))
    return documents
