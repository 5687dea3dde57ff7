"""One crystal from its record to what the registry writes: read, check, slice, describe.

Everything here is a pure function of a record and of the options, so that it runs in worker
processes, and for a file that is not in the registry (``ecdreg predict --structure``) just as
in an ingest. What is wrong with a crystal is part of the answer, never lost:

``rejected``
    nothing of it is written, with the reason;
``deferred``
    the same, but another try may go better (a file that could not be read just now);
``problems``
    it is written without the parts that these lines name.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ingest.densities.slim import MAX_POINTS, slimmed
from ingest.sources.base import RawCrystal, RawDescription, SourceRecord
from ingest.texts.descriptions import GENERATOR, levels, robocrys_version
from registry.checksums import json_sha256
from registry.crystals import CrystalData, DensityData, DescriptionData, PropertyData, SliceData
from registry.errors import ConfigurationError, EcdregError, InputError
from registry.formulas import composition, composition_key

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

    from ingest.slices.recipes import ImageRecipe
    from ingest.slices.space_groups import SpaceGroup

__all__ = ["TEXT_MODES", "IngestOptions", "Prepared", "input_sha256", "needs_describing", "prepare", "prepare_files"]

T = TypeVar("T")

TEXT_MODES = ("source", "compute", "none")
"""Where texts come from: the source (computed where it has none), always computed, nowhere."""

IMPORTED = "imported"
"""Recipe of an image that was rendered elsewhere."""

# Raised when the same input is to give another result, so that the next run makes it anew.
_VERSION = 1

_REASON_LENGTH = 600


@dataclass(frozen=True)
class IngestOptions:
    """What an ingest is asked to do.

    Raises
    ------
    ConfigurationError
        If a value cannot be used.
    """

    fcc: bool = False
    """Keep crystals of an F-centred cubic space group, reject the others."""
    assume_fcc: bool = False
    """With ``fcc``: keep what has no structure to tell its space group by."""
    recipes: tuple[str, ...] = ("metric",)
    """Slices to make of every crystal; names of ``ingest.slices.recipes.RECIPES``."""
    texts: str = "source"
    """One of :data:`TEXT_MODES`."""
    level_of_theory: str | None = None
    """Of properties and densities that do not say theirs."""
    derive_deformation: bool = False
    """Make a deformation density of the total one and of free atoms where a source has none of its own.

    The Materials Project's crystals always get theirs this way.
    """
    slim: bool = False
    """Keep no density but those that the recipes need, on a grid of at most 60 points an axis."""
    refresh: bool = False
    """Look at every crystal again, whether or not its source offers something new."""
    limit: int | None = None
    """Only the first so many records."""
    workers: int | None = None
    """Worker processes; None: one a core; 0: none, all in this process."""

    def __post_init__(self) -> None:
        if self.texts not in TEXT_MODES:
            raise ConfigurationError(f"texts={self.texts!r} is not known; one of {', '.join(TEXT_MODES)}")
        if self.assume_fcc and not self.fcc:
            raise ConfigurationError("assume_fcc says what fcc is to do; give both")
        if self.slim and not self.recipes:
            raise ConfigurationError("slim keeps the densities that recipes need, and there is no recipe; name one")
        if self.limit is not None and self.limit < 1:
            raise ConfigurationError(f"limit={self.limit}; give 1 or more, or none for all crystals")
        if self.workers is not None and self.workers < 0:
            raise ConfigurationError(f"workers={self.workers}; give 1 or more, or 0 for none but this process")
        if twice := {name for name in self.recipes if self.recipes.count(name) > 1}:
            raise ConfigurationError(f"recipe {min(twice)!r} is named twice")

    def parameters(self) -> dict[str, Any]:
        """All options as JSON values; recorded with the run."""
        return {**asdict(self), "recipes": list(self.recipes)}

    def fingerprint(self) -> str:
        """SHA-256 (hex) of every option that shapes the result, recipe parameters included.

        Raises
        ------
        UnknownNameError
            If there is no such recipe.
        """
        from ingest.free_atoms.tables import TABLE_VERSION
        from ingest.slices.recipes import RECIPES

        # Named only where it is on, so that registries that never used it stay as they are.
        slim = {"slim": MAX_POINTS} if self.slim else {}
        return json_sha256(
            slim
            | {
                "version": _VERSION,
                "derive_deformation": self.derive_deformation,
                "free_atoms": TABLE_VERSION,
                "fcc": self.fcc,
                "assume_fcc": self.assume_fcc,
                "recipes": {name: [RECIPES[name].parameters(), RECIPES[name].unit] for name in self.recipes},
                "texts": self.texts,
                "level_of_theory": self.level_of_theory,
            }
        )


@dataclass(frozen=True, eq=False)
class Prepared:
    """A crystal that is ready to be written, or why there is none."""

    source_id: str
    data: CrystalData | None = None
    problems: tuple[str, ...] = ()
    rejected: str | None = None
    deferred: str | None = None
    retry: bool = False
    """Whether the next run is to try again, although nothing may have changed."""


def needs_describing(record: SourceRecord, options: IngestOptions) -> bool:
    """Whether a text may have to be computed, which takes seconds and robocrystallographer."""
    return options.texts == "compute" or (options.texts == "source" and not record.has_description)


def input_sha256(record: SourceRecord, options: IngestOptions, *, fingerprint: str | None = None) -> str:
    """SHA-256 (hex) of what a record offers and of every option that shapes the result.

    Parameters
    ----------
    fingerprint
        ``options.fingerprint()``, where many records share it.

    Raises
    ------
    OSError
        If a file of the record cannot be read now.
    """
    parts = [record.input_sha256(), options.fingerprint() if fingerprint is None else fingerprint]
    if needs_describing(record, options):
        parts.append(robocrys_version())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def prepare(record: SourceRecord, options: IngestOptions) -> Prepared:
    """Read, check, slice and describe one crystal.

    Whatever goes wrong inside the libraries that this needs is an outcome of this crystal, with
    the error's type and message.

    Raises
    ------
    ConfigurationError
        If the options name a recipe that does not exist.
    """
    try:
        with warnings.catch_warnings():
            # pymatgen warns of every noble gas when it orders the elements of a formula.
            warnings.filterwarnings("ignore", message="No Pauling electronegativity")
            return _prepare(record, options)
    except InputError as error:
        return Prepared(record.source_id, rejected=_line(error))
    except EcdregError:
        raise
    except (OSError, MemoryError) as error:
        return Prepared(record.source_id, deferred=_line(error))
    except Exception as error:  # noqa: BLE001  pymatgen and spglib raise whatever a strange crystal leads to
        return Prepared(record.source_id, rejected=_line(error))


def prepare_files(
    structure: Path | None, density: Path | None, *, reference: Path | None = None, options: IngestOptions | None = None
) -> Prepared:
    """The same for files that belong to no source.

    Parameters
    ----------
    structure
        CIF, POSCAR or pymatgen JSON; None: the density's file has it.
    density
        CHGCAR, cube or HDF5; None: no density.
    reference
        Superposed free atoms, of which a CHGCAR gives its deformation density.

    Raises
    ------
    ConfigurationError
        If neither file is given, or the options name a recipe that does not exist.
    """
    from ingest.sources.folder import FolderRecord

    main = structure if structure is not None else density
    if main is None:
        raise ConfigurationError("give a structure file, a density file, or both")
    record = FolderRecord(
        source="file",
        source_id=main.name,
        formula=None,
        structures=() if structure is None else (structure,),
        densities=() if density is None else (density,),
        reference=reference,
    )
    return prepare(record, options or IngestOptions())


@dataclass
class _Problems:
    """Lines about parts that are left out."""

    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        self.lines.append(line)

    def attempt(self, what: str, make: Callable[[], T]) -> T | None:
        """What ``make`` returns, or None and a line on why there is none."""
        try:
            return make()
        except EcdregError as error:
            if not isinstance(error, InputError):
                raise
            self.add(f"{what}: {_line(error)}")
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  the same of one part of it
            self.add(f"{what}: {_line(error)}")
        return None


def _prepare(record: SourceRecord, options: IngestOptions) -> Prepared:
    from ingest.slices.recipes import RECIPES

    recipes = [RECIPES[name] for name in options.recipes]
    raw = record.read(level_of_theory=options.level_of_theory)
    # First of all: another registry may want what this one has no use for.
    stored = {} if raw.keep is None or options.slim else raw.keep()
    problems = _Problems(list(raw.problems))
    structure, own = _cells(raw, problems)
    formula = _formula(raw, structure)
    group = _space_group(structure, options, problems)
    densities = [] if own is None else _sound(raw.densities, own, problems)
    if own is not None and (raw.derive_deformation or options.derive_deformation):
        from ingest.free_atoms import deformation, totals_alone

        for total in totals_alone(densities):
            made = problems.attempt("deformation density", lambda total=total: deformation(total, own))  # type: ignore[misc]
            densities += [] if made is None else [made]
    # What brings its own image needs no density to have one.
    pictured = raw.image is not None and not raw.densities
    slices = _slices([] if pictured else recipes, densities, own, problems)
    if options.slim:
        densities = slimmed(densities, recipes)
    if own is not None and structure is not None and not _same_cell(structure, own):
        densities = [replace(density, structure=_as_dict(own)) for density in densities]
    if raw.image is not None:
        slices.append(SliceData(IMPORTED, {"method": IMPORTED}, None, raw.image))
    data = CrystalData(
        source=record.source,
        source_id=record.source_id,
        formula=formula,
        structure=None if structure is None else _as_dict(structure),
        space_group_number=None if group is None else group.number,
        space_group_symbol=None if group is None else group.symbol,
        prototype=None if group is None else group.prototype,
        n_sites=None if structure is None else len(structure),
        volume=None if structure is None else float(structure.volume),
        content_sha256=_content_sha256(formula, structure, raw.properties, densities),
        properties=raw.properties,
        densities=tuple(densities),
        slices=tuple(slices),
        stored=stored,
        descriptions=tuple(_descriptions(record.source, raw.description, formula, structure, options, problems)),
    )
    return Prepared(record.source_id, data, tuple(problems.lines), retry=raw.retry)


def _cells(raw: RawCrystal, problems: _Problems) -> tuple[Structure | None, Structure | None]:
    """The structure to store, and the one whose cell the grids lie in; None: no density belongs to this crystal.

    They differ in orientation at most: a CIF file knows none, and a slice must not depend on
    whether there is one.
    """
    given, own = raw.structure, raw.density_structure
    if given is None or own is None:
        return (own if given is None else given), own
    compare = _same_crystal_apart if raw.relaxed_apart else _same_crystal_cell
    cell = problems.attempt("density", lambda: compare(given, own))
    return (given, None) if cell is None else (cell, own)


def _same_crystal_cell(given: Structure, own: Structure) -> Structure:
    """The given structure where its cell is the grid's; the grid's where it is the same crystal in another cell.

    Raises
    ------
    InputError
        If the density is of another crystal, or of this one in another volume.
    """
    from ingest.densities.checks import same_crystal

    same_crystal(given, own)
    if _same_cell(given, own):
        return given
    from pymatgen.analysis.structure_matcher import StructureMatcher

    if StructureMatcher(ltol=0.01, stol=0.05, angle_tol=0.5, scale=False).fit(given, own):
        return own
    raise InputError(
        f"it was calculated for {own.formula} in {own.volume / len(own):.3f} Å^3 an atom, the structure is "
        f"{given.formula} in {given.volume / len(given):.3f} Å^3 an atom with other positions; "
        "give the structure that it was calculated for"
    )


def _same_crystal_apart(given: Structure, own: Structure) -> Structure:
    """The given structure, where the grid's is the same crystal as another calculation relaxed it.

    Raises
    ------
    InputError
        If it is another crystal.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    from ingest.densities.checks import same_crystal

    same_crystal(given, own)
    if StructureMatcher(primitive_cell=True, scale=True).fit(given, own):
        return given
    raise InputError(f"it was calculated for another crystal of {own.formula}, whose atoms lie elsewhere")


