"""Every setting there is: how it is read, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from service.settings.nodes import (
    Reader,
    by_column,
    choice,
    many,
    positive,
    share,
    text,
    whole,
    word,
    yes_or_no,
)

KINDS = ("text", "number", "category")
FORMATS = ("table", "youtube", "sms")
LEARNERS = ("slice_residual", "slice_aware", "erm", "weighted_erm")
SURVIVES = ("kill", "power")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: how its value is read, and what it says."""

    read: Reader
    says: str


SETTINGS: Mapping[str, Setting] = {
    "name": Setting(word, "name of the model in the registry (default: model)"),
    "data": Setting(text, "table to train on: CSV, TSV, Parquet or JSON lines; or what `format` names"),
    "format": Setting(choice(FORMATS), "table (default), youtube (folder of UCI files) or sms (UCI file)"),
    "label": Setting(text, "column that holds the class of each row"),
    "features": Setting(by_column(choice(KINDS)), "what the model reads: `column: text, number or category`"),
    "functions": Setting(many(text), "slicing functions: Python or YAML files, or dotted names of modules"),
    "learner.kind": Setting(choice(LEARNERS), "slice_residual (default), slice_aware, erm or weighted_erm"),
    "learner.epochs": Setting(whole(1), "passes over the training rows"),
    "learner.hidden": Setting(many(whole(1), least=1), "units of each hidden layer"),
    "learner.learning_rate": Setting(positive, "step size of the optimiser"),
    "learner.batch_rows": Setting(whole(1), "rows of one optimiser step"),
    "learner.search_rows": Setting(whole(1), "most rows that the search among candidates reads"),
    "learner.seed": Setting(whole(0), "the same seed gives the same model (default: 0)"),
    "registry": Setting(text, "folder of the model registry (default: .slicewatch/registry)"),
    "store": Setting(text, "database of predictions and labels (default: .slicewatch/store.sqlite3)"),
    "classes": Setting(
        many(text, least=2), "classes of a model served elsewhere, where none is trained here"
    ),
    "serve.host": Setting(text, "address to listen on (default: 127.0.0.1, which only this machine reaches)"),
    "serve.port": Setting(whole(0, 65_535), "port to listen on (default: 8000; 0 takes a free one)"),
    "serve.insecure": Setting(yes_or_no, "listen on an address that others reach: there are no keys yet"),
    "serve.hosts": Setting(many(text), "further names under which it may be asked, as behind a proxy"),
    "serve.body_bytes": Setting(whole(1024), "longest body of a request (default: 4194304)"),
    "serve.request_rows": Setting(whole(1), "most records in a request (default: 1000)"),
    "serve.request_labels": Setting(whole(1), "most labels in a request (default: 10000)"),
    "serve.request_seconds": Setting(positive, "time that a request may take (default: 10)"),
    "serve.queue_rows": Setting(whole(1), "records that may wait for the model; more are refused (2048)"),
    "serve.drain_seconds": Setting(positive, "time to finish what is in hand when stopping (default: 20)"),
    "log.features": Setting(many(text, least=1), "what is kept of a record: all (default), none, or columns"),
    "log.survives": Setting(
        choice(SURVIVES), "what a logged row outlives: kill (default), or power loss too"
    ),
    "monitor.tick_seconds": Setting(positive, "time between two snapshots (default: 10)"),
    "monitor.minimum_labels": Setting(whole(1), "labels below which no accuracy is shown (default: 20)"),
    "monitor.positive": Setting(text, "class whose F1 is shown (default: the second of two, else the mean)"),
    "monitor.label_days": Setting(positive, "age of a prediction up to which its labels count (default: 30)"),
    "drift.tolerance": Setting(
        share, "relative change of a slice's coverage that is let pass (default: 0.1, a tenth)"
    ),
    "drift.accuracy_tolerance": Setting(
        share, "fall of a slice's accuracy that is let pass (default: 0.01; twice that above 20 % errors)"
    ),
    "drift.false_alarms_a_month": Setting(
        positive, "false alarms that are allowed in a month, over all slices (default: 1)"
    ),
    "drift.max_slices": Setting(whole(1), "slices that this budget is made for (default: 200)"),
    "retrain.automatic": Setting(yes_or_no, "open retraining runs on alarms and age (default: true)"),
    "retrain.new_labels": Setting(
        whole(1), "labels that each slice that moved needs before training (default: 200)"
    ),
    "retrain.cool_down_hours": Setting(positive, "time between two automatic runs (default: 24)"),
    "retrain.runs_a_month": Setting(whole(1), "most automatic runs in 30 days (default: 8)"),
    "retrain.wait_days": Setting(positive, "time that a run waits for labels before it is given up (14)"),
    "retrain.max_age_days": Setting(positive, "age of the champion that asks for a run (default: never)"),
    "retrain.traffic_rows": Setting(whole(1), "most labelled rows of traffic to train on (default: 50000)"),
    "retrain.timeout_minutes": Setting(positive, "time that a training may take (default: 120)"),
    "retrain.attempts": Setting(whole(1), "trainings that may fail before the run does (default: 3)"),
    "retrain.margin": Setting(share, "accuracy that a protected slice may lose at most (default: 0.02)"),
    "retrain.minimum_rows": Setting(
        whole(2), "held-out rows below which a slice is not verified (default: 50)"
    ),
    "retrain.check_seconds": Setting(positive, "time between two looks at alarms and runs (default: 10)"),
    "report.every_hours": Setting(positive, "time between two reports of drift by column (default: 24)"),
    "report.rows": Setting(whole(50), "most rows of traffic in a report (default: 5000)"),
    "report.timeout_minutes": Setting(positive, "time that making a report may take (default: 10)"),
    "clock": Setting(text, "file of a clock that runs faster, as the demo writes it (default: none)"),
    "function_limits.budget_ms": Setting(positive, "time of a plain function per row (default: 1)"),
    "function_limits.least_ms": Setting(positive, "time it may take of a batch of any size (default: 50)"),
    "function_limits.hold_ms": Setting(positive, "time of all plain functions in a batch (default: 200)"),
    "function_limits.faults": Setting(whole(1), "failures in a row that set a function aside (default: 20)"),
    "function_limits.slow_batches": Setting(whole(1), "slow batches in a row that set it aside (default: 5)"),
    "function_limits.back_off_seconds": Setting(positive, "time until it is tried again (default: 1)"),
    "function_limits.longest_back_off_seconds": Setting(positive, "the longest such time (default: 300)"),
}
