"""The form in which texts are checked, stored and published, and what shows nothing."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contract.bounds.invisible import has_letter, shows_nothing
from shared.contract.bounds.texts import (
    Unfit,
    checked_line,
    checked_text,
    clean_address,
    clean_code,
    clean_line,
    clean_text,
)

HANGUL_FILLER = "\u3164"


@pytest.mark.parametrize(
    "blank", [" ", "\u00a0", "\u3000", "\u200b", "\ufeff", "\u2060", "\u2003", "\t", "\n", HANGUL_FILLER]
)
def test_blanks_of_every_kind_go_from_the_ends_and_stay_inside(blank: str) -> None:
    assert clean_line(f"{blank}Zoë Marsh{blank}{blank}", 200) == "Zoë Marsh"
    assert clean_text(f"{blank}Zoë{blank}Marsh{blank}", 200) == f"Zoë{blank}Marsh"


@pytest.mark.parametrize(
    "nothing",
    [
        "",
        " ",
        HANGUL_FILLER,
        "\u115f",
        "\u1160",
        "\uffa0",
        "\u2800",
        "\u200b\u200d",
        "\ufe0f",
        "\U000e0041",
        "\u00ad",
        "\u034f",
    ],
)
def test_letters_that_show_nothing_are_no_text(nothing: str) -> None:
    assert shows_nothing(nothing)
    assert not has_letter(nothing)
    with pytest.raises(Unfit, match="blank"):
        checked_line(nothing, 200, required=True)


@pytest.mark.parametrize(
    "name", ["علی\u200cرضا", "क्\u200dष", "李", "O'Neil", "Ｒobin", "한\u1160", "🏴\U000e0067\U000e007f"]
)
def test_names_keep_the_marks_that_join_and_select_their_letters(name: str) -> None:
    assert checked_line(name, 200, required=True) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize("end", ["\r\n", "\r", "\x0b", "\x0c", "\u0085", "\u2028", "\u2029"])
def test_a_line_break_is_one_character_whichever_it_is(end: str) -> None:
    assert checked_text(f"one{end}two", 7) == "one\ntwo"
    with pytest.raises(Unfit, match="not_one_line"):
        checked_line(f"one{end}two", 200)


def test_a_letter_with_its_accents_is_one_character() -> None:
    assert checked_text("e\u0302\u0301" * 2_000, 2_000) == "ế" * 2_000
    with pytest.raises(Unfit, match="too_long"):
        checked_text("ế" * 2_001, 2_000)


def test_what_the_form_lets_one_type_is_not_too_long_because_of_its_composed_form() -> None:
    assert checked_text("\u0958" * 2_000, 2_000) == "\u0958" * 2_000


@given(text=st.text(max_size=60), most=st.integers(1, 60))
def test_cleaning_what_is_clean_changes_nothing(text: str, most: int) -> None:
    for clean in (lambda text: clean_line(text, most), lambda text: clean_text(text, most), clean_address, clean_code):
        assert clean(clean(text)) == clean(text)
        assert not clean(text) or not clean(text)[0].isspace()


def test_addresses_of_full_width_become_what_mail_servers_take_and_keep_their_case() -> None:
    assert clean_address("\u00a0Ｐost＠Council.example\u200b") == "Post@Council.example"


def test_a_code_is_upper_case_and_what_is_no_code_becomes_none() -> None:
    assert clean_code(" nl ") == "NL"
    assert clean_code("ｄｅ") == "DE"
    assert clean_code("ß") == "ß"
