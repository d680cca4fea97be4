"""Filters and comparisons combined: ``image_based & nsfw < 0.1``, with ``|``, ``~`` and brackets; nothing is run."""

from __future__ import annotations

import ast
import difflib
import re
import warnings
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import ValidationError

from dqe_assets.filtering.filters import FILTERS
from dqe_assets.filtering.filters.among import Among
from dqe_assets.filtering.filters.comparison import Comparison
from dqe_assets.filtering.filters.pool_scores import POOL_SCORES
from dqe_assets.filtering.filters.protocol import Call
from dqe_resources.configurable import in_words
from dqe_resources.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from dqe_assets.filtering.filters import Filter, Mask

NAMED: dict[str, str] = {
    "basic": "basic_filter",
    "clip_b32_30": "clip_score(b32, fraction=0.3)",
    "clip_l14_30": "clip_score(l14, fraction=0.3)",
    "datacomp_1b": "image_based & clip_l14_30",
}
"""Expressions with a name, in addition to the filters; ``datacomp_1b`` made DataComp-1B from the xlarge pool."""

C = TypeVar("C", bound=Call)

_LONGEST = 10_000

_COMPARED = re.compile(
    r"""'(?:\\.|[^'\\])*' | "(?:\\.|[^"\\])*" | (?P<operator> \bnot\s+in\b | \bin\b | [<>=!]= | [<>])""", re.VERBOSE
)
"""A quoted text, or an operator of a comparison."""

_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
"""What an operator becomes when its sides change places."""


class ExpressionError(UsageError):
    """An expression is wrong; says what, where in its text, and what would be right."""


