"""Schema of the settings: every key with its type, its description (the text in the annotation) and its default."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_type_hints
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, ConfigDict
from pydantic.dataclasses import dataclass

from service.keys import SCOPES
from service.settings import FEATURE_KINDS, FORMATS, LABELS, LEARNERS, REQUEST_POLICIES, STREAMS, SURVIVES

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from sfs.schema import Schema


MAX_NUMBER = 100_000


def describe(value: Any) -> str:
    """Return a wrong value as an error message quotes it."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return "nothing" if value == "" else repr(value)


def text(value: Any) -> str:
    """Accept text as it is written: ``no`` and ``2024`` are names here, not a boolean and a number."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected text, got {describe(value)}")
    return value


def host(value: Any) -> str:
    """Accept a host name, a domain with all its hosts as ``*.example.com``, or ``*``."""
    if "*" in text(value).removeprefix("*.") and value != "*":
        raise ValueError(f"expected a host name, or '*.' and a domain, got {value!r}")
    return str(value)


@plain_dataclass(frozen=True, slots=True)
class TrustedProxy:
    """Proxy that signs its users in, and names them in a header.

    Parameters
    ----------
    networks
        Addresses of its connections.
    header
        The header, in lower case.
    scopes
        What its users may do.
    """

    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    header: str
    scopes: tuple[str, ...]


def trusted_proxy(value: Any) -> TrustedProxy | None:
    """Accept ``address`` (addresses or networks), ``header`` and ``scope``."""
    if value is None or isinstance(value, TrustedProxy):  # a default, or validated before
        return value
    if not isinstance(value, Mapping) or "address" not in value or not set(value) <= {"address", "header", "scope"}:
        example = "{address: 10.0.0.7, header: X-Forwarded-User, scope: [read]}"
        raise ValueError(f"expected address, header and scope, as in {example}, got {describe(value)}")
    addresses, scopes = (
        tuple(map(str, each if isinstance(each, list) else [each]))
        for each in (value["address"], value.get("scope", "read"))
    )
    header = str(value.get("header", "X-Forwarded-User")).lower()
    if not re.fullmatch(r"[a-z0-9-]{1,64}", header) or header in ("authorization", "cookie", "host"):
        raise ValueError(f"expected the name of a header that the proxy sets, got {header!r}")
    if wrong := [scope for scope in scopes if scope not in SCOPES]:
        raise ValueError(f"unknown scope {wrong[0]!r}: the scopes are {', '.join(SCOPES)}")
    networks = tuple(map(ipaddress.ip_network, addresses))
    if not networks or any(network.prefixlen == 0 for network in networks):
        raise ValueError("name the addresses of the proxy: any other client could send its header, too")
    return TrustedProxy(networks, header, scopes)


def slug(value: Any) -> str:
    """Accept a name that can also be the name of a folder."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", text(value)):
        raise ValueError(
            f"expected at most 64 letters, digits, '.', '_' and '-', not starting with '.' or '-', got {value!r}"
        )
    return str(value)


def boolean(value: Any) -> bool:
    """Accept ``true`` or ``false``."""
    if str(value).lower() not in ("true", "false"):
        raise ValueError(f"expected true or false, got {describe(value)}")
    return str(value).lower() == "true"


