"""Project of a command: its settings, rows, functions, registry, and running service."""

from __future__ import annotations

import argparse
import difflib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from service.cli.parser import Context, api_key, config_file
from service.cli.terminal import print_message
from service.errors import MisuseError
from service.settings import OTHER_VARIABLES, PREFIX, variable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from models.features import FeatureKind, FeatureSpec
    from models.registry import ModelRegistry
    from models.training_rows import DataSource
    from service.client import Client
    from service.settings.schema import Settings
    from sfs.function import LabelingFunction, SlicingFunction
    from sfs.registry import FunctionSet
    from sfs.schema import Schema

CHAMPION = "champion"
NO_LABELING_FUNCTIONS = (
    "`from functions` needs labeling functions: decorate some with @labeling_function() in a Python file of `functions`"
)
SMS_FILE = "SMSSpamCollection"


def load_settings(args: argparse.Namespace, context: Context) -> Settings:
    """Load the settings that ``--config`` and the variables name; warn of variables that look misspelt."""
    from service.settings.loading import load
    from service.settings.schema import SETTINGS

    known = [variable(key) for key in SETTINGS]
    for name in sorted(set(context.environ) - {*known, *OTHER_VARIABLES}):
        if name.startswith(PREFIX) and (close := difflib.get_close_matches(name, known, n=1, cutoff=0.9)):
            print_message(f"slicewatch: warning: variable {name} is not a setting; did you mean {close[0]}?")
    return load(config_file(args, context), context.environ)


def project_source(settings: Settings, *, trained: bool = False) -> DataSource:
    """Return the source of the project's own rows, read by the types in the settings.

    With ``trained``, other columns are read as the champion reads them.
    """
    from models.training_rows import DataSource

    schema = settings.table_schema
    schema = schema.joined(champion_schema(settings)) if trained else schema
    return DataSource(settings.data, settings.format, _text_columns(settings), settings.label, schema)


def other_source(
    path: Path,
    settings: Settings | None = None,
    schema: Schema | None = None,
    given: str | None = None,
    *,
    partitioned: bool = False,
) -> DataSource:
    """Return another source of rows, read by a schema, by default the champion's.

    Of columns outside the schema, those that the project declares as text stay text. The format is the ``given``
    one, that of the settings for the project's own data, or that of the file. With ``partitioned``, the path may be a
    folder of Parquet files.
    """
    if not partitioned and path.is_dir() and not any(path.glob("Youtube*.csv")):
        raise MisuseError(f"{path} is a folder: pass a file of rows, or the folder of the UCI YouTube files")
    if given is None and settings is not None and path.resolve() == settings.data.resolve():
        given = settings.format
    data_format = given or ("youtube" if path.is_dir() else "sms" if path.name == SMS_FILE else "table")
    from models.training_rows import DataSource

    if settings is None:
        return DataSource(path, data_format)
    schema = schema or champion_schema(settings)
    return DataSource(path, data_format, _text_columns(settings), settings.label, schema)


def feature_specs(settings: Settings) -> list[FeatureSpec]:
    """Return the features of the settings, without the label."""
    from models.features import FeatureSpec

    kinds = cast("Mapping[str, FeatureKind]", settings.features)
    return [FeatureSpec(column, kind) for column, kind in kinds.items() if column != settings.label]


def champion_schema(settings: Settings) -> Schema:
    """Return the types that the champion was trained with; before the first training those in the settings."""
    from models.errors import ModelError
    from models.registry import ModelRegistry

    if settings.registry.is_dir():
        registry = ModelRegistry(settings.registry, name=settings.name)
        with suppress(ModelError):  # a damaged champion is the subject of other commands
            if (version := registry.alias(CHAMPION)) is not None:
                return registry.schema(version)
    return settings.table_schema


def _text_columns(settings: Settings) -> tuple[str, ...]:
    return tuple(column for column, kind in settings.features.items() if kind == "text")


def blank_rows(labels: pd.Series[Any]) -> list[int]:
    """Return the positions (from 0) of rows whose label is missing or blank."""
    values, missing = labels.tolist(), labels.isna().tolist()
    return [row for row, value in enumerate(values) if missing[row] or not str(value).strip()]


