"""Words with a meaning that the registry can check: ``hard``, ``metallic``, ``tungsten``, ``oxide``.

A word stands for a filter on ``v_materials`` and nothing more; the filter is reported to the user. The bounds are
conventions, each with its reason, and apply to values as the source calculated them: PBE's band gaps are too small, so
that ``metallic`` is a calculated gap of zero, not a measured conductivity. A crystal with an unknown value meets
neither the word nor its negation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from registry.errors import InputError
from registry.formulas import composition
from registry.properties import PROPERTIES

__all__ = ["MEANINGS", "Meaning", "interpret", "without_negated_words"]


@dataclass(frozen=True)
class Meaning:
    """A word and its filter."""

    word: str
    """As in the sentence, after ``not`` where it is negated."""
    where: str
    """A filter, as of :mod:`registry.search.filters`."""
    why: str = ""
    """Reason of the bound; empty where it needs none."""

    @property
    def properties(self) -> tuple[str, ...]:
        """The properties in the filter; none for elements."""
        return tuple(sorted(set(re.findall(r"[a-z_][a-z0-9_]*", self.where)) & set(PROPERTIES)))

    @property
    def summary(self) -> str:
        """One line: the word, its filter and the reason."""
        return f"{self.word}: {self.where}" + (f" ({self.why})" if self.why else "")


def _named(words: str, where: str, why: str) -> Iterator[tuple[str, tuple[str, str]]]:
    for word in words.split():
        yield word, (where, why)


_TETER = "Vickers hardness is about 0.151 of the shear modulus: D. M. Teter, MRS Bulletin 23, 22 (1998)"
_GAP = "as calculated; PBE's gaps are too small"
_HALIDE = "elements && ARRAY['F', 'Cl', 'Br', 'I']"
# AgF, K2WCl6 and Cs2WBr6 have none as calculated; metals among halides are as rare as Ag2F.
_CLOSED = "as calculated; PBE closes the gaps of halides, as of AgF and K2WCl6, which insulate"
_PUGH = "S. F. Pugh, Philosophical Magazine 45, 823 (1954)"

MEANINGS: dict[str, tuple[str, str]] = dict(
    [
        *_named("superhard", "g_vrh >= 265", f"40 GPa and more; {_TETER}"),
        *_named("hard", "g_vrh >= 100", f"15 GPa and more; {_TETER}"),
        *_named("soft", "g_vrh < 30", f"less than 4.5 GPa; {_TETER}"),
        *_named("stiff incompressible", "k_vrh >= 200", "stiffer than steel, about 170 GPa"),
        *_named("compressible", "k_vrh < 50", "softer than glass, about 40 to 50 GPa"),
        *_named("metallic metal conducting conductor", f"band_gap = 0 AND NOT ({_HALIDE})", _CLOSED),
        *_named("insulating insulator", "band_gap >= 3", f"transparent to visible light; {_GAP}"),
        *_named("semiconducting semiconductor", "band_gap > 0 AND band_gap < 3", _GAP),
        *_named(
            "magnetic ferromagnetic ferrimagnetic",
            "total_magnetization >= 0.5 OR total_magnetization <= -0.5",
            "a net moment of half a Bohr magneton a cell; antiferromagnets have none",
        ),
        *_named("nonmagnetic", "total_magnetization < 0.05 AND total_magnetization > -0.05", "no net moment"),
        *_named("stable", "energy_above_hull <= 0.001", "on the convex hull, to 1 meV"),
        *_named("metastable", "energy_above_hull > 0.001 AND energy_above_hull <= 0.1", "within 0.1 eV of the hull"),
        *_named("unstable", "energy_above_hull > 0.1", "more than 0.1 eV above the hull"),
        *_named("ductile", "k_vrh > 1.75 * g_vrh", _PUGH),
        *_named("brittle", "k_vrh < 1.75 * g_vrh", _PUGH),
        *_named("oxide oxides", "'O' = ANY(elements)", ""),
        *_named("nitride nitrides", "'N' = ANY(elements)", ""),
        *_named("carbide carbides", "'C' = ANY(elements)", ""),
        *_named("boride borides", "'B' = ANY(elements)", ""),
        *_named("hydride hydrides", "'H' = ANY(elements)", ""),
        *_named("silicide silicides", "'Si' = ANY(elements)", ""),
        *_named("germanide germanides", "'Ge' = ANY(elements)", ""),
        *_named("phosphide phosphides", "'P' = ANY(elements)", ""),
        *_named("arsenide arsenides", "'As' = ANY(elements)", ""),
        *_named("antimonide antimonides", "'Sb' = ANY(elements)", ""),
        *_named("sulfide sulfides sulphide sulphides", "'S' = ANY(elements)", ""),
        *_named("selenide selenides", "'Se' = ANY(elements)", ""),
        *_named("telluride tellurides", "'Te' = ANY(elements)", ""),
        *_named("fluoride fluorides", "'F' = ANY(elements)", ""),
        *_named("chloride chlorides", "'Cl' = ANY(elements)", ""),
        *_named("bromide bromides", "'Br' = ANY(elements)", ""),
        *_named("iodide iodides", "'I' = ANY(elements)", ""),
        *_named("halide halides", _HALIDE, ""),
        *_named("chalcogenide chalcogenides", "elements && ARRAY['S', 'Se', 'Te']", ""),
        *_named("pnictide pnictides", "elements && ARRAY['N', 'P', 'As', 'Sb', 'Bi']", ""),
    ]
)
"""Filter and reason, by word."""

_NAMED = (
    "hydrogen H helium He lithium Li beryllium Be boron B carbon C nitrogen N oxygen O fluorine F neon Ne"
    " sodium Na magnesium Mg aluminium Al silicon Si phosphorus P sulfur S chlorine Cl argon Ar potassium K"
    " calcium Ca scandium Sc titanium Ti vanadium V chromium Cr manganese Mn iron Fe cobalt Co nickel Ni"
    " copper Cu zinc Zn gallium Ga germanium Ge arsenic As selenium Se bromine Br krypton Kr rubidium Rb"
    " strontium Sr yttrium Y zirconium Zr niobium Nb molybdenum Mo technetium Tc ruthenium Ru rhodium Rh"
    " palladium Pd silver Ag cadmium Cd indium In tin Sn antimony Sb tellurium Te iodine I xenon Xe caesium Cs"
    " barium Ba lanthanum La cerium Ce praseodymium Pr neodymium Nd promethium Pm samarium Sm europium Eu"
    " gadolinium Gd terbium Tb dysprosium Dy holmium Ho erbium Er thulium Tm ytterbium Yb lutetium Lu"
    " hafnium Hf tantalum Ta tungsten W rhenium Re osmium Os iridium Ir platinum Pt gold Au mercury Hg"
    " thallium Tl lead Pb bismuth Bi polonium Po astatine At radon Rn francium Fr radium Ra actinium Ac"
    " thorium Th protactinium Pa uranium U neptunium Np plutonium Pu aluminum Al cesium Cs sulphur S wolfram W"
)
_ELEMENTS = dict(re.findall(r"(\w+) (\w+)", _NAMED))

# Symbols that are English words as well, one-letter ones that stand for much else, and names of lattices.
_AMBIGUOUS = {"I", "In", "As", "He", "At", "No", "Be", "Am", "So", "On", "Is", "BCC", "FCC", "HCP", "CCP"}
_NEGATIONS = {"not", "no", "non", "nor", "without", "never"}
_BETWEEN = {"a", "an", "any", "the", "very", "too", "much", "really", "particularly", "strongly"}
"""Words that may stand between a negation and the negated word."""
_TOKEN = re.compile(
    # Space groups, as Fm-3m and P6_3/mmc: their letters are not elements.
    r"(?P<group>\b[PIFRABC][mnabcde0-9_]*(?:-\d|/)[mnabcde0-9_/-]*)"
    r"|(?P<absent>[A-Za-z][A-Za-z0-9()]*)-free\b"
    r"|(?P<free>\bfree\s+(?:of|from)\b)"
    r"|(?P<word>[A-Za-z][A-Za-z0-9()]*)"
    r"|(?P<stop>[,.;:])"
)


@dataclass(frozen=True)
class _Word:
    """A word of a sentence."""

    word: str
    negated: bool
    start: int
    """Position of its first character, with the negation before it."""
    end: int


def _words(sentence: str) -> Iterator[_Word]:
    """The words of a sentence, each with whether it is negated."""
    negated_from: int | None = None
    before: _Word | None = None
    for match in _TOKEN.finditer(sentence):
        word = match["word"] or ""
        if match["free"] or word.lower() in _NEGATIONS:
            negated_from = match.start()
        elif word.lower() == "or" and before is not None and before.negated:
            negated_from = match.start()  # no lead or cadmium
        elif negated_from is not None and word.lower() in _BETWEEN:
            continue
        elif match["stop"] or match["group"]:
            negated_from, before = None, None
        else:
            negated = negated_from is not None or match["absent"] is not None
            start = match.start() if negated_from is None else negated_from
            before = _Word(match["absent"] or word, negated, start, match.end())
            yield before
            negated_from = None


def interpret(sentence: str) -> list[Meaning]:
    """Find the words of a sentence with a meaning that can be checked, each once, in their order.

    Parameters
    ----------
    sentence
        Any words. Recognized are those of :data:`MEANINGS`, the names of the elements, their symbols where these are
        not English words, and formulas. ``not``, ``no``, ``non-``, ``without`` and ``free of`` negate the next word,
        and those that ``or`` adds to it; ``-free`` negates the word before it. Space groups are not words.

    Examples
    --------
    >>> [meaning.summary for meaning in interpret("tungsten oxides, not magnetic")][:2]
    ["tungsten: 'W' = ANY(elements)", "oxides: 'O' = ANY(elements)"]
    """
    found: dict[str, Meaning] = {}
    for word in _words(sentence):
        known = _meaning(word.word)
        if known is not None:
            where, why = known
            term, condition = (f"not {word.word}", f"NOT ({where})") if word.negated else (word.word, where)
            found.setdefault(condition, Meaning(term, condition, why))
    return list(found.values())


def without_negated_words(sentence: str) -> str:
    """A sentence without its negated words, for a search without a ``not``.

    Examples
    --------
    >>> without_negated_words("cubic oxides, not magnetic, bonds of 2.8 Å")
    'cubic oxides, bonds of 2.8 Å'
    """
    kept, end = [], 0
    for word in _words(sentence):
        if word.negated:
            kept.append(sentence[end : word.start])
            end = word.end
    rest = "".join([*kept, sentence[end:]])
    return re.sub(r"\s+", " ", re.sub(r"(?:\s*,)+", ",", rest)).strip(" ,")


def _meaning(token: str) -> tuple[str, str] | None:
    word = token.lower()
    spelt = token in (word, word.capitalize(), word.upper())  # TiN is not tin
    if spelt and word in MEANINGS:
        return MEANINGS[word]
    if spelt and word in _ELEMENTS and len(word) > 2:
        return f"'{_ELEMENTS[word]}' = ANY(elements)", ""
    if token in _AMBIGUOUS or not token[0].isupper():
        return None
    try:
        symbols = sorted(composition(token))
    except InputError:
        return None
    return f"elements @> ARRAY[{', '.join(repr(symbol) for symbol in symbols)}]", ""