def positive(value: Any) -> float:
    """Accept a number above 0 and at most 100,000: with larger ones times would leave the calendar."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number <= MAX_NUMBER:
        raise ValueError(f"expected a number above 0 and at most {MAX_NUMBER:,}, got {describe(value)}")
    return number


def fraction(value: Any) -> float:
    """Accept a number above 0 and below 1."""
    number = positive(value)
    if number >= 1:
        raise ValueError(f"expected a number above 0 and below 1, got {describe(value)}")
    return number


def request_policy(value: Any) -> str | float:
    """Accept ``all``, ``errors``, ``none``, or a share of the requests."""
    if value in REQUEST_POLICIES:
        return str(value)
    try:
        return fraction(value)
    except ValueError:
        words = ", ".join(REQUEST_POLICIES)
        raise ValueError(f"expected {words}, or a number above 0 and below 1, got {describe(value)}") from None


def share(value: Any) -> float:
    """Accept a number from 0 to 1."""
    try:
        number = float(str(value))  # true is none
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise ValueError(f"expected a number from 0 to 1, got {describe(value)}")
    return number


def hours(value: Any) -> float:
    """Accept 0, or a number of hours up to 100,000."""
    return 0.0 if str(value) in ("0", "0.0") else positive(value)


def zone_name(value: Any) -> str:
    """Accept the name of a time zone, as ``Europe/Berlin``."""
    name = text(value)
    if name != "UTC":
        try:
            ZoneInfo(name)
        except (ValueError, OSError, ZoneInfoNotFoundError):
            raise ValueError(
                f"unknown time zone {name!r}: expected UTC, or one that this machine knows, as Europe/Berlin"
            ) from None
    return name


def endpoint(value: Any) -> str:
    """Accept a URL of HTTP without credentials, which would be shown with the settings."""
    given = text(value)
    try:
        url = urlsplit(given)
        is_whole = bool(url.hostname) and url.port != 0  # a port that is none raises
    except ValueError:
        is_whole = False
    if "@" in (url.netloc if is_whole else given):
        raise ValueError("expected a URL without user and password: set OTEL_EXPORTER_OTLP_HEADERS instead")
    if not is_whole or url.scheme not in ("http", "https") or " " in given:
        raise ValueError(f"expected a URL, as http://localhost:4318/v1/traces, got {value!r}")
    return str(value)


@plain_dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of the certificate, followed by its intermediates, and of its key."""

    cert: Path
    key: Path


def tls_files(value: Any) -> TlsFiles | None:
    """Accept a mapping with the files ``cert`` and ``key``."""
    if value is None or isinstance(value, TlsFiles):  # a default, or validated before
        return value
    if not isinstance(value, Mapping) or {*value} != {"cert", "key"}:
        got = f"the keys {', '.join(map(str, value))}" if isinstance(value, Mapping) and value else describe(value)
        raise ValueError(f"expected the files {{cert: FILE, key: FILE}}, got {got}")
    return TlsFiles(Path(text(value["cert"])), Path(text(value["key"])))


def column_kinds(value: Any) -> Any:
    """Accept ``column: kind`` lines, at least one."""
    if not isinstance(value, Mapping):
        raise ValueError(f"expected `column: kind` lines, got {describe(value)}")
    if not value:
        raise ValueError("name at least one column, as in `features: {comment: text}`")
    return value


def column_type(value: Any) -> dict[str, Any]:
    """Accept the type of a column, or a mapping with its type and how its values are spelled."""
    from sfs.errors import SliceError
    from sfs.schema import Schema

    options = {**value} if isinstance(value, Mapping) else {"type": value}
    if isinstance(options.get("missing"), str):
        options["missing"] = [options["missing"]]
    try:
        Schema.from_json([{**options, "name": ""}])
    except SliceError as error:
        raise ValueError(str(error).removeprefix("malformed schema, column 0").lstrip(".: ")) from None
    return options


def choice(options: Collection[str]) -> BeforeValidator:
    """Return a validator that accepts one of some words."""

    def validate(value: Any) -> str:
        if text(value) not in options:
            from sfs.errors import nearest

            raise ValueError(f"{value!r} is not one of {', '.join(options)}{nearest(value, options)}")
        return str(value)

    return BeforeValidator(validate)


def integer(minimum: int, maximum: int | None = None) -> BeforeValidator:
    """Return a validator that accepts an integer from ``minimum`` to ``maximum``."""
    limits = f"at least {minimum}" + ("" if maximum is None else f" and at most {maximum}")

    def validate(value: Any) -> int:
        digits = str(value)
        if not re.fullmatch(r"[0-9]{1,18}", digits) or not minimum <= int(digits) <= (maximum or 10**18):
            raise ValueError(f"expected an integer, {limits}, got {describe(value)}")
        return int(digits)

    return BeforeValidator(validate)