def load_functions(names: Iterable[str], *, votes: bool = False) -> FunctionSet:
    """Load functions from Python files, YAML files and dotted modules, in order.

    With ``votes``, slices of labeling functions follow: these are monitored live, but are not slices of a
    model.
    """
    from sfs.registry import FunctionSet

    return FunctionSet.from_files(names, votes=votes)


def load_labeling_functions(settings: Settings) -> tuple[LabelingFunction, ...]:
    """Return the functions that label rows by the setting ``labels``; none if every row needs a label.

    Raises
    ------
    MisuseError
        If the project has no labeling functions, and needs some.
    """
    if not settings.labels_from_functions:
        return ()
    functions = load_functions(settings.functions, votes=True).labeling_functions
    if not functions:
        raise MisuseError(f"labels: {NO_LABELING_FUNCTIONS}")
    return functions


def function_kind(function: SlicingFunction) -> str:
    """Return the kind of a function: ``template``, ``python``, or ``labeling`` for a labeling function."""
    from sfs.function import LabelingFunctionSlice
    from sfs.template import Template

    if isinstance(function, LabelingFunctionSlice):
        return "labeling"
    return "template" if isinstance(function, Template) else "python"


def require_writable(folder: Path) -> Path:
    """Return the nearest existing folder after writing a temporary file into it; raises OSError if it cannot."""
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"slicewatch")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(existing)) from None  # not the name of the temporary file
    return existing


def open_registry(settings: Settings) -> ModelRegistry:
    """Return the project's registry.

    Raises
    ------
    MisuseError
        If no model has been trained yet.
    """
    from models.registry import ModelRegistry

    if not settings.registry.is_dir():
        raise MisuseError(f"no registry at {settings.registry}: run `slicewatch train` first")
    return ModelRegistry(settings.registry, name=settings.name)


def service_url(settings: Settings) -> str:
    """Return the address of the project's service, as this machine reaches it."""
    host, port = settings.serve.host, settings.serve.port
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - it is compared, not bound
    scheme = "http" if settings.serve.tls is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def project_client(settings: Settings, ca: str | None = None, key: str | None = None) -> Client:
    """Return a client of the project's service, which trusts the certificate in the settings, or those in a file."""
    from service.client import Client

    if ca or settings.serve.tls is None:
        return Client(service_url(settings), ca=ca, key=key)
    return Client(service_url(settings), ca=settings.serve.tls.cert, any_name=True, key=key)


def named_client(args: argparse.Namespace, context: Context) -> Client:
    """Return a client of the service at ``--url``."""
    from service.client import Client

    return Client(args.url, ca=args.ca or context.environ.get("SLICEWATCH_CA") or None, key=api_key(args, context))


@contextmanager
def running_service(args: argparse.Namespace, context: Context) -> Iterator[Client]:
    """Yield a client of the service at ``--url``, else of the project's own.

    Raises
    ------
    NotRunning
        If nothing listens at the address.
    MisuseError
        If the service has another model than the project.
    """
    settings = None if args.url else load_settings(args, context)
    key = api_key(args, context)
    with named_client(args, context) if settings is None else project_client(settings, args.ca, key) as client:
        client.ready()
        if settings is not None:
            require_model(client, settings)
        yield client


@contextmanager
def service_of(settings: Settings, registry: ModelRegistry, key: str | None) -> Iterator[Client | None]:
    """Yield a client of the service that serves this very registry; None if none runs at the project's address."""
    from service.client import NotRunning

    with project_client(settings, key=key) as client:
        try:
            client.ready()
        except NotRunning:
            yield None
            return
        served = client.models()
        hashes = {model["version"]: model["hash"] for model in served["models"]}
        same = served["model"] == settings.name and hashes == {v.number: v.hash for v in registry.list()}
        yield client if same else None


def require_model(client: Client, settings: Settings) -> None:
    """Raise MisuseError if a service has another model than the project."""
    served = client.models().get("model")
    if served != settings.name:
        raise MisuseError(
            f"{client.url} serves the model {served!r}, but this project's model is {settings.name!r}: stop that "
            "service, or pass the address of this project's service with --url"
        )
