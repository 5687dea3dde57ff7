"""The registry from Python, for notebooks.

>>> from ecdreg import Registry
>>> with Registry.open() as registry:  # doctest: +SKIP
...     registry.ingest("sample")
...     registry.train("stacked", targets=["k_vrh"])
...     registry.materials("k_vrh > 250 AND 'C' = ANY(elements)")
...     registry.similar("mp-1022", k=5)
...     registry.search(["k_vrh=250:300"], ["formation_energy_per_atom=min"])
...     registry.propose(["k_vrh=250:"], elements_any=["Ti", "Zr"])
...     registry.predict("stacked:k_vrh", ["mp-1022"])
...     registry.leaderboard()

Everything is thin over the libraries: what comes back are lists of dictionaries, or the
libraries' own results, which ``pandas.DataFrame`` takes as they are. Values are in the units
that ``docs/schema.md`` gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingest.pipeline import IngestReport
    from registry.jobs.progress import Progress
    from registry.settings import Settings
    from train.experiments.run import ExperimentResult

__all__ = ["Registry"]


class Registry:
    """A registry that is open; made by :meth:`open`, closed by :meth:`close` or at the end of ``with``."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine = engine
        """For what this class has no method for: SQLAlchemy, or ``registry.database.session_scope``."""
        self.settings = settings

    @classmethod
    def open(cls, home: str | Path | None = None, url: str | None = None) -> Self:
        """Open the registry; the embedded database is started, and made, where needed.

        Parameters
        ----------
        home
            Folder of all state; None: ``ECDREG_HOME``, else the platform's.
        url
            A PostgreSQL server of your own; None: ``ECDREG_DATABASE_URL``, else the embedded database.

        Raises
        ------
        DatabaseUnreachableError, UnsuitableServerError, SchemaBehindError
            As :func:`registry.database.connect`.
        """
        import os

        from registry.database import connect
        from registry.settings import Settings

        given = {"ECDREG_HOME": None if home is None else str(home), "ECDREG_DATABASE_URL": url}
        settings = Settings.from_environ({**os.environ, **{k: v for k, v in given.items() if v is not None}})
        return cls(connect(settings, application_name="ecdreg notebook"), settings)

    def close(self) -> None:
        """Close the connections; an embedded database goes on running for others."""
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --------------------------------------------------------------------------- reading

    def materials(self, where: str | None = None) -> list[dict[str, Any]]:
        """Crystals, as ``v_materials`` shows them, by source and id.

        Parameters
        ----------
        where
            A filter as of ``ecdreg similar --where``: ``"k_vrh > 200 AND elements @> ARRAY['Ti']"``.

        Raises
        ------
        QueryError
            If the filter cannot be parsed, or names an unknown column.
        """
        from sqlalchemy import Select, literal_column, select

        from registry.search.filters import materials, parse

        view = materials()
        query: Select[Any] = select(literal_column("v_materials.*")).select_from(view)
        if where is not None:
            query = query.where(parse(where))
        with self.engine.connect() as connection:
            rows = connection.execute(query.order_by(view.c.source, view.c.source_id))
            return [dict(row) for row in rows.mappings()]

    def similar(
        self,
        ident: str,
        *,
        k: int = 10,
        encoder: str | Sequence[str] | None = None,
        where: str | None = None,
        metric: str = "cosine",
    ) -> list[dict[str, Any]]:
        """The crystals most like one, nearest first.

        Parameters
        ----------
        ident
            Its id, or ``source:id``.
        k
            How many.
        encoder
            Name or alias; None: the alias ``default``. Several are fused by their reciprocal ranks, and each crystal
            then has its ``score`` and its ``ranks`` instead of a distance.
        where
            A filter, as of :meth:`materials`.
        metric
            ``cosine``, ``l2`` or ``inner_product``.

        Raises
        ------
        NotFoundError, AmbiguousIdError, QueryError
            As :func:`registry.search.vectors.similar_to_crystal`.
        """
        from registry.database import session_scope
        from registry.search.explanations import facts_of
        from registry.search.fusion import depth, fuse, ranked
        from registry.search.vectors import similar_to_crystal

        with session_scope(self.engine) as session:
            if encoder is None or isinstance(encoder, str):
                found = similar_to_crystal(session, ident, encoder=encoder, k=k, where=where, metric=metric)
                return [neighbour.as_row() for neighbour in found]
            rankings = {
                name: ranked(similar_to_crystal(session, ident, encoder=name, k=depth(k), where=where, metric=metric))
                for name in encoder
            }
            best = fuse(rankings, k=k)
            facts = facts_of(session, [(one.source, one.source_id) for one in best])
        return [
            facts[one.source, one.source_id]
            | {"score": one.score, "ranks": {name: hit.rank for name, hit in one.hits.items()}}
            for one in best
        ]

    def search(
        self,
        want: Sequence[str] = (),
        prefer: Sequence[str] = (),
        *,
        elements_any: Sequence[str] = (),
        elements_all: Sequence[str] = (),
        without: Sequence[str] = (),
        where: str | None = None,
        k: int = 10,
        known_only: bool = False,
        progress: Progress | None = None,
    ) -> list[dict[str, Any]]:
        """The crystals that have wished properties, as ``ecdreg search`` orders them.

        Parameters
        ----------
        want
            Ranges, as ``"k_vrh=250:300"``.
        prefer
            ``"k_vrh=max"``, ``"efermi=min"`` or ``"efermi=6"``.
        elements_any, elements_all, without
            Symbols: at least one of these, all of these, none of these.
        where
            A filter, as of :meth:`materials`.
        k
            How many.
        known_only
            Whether models are not to say what is not known.
        progress
            Told of features that are computed.

        Returns
        -------
        list of dict
            Among others ``values``: by property its ``value``, whether it is ``known``, the ends of the 90 % interval
            of a prediction, and the ``model``.

        Raises
        ------
        ConfigurationError, QueryError
            As :func:`train.discovery.property_search.find_materials`.
        """
        from dataclasses import asdict

        from registry.search.constraints import parse_constraint, parse_objective
        from train.discovery.property_search import Elements, find_materials

        answer = find_materials(
            self.engine,
            self.settings,
            constraints=[parse_constraint(one) for one in want],
            objectives=[parse_objective(one) for one in prefer],
            elements=Elements(tuple(elements_any), tuple(elements_all), tuple(without)),
            where=where,
            k=k,
            predict=not known_only,
            progress=progress,
        )
        return [asdict(one) for one in answer.found]

    def propose(
        self,
        want: Sequence[str] = (),
        prefer: Sequence[str] = ("formation_energy_per_atom=min",),
        *,
        like: str | None = None,
        prototype: str | None = None,
        elements_any: Sequence[str] = (),
        elements_all: Sequence[str] = (),
        without: Sequence[str] = (),
        replace: int = 1,
        shortlist: int = 20,
        k: int = 10,
        progress: Progress | None = None,
    ) -> list[dict[str, Any]]:
        """Crystals that the registry does not have, made by replacing elements, as ``ecdreg propose`` orders them.

        Parameters
        ----------
        want, prefer, elements_any, elements_all, without, k
            As of :meth:`search`.
        like
            Replace elements of this crystal alone.
        prototype
            Only in this one.
        replace
            How many elements of a crystal are replaced at most, 1 or 2.
        shortlist
            How many are described in words, which takes seconds each, for the models that read them.
        progress
            Told of each crystal.

        Returns
        -------
        list of dict
            ``formula``, ``prototype``, ``parent``, ``replaced``, ``structure`` (a pymatgen ``Structure``, not relaxed),
            ``values`` as of :meth:`search`, ``meets``, ``front``, ``chance`` and ``out_of_domain``.

        Raises
        ------
        ConfigurationError, NotFoundError
            As :func:`train.discovery.property_search.check_constraints`, :func:`ingest.substitution.read_parents` and
            :class:`train.discovery.ranking.PropertyModels`.
        """
        from dataclasses import asdict

        from ingest.substitution import as_crystal, known_keys, read_parents
        from ingest.substitution import propose as substitute
        from registry.database import session_scope
        from registry.formulas import composition
        from registry.search.constraints import parse_constraint, parse_objective
        from train.discovery.property_search import Elements, check_constraints
        from train.discovery.ranking import PropertyModels, rank

        constraints, objectives = [parse_constraint(one) for one in want], [parse_objective(one) for one in prefer]
        names = check_constraints(constraints, objectives)
        elements = Elements(tuple(elements_any), tuple(elements_all), tuple(without))
        with session_scope(self.engine) as session:
            parents, family = read_parents(session, prototype=prototype, ident=like)
            known = known_keys(session)
        found = [
            one
            for one in substitute(parents, family, known=known, depth=replace)
            if elements.allow(list(composition(one.formula)))
        ]
        if not found:
            return []
        ranked = rank(
            PropertyModels(self.engine, self.settings, names),
            [as_crystal(one, structure=False) for one in found],
            constraints=constraints,
            objectives=objectives,
            describe=lambda i: as_crystal(found[i], texts=True),
            shortlist=shortlist,
            progress=progress,
        )
        return [
            {
                "formula": found[one.place].formula,
                "prototype": found[one.place].prototype,
                "parent": found[one.place].parent.name,
                "replaced": dict(found[one.place].replaced),
                "likeness": found[one.place].likeness,
                "structure": found[one.place].structure(),
                "values": {name: asdict(value) for name, value in one.said.values.items()},
                "meets": one.meets,
                "front": one.front,
                "chance": one.chance,
                "out_of_domain": one.said.out_of_domain,
            }
            for one in ranked[:k]
        ]

    def leaderboard(self, target: str | None = None) -> list[dict[str, Any]]:
        """Scores of every configuration, as ``v_leaderboard`` shows them.

        Parameters
        ----------
        target
            Only of this property; None: of all.

        Raises
        ------
        UnknownNameError
            If there is no such property.
        """
        from registry.properties import property_named

        if target is None:
            return self.sql("SELECT * FROM v_leaderboard")
        return self.sql("SELECT * FROM v_leaderboard WHERE target = :target", target=property_named(target).name)

    def sql(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """The rows of a query; nothing can be written by it.

        Parameters
        ----------
        query
            SQL; ``:name`` stands for a value.
        **values
            The values, by name.

        Raises
        ------
        sqlalchemy.exc.SQLAlchemyError
            If the database refuses the query, as it does if it would write.
        """
        from sqlalchemy import text

        with self.engine.connect() as connection, connection.begin():
            connection.execute(text("SET TRANSACTION READ ONLY"))
            return [dict(row) for row in connection.execute(text(query), values).mappings()]

    # --------------------------------------------------------------------------- working

    def predict(self, model: str, ids: Sequence[str], *, progress: Progress | None = None) -> list[dict[str, Any]]:
        """What a model says of crystals of the registry.

        Parameters
        ----------
        model
            ``name[:target][@alias or @version]``; without a target, one answer for each.
        ids
            Ids of the crystals, or ``source:id``.
        progress
            Told of features that are computed.

        Returns
        -------
        list of dict
            ``id``, ``formula``, ``target``, ``predicted``, ``lower`` and ``upper`` (ends of the interval of ``level``)
            and ``spread`` (the standard deviation over the fold models, no error bar), all in ``unit``; whether the
            crystal is ``out_of_domain``; ``model``, and the ``subset`` that the crystal plays in the model's split.

        Raises
        ------
        NotFoundError, IncompatibleInputError, ArtifactError
            As :func:`train.prediction.stored.predict_crystals`.
        """
        from registry.crystals import resolve
        from registry.database import session_scope
        from registry.model_store import resolve_model
        from registry.properties import property_named
        from train.prediction.stored import predict_crystals

        with session_scope(self.engine) as session:
            models = resolve_model(session, model)
            crystals = [resolve(session, ident) for ident in ids]
            session.expunge_all()  # used after the session is closed
        rows = []
        for found in models:
            said = predict_crystals(
                self.engine, self.settings, found, [c.revision_id for c in crystals], progress=progress
            )
            target = property_named(found.experiment.target)
            rows += [
                {
                    "id": f"{crystal.source}:{crystal.source_id}",
                    "formula": crystal.formula,
                    "target": target.name,
                    "predicted": one.value,
                    "lower": one.lower,
                    "upper": one.upper,
                    "level": one.confidence,
                    "out_of_domain": one.out_of_domain,
                    "spread": one.spread,
                    "unit": target.unit,
                    "subset": one.subset,
                    "model": found.name,
                }
                for crystal, one in zip(crystals, said, strict=True)
            ]
        return rows

    def ingest(
        self, source: str, *, fcc: bool = True, progress: Progress | None = None, **options: Any
    ) -> IngestReport:
        """Bring the crystals of a source into the registry.

        Parameters
        ----------
        source
            Name of a source, or a dataset folder as a path with a ``/``.
        fcc
            Keep F-centred cubic crystals, reject the others.
        progress
            Told of what happens.
        **options
            Others of :class:`ingest.pipeline.IngestOptions`.

        Raises
        ------
        ConfigurationError, SourceError
            As :func:`ingest.pipeline.ingest`.
        """
        from ingest.pipeline import IngestOptions, ingest
        from ingest.sources import open_source
        from registry.files.grids import GridStore

        grids = GridStore(self.settings.grids_url)
        chosen = IngestOptions(fcc=fcc, **options)
        return ingest(self.engine, open_source(source), chosen, grids=grids, progress=progress)

    def train(
        self,
        kind: str = "stacked",
        *,
        targets: Sequence[str] | None = None,
        split: str = "default",
        seed: int = 0,
        progress: Progress | None = None,
        **config: Any,
    ) -> list[ExperimentResult]:
        """Train a model for each target, with the baselines and the towers that it stands on.

        Parameters
        ----------
        kind
            image, text, stacked, or baseline for all baselines.
        targets
            Properties to learn; None: all three.
        split
            Name of a split; ``default`` is made where it is missing.
        seed
            Of weights, order and dropout.
        progress
            Told of folds and epochs.
        **config
            Other fields of :class:`train.config.config.TrainConfig`.

        Raises
        ------
        ConfigurationError, NotFoundError, SplitError, ModelError
            As :func:`train.experiments.run.run_experiment`.
        """
        from registry.database import session_scope
        from registry.properties import TARGETS
        from registry.splits.creation import DEFAULT_SPLIT, ensure_default_split
        from train.config.config import KINDS, TrainConfig
        from train.experiments.run import run_experiment

        kinds = [name for name in KINDS if name.startswith("baseline-")] if kind == "baseline" else [kind]
        results = []
        for target in targets or TARGETS:
            configs = [TrainConfig.from_dict({"kind": name, "target": target, **config}) for name in kinds]
            if split == DEFAULT_SPLIT:
                with session_scope(self.engine) as session:
                    ensure_default_split(session, target)
            results += [
                run_experiment(self.engine, self.settings, one, split=split, seed=seed, progress=progress)
                for one in configs
            ]
        return results