def list_of(least: int) -> BeforeValidator:
    """Return a validator that accepts a list of ``least`` values or more; one bare value is a list of one."""

    def validate(value: Any) -> tuple[Any, ...]:
        if isinstance(value, tuple):  # a default, or validated before
            return value
        items = tuple(value) if isinstance(value, list) else (value,)
        if len(items) < least:
            raise ValueError(f"expected a list of at least {least}, got {len(items)}")
        return items

    return BeforeValidator(validate)


Text = Annotated[str, BeforeValidator(text)]
Host = Annotated[str, BeforeValidator(host)]
Boolean = Annotated[bool, BeforeValidator(boolean)]
Count = Annotated[int, integer(1)]
Units = Annotated[int, integer(1, 10_000)]
Days = Annotated[int, integer(1, MAX_NUMBER)]
Positive = Annotated[float, BeforeValidator(positive)]
Fraction = Annotated[float, BeforeValidator(fraction)]
Share = Annotated[float, BeforeValidator(share)]
Hours = Annotated[float, BeforeValidator(hours)]
Endpoint = Annotated[str, BeforeValidator(endpoint)]
RequestPolicy = Annotated[str | float, BeforeValidator(request_policy)]
FilePath = Annotated[Path, BeforeValidator(lambda value: value if isinstance(value, Path) else text(value))]
CONFIG = ConfigDict(extra="forbid")
REGISTRY, STORE = Path(".slicewatch/registry"), Path(".slicewatch/store.sqlite3")


class _Section:
    """Section of the settings whose None keeps a default that is set elsewhere."""

    __slots__ = ()

    @property
    def given(self) -> dict[str, Any]:
        """Values that replace defaults, by key."""
        values = {each.name: getattr(self, each.name) for each in fields(cast("DataclassInstance", self))}
        return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True, config=CONFIG)
class LearnerSettings(_Section):
    """Training of a model; None keeps the learner's own default."""

    kind: Annotated[str, choice(LEARNERS), f"{', '.join(LEARNERS)} (default: the first)"] = LEARNERS[0]
    epochs: Annotated[Count | None, "passes over the training rows"] = None
    hidden: Annotated[Annotated[tuple[Units, ...], list_of(1)] | None, "units of each hidden layer"] = None
    learning_rate: Annotated[Positive | None, "step size of the optimiser"] = None
    batch_rows: Annotated[Count | None, "rows of one optimiser step"] = None
    search_rows: Annotated[Count | None, "maximum rows for the search over candidates"] = None
    seed: Annotated[int, integer(0), "random seed (default: 0)"] = 0


@dataclass(frozen=True, slots=True, config=CONFIG)
class ServeSettings:
    """Address and request limits of the service."""

    host: Annotated[Text, "address to listen on (default: 127.0.0.1, this machine only)"] = "127.0.0.1"
    port: Annotated[int, integer(0, 65_535), "port to listen on (default: 8000; 0 picks a free one)"] = 8000
    insecure: Annotated[Boolean, "accept any host name; with without_keys, let other machines in without keys"] = False
    without_keys: Annotated[Boolean, "with insecure, let other machines in without keys (default: false)"] = False
    keys: Annotated[FilePath | None, "file of API keys (default: keys.json beside the store)"] = None
    trust_proxy: Annotated[
        TrustedProxy | None,
        BeforeValidator(trusted_proxy),
        "proxy that signs users in: its address, header and scope (default: none)",
    ] = None
    hosts: Annotated[tuple[Host, ...], list_of(0), "further accepted host names, such as a proxy's"] = ()
    tls: Annotated[
        TlsFiles | None,
        BeforeValidator(tls_files),
        "serve HTTPS with PEM files, {cert: FILE, key: FILE} (default: HTTP)",
    ] = None
    connections: Annotated[Count, "maximum connections (default: 1000)"] = 1000
    peer_connections: Annotated[Count, "maximum connections of one other machine (default: 250)"] = 250
    idle_seconds: Annotated[Positive, "maximum time of a connection between two requests (default: 5)"] = 5.0
    stall_seconds: Annotated[Positive, "maximum time for a header, and without reading the answer (default: 10)"] = 10.0
    body_bytes: Annotated[int, integer(1024), "maximum size of a request body (default: 4194304)"] = 4 * 2**20
    body_values: Annotated[Count, "maximum JSON values of a body; a list or object counts as 10 (default: 600000)"] = (
        600_000
    )
    request_rows: Annotated[Count, "maximum records in a request (default: 1000)"] = 1000
    request_labels: Annotated[Count, "maximum labels in a request (default: 10000)"] = 10_000
    request_seconds: Annotated[Positive, "request timeout (default: 10)"] = 10.0
    queue_rows: Annotated[Count, "maximum records in the queue; more are refused (default: 2048)"] = 2048
    drain_seconds: Annotated[Positive, "graceful-shutdown timeout (default: 20)"] = 20.0