def _same_cell(given: Structure, own: Structure) -> bool:
    if len(given) != len(own):
        return False
    lengths = np.allclose(given.lattice.abc, own.lattice.abc, rtol=1e-3, atol=0.0)
    if not lengths or not np.allclose(given.lattice.angles, own.lattice.angles, rtol=0.0, atol=0.1):
        return False
    # In the order of the file or not: every atom has one of its element within 0.05 Å.
    distances = own.lattice.get_all_distances(given.frac_coords, own.frac_coords)
    numbers = [np.array([site.specie.Z for site in structure]) for structure in (given, own)]
    near = (distances < 0.05) & (numbers[0][:, None] == numbers[1][None, :])
    return bool((near.sum(axis=0) == 1).all() and (near.sum(axis=1) == 1).all())


def _formula(raw: RawCrystal, structure: Structure | None) -> str:
    """Reduced formula, in pymatgen's spelling."""
    if structure is None and raw.formula is None:
        raise InputError(_joined(["neither a formula nor a structure", *raw.problems]))
    if raw.formula is not None:
        composition(raw.formula)  # refuses what is no formula
    if structure is None:
        from pymatgen.core.composition import Composition

        return str(Composition(raw.formula).reduced_formula)
    found = str(structure.composition.element_composition.reduced_formula)
    if raw.formula is not None and composition_key(raw.formula) != composition_key(found):
        raise InputError(f"formula {raw.formula!r} does not agree with the structure, which is {found}; correct one")
    return found


