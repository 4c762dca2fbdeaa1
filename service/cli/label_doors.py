"""Where labels go: to the running service, or into its store while it does not run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, TypeAlias, cast

from service.cli.command import Context
from service.cli.project import CHAMPION, open_registry
from service.cli.running import address, require_model
from service.errors import MisuseError, ServiceError

if TYPE_CHECKING:
    from service.api.schemas.predictions import LabelIn
    from service.client import Client, LabelItem
    from service.settings.project import Settings
    from service.store.labels import LabelResult
    from service.store.writer import Writer

DAY_SECONDS = 86_400
STORE_ROWS = 1_000
"""Labels in one transaction."""

Outcome: TypeAlias = tuple[str, str | None]
"""What became of a label, and why where it does not count."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where labels are taken, so many at a time; ``send`` says what became of each."""

    where: str
    batch_rows: int
    send: Callable[[Sequence[LabelIn]], list[Outcome]]


@contextmanager
def named_service(url: str) -> Iterator[Door]:
    """Yield the service at an address that was given."""
    from service.client import Client

    with Client(url) as client:
        client.ready()
        yield _over_http(client)


@contextmanager
def project_door(settings: Settings, context: Context) -> Iterator[Door]:
    """Yield the project's service if it runs, and else its store.

    Raises
    ------
    MisuseError
        If another model is served there, or there is no store yet.
    ServiceError
        If another process has the store.
    """
    from service.client import Client, NotRunning

    url = address(settings)
    with Client(url) as client:
        try:
            client.ready()
        except NotRunning:
            pass
        else:
            require_model(client, settings)
            yield _over_http(client, settings.serve.request_labels)
            return
    with _store_door(settings, context, url) as door:
        yield door


def _over_http(client: Client, most_rows: int | None = None) -> Door:
    from service.client import LABEL_ROWS

    def send(labels: Sequence[LabelIn]) -> list[Outcome]:
        items = [each.model_dump(mode="json", exclude_none=True) for each in labels]
        answers = client.label(cast("list[LabelItem]", items), batch_rows=len(items))
        return [(each.outcome, each.reason) for each in answers]

    return Door(client.url, min(LABEL_ROWS, most_rows or LABEL_ROWS), send)


@contextmanager
def _store_door(settings: Settings, context: Context, url: str) -> Iterator[Door]:
    from service.store.engine import Store
    from service.store.errors import StoreInUse
    from service.store.labels import LabelRules
    from service.store.writer import Writer

    if not settings.store.exists():
        raise MisuseError(
            f"no service answers at {url}, and there is no store at {settings.store} yet: start it with "
            "`slicewatch up`, or name the address where it listens with --url"
        )
    classes = _classes(settings)
    if not classes:
        raise MisuseError(
            "no classes are known here: set `classes` in slicewatch.yaml, or train a model with `slicewatch train`"
        )
    try:
        store = Store(settings.store, synchronous="FULL" if settings.log.survives == "power" else "NORMAL")
    except StoreInUse as error:
        said = f"no service answers at {url}: name the address where it listens with --url"
        raise ServiceError([said, *error.problems]) from error
    with store:
        writer = Writer(store, rules=LabelRules(settings.monitor.label_days * DAY_SECONDS))
        try:
            send = partial(_kept, writer, settings.name, classes, context)
            yield Door(str(settings.store), STORE_ROWS, send)
        finally:
            writer.stop()


def _classes(settings: Settings) -> tuple[str, ...]:
    """Return the champion's classes, or those of a model served elsewhere; none where nobody says."""
    if not settings.registry.is_dir():
        return settings.classes
    registry = open_registry(settings)
    return settings.classes if registry.alias(CHAMPION) is None else registry.get(CHAMPION).classes


def _kept(
    writer: Writer, model: str, classes: tuple[str, ...], context: Context, labels: Sequence[LabelIn]
) -> list[Outcome]:
    """Put labels into the store as the service would, and return what became of each."""
    from service.events import Label

    now = context.now()
    known = [each.label in classes for each in labels]
    taken = [
        Label(each.id, each.label, each.observed_at or now, now, each.labeller, each.idempotency_key)
        for each in compress(labels, known)
    ]
    results = iter(writer.label(model, taken).result())
    reason = f"this is no class; the classes are {', '.join(map(repr, classes[:20]))}"
    return [_told(next(results)) if here else ("rejected", reason) for here in known]


def _told(result: LabelResult) -> Outcome:
    return result.outcome, result.reason
