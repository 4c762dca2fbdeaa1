"""Variables and annotations of the dashboard."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as values
from panels import DATASOURCE, MODEL, ORANGE, PROCESS, VERSION


def variable(name: str, metric: str, scope: str, *, several: bool = True) -> dashboard.QueryVariable:
    """A variable with the values of a label."""
    query = f"label_values(slicewatch_{metric}{f'{{{scope}}}' if scope else ''}, {name})"
    built = dashboard.QueryVariable(name).label(name.capitalize()).datasource(DATASOURCE).query(query).definition(query)
    built.refresh(values.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(values.VariableSort.NATURAL_ASC)
    if several:
        built.multi(True).include_all(True).all_value(".+")
        built.current(values.VariableOption(text=["All"], value=["$__all"]))
    return built


def variables() -> list[dashboard.DatasourceVariable | dashboard.QueryVariable]:
    """The variables, in order. The slice is initially the whole traffic; a click on a slice in the table changes it."""
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
    """An annotation at the activation of a version."""
    now = f"slicewatch_model_info{{{MODEL}}}"
    expr = f"max by (version) ({now}) unless max by (version) ({now} offset 1m)"
    built = dashboard.AnnotationQuery().name("Versions").datasource(DATASOURCE).enable(True).icon_color(ORANGE)
    return built.expr(expr).step("60s").title_format("version {{version}} active").tag_keys("version")
