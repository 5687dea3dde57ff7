"""A reproduction: what it needs is checked, its matrix is run, and its table is read from the registry."""

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
from registry.splits.creation import create_split
from train.experiments.context import ExperimentContext
from train.experiments.jobs import JobOutcome, run_jobs
from train.experiments.results import config_of, read_result
from train.paper.matrix import Job, Plan, TableRow, enumerate_jobs

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
    """n - 1 in the denominator; None for a single number."""
    n: int
    """Numbers that were averaged: folds times runs, or runs on the holdout."""


@dataclass(frozen=True)
class Line:
    """One line of the table: a kind of model in one of its phases, over folds and runs."""

    target: str
    unit: str
    row: TableRow
    kind: str
    """Kind of model in the registry."""
    phase: str
    last: bool
    """Whether this is the phase that the model ends with; only then is there a test score."""
    runs: int
    n_cv: int
    """Crystals that the folds score, of the largest run."""
    n_holdout: int
    """Crystals of the holdout, of the largest run."""
    scores: dict[str, dict[str, Stat]]
    """By subset (train, val, test) and score (r2, rmse, mae); rmse and mae in ``unit``."""
    first_fold: dict[str, Stat]
    """By score: the first fold alone, over the runs."""
    experiments: tuple[int, ...]
    """Ids of the runs."""
    trained_on: str | None = None
    """What a published model of others was trained on; None for what was trained on the split."""


@dataclass(frozen=True)
class Missing:
    """A recipe or text level that members of the splits lack."""

    what: str
    """``recipe paper``, ``text level all``."""
    lacking: int
    members: int
    advice: str

    def __str__(self) -> str:
        return f"{self.what} is left out: {self.lacking} of {self.members} members of the splits lack it; {self.advice}"


@dataclass(frozen=True)
class Reproduction:
    """What a reproduction came to."""

    plan: Plan
    lines: tuple[Line, ...]
    outcomes: tuple[JobOutcome, ...]
    jobs: tuple[Job, ...]

    @property
    def failed(self) -> list[tuple[Job, str]]:
        """Jobs without a result, and why."""
        return [(self.jobs[o.place], o.error) for o in self.outcomes if o.error is not None]


