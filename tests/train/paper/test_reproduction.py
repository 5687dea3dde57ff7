"""A reproduction: splits, what is missing, running, resuming after a kill, and its table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from registry.errors import ConfigurationError, NotFoundError, SplitError
from registry.models import Experiment, Metric, ModelVersion
from train.experiments.jobs import run_jobs
from train.paper.matrix import Job, Plan, TableRow, enumerate_jobs
from train.paper.reproduction import ensure_splits, finished, leave_out_missing, reproduce

if TYPE_CHECKING:
    from tests.train.conftest import SmallRegistry

ROOT = Path(__file__).parents[3]


@pytest.fixture
def plan(small: SmallRegistry) -> Plan:
    """Image, text and their stack on the split ``small``, two runs; small networks."""
    return Plan(
        targets=("k_vrh",),
        seeds=(1, 2),
        split="small",
        text_levels=("keywords",),
        stages=("image", "text", "image+text"),
        max_epochs=6,
        image_backbone=small.image_backbone,
        image_size=32,
        text_backbone=small.text_backbone,
    )


def everything(session: Session) -> list[Any]:
    """Every score of the registry, by what was trained."""
    return sorted(
        session.execute(
            select(
                Experiment.name, Experiment.seed, ModelVersion.fold, ModelVersion.phase, Metric.subset, Metric.name,
                Metric.value,
            )
            .join(ModelVersion, ModelVersion.experiment_id == Experiment.id)
            .join(Metric, Metric.model_version_id == ModelVersion.id)
        ),
        key=str,
    )  # fmt: skip


def forget(session: Session) -> None:
    """Empty the registry of experiments and of what they left."""
    session.execute(text("TRUNCATE experiments CASCADE"))
    session.commit()


def test_a_reproduction_is_a_table_over_folds_and_runs(small: SmallRegistry, plan: Plan) -> None:
    made = reproduce(small.engine, small.settings, plan)
    assert made.failed == []
    assert [(o.result.outcome if o.result else None) for o in made.outcomes] == ["trained"] * 10
    last = {line.row.stage: line for line in made.lines if line.last}
    assert list(last) == ["baseline-mean", "baseline-magpie", "image", "text", "image+text"]
    stack = last["image+text"]
    assert (stack.phase, stack.runs, stack.unit, stack.n_cv + stack.n_holdout) == ("finetune", 2, "GPa", 40)
    # The same numbers, computed here from the tables.
    with Session(small.engine) as session:
        found = session.execute(
            select(Experiment.seed, ModelVersion.fold, Metric.subset, Metric.value)
            .join(ModelVersion, ModelVersion.experiment_id == Experiment.id)
            .join(Metric, Metric.model_version_id == ModelVersion.id)
            .where(Experiment.name == "stacked", ModelVersion.phase == "finetune", Metric.name == "rmse")
        ).all()
    validation = [row.value for row in found if row.subset == "validation"]
    assert len(validation) == 6
    assert stack.scores["val"]["rmse"].mean == pytest.approx(fmean(validation))
    assert stack.scores["val"]["rmse"].sd == pytest.approx(stdev(validation))
    training = [row.value for row in found if row.subset == "train" and row.fold is not None]
    assert stack.scores["train"]["rmse"].mean == pytest.approx(fmean(training))
    held_out = [row.value for row in found if row.subset == "holdout"]
    assert (stack.scores["test"]["rmse"].mean, stack.scores["test"]["rmse"].n) == (pytest.approx(fmean(held_out)), 2)
    first = [row.value for row in found if row.subset == "validation" and row.fold == 0]
    assert stack.first_fold["rmse"].mean == pytest.approx(fmean(first))
    # An earlier phase has a line of its own, and no test score: the holdout is predicted once.
    (readout,) = [line for line in made.lines if line.row.stage == "image+text" and not line.last]
    assert (readout.phase, set(readout.scores)) == ("readout", {"train", "val"})

    with Session(small.engine) as session:
        assert finished(session, plan).lines == made.lines
        more = finished(session, replace(plan, seeds=(1, 3)))
    assert len(more.failed) == 5
    assert {line.runs for line in more.lines} == {1}

    again = reproduce(small.engine, small.settings, plan)
    assert {o.result.outcome for o in again.outcomes if o.result} == {"unchanged"}
    assert again.lines == made.lines


@pytest.mark.slow
def test_two_processes_give_what_one_gives(small: SmallRegistry, plan: Plan) -> None:
    made = reproduce(small.engine, small.settings, plan, workers=2)
    assert made.failed == []
    with Session(small.engine) as session:
        at_once = everything(session)
        forget(session)
    one = reproduce(small.engine, small.settings, plan)
    with Session(small.engine) as session:
        assert everything(session) == at_once
    assert [replace(line, experiments=()) for line in one.lines] == [
        replace(line, experiments=()) for line in made.lines
    ]


@pytest.mark.slow
def test_an_interrupted_reproduction_resumes_with_equal_results(small: SmallRegistry, plan: Plan) -> None:
    script = (
        "import pickle, sys\n"
        "from registry.database import connect\n"
        "from train.paper.reproduction import reproduce\n"
        "settings, plan = pickle.load(sys.stdin.buffer)\n"
        "reproduce(connect(settings), settings, plan, workers=2)\n"
    )
    import pickle

    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.stdin is not None
    process.stdin.write(pickle.dumps((small.settings, plan)))
    process.stdin.close()
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        with Session(small.engine) as session:
            if session.scalar(select(func.count()).where(Experiment.status == "finished")) >= 3:
                break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # Its workers are gone too; what they held is free.
    deadline = time.monotonic() + 60
    made = reproduce(small.engine, small.settings, plan)
    while made.failed and time.monotonic() < deadline:
        time.sleep(0.5)
        made = reproduce(small.engine, small.settings, plan)
    assert made.failed == []
    assert sum(o.result is not None and o.result.outcome == "unchanged" for o in made.outcomes) >= 3
    with Session(small.engine) as session:
        kept = everything(session)
        assert session.scalar(select(func.count()).where(Experiment.status == "running")) == 0
        forget(session)
    reproduce(small.engine, small.settings, plan)
    with Session(small.engine) as session:
        assert everything(session) == kept


def test_a_failed_job_fails_only_its_dependents(small: SmallRegistry, plan: Plan) -> None:
    jobs = enumerate_jobs(replace(plan, seeds=(1,)))
    broken: list[Job] = [replace(job, split="nowhere") if job.row.stage == "image" else job for job in jobs]
    outcomes = run_jobs(small.settings, broken)
    failed = {jobs[o.place].row.stage: o.error for o in outcomes if o.error}
    assert set(failed) == {"image", "image+text"}
    assert "no split 'nowhere'" in str(failed["image"])
    assert "image · k_vrh · metric" in str(failed["image+text"])
    assert {jobs[o.place].row.stage for o in outcomes if o.result} == {"baseline-mean", "baseline-magpie", "text"}


def test_missing_splits_are_reported_or_created(small: SmallRegistry, plan: Plan) -> None:
    elsewhere = replace(plan, split="mine-{target}-{seed}")
    with pytest.raises(NotFoundError, match=r"no split 'mine-k_vrh-1' for k_vrh \(and 1 more\).*--make-splits"):
        ensure_splits(small.engine, elsewhere, make=False)
    made = ensure_splits(small.engine, elsewhere, make=True, iqr=None)
    assert len(made) == 2
    assert "mine-k_vrh-1" in made[0]
    assert "in 5 folds" in made[0]
    assert ensure_splits(small.engine, elsewhere, make=True, iqr=None) == []


def test_recipes_that_members_lack_are_excluded_and_reported(small: SmallRegistry, plan: Plan) -> None:
    wished = replace(plan, recipes=("metric", "paper", "imported"), text_levels=("keywords", "all"))
    with Session(small.engine) as session:
        left, missing = leave_out_missing(session, wished)
        assert (left.recipes, left.text_levels) == (("metric",), ("keywords",))
        assert [one.what for one in missing] == ["recipe paper", "recipe imported", "text level all"]
        assert "ecdreg ingest --recipe paper" in str(missing[0])
        assert "spin density" in str(missing[0])
        with pytest.raises(SplitError, match="recipe paper is excluded"):
            leave_out_missing(session, replace(plan, recipes=("paper",)))


def test_an_unusable_cluster_raises(small: SmallRegistry, plan: Plan) -> None:
    pytest.importorskip("distributed")
    embedded = replace(small.settings, database_url=None)
    with pytest.raises(ConfigurationError, match="cannot reach the embedded database"):
        run_jobs(embedded, [], scheduler="tcp://10.1.2.3:8786")


@pytest.mark.slow
def test_a_dask_cluster_gives_what_one_process_gives(small: SmallRegistry, plan: Plan) -> None:
    distributed = pytest.importorskip("distributed")
    plan = replace(plan, seeds=(1,))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, protocol="tcp://", host="127.0.0.1"
    ) as cluster:
        made = reproduce(small.engine, small.settings, plan, scheduler=cluster.scheduler_address)
    assert made.failed == []
    with Session(small.engine) as session:
        scored = everything(session)
        forget(session)
    reproduce(small.engine, small.settings, plan)
    with Session(small.engine) as session:
        assert everything(session) == scored


def test_rows_are_identified_by_their_inputs() -> None:
    assert TableRow("image", "metric", None) != TableRow("image", "imported", None)