@dataclass(frozen=True, slots=True, config=CONFIG)
class LogSettings:
    """Contents and durability of the prediction log."""

    features: Annotated[tuple[Text, ...], list_of(1), "features kept: all (default), none, or columns"] = ("all",)
    survives: Annotated[str, choice(SURVIVES), "durability of a logged row: kill (default), or power"] = "kill"
    keep_days: Annotated[Days | None, "age at which rows are deleted with their labels (default: never)"] = None
    requests: Annotated[
        RequestPolicy, "requests in the log of the process: all (default), errors, none, or errors and a share as 0.01"
    ] = "all"


@dataclass(frozen=True, slots=True, config=CONFIG)
class TracesSettings:
    """Traces of requests, sent by OTLP over HTTP; OpenTelemetry reads further variables, ``OTEL_*``."""

    endpoint: Annotated[
        Endpoint | None,
        "receiver of traces, as http://localhost:4318/v1/traces (default: none; needs slicewatch[otel])",
    ] = None
    sample: Annotated[Share, "share of the requests traced without a trace of their caller (default: 0.01)"] = 0.01


@dataclass(frozen=True, slots=True, config=CONFIG)
class MonitorSettings:
    """Snapshots of the log and the rates in them."""

    tick_seconds: Annotated[Positive, "interval between snapshots (default: 10)"] = 10.0
    minimum_labels: Annotated[Count, "minimum labels for an accuracy to be shown (default: 20)"] = 20
    positive: Annotated[Text | None, "class of the F1 (default: the second of two, else macro average)"] = None
    label_days: Annotated[Positive, "maximum age of a prediction for a label to count (default: 30)"] = 30.0


@dataclass(frozen=True, slots=True, config=CONFIG)
class DriftSettings:
    """Sensitivity of the drift detectors and their false-alarm budget."""

    tolerance: Annotated[Fraction, "tolerated relative change of a slice's coverage (default: 0.1)"] = 0.1
    swing: Annotated[
        Share, "relative swing of a coverage tolerated until a week of its traffic is known (default: 0.4)"
    ] = 0.4
    time_zone: Annotated[str, AfterValidator(zone_name), "time zone of days and weeks of traffic (default: UTC)"] = (
        "UTC"
    )
    accuracy_tolerance: Annotated[
        Fraction, "tolerated fall of a slice's accuracy (default: 0.01; doubled above 20% errors)"
    ] = 0.01
    settling_hours: Annotated[
        Hours, "time in which a label may be corrected, before it is evidence of a lower accuracy (default: 1)"
    ] = 1.0
    streams: Annotated[
        tuple[Annotated[str, choice(STREAMS)], ...],
        list_of(0),
        "further rates to monitor: no_slice, unknown, predicted, disagreement, confidence, votes (default: none)",
    ] = ()
    false_alarms_a_month: Annotated[Positive, "false alarms allowed a month, over all slices (default: 1)"] = 1.0
    max_slices: Annotated[Count, "number of slices that share the false-alarm budget (default: 200)"] = 200
    reference_labels: Annotated[
        int, integer(30, 5000), "first labels that set the accuracy expected of a model served elsewhere (default: 300)"
    ] = 300


