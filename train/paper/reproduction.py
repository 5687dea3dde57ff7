"""Reproduction of the paper: checks of its requirements, execution of its jobs, and its table of results."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from registry.checksums import json_sha256
from registry.database import session_scope
from registry.errors import NotFoundError, SplitError
from registry.image_recipes import find_recipe
from registry.jobs.progress import Progress, Silent
from registry.model_store import METRICS
from registry.models import Experiment, Property, Split, SplitMember
from registry.settings import Settings
from registry.splits.creation import SplitRule, create_split
from train.config.stored import config_of
from train.experiments.context import ExperimentContext
from train.experiments.jobs import JobOutcome, run_jobs
from train.experiments.results import read_result
from train.paper.matrix import Job, Plan, TableRow, enumerate_jobs
from train.paper.reference_models import KIND_PREFIX

__all__ = [
    "Line",
    "Missing",
    "Reproduction",
    "Stat",
    "ensure_splits",
    "finished",
    "leave_out_missing",
    "reference_lines",
    "reproduce",
    "summarise",
]


@dataclass(frozen=True)
class Stat:
    """Mean and standard deviation of one score."""

    mean: float
    sd: float | None
    """Sample standard deviation (n - 1 in the denominator); None for a single value."""
    n: int
    """Number of averaged values: folds times runs, or runs on the holdout."""


@dataclass(frozen=True)
class Line:
    """One line of the table: a model in one of its phases, averaged over folds and runs."""

    target: str
    unit: str
    row: TableRow
    kind: str
    """Kind of model in the registry."""
    phase: str
    last: bool
    """Whether this is the last phase of the model; only the last phase has a test score."""
    runs: int
    n_cv: int
    """Number of cross-validated crystals of the largest run."""
    n_holdout: int
    """Number of holdout crystals of the largest run."""
    scores: dict[str, dict[str, Stat]]
    """Statistics by subset (train, val, test) and metric (r2, rmse, mae); rmse and mae in ``unit``."""
    first_fold: dict[str, Stat]
    """Statistics of the first fold over the runs, by metric."""
    experiments: tuple[int, ...]
    """Ids of the experiments of the runs."""
    trained_on: str | None = None
    """Training data of a reference model; None for models that were trained on the split."""


@dataclass(frozen=True)
class Missing:
    """A recipe or text level that members of the splits lack."""

    what: str
    """Name of the input, for instance ``recipe paper`` or ``text level all``."""
    lacking: int
    """Number of members of the splits without it."""
    members: int
    advice: str

    def __str__(self) -> str:
        return f"{self.what} is excluded: {self.lacking} of {self.members} members of the splits lack it; {self.advice}"


@dataclass(frozen=True)
class Reproduction:
    """Results of a reproduction."""

    plan: Plan
    lines: tuple[Line, ...]
    outcomes: tuple[JobOutcome, ...]
    jobs: tuple[Job, ...]

    @property
    def failed(self) -> list[tuple[Job, str]]:
        """Jobs without a result, each with the reason."""
        return [(self.jobs[o.place], o.error) for o in self.outcomes if o.error is not None]


def ensure_splits(engine: Engine, plan: Plan, *, make: bool, iqr: float | None = 1.5) -> list[str]:
    """Check that every split of a plan exists; create missing ones by the rule of the paper if ``make`` is set.

    The rule is 15 % holdout, five folds, and exclusion of crystals with a slice maximum or minimum more than ``iqr``
    interquartile ranges outside the quartiles of the cv rows (Massa et al., arXiv 2401.09301).

    Parameters
    ----------
    plan
        Plan with targets, seeds and splits. A created split contains the crystals with the first of its recipes and all
        its text levels.
    make
        Whether to create missing splits.
    iqr
        Factor of the exclusion; None excludes no crystal.

    Returns
    -------
    list of str
        A message for each created split.

    Raises
    ------
    NotFoundError
        If a split is missing and ``make`` is not set.
    SplitError
        As :func:`registry.splits.creation.create_split`.
    """
    wanted = [(target, name, seed) for target in plan.targets for name, seed in plan.runs(target)]
    with Session(engine) as session:
        known = set(session.execute(select(Split.name, Split.target)).all())
    missing = [(target, name, seed) for target, name, seed in wanted if (name, target) not in known]
    if missing and not make:
        target, name, _ = missing[0]
        others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise NotFoundError(
            f"no split {name!r} for {target}{others}; `ecdreg split import {name}.csv --target {target}` imports a"
            " published one, --make-splits creates them by the rule of the paper, --split names others"
        )
    made = []
    for target, name, seed in missing:
        # The texts of all levels come from one description, so that a crystal with the longest text has all.
        level = None if set(plan.stages) == {"image"} else ("all" if "all" in plan.text_levels else plan.text_levels[0])
        recipe = None if set(plan.stages) == {"text"} else plan.recipes[0]
        with session_scope(engine) as session:
            split = create_split(
                session,
                name,
                target=target,
                rule=SplitRule(seed=seed, recipe=recipe, text_level=level, iqr=iqr if recipe is not None else None),
            )
            members = session.scalars(select(SplitMember.subset).where(SplitMember.split_id == split.id)).all()
        counts = {subset: members.count(subset) for subset in ("cv", "holdout", "excluded")}
        made.append(
            f"created split {name!r} for {target}: {counts['cv']} crystals in 5 folds,"
            f" {counts['holdout']} in the holdout, {counts['excluded']} excluded"
        )
    return made


_LACKING_IMAGE = """
SELECT count(DISTINCT m.revision_id) AS members,
       count(DISTINCT m.revision_id) FILTER (WHERE s.revision_id IS NULL) AS lacking
