"""Suggestions for misspelled names."""

from sfs.errors import did_you_mean


def test_a_name_in_another_unicode_form_is_shown_in_ascii() -> None:
    """Names that look alike can be told apart; other names are shown as they are."""
    assert did_you_mean("th\u00e9me", ["the\u0301me"]) == "; did you mean 'the\\u0301me'?"
    assert did_you_mean("the\u0301me", ["th\u00e9me"]) == "; did you mean 'th\\xe9me'?"
    assert did_you_mean("th\u00e9m", ["th\u00e9me"]) == "; did you mean 'th\u00e9me'?"
