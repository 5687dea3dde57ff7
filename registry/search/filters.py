"""Filters: conditions in SQL syntax on the columns of ``v_materials``, parsed and rebuilt.

The text of a filter is never sent to the database: it is parsed, each part is looked up in a list of
allowed constructs, and a new condition is built whose values are bound parameters. Allowed are
columns, numbers, texts, ``AND OR NOT``, comparisons, ``BETWEEN``, ``IN`` with a list, ``LIKE`` and
``ILIKE``, ``IS NULL``, ``+ - * /``, and for columns that hold several texts ``'Ti' = ANY(elements)``,
``elements @> ARRAY['Ti', 'O']``, ``<@`` and ``&&``.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NoReturn

from sqlalchemy import ColumnElement, Double, FromClause, Text, and_, any_, bindparam, column, false, not_, or_, table
from sqlalchemy import true as sql_true
from sqlalchemy.dialects.postgresql import ARRAY

from registry.errors import QueryError
from registry.properties import PROPERTIES

__all__ = ["FIXED_COLUMNS", "can_name_column", "columns", "materials", "parse"]

_NUMBERS = ("crystal_id", "revision_id", "space_group_number", "n_sites", "volume", "volume_per_atom")
_TEXTS = (
    "source",
    "source_id",
    "material_key",
    "formula",
    "chemsys",
    "space_group_symbol",
    "prototype",
    "description",
)
_LISTS = ("elements", "suspect", "density_kinds", "recipes")
_TYPES: dict[str, Any] = {"number": Double(), "text": Text(), "list of texts": ARRAY(Text())}

FIXED_COLUMNS: dict[str, str] = {
    **dict.fromkeys(_NUMBERS, "number"),
    **dict.fromkeys(_TEXTS, "text"),
    **dict.fromkeys(_LISTS, "list of texts"),
}
"""Kind of every column of ``v_materials`` that is not a property: number, text or list of texts."""

_LONGEST = 4000
_DEEPEST = 40
_ALLOWED = "a filter compares columns of v_materials with numbers and texts, joined by AND, OR, NOT"

# By the parser's names, some of which are those of functions.
_OPERATORS = {
    "RegexpLike": "~",
    "RegexpILike": "~*",
    "SimilarTo": "SIMILAR TO",
    "Pow": "^",
    "Mod": "%",
    "DPipe": "||",
    "Collate": "COLLATE",
}

_Value = tuple[str, ColumnElement[Any]]


def columns() -> dict[str, str]:
    """Kind of every column that a filter may name, those of properties included: number, text or list of texts."""
    return FIXED_COLUMNS | dict.fromkeys(PROPERTIES, "number")


def materials() -> FromClause:
    """The view ``v_materials`` with the columns that it has now; the same object until a property is added."""
    return _materials(tuple(PROPERTIES))


@lru_cache(maxsize=16)
def _materials(properties: tuple[str, ...]) -> FromClause:
    kinds = FIXED_COLUMNS | dict.fromkeys(properties, "number")
    return table("v_materials", *(column(name, _TYPES[kind]) for name, kind in kinds.items()))


def can_name_column(name: str) -> bool:
    """Whether the parser of filters reads a name as that of a column.

    Parameters
    ----------
    name
        A name in lower case.
    """
    from sqlglot import exp, parse_one
    from sqlglot.errors import SqlglotError

    try:
        tree = parse_one(f"{name} > 0", into=exp.Condition, dialect="postgres")
    except SqlglotError:
        return False
    return type(tree) is exp.GT and type(tree.this) is exp.Column and tree.this.name == name


def parse(where: str) -> ColumnElement[bool]:
    """Parse a filter.

    Parameters
    ----------
    where
        As ``"k_vrh > 100 AND 'O' = ANY(elements)"``, in the units of the columns.

    Returns
    -------
    ColumnElement
        A condition on :func:`materials`; every value in it is a bound parameter.

    Raises
    ------
    QueryError
        If it cannot be parsed, names an unknown column, compares what cannot be compared, or holds
        anything that is not allowed; the message names it.

    Examples
    --------
    >>> print(parse("k_vrh > 250 AND formula LIKE 'W%'"))
    v_materials.k_vrh > :param_1 AND v_materials.formula LIKE :param_2
    """
    if not where.strip():
        raise QueryError(f"the filter is empty; {_ALLOWED}")
    if len(where) > _LONGEST:
        raise QueryError(f"the filter has {len(where)} characters; at most {_LONGEST} are allowed")
    if not where.isprintable() and re.search(r"[^\s\x20-\U0010ffff]|[\x7f\ud800-\udfff]", where):
        raise QueryError("the filter has a control character; remove it")
    from sqlglot import exp, parse_one
    from sqlglot.errors import SqlglotError

    try:
        # As a condition, not as a statement: anything after the condition is an error.
        tree = parse_one(where, into=exp.Condition, dialect="postgres")
        return _Builder().condition(tree, 0)
    except SqlglotError as error:
        raise QueryError(f"the filter {_short(where)} cannot be parsed{_position(error)}; {_ALLOWED}") from None
    except RecursionError:
        raise QueryError("the filter is nested too deeply; simplify it") from None


class _Builder:
    """Builds a condition from a parse tree; refuses every node without a method here."""

    def __init__(self) -> None:
        from sqlglot import exp

        self.exp = exp
        self.comparisons: dict[type[Any], Callable[[Any, Any], ColumnElement[bool]]] = {
            exp.EQ: operator.eq,
            exp.NEQ: operator.ne,
            exp.LT: operator.lt,
            exp.LTE: operator.le,
            exp.GT: operator.gt,
            exp.GTE: operator.ge,
        }
        self.lists: dict[type[Any], str] = {
            exp.ArrayContainsAll: "@>",
            exp.ArrayContainedBy: "<@",
            exp.ArrayOverlaps: "&&",
        }
        self.arithmetic: dict[type[Any], str] = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/"}

    def condition(self, node: Any, depth: int) -> ColumnElement[bool]:
        """Condition of a node: a part of the filter that is true or false."""
        exp = self.exp
        self._check_depth(depth)
        kind = type(node)
        if kind in (exp.And, exp.Or):
            # Flat: a long chain must not become a deep tree.
            parts = [self.condition(part, depth + 1) for part in self._chain(node, kind)]
            return and_(*parts) if kind is exp.And else or_(*parts)
        if kind is exp.Not:
            return not_(self.condition(self._only(node, "this").this, depth + 1))
        if kind is exp.Paren:
            return self.condition(self._only(node, "this").this, depth + 1)
        if kind is exp.Boolean:
            return sql_true() if node.this else false()
        if kind is exp.Is:
            return self._is_null(self._only(node, "this", "expression", "negate"), depth)
        if kind in self.lists:
            return self._lists(self._only(node, "this", "expression"), depth)
        if kind is exp.EQ and isinstance(node.expression, exp.Any):
            return self._any(self._only(node, "this", "expression"), depth)
        if kind in self.comparisons:
            left, right = self._pair(self._only(node, "this", "expression"), "this", "expression", depth=depth)
            return self.comparisons[kind](left, right)
        if kind is exp.Between:
            value, low, high = self._pair(self._only(node, "this", "low", "high"), "this", "low", "high", depth=depth)
            return value.between(low, high)
        if kind is exp.In:
            return self._in(self._only(node, "this", "expressions", "query"), depth)
        if kind in (exp.Like, exp.ILike):
            return self._like(self._only(node, "this", "expression", "negate"), depth)
        return self._refuse(node, "a condition")

    def value(self, node: Any, depth: int) -> _Value:
        """Kind and value of a node: a number, a text or a list of texts."""
        exp = self.exp
        self._check_depth(depth)
        kind = type(node)
        if kind is exp.Column:
            return self._column(self._only(node, "this"))
        if kind is exp.Literal:
            return self._literal(node)
        if kind is exp.Paren:
            return self.value(self._only(node, "this").this, depth + 1)
        if kind is exp.Neg:
            return "number", -self._number(self._only(node, "this").this, depth)
        if kind in self.arithmetic:
            self._only(node, "this", "expression", "typed", "safe")
            left, right = self._number(node.this, depth), self._number(node.expression, depth)
            return "number", left.op(self.arithmetic[kind], precedence=0, return_type=Double())(right).self_group()
        if kind is exp.Array:
            texts = [self._text(item) for item in self._only(node, "expressions", "value_constructor").expressions]
            return "list of texts", bindparam(None, texts, ARRAY(Text()), unique=True)
        return self._refuse(node, "a value")

    def _column(self, node: Any) -> _Value:
        # As in PostgreSQL, a name without quotes is converted to lower case.
        name = node.name if node.this.args.get("quoted") else node.name.lower()
        kinds = columns()
        if name not in kinds:
            near = difflib.get_close_matches(name, kinds, n=1)
            hint = f"did you mean {near[0]!r}?" if near else r"`ecdreg db shell -c '\d v_materials'` lists them"
            raise QueryError(f"no column {_short(name)} in v_materials; {hint}")
        return kinds[name], materials().c[name]

    def _literal(self, node: Any) -> _Value:
        if node.args.get("is_string"):
            return "text", bindparam(None, node.this, Text(), unique=True)
        number = float(node.this)
        if not math.isfinite(number):
            raise QueryError(f"the number {_short(node.this)} is too large to compare with")
        return "number", bindparam(None, number, Double(), unique=True)

    def _is_null(self, node: Any, depth: int) -> ColumnElement[bool]:
        if not isinstance(node.expression, self.exp.Null):
            self._refuse(node, "a condition (IS is for NULL)")
        _, value = self.value(node.this, depth + 1)
        return value.is_not(None) if node.args.get("negate") else value.is_(None)

    def _any(self, node: Any, depth: int) -> ColumnElement[bool]:
        value = self._typed(node.this, "text", depth)
        return value == any_(self._typed(self._only(node.expression, "this").this, "list of texts", depth))

    def _lists(self, node: Any, depth: int) -> ColumnElement[bool]:
        left, right = (self._list(side, depth) for side in (node.this, node.expression))
        return left.bool_op(self.lists[type(node)])(right)

    def _list(self, node: Any, depth: int) -> ColumnElement[Any]:
        # PostgreSQL's syntax of a list: '{Ti,O}'.
        if isinstance(node, self.exp.Literal) and (inner := re.fullmatch(r"\{([^{}\"\\]*)\}", node.this)):
            texts = [part.strip() for part in inner[1].split(",") if part.strip()]
            return bindparam(None, texts, ARRAY(Text()), unique=True)
        return self._typed(node, "list of texts", depth)

    def _in(self, node: Any, depth: int) -> ColumnElement[bool]:
        if query := node.args.get("query"):
            self._refuse(query, "a list")
        kind, value = self.value(node.this, depth + 1)
        items = [self._typed(item, kind, depth) for item in node.expressions]
        if not items:
            raise QueryError(f"{_sql(node)} has an empty list; name at least one value")
        return value.in_(items)

    def _like(self, node: Any, depth: int) -> ColumnElement[bool]:
        value, pattern = (self._typed(side, "text", depth) for side in (node.this, node.expression))
        like = value.ilike(pattern) if isinstance(node, self.exp.ILike) else value.like(pattern)
        return not_(like) if node.args.get("negate") else like

    def _pair(self, node: Any, *sides: str, depth: int) -> Iterator[ColumnElement[Any]]:
        """Sides of a comparison; all must be of the kind of the first one."""
        kind, value = self.value(node.args[sides[0]], depth + 1)
        return iter([value, *(self._typed(node.args[side], kind, depth) for side in sides[1:])])

    def _number(self, node: Any, depth: int) -> ColumnElement[Any]:
        return self._typed(node, "number", depth)

    def _typed(self, node: Any, wanted: str, depth: int) -> ColumnElement[Any]:
        kind, value = self.value(node, depth + 1)
        if kind != wanted:
            raise QueryError(f"{_sql(node)} is a {kind}, compared with a {wanted}; compare values of one kind")
        return value

    def _text(self, node: Any) -> str:
        if not isinstance(node, self.exp.Literal) or not node.args.get("is_string"):
            self._refuse(node, "a text in a list")
        return str(node.this)

    def _chain(self, node: Any, kind: type[Any]) -> Iterator[Any]:
        stack = [node]
        while stack:
            part = stack.pop()
            if type(part) is kind:
                self._only(part, "this", "expression")
                stack += [part.expression, part.this]
            else:
                yield part

    def _only(self, node: Any, *known: str) -> Any:
        """The node, if it has no other arguments than these: additions of a later parser are refused, not ignored."""
        if any(value for name, value in node.args.items() if name not in known):
            self._refuse(node, "allowed in this form")
        return node

    def _check_depth(self, depth: int) -> None:
        if depth > _DEEPEST:
            raise QueryError("the filter is nested too deeply; simplify it")

    def _refuse(self, node: Any, wanted: str) -> NoReturn:
        exp = self.exp
        names = (
            (exp.Query, "a sub-query"),
            (exp.Exists, "a sub-query"),
            (exp.Subquery, "a sub-query"),
            (exp.Cast, "a cast"),
            (exp.Placeholder, "a placeholder"),
            (exp.Parameter, "a placeholder"),
            (exp.Null, "NULL (write IS NULL)"),
            (exp.Case, "CASE"),
            (exp.Column, "a column"),
            (exp.Literal, "a value"),
        )
        what = next((name for cls, name in names if isinstance(node, cls)), None)
        if sign := _OPERATORS.get(type(node).__name__):
            what = f"the operator {sign}"
        if what is None and isinstance(node, exp.Func):
            what = "a function call"
        what = what or f"the construct {type(node).__name__!r}"
        raise QueryError(f"{_sql(node)} is {what}, not {wanted}; {_ALLOWED}")


def _sql(node: Any) -> str:
    return _short(node.sql(dialect="postgres"))


def _short(words: str) -> str:
    return repr(words if len(words) <= 60 else words[:57] + "...")


def _position(error: Any) -> str:
    details = getattr(error, "errors", None) or [{}]
    near = details[0].get("highlight")
    return f" near {_short(near)}" if near else ""
