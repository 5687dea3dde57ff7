from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.crystals import WrittenCrystal
from registry.errors import ConfigurationError, NotFoundError, SplitError, UnknownNameError
from registry.models import Split
from registry.splits.candidates import Candidate, assign, candidates
from registry.splits.creation import SplitRule, create_split, ensure_default_split, import_split
from registry.splits.reading import MemberRow, find_split, growth_since, list_splits, members, split_summary

AddCrystal = Callable[..., WrittenCrystal]
ELEMENTS = "Li Be Na Mg Al Si K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge".split()  # noqa: SIM905


@pytest.fixture
def forty(add_crystal: AddCrystal) -> None:
    _add(add_crystal, range(1, 41))


def _add(add_crystal: AddCrystal, numbers: range, **parts: Any) -> None:
    for i in numbers:
        add_crystal(f"mp-{i}", formula=f"{ELEMENTS[i % 20]}O{i}", densities=False, **parts)


def _parts(session: Session, split: Split) -> dict[str, tuple[str, int | None]]:
    return {member.source_id: (member.subset, member.fold) for member in members(session, split.id)}


def _member(session: Session, split: Split, source_id: str) -> MemberRow:
    return next(member for member in members(session, split.id) if member.source_id == source_id)


@given(st.integers(2, 10), st.floats(0.05, 0.5), st.integers(-5, 5))
def test_shares_are_as_requested(n_folds: int, holdout: float, seed: int) -> None:
    keys = [Candidate(i, i, "s", str(i), f"mp-{i}", None) for i in range(3000)]
    parts = [assign(key, seed=seed, n_folds=n_folds, holdout=holdout) for key in keys]
    share = sum(subset == "holdout" for subset, _ in parts) / len(parts)
    # Six standard deviations of a binomial share.
    assert abs(share - holdout) < 6 * (holdout * (1 - holdout) / 3000) ** 0.5
    folds = np.bincount([fold for _, fold in parts if fold is not None], minlength=n_folds)
    expected = 3000 * (1 - holdout) / n_folds
    assert len(folds) == n_folds
    assert np.all(np.abs(folds - expected) < 6 * expected**0.5)


def test_rule_assigns_every_crystal(session: Session, forty: None) -> None:
    split = create_split(session, "s", target="k_vrh")
    [summary] = split_summary(session, "s")
    assert (summary.cv + summary.holdout, summary.excluded) == (40, 0)
    assert sorted(summary.folds) == [0, 1, 2, 3, 4]
    assert sum(summary.folds.values()) == summary.cv
    assert all(member.source_id.startswith("test:mp-") for member in members(session, split.id))
    assert [s.name for s in list_splits(session)] == ["s"]
    assert session.scalar(select(Split.id).where(Split.iqr_bounds.is_(None))) == split.id, "null is SQL's"


def test_added_crystals_change_no_assignment(session: Session, forty: None, add_crystal: AddCrystal) -> None:
    before = create_split(session, "before", target="k_vrh")
    assert growth_since(session, before) == 0
    _add(add_crystal, range(41, 61))
    after = create_split(session, "after", target="k_vrh")
    assert _parts(session, before).items() <= _parts(session, after).items()
    assert len(_parts(session, after)) == 60
    assert growth_since(session, before) == 20


def test_one_material_under_two_sources_is_in_one_subset_and_fold(
    session: Session, forty: None, add_crystal: AddCrystal
) -> None:
    _add(add_crystal, range(1, 41), source="other", values={"k_vrh": 50.0})
    parts = _parts(session, create_split(session, "s", target="k_vrh"))
    assert len(parts) == 80
    assert all(parts[f"test:mp-{i}"] == parts[f"other:mp-{i}"] for i in range(1, 41))
    only = create_split(session, "only", target="k_vrh", rule=SplitRule(sources=["other"]))
    assert {name.partition(":")[0] for name in _parts(session, only)} == {"other"}


def test_another_seed_assigns_differently_and_targets_agree(session: Session, forty: None) -> None:
    first = _parts(session, create_split(session, "a", target="k_vrh"))
    assert _parts(session, create_split(session, "b", target="k_vrh", rule=SplitRule(seed=1))) != first
    assert _parts(session, create_split(session, "a", target="efermi")) == first


