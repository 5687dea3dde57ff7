"""``ecdreg similar``: the crystals most like one of the registry, a text, an image or files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.connections import open_registry
from cli.options.arguments import (
    DensityOption,
    JsonOption,
    KOption,
    LevelOfTheoryOption,
    ReferenceOption,
    StructureOption,
    WhereOption,
)
from cli.options.constraints import columns_of

if TYPE_CHECKING:
    from ecdreg.search.similarity import SimilarCrystal

__all__ = ["similar"]


def similar(
    id: Annotated[
        str | None, typer.Argument(metavar="ID", help="A crystal's id, or source:id.", show_default=False)
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", metavar="SENTENCE", help="What the crystals should be like, in words.")
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", metavar="FILE", help="A slice: .npy (C, H, W) in e/Å^3, or a grey .png."),
    ] = None,
    structure: StructureOption = None,
    density: DensityOption = None,
    reference: ReferenceOption = None,
    level_of_theory: LevelOfTheoryOption = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            "--encoder",
            metavar="NAME",
            help="Encoder or alias of one; by default the alias `default`. Several are fused by their ranks; `words`"
            " stands for the words of the --text themselves.",
        ),
    ] = None,
    k: KOption = 10,
    where: WhereOption = None,
    metric: Annotated[
        str, typer.Option("--metric", metavar="NAME", help="cosine, l2, or inner_product (printed with a minus sign).")
    ] = "cosine",
    explain: Annotated[
        bool, typer.Option("--explain", help="Print what each crystal has in common with the query, and its ranks.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Find the crystals most like one of the registry, a text, an image, or files.

    The nearest comes first, by the cosine distance of the vectors: 0 is the same direction, 2 the opposite. Files pass
    through the same slices and texts as an ingest. `ecdreg encoders list` lists the encoders: `ecdreg train stacked`
    makes fingerprint, which is the default, efficientnet_lite0:metric and minilm:keywords; `ecdreg encoders add
    pettifor` makes pettifor.

    Several encoders are fused: the score of a crystal is the sum of 1 / (60 + rank) over them. For a text, the words
    with a meaning that can be checked come first (hard, metallic, oxide, tungsten, TiN, "not magnetic"): a crystal that
    meets more of them is before one that meets fewer. Then an encoder that reads texts and the words of the
    descriptions order them, fused.

    \b
    Examples:
      ecdreg similar mp-1022 -k 5
      ecdreg similar mp-1022 --encoder efficientnet_lite0:metric --encoder minilm:keywords --explain
      ecdreg similar --text "hard, metallic, tungsten"
      ecdreg similar --text "rock salt oxide" --where "k_vrh > 100"
      ecdreg similar mp-1022 --where "elements @> ARRAY['Ti'] AND space_group_number = 225"
      ecdreg similar --image slice.npy
      ecdreg similar --density CHGCAR --reference CHGCAR.reference --encoder efficientnet_lite0:metric
      ecdreg similar --density CHGCAR --reference CHGCAR.reference --level-of-theory GGA
    """
    found = open_registry().similar(
        id,
        text=text,
        image=image,
        structure=structure,
        density=density,
        reference=reference,
        level_of_theory=level_of_theory,
        encoder=encoder,
        k=k,
        where=where,
        metric=metric,
        explain=explain,
    )
    if json:
        output.json(found.to_dicts())
    elif found:
        columns = (
            {"rank": "rank", "id": "id", "formula": "formula"}
            | ({} if found[0].checked is None else {"words": "words met"})
            | ({"distance": "distance"} if found[0].score is None else {"score": "score"})
            | {"space_group_symbol": "space group"}
            | columns_of(tuple(found[0].properties))
        )
        rows = [one.to_dict() | {"id": one.id, "words": _words(one)} for one in found]
        output.table(rows, columns, formats={"distance": ".4f", "score": ".4f"})
        for one in found if explain else ():
            output.line(_explanation(one))
    output.remarks(found)


def _words(one: SimilarCrystal) -> str:
    """Number of the words that are met, as ``2 of 3``, and number of unknown ones."""
    if one.checked is None:
        return ""
    met, unmet, unknown = len(one.checked.met), len(one.checked.unmet), len(one.checked.unknown)
    return f"{met} of {met + unmet + unknown}" + (f", {unknown} unknown" if unknown else "")


def _explanation(one: SimilarCrystal) -> str:
    """One line: what a crystal has in common with the query, words that are not met, its place in each ranking."""
    parts: list[Any] = [(one.why or {}).get("sentence", "")]
    if one.checked is not None:
        checked = (("not met", one.checked.unmet), ("not known", one.checked.unknown))
        parts += [f"{what}: {', '.join(words)}" for what, words in checked if words]
    if one.ranks:
        parts.append("rank " + ", ".join(f"{place.rank} by {name}" for name, place in one.ranks.items()))
    return f"{one.rank}. {one.formula}: {'; '.join(parts)}"
