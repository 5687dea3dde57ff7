"""The matrix of the paper: which jobs, in which order; and the published numbers."""

from __future__ import annotations

from collections import Counter

import pytest

from registry.errors import ConfigurationError
from registry.properties import TARGETS
from train.paper.matrix import PAPER_SEEDS, Plan, TableRow, enumerate_jobs
from train.paper.published import published, published_for


def test_the_whole_matrix_is_every_stage_level_target_and_run() -> None:
    jobs = enumerate_jobs(Plan())
    # Two baselines, an image tower, three texts, three stacks, three dual encoders; three targets of three runs.
    assert len(jobs) == 12 * 9
    assert Counter(job.row.stage for job in jobs) == {
        "baseline-mean": 9, "baseline-magpie": 9, "image": 9, "text": 27, "image+text": 27, "clip": 27,
    }  # fmt: skip
    assert {(job.config.target, job.seed) for job in jobs} == {(t, s) for t in TARGETS for s in PAPER_SEEDS[t]}
    assert {job.split for job in jobs} == {f"paper-{t}-{s}" for t in TARGETS for s in PAPER_SEEDS[t]}
    assert {job.config.kind for job in jobs if job.row.stage == "clip"} == {"dual-encoder"}


def test_jobs_follow_their_dependencies_in_order_of_runs() -> None:
    jobs = enumerate_jobs(Plan(targets=("k_vrh",)))
    assert all(need < place for place, job in enumerate(jobs) for need in job.needs)
    for job in jobs:
        made_of = {jobs[need].row.stage for need in job.needs}
        assert made_of == ({"image", "text"} if job.row.stage == "image+text" else set())
        for need in job.needs:
            assert (jobs[need].split, jobs[need].seed) == (job.split, job.seed)
            # The very tower that the stack would train itself: it is reused, not trained twice.
            assert jobs[need].config == job.config.tower_config(jobs[need].row.stage)
    assert [job.seed for job in jobs] == sorted((job.seed for job in jobs), key=PAPER_SEEDS["k_vrh"].index)


def test_the_towers_of_a_stack_are_trained_without_rows_of_their_own() -> None:
    jobs = enumerate_jobs(Plan(("k_vrh",), (1,), stages=("image+text",), text_levels=("all",), baselines=False))
    assert [job.row for job in jobs] == [
        TableRow("image", "metric", None), TableRow("text", None, "all"), TableRow("image+text", "metric", "all"),
    ]  # fmt: skip


def test_options_reach_the_kinds_that_have_them() -> None:
    plan = Plan(("k_vrh",), (7,), clip="folder/clip", max_epochs=3, text_backbone="mine")
    for job in enumerate_jobs(plan):
        config = job.config.to_dict()
        for tower in [config, *config.get("towers", ())]:
            if tower.get("modality") == "text":
                assert tower["features"]["backbone"] == "mine"
        if job.row.stage == "clip":
            assert config["encoder"] == {"type": "clip", "name": "folder/clip"}
        if config["type"] != "baseline":
            assert config["training"]["readout"]["max_epochs"] == config["training"]["finetune"]["max_epochs"] == 3


def test_invalid_plans_raise() -> None:
    with pytest.raises(ConfigurationError, match="no published seeds for 'g_vrh'"):
        Plan(targets=("g_vrh",))
    with pytest.raises(ConfigurationError, match=r"may contain \{target\} and \{seed\}"):
        Plan(split="paper-{tarket}")
    with pytest.raises(ConfigurationError, match="stages holds 'picture'"):
        Plan(stages=("picture",))


def test_published_numbers_are_those_of_the_paper() -> None:
    assert len(published()) == 27 + 3 + 3
    best = published_for("k_vrh", "image+text", "formula")
    assert best is not None
    assert (best.r2["test"], best.rmse["test"], best.rmse["train"]) == (0.87, 25.32, 13.22)
    alone = published_for("efermi", "clip-fold-1", None)
    assert alone is not None
    assert (alone.r2, alone.rmse) == ({"val": 0.72}, {})
    # Three published image runs differ in nothing that the image stage sees.
    image = published_for("formation_energy_per_atom", "image", None)
    assert image is not None
    assert image.r2["test"] == pytest.approx((0.72 + 0.49 + 0.65) / 3)
    assert published_for("k_vrh", "clip", "formula") is None
