"""``slicewatch drift replay``: the alarms that past traffic would have raised, offline."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.cli.parser import Commands, Context, add_command, add_format, add_options, config_file, integer_between
from service.cli.project import CHAMPION, feature_specs, load_functions, load_settings, open_registry, other_source
from service.cli.terminal import format_table, format_time, print_json, print_message, row_progress
from service.errors import MisuseError
from service.formatting import limit_text, percent

if TYPE_CHECKING:
    from service.decisions import Alarm
    from service.jobs.drift_replay import Expected, PastDetection
    from service.jobs.past_traffic import CountsFile, LoggedTraffic, PastTraffic, RowsFile
    from service.monitor.replay import Learned
    from service.settings.schema import DriftSettings, Settings

PREDICTED = "predicted"
MONTH_DAYS = 30

EXAMPLES = """slicewatch drift replay january.parquet --time at
  slicewatch drift replay counts.csv --set drift.tolerance=0.2 --learn 7
  slicewatch drift replay --log --from 2026-05-01 --to 2026-06-01 --json"""
DESCRIPTION = """\
Feeds past traffic to the detectors, offline and without a change of the store, and lists the alarms. FILE has
- rows in order of time, with a column of times (--time), to which the project's functions are applied; with
  predicted and true classes, accuracy is monitored, too;
- or counts: columns `start` (UTC), `known` and one per slice, the members of each; a row is a block of ten seconds,
  or longer.
With --log, the rows and first labels of the project's own log are read. Live baselines are learned on the way, from
the expected rates of the champion, if there is one."""


def declare(actions: Commands) -> None:
    """Declare the action of ``slicewatch drift``."""
    summary = "list the alarms that past traffic would have raised"
    parser = add_command(actions, "replay", summary, EXAMPLES, run)
    parser.description = f"{parser.description}\n\n{DESCRIPTION}"
    parser.add_argument(
        "file", type=Path, nargs="?", metavar="FILE", default=None, help="CSV, TSV, Parquet or JSON lines"
    )
    parser.add_argument("--log", action="store_true", default=False, help="read the project's own log in place of FILE")
    since = "start, ISO 8601, UTC without a zone (default: with the first row)"
    parser.add_argument("--from", dest="since", type=_time, metavar="TIME", default=None, help=since)
    until = "end, exclusive (default: with the last row)"
    parser.add_argument("--to", dest="until", type=_time, metavar="TIME", default=None, help=until)
    about = "version whose rows of the log are read (default: that of most of the last rows)"
    parser.add_argument("--version", type=integer_between(0), metavar="VERSION", default=None, help=about)
    for name, about in (
        ("time", "column with the time of a row (default: `time` in the settings)"),
        ("predicted-column", f"column with the predicted classes (default: {PREDICTED}, if any)"),
        ("label-column", "column with the true classes (default: label in the settings)"),
        ("label-time", "column with the arrival of the label (default: the time of the row)"),
    ):
        parser.add_argument(f"--{name}", metavar="COLUMN", default=None, help=about)
    about = "length of a block of counts, 1 to 3600 (default: the least distance of the first starts)"
    parser.add_argument("--block-seconds", type=integer_between(1, 3600), metavar="N", default=None, help=about)
    about = "other setting of drift, as drift.tolerance=0.2; repeatable"
    parser.add_argument("--set", dest="options", action="append", metavar="KEY=VALUE", default=None, help=about)
    about = "list only alarms after so many days, in which the baseline is learned"
    parser.add_argument("--learn", type=integer_between(0, 3650), metavar="DAYS", default=0, help=about)
    add_format(parser)
    parser.set_defaults(format=None)
    add_options(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Replay, and print alarms, learning and a summary."""
    from service.jobs.drift_replay import PastDetection
    from service.settings.loading import with_options
    from service.settings.schema import DriftSettings

    if args.log == (args.file is not None):
        raise MisuseError("name either a FILE of rows or counts, or the project's own log with --log")
    if not args.log and (args.since or args.until or args.version is not None):
        raise MisuseError("--from, --to and --version belong to --log: leave other rows out of the file")
    is_needed = args.log or args.config is not None or config_file(args, context).exists()
    settings = load_settings(args, context) if is_needed else None
    drift = with_options(DriftSettings() if settings is None else settings.drift, args.options or [])
    with _traffic(args, settings, drift) as (traffic, expected):
        detection = PastDetection(traffic, drift, expected)
        with row_progress("replay", traffic.total()) as progress:
            detection.run(progress)
    if detection.replay.start is None:
        raise MisuseError("there are no rows to replay: check the times, and --from and --to")
    document = _document(detection, expected, drift, args.learn)
    if args.json:
        print_json(document)
    else:
        print(_text(detection, document, args.learn))
    return 0


