"""Suggestions for misspelled names."""

from sfs.errors import did_you_mean, nearest


def test_the_closest_name_is_suggested_or_all_are_listed() -> None:
    """Case and blanks do not count; a name that is not close is no suggestion."""
    assert nearest("lable", ["text", "label"]) == did_you_mean(" LABEL", ["text", "label"]) == "; did you mean 'label'?"
    assert (nearest("x", ["text"]), did_you_mean("x", ["text"])) == ("", "; available: 'text'")
    assert did_you_mean("tier", []) == "; none is available"
    assert nearest("tier", ["active"]) == ""


def test_a_name_in_another_unicode_form_is_shown_in_ascii() -> None:
    """Names that look alike can be told apart; other names are shown as they are."""
    assert did_you_mean("th\u00e9me", ["the\u0301me"]) == "; did you mean 'the\\u0301me'?"
    assert did_you_mean("the\u0301me", ["th\u00e9me"]) == "; did you mean 'th\\xe9me'?"
    assert did_you_mean("th\u00e9m", ["th\u00e9me"]) == "; did you mean 'th\u00e9me'?"
