"""``slicewatch train``: train a model on the project's rows, and register it with a report per slice."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from service.cli.parser import Commands, Context, add_command, add_options, integer_between
from service.cli.project import (
    CHAMPION,
    feature_specs,
    load_functions,
    load_labeling_functions,
    load_settings,
    project_source,
    require_writable,
)
from service.cli.terminal import format_table, print_json, stage_progress
from service.errors import MisuseError
from service.formatting import limit_text, percent
from service.settings import LEARNERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.bundle.model_bundle import ModelBundle
    from models.config import LearnerConfig, TrainConfig
    from service.settings.schema import LearnerSettings, Settings


WIDE_BAND = 0.2
"""Distance of an accuracy alarm from the held-out accuracy, from which a protected slice without a target is noted."""


def declare(commands: Commands) -> None:
    """Declare the command."""
    examples = "slicewatch train\n  slicewatch train --learner erm --epochs 3 --seed 1"
    parser = add_command(commands, "train", "train a model and register it as a new version", examples, run)
    parser.add_argument("--learner", dest="kind", choices=LEARNERS, help="override learner.kind")
    parser.add_argument("--epochs", type=integer_between(1), metavar="N", help="override learner.epochs")
    parser.add_argument("--seed", type=integer_between(0), metavar="N", help="override learner.seed")
    add_options(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Train, report, and register; the first version becomes champion."""
    from models.registry import ModelRegistry
    from models.training import train

    settings = load_settings(args, context)
    options = {name: getattr(args, name) for name in ("kind", "epochs", "seed") if getattr(args, name) is not None}
    settings = replace(settings, learner=replace(settings.learner, **options))
    require_writable(settings.registry)  # now, rather than after a long training
    config = train_config(settings)
    with stage_progress("train") as progress:
        progress("reading", 0.0)
        rows = project_source(settings).read()
        if faults := config.schema.faults(rows):
            raise MisuseError([f"data: {fault}" for fault in faults.values()])
        bundle = train(config, rows, progress=progress)
    if not args.json:
        print(f"{bundle.report.to_text()}\n\n{outlook_text(outlook(bundle, settings))}")
    registry = ModelRegistry(settings.registry, name=settings.name)
    earlier = [version.number for version in registry.list()]
    version, champion = registry.put(bundle), registry.alias(CHAMPION)
    if champion is None:
        registry.promote(version, expected=None, reason="first version", at=context.now())
        champion = version
    name, known = registry.name, version in earlier
    if args.json:
        registered = {"name": name, "version": version, "known": known, "champion": champion}
        document = {"hash": bundle.hash, "report": bundle.report.to_json()}
        print_json({**registered, **document, "outlook": outlook(bundle, settings)})
    elif known:
        print(f"\nidentical to version {version} of {name!r}, bit for bit: nothing was registered")
    elif version == champion:
        print(f"\nversion {version} of {name!r} is the champion")
    else:
        print(
            f"\nversion {version} of {name!r} is registered; version {champion} remains champion: promote the new "
            f"one with `slicewatch models promote {version}`"
        )
    return 0


def outlook(bundle: ModelBundle, settings: Settings) -> list[dict[str, Any]]:
    """Return the needs of the promotion gate and of an accuracy alarm per slice, given the held-out rows."""
    from service.monitor.accuracy_detector import labels_to_alarm
    from service.monitor.label_detector import log_thresholds
    from service.monitor.promotion_gate import least_rows
    from service.monitor.tolerance_band import accuracy_band
    from sfs.function import ALL_ROWS
    from sfs.intervals import Rate

    drift, protected = settings.drift, {ALL_ROWS, *bundle.report.protected}
    slices = max(drift.max_slices, len(bundle.slice_names))
    of_slice, _, of_all = log_thresholds(slices, len(bundle.families), drift.false_alarms_a_month / 2)
    gate_rows = max(settings.retrain.minimum_rows, least_rows(settings.retrain.margin))
    entries = []
    for name, counts in bundle.reference.items():
        expected = counts.accuracy if counts.accuracy.is_informative else Rate(0, 0)
        target, threshold = bundle.report.targets.get(name), of_all if name == ALL_ROWS else of_slice
        band = accuracy_band(expected, drift.accuracy_tolerance, slices, target)
        entry = {"slice": name, "protected": name in protected, "held_out": counts.held_out_contents}
        alarm = {
            "accuracy": expected.value,
            "alarm_below": band.lower or None,
            "target": target,
            "alarm_at_target": band.target is not None,
            "labels_to_alarm": labels_to_alarm(band, max(0.0, band.lower - 0.1), threshold),
            "labels_to_alarm_at_half": labels_to_alarm(band, band.lower / 2, threshold),
        }
        entries.append({**entry, "gate_rows": gate_rows, **alarm})
    return entries


def outlook_text(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return the result of `outlook` as a table, and notes on the protected slices that have too few rows."""
    from sfs.function import ALL_ROWS

    columns = ("slice", "distinct held-out rows", "accuracy alarm below", "labels 10 points lower", "labels at half")
    rows, notes = [], []
    named = {entry["slice"] for entry in entries if entry["protected"]} - {ALL_ROWS}
    for entry in entries:
        name, held_out, gate_rows = (entry[key] for key in ("slice", "held_out", "gate_rows"))
        below, accuracy, target = (entry[key] for key in ("alarm_below", "accuracy", "target"))
        limit = limit_text(below, target if entry["alarm_at_target"] else None)
        alarm = limit, entry["labels_to_alarm"], entry["labels_to_alarm_at_half"]
        rows.append([name + " *" * entry["protected"], held_out, *alarm])
        is_watched = target is not None or (below is not None and below >= max(accuracy - WIDE_BAND, accuracy / 2))
        if name in named and not is_watched:
            close = "set no accuracy alarm" if below is None else f"set the accuracy alarm as low as {percent(below)}"
            notes.append(f"\nNote: the held-out rows of {name} {close}. A `target` is monitored whatever their number.")
        if entry["protected"] and held_out < gate_rows:
            notes.append(
                f"\nNote: {name} has {held_out:,} distinct held-out row{'s' * (held_out != 1)}; the promotion gate "
                f"needs {gate_rows:,}, and holds every candidate for approval until labelled traffic has about "
                f"{10 * (gate_rows - held_out):,} more members, of which one in ten is held out."
            )
    return (
        f"Monitoring (* protected: the gate needs {entries[0]['gate_rows']:,} distinct held-out rows or more; labels: "
        "about how many the accuracy alarm takes once the accuracy has fallen 10 points below its limit, or to half "
        f"of it)\n\n{format_table(columns, rows)}{''.join(notes)}"
    )


def train_config(settings: Settings) -> TrainConfig:
    """Return the configuration of `models.train`."""
    from models.config import TrainConfig

    features = tuple(feature_specs(settings))
    functions = load_functions(settings.functions)
    learner = learner_config(settings.learner)
    times = settings.time, settings.drift.time_zone
    labeling = load_labeling_functions(settings)
    schema = settings.table_schema
    return TrainConfig(settings.label, features, functions, learner, settings.name, schema, *times, labeling)


def learner_config(learner: LearnerSettings) -> LearnerConfig:
    """Return the configuration of the learner; a setting of None keeps the learner's default."""
    from models.config import LearnerConfig
    from service.jobs.training.spec import learner_values

    return LearnerConfig(**learner_values(learner))