@contextmanager
def _traffic(
    args: argparse.Namespace, settings: Settings | None, drift: DriftSettings
) -> Iterator[tuple[PastTraffic, Expected]]:
    """Yield the traffic that the arguments name, with its first expectations."""
    if args.log and settings is not None:
        with _logged(args, settings, timedelta(hours=drift.settling_hours)) as logged:
            yield logged, _expected(settings, logged, logged.version)
        return
    file = _file(args, settings)
    yield file, _expected(settings, file, CHAMPION)


@contextmanager
def _logged(args: argparse.Namespace, settings: Settings, settling: timedelta) -> Iterator[LoggedTraffic]:
    from service.jobs.past_traffic import LoggedTraffic
    from service.store.engine import current_revision, latest_revision, open_read_only
    from service.store.queries import most_logged_version

    if not settings.store.exists():
        raise MisuseError(f"no store at {settings.store}: `slicewatch up` creates it")
    with open_read_only(settings.store) as connection:
        if current_revision(connection) != latest_revision():
            raise MisuseError(f"{settings.store} has the schema of another release: run `slicewatch migrate`")
        version = args.version
        if version is None:
            found = most_logged_version(connection, settings.name)
            if found is None:
                raise MisuseError(f"the log of {settings.store} has no rows of the model {settings.name!r}")
            version, _ = found
        since = args.since or datetime(1970, 1, 2, tzinfo=UTC)
        until = args.until or datetime(9000, 1, 1, tzinfo=UTC)
        logged = LoggedTraffic(connection, settings.name, version, since, until, settling)
        if not logged.slices:
            raise MisuseError(f"the log has no rows of version {version} of {settings.name!r} at that time")
        yield logged


def _file(args: argparse.Namespace, settings: Settings | None) -> CountsFile | RowsFile:
    """Return the file of rows or counts."""
    from service.jobs.past_traffic import KNOWN, START
    from sfs.errors import did_you_mean
    from sfs.tables import read_batches

    source = other_source(args.file, settings, given=args.format)
    first = source.batches() if args.file.is_dir() else read_batches(args.file, 1, format=args.format or "table")
    names = [str(name) for name in next(first).columns]
    if args.time is None and {START, KNOWN} <= {*names}:
        return _counts(args, settings, [name for name in names if name not in (START, KNOWN)])
    from service.jobs.past_traffic import RowColumns, RowsFile

    if settings is None:
        raise MisuseError(
            f"{args.file} has no columns {START!r} and {KNOWN!r} of a table of counts; rows need the functions of a "
            "project: pass --config FILE"
        )
    functions = load_functions(settings.functions, votes=True)
    if not len(functions):
        raise MisuseError("no functions: list some under `functions` in the settings")
    time, label = args.time or settings.time, args.label_column or settings.label
    if time is None:
        raise MisuseError(
            f"{args.file}: name the column of times with --time, or as `time` in the settings{did_you_mean('', names)}"
        )
    predicted = args.predicted_column or (PREDICTED if {PREDICTED, label} <= {*names} else None)
    if predicted is None and (args.label_column or args.label_time):
        raise MisuseError("--label-column and --label-time belong to predictions: name them with --predicted-column")
    named = [time] if predicted is None else [time, predicted, label, *filter(None, [args.label_time])]
    problems = [f"{args.file}: no column {name!r}{did_you_mean(name, names)}" for name in named if name not in names]
    if problems:
        raise MisuseError(problems)
    columns = RowColumns(time, predicted, label if predicted else None, args.label_time)
    features = [spec for spec in feature_specs(settings) if spec.column in names]
    complete = len(features) == len(feature_specs(settings))
    return RowsFile(source, functions, columns, settings.classes, features if complete else ())


