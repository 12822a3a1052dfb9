"""The language of filters: what is understood, and what is said about the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.filters import MAX_DEPTH, MAX_LENGTH, Both, Comparison, Either, FilterError, Negation, comparisons, parse


def at(name: str, operator: str, value: float | str, place: int) -> Comparison:
    return Comparison(name, operator, value, place)  # type: ignore[arg-type]


def test_not_binds_more_tightly_than_and_and_and_than_or() -> None:
    assert parse("a > 1 or not b < 2 and c == 'x'") == Either(
        (at("a", ">", 1, 0), Both((Negation(at("b", "<", 2, 13)), at("c", "==", "x", 23))))
    )
    assert parse("(a > 1 or b < 2) and c != 3") == Both(
        (Either((at("a", ">", 1, 1), at("b", "<", 2, 10))), at("c", "!=", 3, 21))
    )


@pytest.mark.parametrize(
    ("text", "name", "operator", "value"),
    [
        ("frontier/base>=.5", "frontier/base", ">=", 0.5),
        ("0.5<kl", "kl", ">", 0.5),
        ("-1e-3 >= kl", "kl", "<=", -1e-3),
        ("kl != +2.", "kl", "!=", 2.0),
        ("name == 'it is \"so\"'", "name", "==", 'it is "so"'),
        ("NOT_a_word < 1", "NOT_a_word", "<", 1.0),
    ],
)
def test_comparisons_can_be_written_either_way_round(text: str, name: str, operator: str, value: object) -> None:
    (found,) = comparisons(parse(text))
    assert (found.name, found.operator, found.value) == (name, operator, value)


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("", 1, "the end stands where"),
        ("kl", 3, "a comparison such as"),
        ("kl < ", 6, "the end stands where"),
        ("kl = 3", 4, "write =="),
        ("kl < 3 & score > 1", 8, "write and"),
        ("(kl < 3", 1, "not closed"),
        ("kl < 3)", 7, "closes nothing"),
        ("name == 'x", 9, "quotation mark"),
        ("0 < kl < 3", 8, "and or or is missing"),
        ("status == ranked", 11, "put a text in quotes"),
        ("1 < 2", 5, "one of the two is a name"),
        ("kl < 1e999", 6, "too large"),
        ("kl < 3x", 6, "is no part of it"),
        ("kl < and", 6, "stands where a name or a value is due"),
        ("__import__('os')", 11, "not expected after '__import__'"),
        ("kl < 3; drop table x", 7, "is no part of it"),
        ("not " * (MAX_DEPTH + 1) + "a < 1", 4 * MAX_DEPTH + 1, "nested more than"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, place: int, said: str) -> None:
    with pytest.raises(FilterError, match=f"at character {place}: ") as caught:
        parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_length_and_depth_have_a_limit() -> None:
    assert len(comparisons(parse("(" * MAX_DEPTH + "a<1" + ")" * MAX_DEPTH + " or b<1"))) == 2
    with pytest.raises(FilterError, match="may have 1000"):
        parse("a < 1 or " * MAX_LENGTH)
    with pytest.raises(FilterError, match="nested more than"):
        parse("(" * (MAX_DEPTH + 1))


@given(st.text(alphabet="ab<>=!()'\" \n\x1b\u202e.-+0e&andorty\ud800", max_size=60))
def test_any_text_is_understood_or_refused_in_one_printable_line(text: str) -> None:
    try:
        said = repr(parse(text))
    except FilterError as error:
        said = str(error)
    assert said.isprintable()