def ensure_splits(engine: Engine, plan: Plan, *, make: bool, iqr: float | None = 1.5) -> list[str]:
    """See that every split of a plan is there; make those that are not by the paper's rule, where that is wished.

    The rule: 15 % held out, five folds, and slices whose maximum or minimum lies more than ``iqr`` interquartile
    ranges outside the quartiles left out (Massa et al., arXiv 2401.09301); the fences are those of cv alone.

    Parameters
    ----------
    plan
        Names targets, seeds and splits; a split that is made needs all its recipes' first and all its text levels.
    make
        Whether missing ones are made.
    iqr
        Factor of the cleaning; None leaves nobody out.

    Returns
    -------
    list of str
        A remark on each split that was made.

    Raises
    ------
    NotFoundError
        If a split is missing, and none are to be made.
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
            f"no split {name!r} for {target}{others}; `ecdreg split import {name}.csv --target {target}` takes over a"
            " published one, --make-splits makes them by the paper's rule, --split names others"
        )
    made = []
    for target, name, seed in missing:
        # The texts of all levels come from one description: who has the longest has the others.
        level = None if set(plan.stages) == {"image"} else ("all" if "all" in plan.text_levels else plan.text_levels[0])
        recipe = None if set(plan.stages) == {"text"} else plan.recipes[0]
        with session_scope(engine) as session:
            split = create_split(
                session,
                name,
                target=target,
                seed=seed,
                recipe=recipe,
                text_level=level,
                iqr=iqr if recipe is not None else None,
            )
            members = session.scalars(select(SplitMember.subset).where(SplitMember.split_id == split.id)).all()
        counts = {subset: members.count(subset) for subset in ("cv", "holdout", "excluded")}
        made.append(
            f"made split {name!r} for {target}: {counts['cv']} crystals in 5 folds, {counts['holdout']} held out,"
            f" {counts['excluded']} excluded"
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
    """Leave out recipes and text levels that members of the splits lack, and say so: all models share their rows.

    Parameters
    ----------
    session
        Only read.
    plan
        Its splits must be there.

    Returns
    -------
    tuple
        The plan without them, and what is left out.

    Raises
    ------
    SplitError
        If nothing is left to train.
    """
    splits = [f"{name}:{target}" for target in plan.targets for name, _ in plan.runs(target)]
    missing = []
    sees_images = set(plan.stages) != {"text"}
    for recipe in plan.recipes if sees_images else ():
        ingest = f"`ecdreg ingest --recipe {recipe}` with the source's own options makes it"
        if recipe == "imported":
            ingest = "images/<id>.png in the folder of a source brings it"
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
            advice = "`ecdreg ingest` with the source's own options makes texts"
            missing.append(Missing(f"text level {level}", found.lacking, found.members, advice))
    left_out = {one.what for one in missing}
    left = replace(
        plan,
        recipes=tuple(name for name in plan.recipes if f"recipe {name}" not in left_out),
        text_levels=tuple(level for level in plan.text_levels if f"text level {level}" not in left_out),
    )
    if (sees_images and not left.recipes) or (reads_texts and not left.text_levels):
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
    """Run a plan and read its table; what is finished already is only read.

    Parameters
    ----------
    engine
        Read from, and committed to by features and experiments.
    settings
        Of the database and the artifacts.
    plan
        Its splits must be there, with all recipes and texts.
    workers, scheduler, progress, on_outcome
        As :func:`train.experiments.jobs.run_jobs` takes them.
    """
    progress = progress or Silent()
    jobs = enumerate_jobs(plan)
    _compute_features(engine, settings, jobs, progress)
    outcomes = run_jobs(settings, jobs, workers=workers, scheduler=scheduler, progress=progress, on_outcome=on_outcome)
    with Session(engine) as session:
        lines = [*summarise(session, jobs, outcomes), *reference_lines(session, plan)]
    return Reproduction(plan, tuple(lines), tuple(outcomes), tuple(jobs))


def finished(session: Session, plan: Plan) -> Reproduction:
    """The table of what has been finished of a plan; nothing is run.

    Parameters
    ----------
    session
        Only read.
    plan
        What is looked for; jobs that have no finished experiment are its failed ones.
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
    """The table: every row and phase, over folds and runs.

    Parameters
    ----------
    session
        Only read.
    jobs, outcomes
        What was run, and what became of it; jobs without a result are left out.
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
    """Reference models that :mod:`train.paper.reference_models` scored on the splits of a plan.

    Nothing of them was fitted here: their numbers are those of the rows that each fold scores, and of the holdout.

    Parameters
    ----------
    session
        Only read.
    plan
        Its targets and splits.
    """
    names = {(name, target) for target in plan.targets for name, _ in plan.runs(target)}
    found = session.execute(
        select(Experiment, Split.name, Property.unit)
        .join(Split, Split.id == Experiment.split_id)
        .join(Property, Property.name == Experiment.target)
        .where(Experiment.status == "finished", Experiment.kind.like("peer-%"))
    ).all()
    # The newest counts of those that were scored on most: the holdout alone is less than all rows.
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
        # The refit is fitted to all of cv: what it says of its own rows is no row of the table.
        return [
            r.value for r in every if (r.subset, r.name) == (subset, name) and (r.fold is None) == (subset == "holdout")
        ]

    first = {
        ident: min((r.fold for r in found if r.fold is not None), default=None) for ident, found in records.items()
    }
    scores: dict[str, dict[str, Stat]] = {}
    first_fold: dict[str, Stat] = {}
    for name in METRICS:
        for shown, subset in (("train", "train"), ("val", "validation"), ("test", "holdout")):
            if values := chosen(subset, name):
                scores.setdefault(shown, {})[name] = _stat(values)
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
    """Compute the frozen features of all jobs once, before several processes would each begin to."""
    context = ExperimentContext.open(engine, settings, progress=progress)
    seen: set[Any] = set()
    for job in jobs:
        # Which features a job reads does not depend on its target.
        identity = (job.config.kind, job.row)
        if identity in seen:
            continue
        seen.add(identity)
        context.inputs(job.config, None)