def _counts(args: argparse.Namespace, settings: Settings | None, names: Sequence[str]) -> CountsFile:
    """Return the table of counts, of whose slices the project must have functions."""
    from service.decisions import RateKey
    from service.jobs.past_traffic import CountsFile
    from sfs.errors import did_you_mean

    if not names:
        raise MisuseError(f"{args.file} has no column of a slice beside the start and the known rows")
    prints: Mapping[str, str] = {}
    if settings is not None:
        prints = load_functions(settings.functions, votes=True).fingerprints
        if unknown := [name for name in names if name not in prints]:
            more = f" and {len(unknown) - 1:,} other columns are" if len(unknown) > 1 else " is"
            raise MisuseError(
                f"{args.file}: column {unknown[0]!r}{more} no function of the project"
                f"{did_you_mean(unknown[0], list(prints))}; counts without a project are read where there is no "
                "settings file"
            )
    slices = [RateKey(name, prints.get(name), "coverage") for name in names]
    return CountsFile(args.file, args.format or "table", slices, args.block_seconds)


def _expected(settings: Settings | None, traffic: PastTraffic, version: int | str) -> Expected:
    """Return the rates of a version trained here, and the targets of the project's functions."""
    from service.jobs.drift_replay import Expected

    if settings is None:
        return Expected()
    from models.errors import ModelError
    from service.decisions import RateKey
    from sfs.function import ALL_ROWS
    from sfs.validation import families

    functions = load_functions(settings.functions, votes=True)
    targets = {each.name: each.metadata.target for each in functions if each.metadata.target is not None}
    own = families({each.name: each.metadata for each in functions})
    members = {family: {name: functions.fingerprints[name] for name in names} for family, names in own.items()}
    unions = {RateKey.of_family(family, slices): slices for family, slices in members.items()}
    nothing = Expected(targets=targets, families=unions)
    if not settings.registry.is_dir():
        return nothing
    registry = open_registry(settings)
    number = registry.alias(CHAMPION) if version == CHAMPION else int(version)
    if number not in [each.number for each in registry.list()]:
        return nothing
    try:
        bundle = registry.get(number)
    except ModelError as error:
        print_message(f"note: nothing is expected at first, since version {number} cannot be read: {error}")
        return nothing
    prints = bundle.function_fingerprints
    known = [
        key for key in traffic.slices if key.slice in bundle.reference and prints.get(key.slice) == key.fingerprint
    ]
    coverages = {key: bundle.reference[key.slice].coverage for key in known}
    counts = {key._replace(kind="accuracy"): bundle.reference[key.slice] for key in known}
    counts[RateKey(ALL_ROWS, None, "accuracy")] = bundle.reference[ALL_ROWS]
    for key, slices in unions.items():
        if key.slice in bundle.families and bundle.families[key.slice].fingerprints == slices:
            counts[key] = bundle.families[key.slice].counts
    return Expected(
        f"version {number}",
        {key: rate for key, rate in coverages.items() if rate.is_informative},
        {key: (each.accuracy, each.confusion) for key, each in counts.items() if each.accuracy.is_informative},
        targets,
        unions,
    )


def _document(detection: PastDetection, expected: Expected, drift: DriftSettings, learn_days: int) -> dict[str, Any]:
    """Return the result as JSON values."""
    from service.monitor.replay import incidents_of

    replay = detection.replay
    if replay.start is None or replay.end is None:
        raise ValueError("the replay has no blocks")
    counted = replay.start + timedelta(days=learn_days)
    alarms = [alarm for alarm in replay.alarms if alarm.at > counted]
    return {
        "alarms": [_alarm(alarm) for alarm in alarms],
        "incidents": [_incident(alarms, places, detection) for places in incidents_of(alarms, detection.sample)],
        "learning": {
            "time_zone": drift.time_zone,
            "reference": expected.source or None,
            "counted_from": _iso(counted),
            "alarms_before": len(replay.alarms) - len(alarms),
            "slices": [_learned(each) for each in replay.learned()],
            "accuracy": [
                {"slice": key.slice, "count": rate.count, "n": rate.n, "expected_from": _iso(at)}
                for key, (rate, at) in detection.first_labels.items()
            ],
        },
        "traffic": {
            "from": _iso(replay.start),
            "to": _iso(replay.end),
            "rows": None if detection.sample is None else detection.rows,
            "blocks": replay.coverage.observations,
            "label_blocks": replay.accuracy.observations,
            "false_alarms_at_most": replay.false_alarms,
        },
    }


