"""``slicewatch train``: from the project's rows to a version in the registry, with a report per slice."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, cast

from service.cli.command import Commands, Context, add_command, add_config, add_json
from service.cli.project import CHAMPION, load_functions, load_settings, project_source, writable
from service.cli.terminal import print_json, stages
from service.jobs.training.spec import learner_values
from service.settings.known import LEARNERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.bundle import ModelBundle
    from models.config import TrainConfig
    from models.features import FeatureKind
    from models.learners import LearnerConfig
    from models.registry import ModelRegistry
    from service.settings.project import Settings
    from service.settings.sections import LearnerSettings


def declare(commands: Commands) -> None:
    """Declare the command."""
    examples = "slicewatch train\n  slicewatch train --learner erm --epochs 3 --seed 1"
    parser = add_command(commands, "train", "train a model and register it as a new version", examples, run)
    parser.add_argument("--learner", choices=LEARNERS, help="overrides learner.kind")
    parser.add_argument("--epochs", type=_at_least(1), metavar="N", help="overrides learner.epochs")
    parser.add_argument("--seed", type=_at_least(0), metavar="N", help="overrides learner.seed")
    add_config(parser)
    add_json(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Train, report, register; the first version becomes champion."""
    from models.registry import ModelRegistry

    settings = _overridden(load_settings(args, context), args)
    writable(settings.registry)  # now, rather than after a long training
    bundle = _trained(settings)
    if not args.json:
        print(bundle.report.to_text())
    registered = _register(ModelRegistry(settings.registry, name=settings.name), bundle, context)
    if args.json:
        print_json({**registered, "hash": bundle.hash, "report": bundle.report.to_json()})
    else:
        print(_registered_text(registered))
    return 0


def train_config(settings: Settings) -> TrainConfig:
    """Return what `models.train` is told, from the settings."""
    from models.config import TrainConfig
    from models.features import FeatureSpec

    kinds = cast("Mapping[str, FeatureKind]", settings.features)
    features = tuple(FeatureSpec(column, kind) for column, kind in kinds.items())
    functions = load_functions(settings.functions)
    return TrainConfig(settings.label, features, functions, learner_config(settings.learner), settings.name)


def learner_config(asked: LearnerSettings) -> LearnerConfig:
    """Return the learner's configuration; what the settings leave open keeps the learner's default."""
    from models.learners import LearnerConfig

    return LearnerConfig(**learner_values(**asdict(asked)))


def _trained(settings: Settings) -> ModelBundle:
    from models.training import train

    config = train_config(settings)
    with stages("train") as progress:
        progress("reading", 0.0)
        return train(config, project_source(settings).read(), progress=progress)


def _register(registry: ModelRegistry, bundle: ModelBundle, context: Context) -> dict[str, Any]:
    before = [version.number for version in registry.list()]
    version, champion = registry.put(bundle), registry.alias(CHAMPION)
    if champion is None:
        registry.promote(version, expected=None, reason="first version", at=context.now())
    return {
        "name": registry.name,
        "version": version,
        "known": version in before,
        "champion": version if champion is None else champion,
    }


def _registered_text(registered: dict[str, Any]) -> str:
    version, champion = registered["version"], registered["champion"]
    if registered["known"]:
        return f"\nthis is version {version} of {registered['name']!r} again, bit for bit: nothing was registered"
    if version == champion:
        return f"\nversion {version} of {registered['name']!r} is the champion"
    return (
        f"\nversion {version} of {registered['name']!r} is registered; version {champion} stays champion: "
        f"`slicewatch models promote {version}` replaces it"
    )


def _overridden(settings: Settings, args: argparse.Namespace) -> Settings:
    given = {"kind": args.learner, "epochs": args.epochs, "seed": args.seed}
    changes = {key: value for key, value in given.items() if value is not None}
    return replace(settings, learner=replace(settings.learner, **changes))


def _at_least(minimum: int) -> Any:
    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"expected a whole number, at least {minimum}, got {text!r}")
        return int(text)

    return whole