def test_unusable_crystals_are_excluded_with_the_reason(session: Session, forty: None, add_crystal: AddCrystal) -> None:
    add_crystal("mp-1787", values={"k_vrh": -181.7, "efermi": 1.0})
    add_crystal("mp-100", values={"efermi": 1.0})
    add_crystal("mp-101", slices=False)
    add_crystal("mp-102", text=None)
    split = create_split(session, "s", target="k_vrh")
    reasons = {m.source_id: m.reason for m in members(session, split.id) if m.subset == "excluded"}
    assert reasons.pop("test:mp-1787", "").startswith("suspect: k_vrh = -181.7 GPa is outside")
    assert reasons == {
        "test:mp-100": "no value of k_vrh",
        "test:mp-101": "no slice image of recipe 'metric'",
        "test:mp-102": "no description of the text level 'keywords'",
    }
    [summary] = split_summary(session, "s")
    assert summary.reasons["suspect"] == 1
    assert summary.excluded == 4
    # Per target: its Fermi energy is all right.
    efermi = create_split(session, "s", target="efermi")
    assert _member(session, efermi, "test:mp-1787").subset != "excluded"
    bare = create_split(session, "bare", target="k_vrh", rule=SplitRule(recipe=None, text_level=None))
    assert {m.source_id for m in members(session, bare.id) if m.subset == "excluded"} == {"test:mp-1787", "test:mp-100"}


def test_value_of_the_preferred_level_counts(session: Session, forty: None, add_crystal: AddCrystal) -> None:
    add_crystal("mp-50", values={"k_vrh": -5.0}, level_of_theory="GGA_GGA+U")
    split = create_split(session, "s", target="k_vrh")
    assert _member(session, split, "test:mp-50").subset == "excluded"


def _assigned_subset(session: Session, source_id: str) -> str:
    """The subset that seed 0 assigns to a crystal, usable or not."""
    (found,) = [c for c in candidates(session, "k_vrh", {}) if c.source_id == source_id]
    return assign(found, seed=0, n_folds=5, holdout=0.15)[0]


def test_iqr_excludes_slices_beyond_the_fences(session: Session, add_crystal: AddCrystal) -> None:
    peaks = {i: 10.0 + i / 10 for i in range(1, 41)} | {41: 500.0}
    for i, peak in peaks.items():
        add_crystal(f"mp-{i}", pixel_max=peak, densities=False)
    add_crystal("mp-42", pixel_max=1e6, values={"k_vrh": -1.0})  # suspect: does not affect the fences
    split = create_split(session, "s", target="k_vrh", rule=SplitRule(iqr=1.5))
    out = {m.source_id: m.reason or "" for m in members(session, split.id) if m.subset == "excluded"}
    assert out.keys() == {"test:mp-41", "test:mp-42"}
    assert out["test:mp-41"].startswith("IQR: maximum 500 of channel 0, recipe 'metric', is outside [")
    # The holdout does not affect the fences either.
    cv = [peaks[i] for i in range(1, 42) if _assigned_subset(session, f"mp-{i}") == "cv"]
    assert len(cv) < 41
    q1, q3 = np.percentile(cv, [25, 75])
    assert split.iqr_bounds is not None
    session.flush()
    session.refresh(split)
    low, high = split.iqr_bounds["channels"]["0"]["maximum"]
    assert (low, high) == pytest.approx((q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)), rel=1e-6)
    assert split.iqr_bounds["channels"]["1"]["minimum"] == pytest.approx([-high, -low], rel=1e-6)
    assert growth_since(session, split) == 0, "an outlier has not grown"


def test_iqr_of_other_slices(session: Session, forty: None, add_crystal: AddCrystal) -> None:
    _add(add_crystal, range(1, 40), recipe="paper", parameters={"px": 186})
    split = create_split(session, "s", target="k_vrh", rule=SplitRule(iqr=1.5, iqr_kind="spin"))
    assert _member(session, split, "test:mp-40").reason == "no slice image of recipe 'paper'"
    assert _parts(session, split)["test:mp-39"][0] != "excluded"
    one = create_split(session, "one", target="k_vrh", rule=SplitRule(iqr=1.5, iqr_kind="metric:1"))
    assert one.iqr_bounds is not None
    assert list(one.iqr_bounds["channels"]) == ["1"]
    with pytest.raises(ConfigurationError, match="channel 7"):
        create_split(session, "two", target="k_vrh", rule=SplitRule(iqr=1.5, iqr_kind="metric:7"))
    with pytest.raises(NotFoundError, match="'paper-total'"):
        create_split(session, "two", target="k_vrh", rule=SplitRule(iqr=1.5, iqr_kind="total"))


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"n_folds": 1}, "1 folds"),
    ({"holdout": 0.0}, "a holdout of 0"),
    ({"holdout": 1.0}, "a holdout of 1"),
    ({"iqr": -1.0}, "an IQR factor of -1"),
    ({"iqr": float("nan")}, "an IQR factor of nan"),
    ({"iqr_kind": "spin"}, "no IQR factor"),
    ({"iqr": 1.5, "recipe": None}, "no slices to look at"),
    ({"iqr": 1.5, "iqr_kind": "metric:x"}, "channel 'x'"),
]