FROM splits t JOIN split_members m ON m.split_id = t.id AND m.subset <> 'excluded'
LEFT JOIN slice_images s ON s.revision_id = m.revision_id AND s.recipe_id = :recipe_id
WHERE (t.name || ':' || t.target) = ANY(CAST(:splits AS text[]))
"""
_LACKING_TEXT = """
SELECT count(DISTINCT m.revision_id) AS members,
       count(DISTINCT m.revision_id) FILTER (WHERE d.revision_id IS NULL) AS lacking
FROM splits t JOIN split_members m ON m.split_id = t.id AND m.subset <> 'excluded'
LEFT JOIN descriptions d ON d.revision_id = m.revision_id AND d.text_level = :text_level
WHERE (t.name || ':' || t.target) = ANY(CAST(:splits AS text[]))
"""


def leave_out_missing(session: Session, plan: Plan) -> tuple[Plan, list[Missing]]:
    """Exclude recipes and text levels that members of the splits lack, so that all models have the same rows.

    Parameters
    ----------
    session
        Only read.
    plan
        Plan with existing splits.

    Returns
    -------
    tuple
        The plan without them, and the excluded inputs.

    Raises
    ------
    SplitError
        If no input of a stage remains.
    """
    splits = [f"{name}:{target}" for target in plan.targets for name, _ in plan.runs(target)]
    missing = []
    reads_images = set(plan.stages) != {"text"}
    for recipe in plan.recipes if reads_images else ():
        ingest = f"`ecdreg ingest --recipe {recipe}` with the options of the source creates it"
        if recipe == "imported":
            ingest = "images/<id>.png in the folder of a source provides it"
        elif recipe in ("paper", "paper-fourier"):
            ingest += ", for crystals that have a spin density"
        try:
            recipe_id = find_recipe(session, recipe).id
        except NotFoundError:
            recipe_id = -1
        found = session.execute(text(_LACKING_IMAGE), {"recipe_id": recipe_id, "splits": splits}).one()
        if found.lacking:
            missing.append(Missing(f"recipe {recipe}", found.lacking, found.members, ingest))
    reads_texts = set(plan.stages) != {"image"}
    for level in plan.text_levels if reads_texts else ():
        found = session.execute(text(_LACKING_TEXT), {"text_level": level, "splits": splits}).one()
        if found.lacking:
            advice = "`ecdreg ingest` with the options of the source creates texts"
            missing.append(Missing(f"text level {level}", found.lacking, found.members, advice))
    left_out = {one.what for one in missing}
    left = replace(
        plan,
        recipes=tuple(name for name in plan.recipes if f"recipe {name}" not in left_out),
        text_levels=tuple(level for level in plan.text_levels if f"text level {level}" not in left_out),
    )
    if (reads_images and not left.recipes) or (reads_texts and not left.text_levels):
        raise SplitError(str(missing[0]))
    return left, missing


def reproduce(
    engine: Engine,
    settings: Settings,
    plan: Plan,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
    on_outcome: Callable[[JobOutcome], None] | None = None,
) -> Reproduction:
    """Run the jobs of a plan that are not finished, and read its table.

    Parameters
    ----------
    engine
        Features and experiments are committed through it.
    settings
        Settings of the database and the artifacts.
    plan
        Plan with existing splits, recipes and texts.
    workers, scheduler, progress, on_outcome
        As for :func:`train.experiments.jobs.run_jobs`.
    """
    progress = progress or Silent()
    jobs = enumerate_jobs(plan)
    _compute_features(engine, settings, jobs, progress)
    outcomes = run_jobs(settings, jobs, workers=workers, scheduler=scheduler, progress=progress, on_outcome=on_outcome)
    with Session(engine) as session:
        lines = [*summarise(session, jobs, outcomes), *reference_lines(session, plan)]
    return Reproduction(plan, tuple(lines), tuple(outcomes), tuple(jobs))


def finished(session: Session, plan: Plan) -> Reproduction:
    """Read the table of the finished jobs of a plan, without running any.

    Parameters
    ----------
    session
        Only read.
    plan
        Plan; its jobs without a finished experiment count as failed.
    """
    started = time.perf_counter()
    jobs = enumerate_jobs(plan)
    found = session.execute(
        select(Experiment, Split.name)
        .join(Split, Split.id == Experiment.split_id)
        .where(
            Experiment.status == "finished",
            Split.name.in_({job.split for job in jobs}),
            Experiment.kind.in_({job.config.kind for job in jobs}),
        )
        .order_by(Experiment.version)
    ).all()
    # The newest version counts.
    known = {(split, one.name, one.seed, json_sha256(config_of(one).to_dict())): one for one, split in found}
    outcomes = []
    for place, job in enumerate(jobs):
        one = known.get((job.split, job.config.kind, job.seed, json_sha256(job.config.to_dict())))
        result = None if one is None else read_result(session, one, "unchanged", started, ())
        outcomes.append(JobOutcome(place, result, None if result else "not trained yet"))
    lines = [*summarise(session, jobs, outcomes), *reference_lines(session, plan)]
    return Reproduction(plan, tuple(lines), tuple(outcomes), tuple(jobs))


def summarise(session: Session, jobs: Sequence[Job], outcomes: Iterable[JobOutcome]) -> list[Line]:
    """Compute the lines of the table for every row and phase, over folds and runs.

    Parameters
    ----------
    session
        Only read.
    jobs, outcomes
        Jobs and their outcomes; jobs without a result are skipped.
    """
    groups: dict[tuple[str, TableRow], list[tuple[Job, int]]] = {}
    for outcome in outcomes:
        if outcome.result is not None:
            job = jobs[outcome.place]
            groups.setdefault((job.config.target, job.row), []).append((job, outcome.result.experiment_id))
    units = dict(session.execute(select(Property.name, Property.unit)).all())
    everything = _scores(session, [ident for found in groups.values() for _, ident in found])
    lines = []
    for (target, row), found in groups.items():
        config = found[0][0].config
        phases = [phase for phase in config.phases if any((i, phase) in everything for _, i in found)]
        for phase in phases:
            records = {ident: everything.get((ident, phase), []) for _, ident in found}
            lines.append(_line(records, target, units.get(target, ""), row, config.kind, phase, phase == phases[-1]))
    return lines


def reference_lines(session: Session, plan: Plan) -> list[Line]:
    """Compute the lines of reference models that were scored on the splits of a plan.

    They were not fitted here; their scores are those of the validation rows of each fold, and of the holdout.

    Parameters
    ----------
    session
        Only read.
    plan
        Plan with the targets and splits.
    """
    names = {(name, target) for target in plan.targets for name, _ in plan.runs(target)}
    found = session.execute(
        select(Experiment, Split.name, Property.unit)
        .join(Split, Split.id == Experiment.split_id)
        .join(Property, Property.name == Experiment.target)
        .where(Experiment.status == "finished", Experiment.kind.startswith(KIND_PREFIX))
    ).all()
    # The newest of those with most subsets counts.
    ordered = sorted(found, key=lambda row: (len(row[0].config["subsets"]), row[0].version))
    newest = {
        (one.target, one.name, split): (one, unit) for one, split, unit in ordered if (split, one.target) in names
    }
    groups: dict[tuple[str, str], list[tuple[Experiment, str]]] = {}
    for (target, name, _), run in newest.items():
        groups.setdefault((target, name), []).append(run)
    everything = _scores(session, [one.id for runs in groups.values() for one, _ in runs])
    lines = []
    for (target, name), runs in sorted(groups.items()):
        first, unit = runs[0]
        records = {one.id: everything.get((one.id, "fit"), []) for one, _ in runs}
        line = _line(records, target, unit, TableRow(name, None, None), first.kind, "fit", True)
        lines.append(replace(line, first_fold={}, trained_on=str(first.config["trained_on"])))
    return lines


@dataclass(frozen=True)
class _Record:
    fold: int | None
    subset: str
    name: str
    value: float
    n: int


def _scores(session: Session, experiments: Sequence[int]) -> dict[tuple[int, str], list[_Record]]:
    found = session.execute(
        text(
            "SELECT m.experiment_id, m.phase, m.fold, k.subset, k.name, k.value, k.n FROM model_versions m"
            " JOIN metrics k ON k.model_version_id = m.id WHERE m.experiment_id = ANY(:ids) ORDER BY m.id, k.subset"
        ),
        {"ids": list(experiments)},
    )
    records: dict[tuple[int, str], list[_Record]] = {}
    for row in found:
        records.setdefault((row.experiment_id, row.phase), []).append(
            _Record(row.fold, row.subset, row.name, row.value, row.n)
        )
    return records


def _line(
    records: dict[int, list[_Record]], target: str, unit: str, row: TableRow, kind: str, phase: str, last: bool
) -> Line:
    every = [record for found in records.values() for record in found]

    def chosen(subset: str, name: str) -> list[float]:
        # The refit is trained on all cv rows, so that its scores on them are not in the table.
        return [
            r.value for r in every if (r.subset, r.name) == (subset, name) and (r.fold is None) == (subset == "holdout")
        ]

    first = {
        ident: min((r.fold for r in found if r.fold is not None), default=None) for ident, found in records.items()
    }
    scores: dict[str, dict[str, Stat]] = {}
    first_fold: dict[str, Stat] = {}
    for name in METRICS:
        for label, subset in (("train", "train"), ("val", "validation"), ("test", "holdout")):
            if values := chosen(subset, name):
                scores.setdefault(label, {})[name] = _stat(values)
        alone = [
            r.value
            for ident, found in records.items()
            for r in found
            if (r.subset, r.name) == ("validation", name) and r.fold is not None and r.fold == first[ident]
        ]
        if alone:
            first_fold[name] = _stat(alone)

    def rows(subset: str) -> int:
        sizes = [
            sum(
                r.n
                for r in found
                if (r.subset, r.name) == (subset, "rmse") and (r.fold is None) == (subset == "holdout")
            )
            for found in records.values()
        ]
        return max(sizes, default=0)

    return Line(
        target=target,
        unit=unit,
        row=row,
        kind=kind,
        phase=phase,
        last=last,
        runs=sum(bool(found) for found in records.values()),
        n_cv=rows("validation"),
        n_holdout=rows("holdout"),
        scores=scores,
        first_fold=first_fold,
        experiments=tuple(records),
    )


def _stat(values: Sequence[float]) -> Stat:
    return Stat(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def _compute_features(engine: Engine, settings: Settings, jobs: Sequence[Job], progress: Progress) -> None:
    """Compute the frozen features of all jobs once, before jobs run in several processes."""
    context = ExperimentContext.open(engine, settings, progress=progress)
    computed: set[Any] = set()
    for job in jobs:
        # The features of a job do not depend on its target.
        identity = (job.config.kind, job.row)
        if identity in computed:
            continue
        computed.add(identity)
        context.inputs(job.config, None)
