"""Templates for numeric, categorical and missing values, by column name."""

from __future__ import annotations

from collections.abc import Sequence

from sfs.template import Template, template


def missing_any(*fields: str) -> Template:
    """Return the slice of rows with a missing value in at least one of the columns.

    Examples
    --------
    >>> gaps = missing_any("price", "country")
    >>> gaps.name, gaps({"price": 3.0, "country": None})
    ('price_or_country_missing', True)
    """
    return template(
        f"{'_or_'.join(fields)}_missing",
        any=[{"missing": {"field": field}} for field in fields],
        description=f"No value in {' or '.join(fields)}.",
        family="gaps",
    )


def missing_all(*fields: str) -> Template:
    """Return the slice of rows with a missing value in all of the columns."""
    return template(
        f"{'_and_'.join(fields)}_missing",
        all=[{"missing": {"field": field}} for field in fields],
        description=f"No value in {' and '.join(fields)}.",
        family="gaps",
    )


def at_least(field: str, least: float) -> Template:
    """Return the slice of rows with a number of at least ``least``."""
    return template(
        f"{field}_at_least_{least:g}",
        compare={"field": field, "at_least": least},
        description=f"{field} is {least:g} or more.",
        family="range",
    )


def below(field: str, bound: float) -> Template:
    """Return the slice of rows with a number below ``bound``."""
    return template(
        f"{field}_below_{bound:g}",
        compare={"field": field, "below": bound},
        description=f"{field} is below {bound:g}.",
        family="range",
    )


def outside(field: str, low: float, high: float) -> Template:
    """Return the slice of rows with a number below ``low`` or above ``high``."""
    return template(
        f"{field}_outside_{low:g}_{high:g}",
        any=[{"compare": {"field": field, "below": low}}, {"compare": {"field": field, "above": high}}],
        description=f"{field} is outside {low:g} to {high:g}.",
        family="range",
    )


def zero(field: str) -> Template:
    """Return the slice of rows with the number zero."""
    return template(
        f"{field}_zero",
        compare={"field": field, "at_least": 0, "at_most": 0},
        description=f"{field} is zero.",
        family="range",
    )


def among(field: str, values: Sequence[str | float | bool], name: str | None = None) -> Template:
    """Return the slice of rows with one of the values; the default name contains the first three values."""
    shown = "_".join(map(str, values[:3]))
    return template(
        name or f"{field}_{shown}",
        one_of={"field": field, "values": list(values)},
        description=f"{field} is one of {', '.join(map(str, values))}.",
        family="category",
    )


def not_among(field: str, values: Sequence[str | float | bool], name: str | None = None) -> Template:
    """Return the slice of rows with an unexpected value, such as an unseen category."""
    return template(
        name or f"{field}_unexpected",
        all=[
            {"not": {"missing": {"field": field}}},
            {"not": {"one_of": {"field": field, "values": list(values)}}},
        ],
        description=f"{field} is not one of {', '.join(map(str, values))}.",
        family="category",
    )