def test_options_out_of_range(session: Session, forty: None) -> None:
    for options, message in BAD_OPTIONS:
        with pytest.raises(ConfigurationError, match=message):
            create_split(session, "s", target="k_vrh", rule=SplitRule(**options))


def test_unknown_names(session: Session, forty: None) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'k_vrh'"):
        create_split(session, "s", target="k_vhr")
    with pytest.raises(NotFoundError, match="no images of recipe 'metrik'; there are: metric"):
        create_split(session, "s", target="k_vrh", rule=SplitRule(recipe="metrik"))
    with pytest.raises(NotFoundError, match="no split 's' for k_vrh; `ecdreg split create`"):
        find_split(session, "s", "k_vrh")
    create_split(session, "s", target="k_vrh")
    assert find_split(session, "s", "k_vrh").name == "s"
    with pytest.raises(NotFoundError, match="there are: s"):
        find_split(session, "t", "k_vrh")
    with pytest.raises(NotFoundError, match="no split 't'; there are: s"):
        split_summary(session, "t")


def test_too_few_crystals_for_the_folds(session: Session, add_crystal: AddCrystal) -> None:
    _add(add_crystal, range(1, 4))
    add_crystal("mp-9", values={"k_vrh": -1.0})
    with pytest.raises(SplitError, match=r"would be empty \(3 of 4 crystals can take part, 1 suspect\)"):
        create_split(session, "s", target="k_vrh")
    with pytest.raises(
        SplitError, match=r"`ecdreg split create NAME --target k_vrh --folds 2`, then .* `--split NAME`"
    ):
        ensure_default_split(session, "k_vrh")
    assert list_splits(session) == []


def test_a_split_never_changes(session: Session, forty: None, add_crystal: AddCrystal) -> None:
    split = create_split(session, "s", target="k_vrh")
    assert create_split(session, "s", target="k_vrh").id == split.id
    with pytest.raises(SplitError, match="choose another name"):
        create_split(session, "s", target="k_vrh", rule=SplitRule(seed=1))
    add_crystal("mp-41")
    with pytest.raises(SplitError, match="choose another name"):
        create_split(session, "s", target="k_vrh")


def test_members_keep_the_revision_that_they_had(session: Session, forty: None, add_crystal: AddCrystal) -> None:
    split = create_split(session, "s", target="k_vrh")
    before = _member(session, split, "test:mp-1")
    add_crystal("mp-1", values={"k_vrh": 7.0})
    assert _member(session, split, "test:mp-1") == before


def test_default_split_is_made_once(session: Session, forty: None, add_crystal: AddCrystal) -> None:
    split = ensure_default_split(session, "k_vrh")
    assert (split.name, split.seed, split.n_folds, split.parameters["holdout"]) == ("default", 0, 5, 0.15)
    add_crystal("mp-41")
    assert ensure_default_split(session, "k_vrh").id == split.id
    assert growth_since(session, split) == 1


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    def write(rows: list[tuple[Any, ...]], header: tuple[str, ...] = ("id", "subset", "fold")) -> Path:
        path = tmp_path / "paper-k_vrh-420.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    return write


GOOD = [(f"mp-{i}", "cv", i % 3 + 1) for i in range(1, 10)] + [("mp-10", "holdout", ""), ("mp-11", "holdout", "")]


