"""Expressions of filters: what they mean, how they are written, and what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.filtering.expression import NAMED, ExpressionError, parse
from dqe_assets.filtering.filters import FILTERS
from dqe_assets.filtering.filters.among import Among
from dqe_assets.filtering.filters.clip_score import ClipScore
from dqe_assets.filtering.filters.sql import Sql
from dqe_assets.filtering.settings import DEFAULT_FILTERS

LEAVES = ("no_filter()", "laion2b()", "random_subset(0.5)", "random_subset(0.5, seed=3)")


@st.composite
def expressions(draw: st.DrawFn, depth: int = 4) -> str:
    kind = draw(st.sampled_from("l~&|" if depth else "l"))
    if kind == "l":
        return draw(st.sampled_from(LEAVES))
    if kind == "~":
        return f"~({draw(expressions(depth - 1))})"
    sides = draw(st.lists(expressions(depth - 1), min_size=2, max_size=3))
    return "(" + f") {kind} (".join(sides) + ")"


@settings(deadline=None)
@given(expressions(), st.lists(st.booleans(), min_size=4, max_size=4))
def test_means_what_python_makes_of_it(text, kept):
    masks = {leaf: np.array([keep, not keep]) for leaf, keep in zip(LEAVES, kept, strict=True)}
    in_python = text
    for number, leaf in reversed(list(enumerate(LEAVES))):
        in_python = in_python.replace(leaf, f"m[{number}]")
    expected = eval(in_python, {"m": list(masks.values())})
    parsed = parse(text)
    assert parsed.mask(masks).tolist() == expected.tolist()
    assert parse(parsed.text) == parsed
    assert parse(parsed.text).text == parsed.text
    assert len({leaf.text for leaf in parsed.leaves}) == len(parsed.leaves)
    assert np.logical_and.reduce([term.mask(masks) for term in parsed.terms]).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("basic", "basic_filter()"),
        ("clip_l14_30", "clip_score(l14, fraction=0.3)"),
        ("clip_score('l14', None, 0.3)", "clip_score(l14, fraction=0.3)"),
        ("clip_score(b32, threshold=-1)", "clip_score(b32, threshold=-1.0)"),
        (" ~ (laion2b & basic)\n | (no_filter) ", "~(laion2b() & basic_filter()) | no_filter()"),
        ("(basic & laion2b) & (no_filter & basic)", "basic_filter() & laion2b() & no_filter() & basic_filter()"),
        ("basic & (laion2b | no_filter)", "basic_filter() & (laion2b() | no_filter())"),
        ("random_subset(1, seed=0)", "random_subset(1.0)"),
        ("sql(\"width > 1 -- 'x'\")", "sql(\"width > 1 -- 'x'\")"),
    ],
)
def test_canonical_text(text, canonical):
    assert parse(text).text == canonical
    assert parse(canonical).text == canonical


def test_known_names():
    images = {"image_based": 'image_based("imagenet.npy")'}
    recipe = parse("datacomp_1b", {**NAMED, **images})
    assert recipe.text == "image_based('imagenet.npy') & clip_score(l14, fraction=0.3)"
    assert [term.text for term in recipe.terms] == [leaf.text for leaf in recipe.leaves]
    assert recipe.columns == ("text", "l14_img", "clip_l14_similarity_score")
    assert {parse(name).text for name in NAMED if name != "datacomp_1b"} >= {"basic_filter()"}


def test_names_of_names():
    names = {**NAMED, "mine": "basic & theirs", "theirs": "~laion2b | clip_l14_30"}
    assert parse("mine", names).text == "basic_filter() & (~laion2b() | clip_score(l14, fraction=0.3))"
    assert parse("mine | mine", names).leaves == parse("mine", names).leaves


def test_parameters():
    assert parse("clip_score(arch=l14, fraction=1)").leaf == ClipScore(arch="l14", fraction=1.0)
    assert parse(r"""sql("caption ~ '\d+'")""").leaf == Sql(condition=r"caption ~ '\d+'")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "an expression is empty"),
        ("clip_l14_3 & basic", "; in: clip_l14_3 & basic. Did you mean clip_l14_30? There are: "),
        ("basic & é & clip_l14_3(1)", "there is no filter é at character 9; in: basic & é & clip_l14_3(1). There are:"),
        ("'é' & nonsense", "neither a filter nor filters joined by &, | and ~ at character 1; in: 'é' & nonsense"),
        ("  basic & nonsense", "basic, basic_filter, caption_quality"),
        ("basic and laion2b", "joined by &, | and ~, not by and, or and not at character 1"),
        ("not basic", "not by and, or and not"),
        ("basic &", "not an expression"),
        ("(basic", "not an expression"),
        ("basic; import os", "not an expression"),
        ("__import__('os').system('ls')", "neither a filter"),
        ("basic.mask", "neither a filter"),
        ("[basic]", "neither a filter"),
        ("basic + laion2b", "neither a filter"),
        ("lambda: basic", "neither a filter"),
        ("1", "neither a filter"),
        ("clip_score(open('x'))", "a parameter is a number, a word, a quoted text, True or False at character 12"),
        ("clip_score(l14, fraction=(1, 2))", "a parameter is"),
        ("clip_score(*l14)", "a parameter is"),
        ("clip_score(**l14)", "** cannot stand here"),
        ("clip_score(l14, arch=b32)", "clip_score: arch cannot stand here at character 22"),
        ("clip_score(l14, 1, 2, 3)", "clip_score takes arch, threshold, fraction at character 23"),
        ("no_filter(1)", "no_filter takes no parameter"),
        ("clip_score(l15, fraction=0.3)", "clip_score: arch: expected 'b32' or 'l14' at character 1"),
        ("clip_score(l14)", "clip_score: give either threshold= or fraction="),
        ("clip_score(l14, fraction=1.5)", "clip_score: fraction: must be at most 1"),
        ("basic & clip_score(l14, part=0.3)", "clip_score: unknown key 'part'; allowed: arch, fraction, threshold at"),
        ("image_based", "image_based: reference: is missing"),
        ("sql('width >')", "sql: condition: not an SQL condition"),
        ("~" * 9000 + "basic", "not an expression, or its brackets are nested too deep"),
        ("(" * 900 + "basic" + ")" * 900, "not an expression"),
        (" & ".join(["basic"] * 2000), "an expression has more than 10,000 characters"),
        ("basic\0", "not an expression"),
    ],
)
def test_what_is_wrong_is_told(text, said):
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert said in str(caught.value)


def test_places_are_those_of_the_text():
    with pytest.raises(ExpressionError, match="at character 21; in"):
        parse("  sql('\"é\" > 1') &  nonsense", {})
    with pytest.raises(ExpressionError, match="at character 9; in"):
        parse("  basic ) ")


def test_faults_in_definitions_name_the_definition():
    with pytest.raises(ExpressionError, match=r"wrong at character 9; in: basic & wrong \(the definition of mine\)\. "):
        parse("mine", {"mine": "basic & wrong", **NAMED})
    with pytest.raises(ExpressionError, match=r"a is defined by itself \(a > b > a\)"):
        parse("a", {"a": "b & basic_filter", "b": "~a"})


def test_every_filter_can_be_named():
    assert set(FILTERS) >= {
        *("no_filter", "random_subset", "basic_filter", "clip_score", "laion2b", "text_based", "image_based", "tmars"),
        *("deduplicated", "caption_quality", "sql", "tldr", "kmeans_embeddings", "random", "score_top"),
        *("balanced", "unique", "soft_cap", "cover"),
    }


FEW = {**NAMED, **DEFAULT_FILTERS, "sharp": "sql('sharpness > 9')"}


@pytest.mark.parametrize(
    ("text", "written", "of"),
    [
        ("unique", "unique()", [None]),
        ("best & unique", "B & unique()", ["B"]),
        ("unique & best", "unique() & B", ["B"]),
        ("best & ~unique", "B & ~unique()", ["B"]),
        ("best & unique(of=best)", "B & unique()", ["B"]),
        ("best & (unique | laion2b)", "B & (unique(of=B) | laion2b())", ["B"]),
        ("best & unique | laion2b & unique", "B & unique() | laion2b() & unique()", ["B", "laion2b()"]),
        ("(best | laion2b) & unique", "(B | laion2b()) & unique()", ["B | laion2b()"]),
        ("best & unique(keep=similarity)", "B & unique(keep=similarity)", ["B"]),
        ("unique(of=best) & laion2b", "unique(of=B) & laion2b()", ["B"]),
        ("unique(best & laion2b, sharpness)", "unique(of=B & laion2b(), keep=sharpness)", ["B & laion2b()"]),
        ("unique(of=best & unique)", "unique(of=B & unique())", ["B & unique()"]),
        ("L & unique & balanced(9)", "L & unique() & balanced(t=9)", ["L", "L & unique()"]),
        ("L & (balanced(9) | best) & unique", "L & (balanced(t=9, of=L) | B) & unique()", ["L", "L & (X | B)"]),
    ],
)
def test_rules_that_choose_among_samples_do_so_among_what_they_are_joined_to(
    text: str, written: str, of: list[str | None]
) -> None:
    def full(short: str) -> str:
        spelt = short.replace("X", "balanced(t=9, of=L)").replace("L", "laion2b()")
        return spelt.replace("B", "basic_filter() & caption_quality(fraction=0.3)")

    found = parse(text.replace("L", "laion2b"), FEW)
    assert found.text == full(written)
    assert parse(found.text) == found, "it can be read again"
    rules = [leaf for leaf in found.leaves if isinstance(leaf, Among)]
    assert [rule.of.text if rule.of else None for rule in rules] == [one and full(one) for one in of]


def test_the_conditions_of_a_whole_are_its_terms_as_they_stand_in_it() -> None:
    found = parse("laion2b & (balanced(9) | unique) & cover(0.5)")
    assert found.conditions == ("laion2b()", "balanced(t=9, of=laion2b()) | unique(of=laion2b())", "cover(0.5)")
    assert len(found.terms) == 3
    assert parse("laion2b | unique").conditions == ("laion2b() | unique()",)


def test_a_wrong_expression_inside_a_rule_is_named() -> None:
    with pytest.raises(ExpressionError, match="there is no filter nonsense at character 18"):
        parse("best & unique(of=nonsense)", FEW)
    with pytest.raises(ExpressionError, match="neither a filter"):
        parse("unique(of=3)", FEW)
    assert parse("best & unique(of=None)", FEW) == parse("best & unique", FEW)
