"""What of the service's settings cannot be, as far as it shows before the service starts."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from service.settings.address import address_problem
from service.settings.nodes import nearest

if TYPE_CHECKING:
    from service.settings.project import Settings


def service_problems(settings: Settings, columns: Collection[str], classes: Collection[str]) -> Iterator[str]:
    """Yield every problem.

    Parameters
    ----------
    settings
        The project's.
    columns, classes
        What its table has.
    """
    if problem := address_problem(settings.serve):
        yield problem
    positive, known = settings.monitor.positive, settings.classes or classes
    if positive is not None and positive not in known:
        yield f"monitor.positive {positive!r} is none of the classes {sorted(known)}{nearest(positive, known)}"
    if settings.log.features not in (("all",), ("none",)):
        for column in settings.log.features:
            if column not in columns:
                yield f"log.features: no column {column!r} in {settings.data}{nearest(column, columns)}"
    yield from _store_problems(settings)


def _store_problems(settings: Settings) -> Iterator[str]:
    if not settings.store.exists():
        return
    from service.store.engine import schema_version
    from service.store.errors import StoreError
    from service.store.schema import refuse_unknown

    try:
        refuse_unknown(schema_version(settings.store))
    except StoreError as error:
        yield f"store: {error}"
