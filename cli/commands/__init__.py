"""Commands of ``ecdreg``, one module for each command or group of commands.

:data:`COMMANDS` names them all. Only ``cli.main`` imports the modules, each when its command is used.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["COMMANDS", "Entry"]


@dataclass(frozen=True)
class Entry:
    """A command that is imported on demand."""

    path: str
    """``module:object``; the object is a function, or a group of commands."""
    help: str
    """First line of its help, which ``ecdreg --help`` prints without importing the module."""


COMMANDS: dict[str, Entry] = {
    "ingest": Entry("cli.commands.ingest:ingest", "Bring crystals into the registry."),
    "properties": Entry(
        "cli.commands.properties:group", "List the properties of crystals, and add or remove your own."
    ),
    "split": Entry(
        "cli.commands.split:group", "Make, import and show splits of the crystals: cross-validation, holdout, excluded."
    ),
    "train": Entry("cli.commands.train:group", "Train models on a split, with the baselines beside them."),
    "tune": Entry(
        "cli.commands.tune:tune",
        "Search the hyper-parameters of a kind of model by cross-validation on the split's cv rows.",
    ),
    "leaderboard": Entry(
        "cli.commands.leaderboard:leaderboard",
        "Compare the models: best in cross-validation first, baselines beside them.",
    ),
    "models": Entry("cli.commands.models:group", "List, show and compare trained models, and give them aliases."),
    "encoders": Entry(
        "cli.commands.encoders:group", "List the encoders that make vectors, and choose the one that searches use."
    ),
    "predict": Entry(
        "cli.commands.predict:predict", "Predict with a trained model, for crystals of the registry or for files."
    ),
    "similar": Entry(
        "cli.commands.similar:similar",
        "Find the crystals most like one of the registry, a text, an image, or files.",
    ),
    "search": Entry("cli.commands.search:search", "Find crystals that meet constraints on properties: inverse design."),
    "propose": Entry(
        "cli.commands.propose:propose",
        "Propose crystals that the registry does not have, by replacing elements of those that it has.",
    ),
    "explain": Entry(
        "cli.commands.explain:explain",
        "Explain a prediction: the shares of modalities, pixels, words and other features.",
    ),
    "report": Entry(
        "cli.commands.report:report",
        "Write a report of a model: scores with the baselines, parity plot, intervals, learning curves.",
    ),
    "reproduce": Entry(
        "cli.commands.reproduce:group",
        "Reproduce the paper's experiments on leakage-free splits, with the published numbers.",
    ),
    "plot": Entry(
        "cli.commands.plot:group",
        "Draw figures from the registry: PNG, SVG, PDF or HTML by the ending of the file.",
    ),
    "evaluate": Entry("cli.commands.evaluate:group", "Measure the quality of answers of the registry."),
    "reference": Entry(
        "cli.commands.reference:group",
        "Score reference models: published models of other groups, on the rows of a split.",
    ),
    "index": Entry("cli.commands.index:group", "Build and drop indexes that make searches among many vectors fast."),
    "bench": Entry("cli.commands.bench:group", "Run benchmarks of derived densities and of the vector search."),
    "cache": Entry(
        "cli.commands.cache:group", "The density cache at ECDREG_CACHE, which several registries may share."
    ),
    "db": Entry("cli.commands.db:group", "The database: the embedded one, or that of ECDREG_DATABASE_URL."),
}
"""Every command by its name, in the order of their use."""