def _incident(alarms: Sequence[Alarm], places: Sequence[int], detection: PastDetection) -> dict[str, Any]:
    """Return an incident: its slices, the positions of its alarms, and how overlap is known."""
    ends = [at for k in places if (at := alarms[k].resolved_at) is not None]
    return {
        "slices": list(dict.fromkeys(alarms[k].drift.slice for k in places)),
        "alarms": list(places),
        "raised": _iso(alarms[places[0]].at),
        "resolved": _iso(max(ends)) if len(ends) == len(places) else None,
        "overlap": "unknown" if detection.sample is None else "rows",
    }


def _alarm(alarm: Alarm) -> dict[str, Any]:
    from service.api.schemas.alarms import drift_out

    drift = drift_out(alarm.drift).model_dump(mode="json")
    return {
        "slice": alarm.drift.slice,
        "kind": alarm.drift.kind,
        "raised": _iso(alarm.at),
        "since": _iso(alarm.drift.since),
        **{name: drift[name] for name in ("direction", "observed", "expected")},
    }


def _learned(learned: Learned) -> dict[str, Any]:
    times = {name: _iso(getattr(learned, name)) for name in ("since", "live", "season", "level")}
    return {"slice": learned.slice, "days": learned.days, **times, "missing": learned.missing or None}


def _text(detection: PastDetection, document: Mapping[str, Any], learn_days: int) -> str:
    """Return the alarms as a table, the progress of learning, and a summary."""
    alarms, traffic, learning = document["alarms"], document["traffic"], document["learning"]
    rows = [
        [
            format_time(alarm["raised"]),
            alarm["slice"],
            alarm["kind"],
            alarm["direction"],
            format_time(alarm["since"]),
            percent(alarm["observed"]["value"]),
            _range(alarm),
        ]
        for alarm in alarms
    ]
    columns = ("raised (UTC)", "slice", "kind", "direction", "since (UTC)", "observed", "expected")
    lines = [format_table(columns, rows), ""] if rows else []
    for stage, words in (
        ("live", "live traffic sets the expected coverage"),
        ("season", "the hours of the week are known"),
        ("level", "the level is fixed"),
    ):
        reached = sorted(each[stage] for each in learning["slices"] if each[stage])
        if reached:
            between = format_time(reached[0])
            if reached[-1] != reached[0]:
                between = f"{between} to {format_time(reached[-1])}"
            lines.append(f"{between}: {words} of {_slices(len(reached))}")
    missing = sum(each["missing"] is not None for each in learning["slices"])
    if missing:
        what = next(each["missing"] for each in learning["slices"] if each["missing"])
        lines.append(f"still learned of {_slices(missing)}: {what}")
    if learning["accuracy"]:
        lines.append(f"first labels set the expected accuracy of {_slices(len(learning['accuracy']))}")
    start, end = detection.replay.start, detection.replay.end
    days = 0.0 if start is None or end is None else (end - start).total_seconds() / 86_400
    blocks = f"{traffic['blocks']:,} blocks" + (
        f" and {traffic['label_blocks']:,} of labels" if traffic["label_blocks"] else ""
    )
    before = f", {learning['alarms_before']:,} more in the first {learn_days} days" if learn_days else ""
    incidents = f" in {len(document['incidents']):,} incidents" if alarms else ""
    lines.append(
        f"{days:.3g} days, {blocks}, {_slices(len(learning['slices']))}: {len(alarms):,} alarms{incidents}{before}; "
        f"budget: {traffic['false_alarms_at_most']:.2g} false alarms at most"
    )
    return "\n".join(lines)


def _slices(n: int) -> str:
    return f"{n:,} slice{'s' * (n != 1)}"


def _range(alarm: Mapping[str, Any]) -> str | None:
    band = alarm["expected"]
    if band is None:
        return None
    if alarm["kind"] in ("accuracy", "family_accuracy"):
        return f"at least {limit_text(band['lower'], band['target'])}"
    return f"{percent(band['lower'])} to {percent(band['upper'])}"


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _time(text: str) -> datetime:
    """Read a time in ISO 8601, UTC without a zone."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a time such as 2026-05-01T12:00:00Z, got {text!r}") from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