@dataclass(frozen=True, slots=True, config=CONFIG)
class RetrainSettings:
    """Triggers, data and promotion gate of retraining."""

    automatic: Annotated[Boolean, "retrain on alarms and age (default: true)"] = True
    new_labels: Annotated[Count, "new labels that a changed slice needs before training (default: 200)"] = 200
    cool_down_hours: Annotated[Positive, "minimum time between automatic runs (default: 24)"] = 24.0
    runs_a_month: Annotated[Count, "maximum automatic runs in 30 days (default: 8)"] = 8
    wait_days: Annotated[Positive, "maximum time to wait for labels (default: 14)"] = 14.0
    max_age_days: Annotated[Positive | None, "age of the champion that starts a run (default: never)"] = None
    traffic_rows: Annotated[Count, "maximum labelled rows of traffic to train on (default: 50000)"] = 50_000
    timeout_minutes: Annotated[Positive, "training timeout (default: 120)"] = 120.0
    attempts: Annotated[Count, "failed trainings after which a run fails (default: 3)"] = 3
    margin: Annotated[Fraction, "maximum accuracy loss on a protected slice (default: 0.02)"] = 0.02
    minimum_rows: Annotated[int, integer(2), "minimum held-out rows to verify a slice (default: 50)"] = 50
    check_seconds: Annotated[Positive, "interval between checks of alarms and runs (default: 10)"] = 10.0


@dataclass(frozen=True, slots=True, config=CONFIG)
class ReportSettings:
    """Reports that compare live traffic with the reference, column by column."""

    every_hours: Annotated[Positive, "interval between reports (default: 24)"] = 24.0
    rows: Annotated[int, integer(50), "maximum rows of traffic in a report (default: 5000)"] = 5_000
    timeout_minutes: Annotated[Positive, "report timeout (default: 10)"] = 10.0


@dataclass(frozen=True, slots=True, config=CONFIG)
class FunctionLimitSettings(_Section):
    """Time limits and circuit breakers of functions; None keeps the default."""

    budget_ms: Annotated[Positive | None, "CPU time per row of a function (default: 1)"] = None
    least_ms: Annotated[Positive | None, "minimum CPU time allowed for a batch (default: 50)"] = None
    hold_ms: Annotated[Positive | None, "maximum time of all functions in a batch (default: 200)"] = None
    faults: Annotated[Count | None, "consecutive failures that disable a function (default: 20)"] = None
    slow_batches: Annotated[Count | None, "consecutive slow batches that disable it (default: 5)"] = None
    back_off_seconds: Annotated[Positive | None, "first back-off before the next try (default: 1)"] = None
    longest_back_off_seconds: Annotated[Positive | None, "maximum back-off (default: 300)"] = None
    memory_mb: Annotated[Positive | None, "memory of a function's process (default: 1024)"] = None
    network: Annotated[Boolean | None, "allow functions to use the network (default: false)"] = None


@dataclass(frozen=True, slots=True, config=CONFIG)
class TemplateLimitSettings(_Section):
    """Limits of all templates together; None keeps the default."""

    terms: Annotated[Count | None, "different terms of all templates (default: 5000)"] = None
    pattern_mb: Annotated[Positive | None, "memory of all compiled patterns, in MiB (default: 640)"] = None