def test_import(session: Session, forty: None, add_crystal: AddCrystal, write_csv: Callable[..., Path]) -> None:
    add_crystal("mp-1787", values={"k_vrh": -181.7})
    add_crystal("mp-101", slices=False)
    rows = [*GOOD, ("mp-1787", "cv", 1), ("mp-101", "holdout", ""), ("mp-999999", "cv", 2), ("test:mp-12", "cv", 2)]
    split = import_split(session, None, write_csv(rows), target="k_vrh")
    assert (split.name, split.origin, split.seed, split.n_folds) == ("paper-k_vrh-420", "file", None, 3)
    parts = _parts(session, split)
    assert parts["mp-1"] == ("cv", 2), "fold numbers are kept"
    assert parts["mp-10"] == ("holdout", None)
    assert parts["test:mp-12"] == ("cv", 2)
    assert _member(session, split, "mp-999999").reason == "unknown: no crystal 'mp-999999' in the registry"
    assert _member(session, split, "mp-999999").revision_id is None
    assert (_member(session, split, "mp-1787").reason or "").startswith("suspect: ")
    assert _member(session, split, "mp-101").reason == "no slice image of recipe 'metric'"
    assert len(split.parameters["sha256"]) == 64
    assert split.parameters["materials_in_several_parts"] == []
    assert import_split(session, None, write_csv(rows), target="k_vrh").id == split.id
    with pytest.raises(SplitError, match="choose another name"):
        import_split(session, None, write_csv(rows[:-1]), target="k_vrh")
    assert growth_since(session, split) == 28


def test_import_distinguishes_sources(
    session: Session, forty: None, add_crystal: AddCrystal, write_csv: Callable[..., Path]
) -> None:
    add_crystal("mp-1", source="other")
    path = write_csv(GOOD)
    with pytest.raises(SplitError, match=r"line 2: id 'mp-1' is in 2 sources; write test:mp-1 or other:mp-1"):
        import_split(session, "s", path, target="k_vrh")
    assert _parts(session, import_split(session, "s", path, target="k_vrh", sources=["test"]))["mp-1"] == ("cv", 2)
    # An imported split may have one material in two parts; its parameters record that.
    leaking = write_csv([("test:mp-1", "cv", 1), ("other:mp-1", "holdout", ""), *GOOD[1:]])
    split = import_split(session, "leaking", leaking, target="k_vrh")
    assert split.parameters["materials_in_several_parts"] == ["mp-1"]


BAD_FILES: list[tuple[list[tuple[Any, ...]], tuple[str, ...] | None, str]] = [
    (GOOD, ("id", "subset", "part"), "line 1: no column 'fold'"),
    ([], (), "line 1: no column 'id'"),
    ([*GOOD, ("mp-20", "train", "")], None, "line 13: subset 'train' of 'mp-20'"),
    ([*GOOD, ("mp-20", "cv", "")], None, "line 13: fold '' of 'mp-20'"),
    ([*GOOD, ("mp-20", "cv", "-1")], None, "line 13: fold '-1'"),
    ([*GOOD, ("mp-20", "cv", "1.0")], None, "line 13: fold '1.0'"),
    ([*GOOD, ("mp-20", "cv", "99999")], None, "line 13: fold '99999'"),
    ([*GOOD, ("mp-20", "cv")], None, "line 13: fold ''"),
    ([*GOOD, ("mp-20", "holdout", "1")], None, "line 13: 'mp-20' is in the holdout and in fold '1'"),
    ([*GOOD, ("", "cv", "1")], None, "line 13: no id"),
    ([*GOOD, ("mp-1", "holdout", "")], None, "line 13: id 'mp-1' stands in line 2 already"),
    ([*GOOD, ("test:mp-1", "holdout", "")], None, "line 13: crystal 'test:mp-1' stands in line 2 already"),
    (GOOD[:9], None, "the holdout would be empty"),
    ([(f"mp-{i}", "cv", 1) for i in range(1, 5)] + GOOD[-2:], None, "1 folds in the subset cv"),
    ([*GOOD, ("mp-777777", "cv", 9)], None, "fold 9 would be empty"),
]


def test_import_names_file_and_line(session: Session, forty: None, write_csv: Callable[..., Path]) -> None:
    for rows, header, message in BAD_FILES:
        path = write_csv(rows, ("id", "subset", "fold") if header is None else header)
        with pytest.raises(SplitError, match=message):
            import_split(session, None, path, target="k_vrh")
    assert list_splits(session) == []


def test_import_of_files_that_are_not_text(session: Session, forty: None, tmp_path: Path) -> None:
    with pytest.raises(SplitError, match=r"cannot read .*no\.csv: No such file"):
        import_split(session, None, tmp_path / "no.csv", target="k_vrh")
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(SplitError, match="not UTF-8 text"):
        import_split(session, None, tmp_path / "image.csv", target="k_vrh")
    # A spreadsheet's byte order mark is not part of the first column's name.
    marked = tmp_path / "marked.csv"
    rows = "\n".join(",".join(map(str, row)) for row in [("id", "subset", "fold"), *GOOD])
    marked.write_text(rows, encoding="utf-8-sig")
    assert import_split(session, None, marked, target="k_vrh").n_folds == 3