@dataclass(frozen=True)
class Expression:
    """A filter, or filters combined.

    Attributes:
        operator: ``&``, ``|`` or ``~``; empty for a filter.
        operands: what it combines.
        leaf: the filter.
    """

    operator: str = ""
    operands: tuple[Expression, ...] = ()
    leaf: Filter | None = None

    @property
    def text(self) -> str:
        """Canonical text: names spelt out as filters, default parameters and needless brackets left out."""
        if self.leaf is not None:
            return self.leaf.text
        operands = self._shortened if self.operator == "&" else self.operands
        inner = [f"({one.text})" if self._takes_in_brackets(one) else one.text for one in operands]
        return f"~{inner[0]}" if self.operator == "~" else f" {self.operator} ".join(inner)

    @property
    def conditions(self) -> tuple[str, ...]:
        """The text of each of ``terms``, as it stands in the whole."""
        return tuple(one.text for one in self._shortened)

    @property
    def _shortened(self) -> tuple[Expression, ...]:
        """The terms, without what they choose among where that goes without saying."""
        if self.operator != "&":
            return self.terms
        short = tuple(map(_opened, self.operands))
        return short if closed(Expression("&", short)) == self else self.operands

    def _takes_in_brackets(self, operand: Expression) -> bool:
        is_joined = operand.operator == "&" or isinstance(operand.leaf, Comparison)
        return operand.operator == "|" or (is_joined and self.operator == "~")

    @property
    def leaves(self) -> tuple[Filter, ...]:
        """The filters, each once, in the order in which they stand."""
        found = [self.leaf] if self.leaf is not None else [leaf for one in self.operands for leaf in one.leaves]
        return tuple({leaf.text: leaf for leaf in found}.values())

    @property
    def is_open(self) -> bool:
        """Whether it is a rule that chooses among samples, or the reverse of one, and does not say of which."""
        rule = self.operands[0].leaf if self.operator == "~" else self.leaf
        return isinstance(rule, Among) and rule.of is None

    @property
    def has_open(self) -> bool:
        """Whether there is such a rule in it."""
        return self.is_open or any(one.has_open for one in self.operands)

    @property
    def terms(self) -> tuple[Expression, ...]:
        """What the outermost ``&`` joins: the steps in which samples are removed."""
        return self.operands if self.operator == "&" else (self,)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that its filters read."""
        return tuple(dict.fromkeys(column for leaf in self.leaves for column in leaf.columns))

    @property
    def may_read(self) -> tuple[str, ...]:
        """The columns that its filters read where they are there."""
        return tuple(dict.fromkeys(column for leaf in self.leaves for column in leaf.may_read))

    @property
    def targets(self) -> tuple[tuple[str, str | None], ...]:
        """The targets that its filters need, each with a scorer: see ``Filter.targets``."""
        return tuple(dict.fromkeys(one for leaf in self.leaves for one in leaf.targets))

    def mask(self, masks: Mapping[str, Mask]) -> Mask:
        """Which rows are kept, [n], of what each filter keeps, by its text."""
        if self.leaf is not None:
            return masks[self.leaf.text]
        kept = [one.mask(masks) for one in self.operands]
        if self.operator == "~":
            return ~kept[0]
        combine = np.logical_and if self.operator == "&" else np.logical_or
        return combine.reduce(kept)

    @property
    def repeats(self) -> bool:
        """Whether one of its filters keeps some rows several times."""
        return any(leaf.repeats for leaf in self.leaves)

    def times(self, times: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
        """How often each row is kept, [n], of how often each filter keeps it, by its text.

        What ``&`` joins is multiplied, of what ``|`` joins the most counts, and ``~`` keeps once what is not kept.
        """
        if self.leaf is not None:
            return times[self.leaf.text]
        found = [one.times(times) for one in self.operands]
        if self.operator == "~":
            return (found[0] == 0).astype(np.int64)
        combine = np.multiply if self.operator == "&" else np.maximum
        return combine.reduce(found)


def parse(text: str, names: Mapping[str, str] = NAMED) -> Expression:
    """Read an expression.

    Args:
        text: filters, by name or as ``clip_score(l14, fraction=0.3)``, and comparisons of a column, such as
            ``nsfw < 0.1``, ``0.2 <= similarity < 0.3``, ``source == 'web'``, ``source in ['web', 'photos']`` and
            ``best_similarity > similarity``, joined by ``&``, ``|``, ``~`` and brackets. Comparisons bind tightest,
            then ``~``, and ``|`` least. Parameters are numbers, words, quoted texts, True and False.
        names: expressions by name; a filter's own name may be among them. A name without brackets is looked up here
            first, then among the filters; with brackets it is always a filter.

    Raises:
        ExpressionError: says what is wrong and where.
    """
    return closed(_Reader(text, names, ()).read())


def closed(expression: Expression, beside: tuple[Expression, ...] = ()) -> Expression:
    """The expression in which each rule that chooses among samples says of which.

    Where a rule says nothing, these are what all else keeps that it is joined to by ``&``, wherever that stands. Of
    several such rules each chooses among what those before it have left.

    Args:
        expression: what was read.
        beside: what it is joined to by ``&``.
    """
    if isinstance(expression.leaf, Among) and expression.is_open and beside:
        return Expression(leaf=expression.leaf.choosing_of(_together(beside)))
    if expression.leaf is not None:
        return expression
    if expression.operator != "&":
        return Expression(expression.operator, tuple(closed(one, beside) for one in expression.operands))
    plain = [one for one in expression.operands if not one.has_open]
    found: list[Expression | None] = [None] * len(expression.operands)
    # First what is complete, then what holds such rules somewhere inside, and last the rules themselves.
    for place, one in sorted(enumerate(expression.operands), key=lambda item: (item[1].has_open, item[1].is_open)):
        done = [other for other in found if other is not None] if one.is_open else plain
        found[place] = closed(one, (*beside, *done)) if one.has_open else one
    return Expression("&", tuple(one for one in found if one is not None))


def _opened(expression: Expression) -> Expression:
    """A rule, or the reverse of one, that no longer says of what it chooses; anything else as it is."""
    if expression.operator == "~":
        return Expression("~", tuple(map(_opened, expression.operands)))
    if isinstance(expression.leaf, Among):
        return Expression(leaf=expression.leaf.model_copy(update={"of": None}))
    return expression


def _together(expressions: Sequence[Expression]) -> Expression:
    operands = [part for one in expressions for part in one.terms]
    return operands[0] if len(operands) == 1 else Expression("&", tuple(operands))


class _Reader:
    """Reads one text; the names on whose definitions it is at work are the texts around it."""

    def __init__(self, text: str, names: Mapping[str, str], within: tuple[str, ...]) -> None:
        # Line feeds would end the expression; the places of all else stay.
        self._text = text.replace("\n", " ")
        self._names = names
        self._within = within
        self._read, self._operators = _with_powers(self._text.strip())
        self._longer = [place + 1 for place, operator in self._operators.items() if len(operator) == 1]

    def read(self) -> Expression:
        if not self._text.strip():
            raise self._error("an expression is empty")
        if len(self._text) > _LONGEST:
            raise self._error(f"an expression has more than {_LONGEST:,} characters")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of backslashes, which an SQL condition may hold
                tree = ast.parse(self._read, mode="eval")
            return self._expression(tree.body)
        except SyntaxError as error:
            raise self._error(f"not an expression ({error.msg})", self._as_given((error.offset or 1) - 1)) from error
        except (RecursionError, MemoryError, ValueError) as error:
            raise self._error("not an expression, or its brackets are nested too deep") from error

    def _expression(self, node: ast.expr) -> Expression:
        match node:
            case ast.Name(id=name):
                return self._named(name, node)
            case ast.Call(func=ast.Name(id=name)):
                return Expression(leaf=self._filter(name, node, node.args, node.keywords))
            case ast.UnaryOp(op=ast.Invert()):
                return Expression("~", (self._expression(node.operand),))
            case ast.BinOp(op=ast.Pow()) | ast.UnaryOp(op=ast.USub(), operand=ast.BinOp(op=ast.Pow())):
                return self._compared(node)
            case ast.BinOp(op=ast.BitAnd()):
                return self._joined("&", node)
            case ast.BinOp(op=ast.BitOr()):
                return self._joined("|", node)
            case ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
                raise self._error("filters are joined by &, | and ~, not by and, or and not", self._place(node))
        raise self._error("neither a filter nor filters joined by &, | and ~", self._place(node))

    def _compared(self, node: ast.expr) -> Expression:
        """A comparison, or the comparisons of a chain such as ``0.1 < nsfw < 0.5``."""
        sides, operators = self._chain(node)
        found = [
            Expression(leaf=self._comparison(left, operator, right))
            for left, operator, right in zip(sides, operators, sides[1:], strict=False)
        ]
        return found[0] if len(found) == 1 else Expression("&", tuple(found))

    def _chain(self, node: ast.expr) -> tuple[list[ast.expr], list[str]]:
        """The sides of a chain of comparisons, and the operators between them."""
        match node:
            # A power binds tighter than a sign before it.
            case ast.UnaryOp(op=ast.USub(), operand=ast.BinOp(op=ast.Pow()) as power):
                (first, *others), operators = self._chain(power)
                return [ast.copy_location(ast.UnaryOp(ast.USub(), first), node), *others], operators
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                between = range(self._in_characters(left.end_col_offset or 0), self._in_characters(right.col_offset))
                places = [place for place in between if place in self._operators]
                if not places:
                    raise self._error("** is none of <, <=, >, >=, ==, !=, in and not in", self._place(right))
                others, operators = self._chain(right)
                return [left, *others], [self._operators[places[0]], *operators]
        return [node], []

    def _comparison(self, left: ast.expr, operator: str, right: ast.expr) -> Filter:
        if not isinstance(left, ast.Name):
            if not isinstance(right, ast.Name) or operator not in _TURNED:
                raise self._error("a comparison has a column on its left", self._place(left))
            left, operator, right = right, _TURNED[operator], left
        given: dict[str, Any] = {"column": left.id, "operator": operator}
        match right:
            case ast.Name(id=column):
                given["other"] = column
            case ast.List(elts=values) | ast.Tuple(elts=values) | ast.Set(elts=values):
                given["value"] = tuple(map(self._literal, values))
            case _:
                given["value"] = self._literal(right)
        return self._made(Comparison, given, left)

    def _literal(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=None):
                raise self._error(
                    "a null is kept by no comparison; to find it: sql('COLUMN IS NULL')", self._place(node)
                )
            case ast.Constant(value=str() | int() | float()):
                return node.value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
        raise self._error(
            "a column is compared with a number, a quoted text, True, False or another column", self._place(node)
        )

    def _joined(self, operator: str, node: ast.BinOp) -> Expression:
        sides = [self._expression(side) for side in (node.left, node.right)]
        return Expression(
            operator, tuple(one for side in sides for one in (side.operands if side.operator == operator else (side,)))
        )

    def _named(self, name: str, node: ast.Name) -> Expression:
        if name not in self._names:
            return Expression(leaf=self._filter(name, node, [], []))
        if name in self._within:
            raise self._error(f"{name} is defined by itself ({' > '.join((*self._within, name))})", self._place(node))
        return _Reader(self._names[name], self._names, (*self._within, name)).read()

    def _filter(self, name: str, node: ast.expr, args: list[ast.expr], keywords: list[ast.keyword]) -> Filter:
        if name not in FILTERS:
            raise self._unknown(name, self._place(node))
        return self._called(FILTERS[name], node, args, keywords)

    def _called(self, cls: type[C], node: ast.expr, args: list[ast.expr], keywords: list[ast.keyword]) -> C:
        name, parameters = cls.name, list(cls.model_fields)
        if len(args) > len(parameters):
            raise self._error(
                f"{name} takes {', '.join(parameters) or 'no parameter'}", self._place(args[len(parameters)])
            )
        given = {
            parameter: self._argument(cls, parameter, value) for parameter, value in zip(parameters, args, strict=False)
        }
        for keyword in keywords:
            if keyword.arg is None or keyword.arg in given:
                raise self._error(f"{name}: {keyword.arg or '**'} cannot stand here", self._place(keyword.value))
            given[keyword.arg] = self._argument(cls, keyword.arg, keyword.value)
        return self._made(cls, given, node)

    def _made(self, cls: type[C], given: Mapping[str, Any], node: ast.expr) -> C:
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            of = "" if cls is Comparison else f"{cls.name}: "
            raise self._error(f"{of}{f'{where}: ' if where else ''}{in_words(first)}", self._place(node)) from error

    def _argument(self, cls: type[Call], parameter: str, node: ast.expr) -> Any:
        is_empty = isinstance(node, ast.Constant) and node.value is None
        return self._value(node) if parameter not in cls.expressions or is_empty else closed(self._expression(node))

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=str() | int() | float() | None):
                return node.value
            case ast.Name(id=word):
                return word
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.Call(func=ast.Name(id=name)) if name in POOL_SCORES:
                return self._called(POOL_SCORES[name], node, node.args, node.keywords)
            case ast.Dict(keys=keys, values=values):
                pairs = [(key, value) for key, value in zip(keys, values, strict=True) if key is not None]
                if len(pairs) == len(keys):
                    return tuple((self._value(key), self._value(value)) for key, value in pairs)
        raise self._error(
            "a parameter is a number, a word, a quoted text, True or False",
            self._place(node),
            f"; a score may also be one of {', '.join(POOL_SCORES)}",
        )

    def _place(self, node: ast.expr) -> int:
        return self._as_given(self._in_characters(node.col_offset))

    def _in_characters(self, offset: int) -> int:
        """A place in what is read, which Python counts in bytes."""
        return len(self._read.encode()[:offset].decode())

    def _as_given(self, place: int) -> int:
        """Where in the text something is that stands at a place of what is read."""
        return place - bisect_left(self._longer, place) + len(self._text) - len(self._text.lstrip())

    def _unknown(self, name: str, place: int) -> ExpressionError:
        known = sorted({*self._names, *FILTERS})
        close = difflib.get_close_matches(name, known, n=1)
        meant = f"Did you mean {close[0]}? " if close else ""
        return self._error(
            f"there is no filter {name}",
            place,
            f". {meant}There are: {', '.join(known)}; a column is compared with something: {name} > 0.5",
        )

    def _error(self, what: str, place: int | None = None, advice: str = "") -> ExpressionError:
        at = f" at character {place + 1}" if place is not None else ""
        of = f"; in: {self._text}" if self._text.strip() else ""
        where = f" (the definition of {self._within[-1]})" if self._within else ""
        return ExpressionError(f"{what}{at}{of}{where}{advice}")


def _with_powers(text: str) -> tuple[str, dict[int, str]]:
    """The text with ``**`` for each operator of a comparison, and these operators by their places in it.

    To Python ``nsfw < 0.1 & basic`` is ``nsfw < (0.1 & basic)``. Of its operators only the power binds tighter than
    ``~`` before it, as a comparison does here.
    """
    pieces, operators, done, length = [], {}, 0, 0
    for match in _COMPARED.finditer(text):
        if operator := match["operator"]:
            pieces += [text[done : match.start()], "**".ljust(len(operator))]
            length += match.start() - done
            operators[length] = " ".join(operator.split())
            length += len(pieces[-1])
            done = match.end()
    return "".join([*pieces, text[done:]]), operators
