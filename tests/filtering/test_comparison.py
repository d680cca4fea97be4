"""Comparisons in expressions: how they bind, what they keep of which types, and what a null does."""

from __future__ import annotations

import math
import operator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqe_assets.filtering.expression import ExpressionError, parse
from dqe_assets.filtering.filters import FilterError

OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


def kept(text: str, **columns: object) -> list[bool]:
    table = pa.table(columns)
    expression = parse(text)
    assert parse(expression.text) == expression
    return expression.mask({leaf.text: leaf.mask(table) for leaf in expression.leaves}).tolist()


@given(
    st.lists(st.none() | st.floats(allow_infinity=False), min_size=1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(sorted(OPERATORS)),
)
def test_numbers_compare_as_pythons_do_and_a_null_is_never_kept(values, number, sign):
    column, there = pa.array(values, pa.float64()), [value is not None and not math.isnan(value) for value in values]
    assert kept(f"a {sign} {number!r}", a=column) == [
        known and OPERATORS[sign](value, number) for known, value in zip(there, values, strict=True)
    ]
    assert kept(f"{number!r} {sign} a", a=column) == [
        known and OPERATORS[sign](number, value) for known, value in zip(there, values, strict=True)
    ]


@given(st.lists(st.none() | st.text("aäb'\"\\ ", max_size=3)), st.text("aäb'\"\\ ", max_size=3))
def test_texts_compare_as_pythons_do(values, text):
    for sign, function in OPERATORS.items():
        assert kept(f"a {sign} {text!r}", a=pa.array(values, pa.string())) == [
            value is not None and function(value, text) for value in values
        ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a < 0.1 & b", "a < 0.1 & laion2b()"),
        ("b & a<0.1 & c>=200", "laion2b() & a < 0.1 & c >= 200"),
        ("~a < 0.1 | d == 'x < y & z'", "~(a < 0.1) | d == 'x < y & z'"),
        ("(a < 0.1 | c > 1) & b", "(a < 0.1 | c > 1) & laion2b()"),
        ("-0.5 < a <= -0.25", "a > -0.5 & a <= -0.25"),
        ("0.1 < a", "a > 0.1"),
        ("'x' == d", "d == 'x'"),
        ("d in ('x', \"y\")", "d in ['x', 'y']"),
        ("d  not  in {'x'}", "d not in ['x']"),
        ("a > c", "a > c"),
        ("a == True", "a == True"),
        ("é < 1 & a\n> 2", "é < 1 & a > 2"),
        ("sql('a < 3') & a < 3", "sql('a < 3') & a < 3"),
    ],
)
def test_they_bind_tighter_than_what_joins_them(text, expected):
    parsed = parse(text, {"b": "laion2b"})
    assert parsed.text == expected
    assert parse(parsed.text).text == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a < 1 & nope", "there is no filter nope at character 9"),
        ("  a<1 & b<2 & nope(3)", "there is no filter nope at character 15"),
        ("score", "a column is compared with something: score > 0.5"),
        ("a ** 2", r"\*\* is none of <"),
        ("a == None", r"a null is kept by no comparison; to find it: sql\('COLUMN IS NULL'\) at character 6"),
        ("1 < 2", "a comparison has a column on its left at character 1"),
        ("(b & a) < 3", "a comparison has a column on its left"),
        ("a < f(2)", "a column is compared with a number, a quoted text, True, False or another column"),
        ("a in 3", r"in takes a list of values: a in \['a', 'b'\]"),
        ("a in []", "the list is empty"),
        ("a < [1]", "< takes one value; for several"),
        ("a in [1, 'b']", "values of one kind"),
        ("a < True", "true and false are compared by == and !="),
        ("a < 1e999", "a number is finite"),
        ("a = 3", "not an expression"),
        ("a is 3", "neither a filter nor filters joined"),
        ("a < 1 and b", "joined by &, | and ~"),
    ],
)
def test_what_is_no_comparison_says_so(text, said):
    with pytest.raises(ExpressionError, match=said):
        parse(text)


def test_numbers_are_compared_in_the_columns_own_type():
    single = pa.array([0.1, 0.3], pa.float32())
    assert kept("a == 0.1", a=single) == [True, False]
    assert kept("a in [0.3, 7]", a=single) == [False, True]
    assert kept("a >= 0.1", a=single.cast(pa.float16())) == [False, True]  # 0.1 is less in 16 bits
    assert kept("a < 2.5", a=pa.array([2, 3, None], pa.int32())) == [True, False, False]
    assert kept("a < 2", a=pa.array([2**62, 1], pa.int64())) == [False, True]
    assert kept("a < 99999999999999999999", a=pa.array([2**62, 1], pa.int64())) == [True, True]
    assert kept("a == 255", a=pa.array([255, 0], pa.uint8())) == [True, False]
    assert kept("a > 0.5", a=pa.array(["1.00", "0.25"]).cast(pa.decimal128(5, 2))) == [True, False]


def test_lists_truth_values_and_other_columns():
    words = pa.array(["x", "y", None]).dictionary_encode()
    assert kept("d in ['x', 'z']", d=words) == [True, False, False]
    assert kept("d not in ['x', 'z']", d=words) == [False, True, False]
    assert kept("d != 'x'", d=words) == [False, True, False]
    assert kept("~d == 'x'", d=words) == [False, True, True]
    assert kept("t == True", t=pa.array([True, False, None])) == [True, False, False]
    assert kept("t != True", t=pa.array([True, False, None])) == [False, True, False]
    a, b = pa.array([1.0, 2.0, np.nan, 4.0], pa.float32()), pa.array([2, 1, 3, None], pa.int32())
    assert kept("a < b", a=a, b=b) == [True, False, False, False]
    assert kept("a != b", a=a, b=b) == [True, True, False, False]


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("a < 1", pa.array(["1"]), "a is a text, and what it is compared with a number; text stands in quotes"),
        ("a == 'x'", pa.array([1]), "a is a number, and what it is compared with a text"),
        ("a > b", pa.array([True]), "compared by == and !="),
        ("a == 1", pa.array([[1]]), "which is not compared; use sql"),
    ],
)
def test_a_column_of_another_type_is_refused(text, column, said):
    with pytest.raises(FilterError, match=said):
        kept(text, a=column, b=pa.array([True]))
