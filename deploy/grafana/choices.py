"""What the dashboard can be narrowed to, and the marks on its time line."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as values
from parts import MODEL, ORANGE, PROCESS, SOURCE, VERSION


def variable(name: str, metric: str, scope: str, *, several: bool = True) -> dashboard.QueryVariable:
    """One choice at the top of the page, from the values that a label has."""
    asked = f"label_values(slicewatch_{metric}{f'{{{scope}}}' if scope else ''}, {name})"
    made = (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(SOURCE)
        .query(asked)
        .definition(asked)
    )
    made.refresh(values.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(values.VariableSort.NATURAL_ASC)
    if several:
        made.multi(True).include_all(True).all_value(".+")
        made.current(values.VariableOption(text=["All"], value=["$__all"]))
    return made


def choices() -> list[dashboard.DatasourceVariable | dashboard.QueryVariable]:
    """What the page can be narrowed to; it begins with the whole traffic, and a click on a slice changes it."""
    whole = values.VariableOption(text=["__all__"], value=["__all__"])
    return [
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        variable("job", "log_queue_rows", ""),
        variable("instance", "log_queue_rows", 'job=~"$job"'),
        variable("model", "labels_total", PROCESS, several=False),
        variable("version", "slice_labelled_predictions", MODEL),
        variable("slice", "slice_labelled_predictions", VERSION).current(whole),
    ]


def promotions() -> dashboard.AnnotationQuery:
    """A mark where a version begins to answer."""
    now = f"slicewatch_model_info{{{MODEL}}}"
    expr = f"max by (version) ({now}) unless max by (version) ({now} offset 1m)"
    made = dashboard.AnnotationQuery().name("Versions").datasource(SOURCE).enable(True).icon_color(ORANGE)
    return (
        made.expr(expr).step("60s").title_format("version {{version}} begins to answer").tag_keys("version")
    )