@dataclass(frozen=True, slots=True, config=CONFIG)
class Settings:
    """All settings of a project; `service.settings.loading.load` resolves paths against the folder of the file."""

    file: Path
    data: Annotated[FilePath, "training table (CSV, TSV, Parquet, JSON lines), or the data of `format`"]
    label: Annotated[Text, "column with the class of each row"]
    features: Annotated[
        Mapping[str, Annotated[str, choice(FEATURE_KINDS)]],
        BeforeValidator(column_kinds),
        "columns that the model reads, as `column: text, number or category`",
    ]
    registry: Annotated[FilePath, f"folder of the model registry (default: {REGISTRY})"] = REGISTRY
    store: Annotated[FilePath, f"database of predictions and labels (default: {STORE})"] = STORE
    name: Annotated[str, BeforeValidator(slug), "name in the model registry (default: model)"] = "model"
    format: Annotated[str, choice(FORMATS), f"{', '.join(FORMATS)} (default: the first)"] = "table"
    functions: Annotated[tuple[Text, ...], list_of(0), "slicing functions: Python or YAML files, or modules"] = ()
    labels: Annotated[
        str,
        choice(LABELS),
        "given, or `from functions`: labeling functions label training rows without (default: given)",
    ] = LABELS[0]
    time: Annotated[
        Text | None, "column with the time of each row, for its season and `drift replay` (default: none)"
    ] = None
    classes: Annotated[tuple[Text, ...], list_of(2), "classes of a model that is served elsewhere"] = ()
    schema: Annotated[
        Mapping[str, Annotated[Any, AfterValidator(column_type)]],
        BeforeValidator(lambda value: {} if value == "" else value),
        "types of columns, as `column: type` (default: settled from the table)",
    ] = field(default_factory=dict)
    learner: LearnerSettings = field(default_factory=LearnerSettings)
    serve: ServeSettings = field(default_factory=ServeSettings)
    log: LogSettings = field(default_factory=LogSettings)
    traces: TracesSettings = field(default_factory=TracesSettings)
    monitor: MonitorSettings = field(default_factory=MonitorSettings)
    drift: DriftSettings = field(default_factory=DriftSettings)
    retrain: RetrainSettings = field(default_factory=RetrainSettings)
    report: ReportSettings = field(default_factory=ReportSettings)
    clock: Annotated[FilePath | None, "file of a faster clock, as the demo writes it (default: none)"] = None
    function_limits: FunctionLimitSettings = field(default_factory=FunctionLimitSettings)
    template_limits: TemplateLimitSettings = field(default_factory=TemplateLimitSettings)

    @property
    def labels_from_functions(self) -> bool:
        """Whether labeling functions label the training rows without a label."""
        return self.labels != LABELS[0]

    @property
    def keys_file(self) -> Path:
        """File of the API keys."""
        given = self.serve.keys
        return self.store.with_name("keys.json") if given is None else self.file.parent / given

    @property
    def late_after_seconds(self) -> float:
        """Age of a prediction, in seconds, beyond which its labels do not count and may be deleted."""
        return min(self.monitor.label_days, self.log.keep_days or math.inf) * 86_400

    @property
    def table_schema(self) -> Schema:
        """The types in ``schema``."""
        from sfs.schema import Schema

        return Schema.from_json([{**options, "name": name} for name, options in self.schema.items()])


def _descriptions(schema: type) -> Iterator[tuple[str, str]]:
    for name, hint in get_type_hints(schema, include_extras=True).items():
        if is_dataclass(hint) and isinstance(hint, type):
            yield from ((f"{name}.{key}", description) for key, description in _descriptions(hint))
        for part in getattr(hint, "__metadata__", ()):
            if isinstance(part, str):
                yield name, part


SETTINGS: Mapping[str, str] = dict(_descriptions(Settings))
"""Description of every setting by its key, as in ``learner.epochs``."""

SECTIONS = frozenset(key.partition(".")[0] for key in SETTINGS if "." in key)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address to listen on."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address_problem(serve: ServeSettings, *, has_keys: bool = False) -> str | None:
    """Return the reason why the service must not listen on its address, or None.

    Examples
    --------
    >>> address_problem(ServeSettings()), address_problem(ServeSettings(host="10.0.0.5"), has_keys=True)
    (None, None)
    >>> address_problem(ServeSettings(host="10.0.0.5", insecure=True, without_keys=True))
    """
    is_guarded = has_keys or serve.trust_proxy is not None
    if is_guarded or is_loopback(serve.host) or (serve.insecure and serve.without_keys):
        return None
    return (
        f"serve.host {serve.host!r} is open to other machines, and the service has no keys: add one with `slicewatch "
        "keys add NAME --scope SCOPE`; where every machine of the network may do everything, set both serve.insecure "
        "and serve.without_keys to true"
    )
