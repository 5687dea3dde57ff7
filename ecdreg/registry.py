"""Registry of crystals in Python: the entry point of the library, for notebooks, the command line and the web.

>>> from ecdreg import Registry
>>> with Registry.open() as registry:  # doctest: +SKIP
...     registry.ingest("sample", fcc=True)
...     registry.train("stacked", targets=["k_vrh"])
...     registry.materials("k_vrh > 250 AND 'C' = ANY(elements)")
...     registry.similar("mp-1022", k=5)
...     registry.search(["k_vrh=250:300"], ["formation_energy_per_atom=min"])
...     registry.propose(["k_vrh=250:"], elements_any=["Ti", "Zr"])
...     registry.predict("stacked:k_vrh", ["mp-1022"])
...     registry.leaderboard()

Results are typed rows (:class:`ecdreg.results.Results`), or lists of dictionaries for views of the database;
``pandas.DataFrame`` takes both. Values are in the units that ``docs/schema.md`` gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ecdreg.explanation as _explanation
import ecdreg.ingestion as _ingestion
import ecdreg.prediction as _prediction
import ecdreg.properties as _properties
import ecdreg.splits as _splits
from ecdreg.connection import RegistryConnection
from ecdreg.models import leaderboard as _leaderboard
from ecdreg.models import listing, reference_models, training, tuning
from ecdreg.reproduction import paper
from ecdreg.search import encoders as _encoders
from ecdreg.search import evaluation, indexes, property_search, proposals, similarity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from registry.jobs.progress import Progress

__all__ = ["Registry"]


class Registry(RegistryConnection):
    """An open registry; made by :meth:`open`, closed by :meth:`close` or at the end of ``with``.

    Use cases are functions of a registry in modules of their own (``ecdreg.prediction.predict``) and methods here: the
    command line, Python and the web call the same function with the same defaults.
    """

    ingest = _ingestion.ingest
    properties = _properties.list_properties
    add_property = _properties.add_property
    remove_property = _properties.remove_property
    create_split = _splits.create_split
    import_split = _splits.import_split
    splits = _splits.list_splits
    show_split = _splits.show_split
    train = training.train
    tune = tuning.tune
    leaderboard = _leaderboard.leaderboard
    models = listing.list_models
    show_model = listing.show_model
    compare_models = listing.compare_models
    set_alias = listing.set_alias
    model_coverage = listing.model_coverage
    score_reference_model = reference_models.score_reference_model
    reproduce_paper = paper.reproduce_paper
    reproduce_ablation = paper.reproduce_ablation
    predict = _prediction.predict
    explain = _explanation.explain
    similar = similarity.similar
    search = property_search.search
    propose = proposals.propose
    encoders = _encoders.list_encoders
    add_encoder = _encoders.add_encoder
    set_default_encoder = _encoders.set_default_encoder
    evaluate_search = evaluation.evaluate_search
    index_status = indexes.index_status
    build_indexes = indexes.build_indexes
    drop_indexes = indexes.drop_indexes

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

    # ------------------------------------------------------------------- reports and figures

    def report(
        self,
        model: str,
        path: str | Path,
        *,
        samples: int = 4,
        crystals: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> Path:
        """Write the report of a model to an HTML file, as :func:`ecdreg.report.model.write_model_report`.

        Parameters
        ----------
        model
            ``name[:target][@alias or @version]``; without a target, every target has a section.
        path
            The file.
        samples
            Number of crystals whose slices and texts are shown.
        crystals
            Ids of crystals; the prediction for each is explained.
        progress
            Receives the progress of the explanations.
        """
        from ecdreg.report.model import write_model_report

        return write_model_report(self, model, Path(path), samples=samples, crystals=crystals, progress=progress)

    def plot(self, name: str, path: str | Path | None = None, **options: Any) -> Figure:
        """Draw a figure, as :func:`ecdreg.figures.catalog.plot`.

        Parameters
        ----------
        name
            composition, curves, density, fourier, map or scores.
        path
            File to write: PNG, SVG, PDF or HTML by its ending; None: no file.
        **options
            Other arguments of the figure, as ``split`` of composition.
        """
        from ecdreg.figures.catalog import plot

        return plot(self, name, None if path is None else Path(path), **options)
