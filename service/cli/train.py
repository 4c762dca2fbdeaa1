"""``slicewatch train``: train a model on the project's rows, and register it with a report per slice."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from service.cli.parser import Commands, Context, add_command, add_options, integer_between
from service.cli.project import CHAMPION, load_functions, load_settings, project_source, require_writable
from service.cli.terminal import print_json, stage_progress
from service.settings import LEARNERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.config import LearnerConfig, TrainConfig
    from models.features import FeatureKind
    from service.settings.schema import LearnerSettings, Settings


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
    options = {
        name: getattr(args, name) for name in ("kind", "epochs", "seed") if getattr(args, name) is not None
    }
    settings = replace(settings, learner=replace(settings.learner, **options))
    require_writable(settings.registry)  # now, rather than after a long training
    config = train_config(settings)
    with stage_progress("train") as progress:
        progress("reading", 0.0)
        bundle = train(config, project_source(settings).read(), progress=progress)
    if not args.json:
        print(bundle.report.to_text())
    registry = ModelRegistry(settings.registry, name=settings.name)
    earlier = [version.number for version in registry.list()]
    version, champion = registry.put(bundle), registry.alias(CHAMPION)
    if champion is None:
        registry.promote(version, expected=None, reason="first version", at=context.now())
        champion = version
    name, known = registry.name, version in earlier
    if args.json:
        registered = {"name": name, "version": version, "known": known, "champion": champion}
        print_json({**registered, "hash": bundle.hash, "report": bundle.report.to_json()})
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


def train_config(settings: Settings) -> TrainConfig:
    """Return the configuration of `models.train`."""
    from models.config import TrainConfig
    from models.features import FeatureSpec

    kinds = cast("Mapping[str, FeatureKind]", settings.features)
    features = tuple(FeatureSpec(column, kind) for column, kind in kinds.items())
    functions = load_functions(settings.functions)
    return TrainConfig(settings.label, features, functions, learner_config(settings.learner), settings.name)


def learner_config(learner: LearnerSettings) -> LearnerConfig:
    """Return the configuration of the learner; a setting of None keeps the learner's default."""
    from models.config import LearnerConfig
    from service.jobs.training.spec import learner_values

    return LearnerConfig(**learner_values(learner))