def _space_group(structure: Structure | None, options: IngestOptions, problems: _Problems) -> SpaceGroup | None:
    from ingest.slices.space_groups import space_group

    if structure is None:
        if options.fcc and not options.assume_fcc:
            lines = ["no structure, so its space group is not known (--assume-fcc keeps it)", *problems.lines]
            raise InputError(_joined(lines))
        return None
    group = space_group(structure)
    if options.fcc and not group.f_centred_cubic:
        raise InputError(f"space group {group} is not F-centred cubic")
    return group


def _sound(densities: Iterable[DensityData], structure: Structure, problems: _Problems) -> list[DensityData]:
    """The densities that can be true; each kind is checked, and dropped, alone."""
    from ingest.densities.checks import check_density

    electrons: dict[str, float] = {}
    kept: list[DensityData] = []
    # The total first: the others are measured against its number of electrons.
    for density in sorted(densities, key=lambda density: density.kind != "total"):
        level = density.level_of_theory
        before = len(problems.lines)
        problems.attempt(
            "density",
            lambda density=density, level=level: check_density(  # type: ignore[misc]
                density, structure, electrons=electrons.get(level)
            ),
        )
        if len(problems.lines) > before:
            continue
        if density.kind == "total":
            electrons[level] = density.n_electrons
        kept.append(density)
    return kept


def _slices(
    recipes: list[ImageRecipe], densities: list[DensityData], structure: Structure | None, problems: _Problems
) -> list[SliceData]:
    if not densities or structure is None:
        if recipes:
            problems.add(f"no density, so no slice ({', '.join(recipe.name for recipe in recipes)})")
        return []
    by_kind = {density.kind: density for density in reversed(densities)}
    slices = []
    for recipe in recipes:
        pixels = problems.attempt(f"recipe {recipe.name}", lambda recipe=recipe: recipe.render(by_kind, structure))  # type: ignore[misc]
        if pixels is not None:
            inputs = tuple((kind, by_kind[kind].level_of_theory) for kind in recipe.channel_kinds)
            slices.append(SliceData(recipe.name, recipe.parameters(), recipe.unit, pixels, inputs))
    return slices


def _descriptions(
    source: str,
    given: RawDescription | None,
    formula: str,
    structure: Structure | None,
    options: IngestOptions,
    problems: _Problems,
) -> list[DescriptionData]:
    if options.texts == "none":
        return []
    if given is None or options.texts == "compute":
        given = None if structure is None else _computed(structure, problems)
        if structure is None:
            problems.add("no structure to describe, so no text but the formula")
    if given is None:
        return [DescriptionData("formula", formula, source)]
    described = given
    texts = problems.attempt("description", lambda: levels(described.text, formula)) or {}
    return [
        DescriptionData(level, text, described.generator, described.generator_version) for level, text in texts.items()
    ]


def _computed(structure: Structure, problems: _Problems) -> RawDescription | None:
    from ingest.texts.descriptions import describe

    text = problems.attempt("description", lambda: describe(structure))
    return None if text is None else RawDescription(text, GENERATOR, robocrys_version())


def _as_dict(structure: Structure) -> dict[str, Any]:
    # Through JSON: numpy numbers would not survive the way into the database.
    as_dict: dict[str, Any] = json.loads(structure.to_json())
    return as_dict


def _content_sha256(
    formula: str, structure: Structure | None, properties: tuple[PropertyData, ...], densities: list[DensityData]
) -> str:
    """SHA-256 (hex) of what came, whatever the file format and the version of the libraries."""
    content = {
        "formula": formula,
        "structure": structure
        and {
            "lattice": _rounded(structure.lattice.matrix),
            "species": [str(site.species_string) for site in structure],
            "positions": _rounded(structure.frac_coords),
        },
        "properties": sorted([p.name, p.level_of_theory, p.value, p.source_release] for p in properties),
    }
    digest = hashlib.sha256(json_sha256(content).encode())
    for density in sorted(densities, key=lambda density: (density.kind, density.level_of_theory)):
        values = np.ascontiguousarray(density.values)
        about = [density.kind, density.level_of_theory, density.provenance, list(values.shape), values.dtype.str]
        digest.update(json_sha256([about, _rounded(density.lattice)]).encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _rounded(values: Any) -> Any:
    # Plus zero, so that -0.0 and 0.0 are one.
    return (np.round(np.asarray(values, dtype=np.float64), 6) + 0.0).tolist()


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if not isinstance(error, EcdregError):
        text = f"{type(error).__name__}: {text or 'no message'}"
    return text if len(text) <= _REASON_LENGTH else text[: _REASON_LENGTH - 1] + "…"


def _joined(lines: list[str]) -> str:
    return "; ".join(lines)
