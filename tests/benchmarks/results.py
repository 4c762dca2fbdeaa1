"""Run every benchmark, one after the other, and write docs/results.md.

    python tests/benchmarks/results.py --peer-python PATH --mlserver PATH --litserve PATH --out docs/results.md
        [--data FOLDER] [--seeds 10] [--only learner --learner ours]

The peer interpreter has Snorkel 0.10.0, and those of the servers MLServer 1.7.1 and LitServe 0.2.19. FOLDER
holds the public data sets (docs/data.md). The parts that need what is not given are left as they were.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from learner_page import LearnerFigures, adapters_table, learners_table, peers_table, verdicts_table

HERE = Path(__file__).parent
SECTIONS = (
    "functions",
    "engines",
    "epoch",
    "tutorial",
    "tutorial_code",
    "learner",
    "panel",
    "label_models",
    "serving",
    "rows",
    "peers",
    "load",
    "start",
)
SECTIONS += ("drift", "incidents", "drift_peers", "elec")


def run(script: str, *arguments: str) -> None:
    """Run one benchmark; a figure that is missed is written down, a failure stops everything."""
    done = subprocess.run([sys.executable, str(HERE / script), *arguments], check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{script} failed with exit code {done.returncode}")


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    columns = list(head)
    lines = [columns, ["---"] * len(columns), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def paragraph(text: str) -> str:
    """Return a text in lines."""
    return textwrap.fill(text, 110, break_on_hyphens=False)


def verdict(reached: bool) -> str:
    return "yes" if reached else "**no**"


def functions(options: argparse.Namespace, folder: Path) -> str:
    """Slicing functions against Snorkel's applier."""
    out = folder / "functions.json"
    run("bench_functions.py", "--peer-python", options.peer_python, "--out", str(out))
    rows = json.loads(out.read_text())["results"]
    compared = [
        (
            row["what"],
            f"{row['ours_rows_per_second']:,}",
            f"{row['snorkel_rows_per_second']:,}",
            f"{row['ratio']} x",
            f">= {row['reach']} x",
            verdict(row["reached"]),
        )
        for row in rows
        if "ratio" in row
    ]
    alone = [
        (row["what"], f"{row['microseconds_per_row']} us", f"<= {row['reach']} us", verdict(row["reached"]))
        for row in rows
        if "ratio" not in row
    ]
    head = ("functions", "Slicewatch, rows/s", "Snorkel, rows/s", "ratio", "target", "met")
    return (
        "100,000 generated comments, one thread each, alternating runs, medians of five; the answers are\n"
        "equal. With 300 functions Snorkel gets 2,000 rows: its rate does not depend on the number of rows.\n\n"
        f"{markdown(head, compared)}\n\nOn the request path, per row:\n\n"
        f"{markdown(('measurement', 'time', 'target', 'met'), alone)}"
    )


def engines(_options: argparse.Namespace, folder: Path) -> str:
    """Rows per second and memory of `slicewatch apply` on every engine."""
    out = folder / "engines.json"
    run("bench_engines.py", "--out", str(out))
    return engines_page(json.loads(out.read_text()))


def engines_page(measured: dict[str, Any]) -> str:
    """Return the section of these measurements."""
    table = [
        (
            row["engine"],
            f"{row['rows_per_second']:,}",
            f"{row['start_seconds']} s",
            f"{row['mib']:,} MiB",
            verdict(row["identical"]),
        )
        for row in measured["results"]
    ]
    said = (
        f"`slicewatch apply` on a folder of {measured['rows']:,} generated comments in four Parquet files, with "
        "missing values, empty and non-ASCII text, and a file in which a column has no value; "
        f"{measured['functions']} functions, two of them plain Python. Rates are those of whole commands, which take "
        f"turns, medians of {measured['rounds']}; a start is the same command on four rows. Memory is the peak of all "
        "processes of the command. Memberships are compared with those on one data frame, the "
        f"{measured['unknown']:,} unknown ones too."
    )
    large = measured["large"]
    figure = (
        f"memory on {large['rows']:,} rows, default settings ({large['seconds']:,} s)",
        f"{large['mib']:,} MiB",
        f"<= {large['reach_mib']:,} MiB",
        verdict(large["reached"]),
    )
    engines_table = markdown(("engine", "rows/s", "start", "memory", "identical"), table)
    return f"{paragraph(said)}\n\n{engines_table}\n\n{markdown(('measurement', 'value', 'target', 'met'), [figure])}"


def epoch(options: argparse.Namespace, folder: Path) -> str:
    """One training epoch against Snorkel's classifier."""
    out = folder / "epoch.json"
    run("bench_epoch.py", "--peer-python", options.peer_python, "--out", str(out))
    rows = [
        (
            str(row["slices"]),
            row["experts"],
            f"{row['ours_seconds']:.3f} s",
            f"{row['peer_seconds']:.3f} s",
            f"{row['ratio']} x",
            f">= {row['reach']} x" if row["reach"] else "",
            verdict(row["ratio"] >= row["reach"]) if row["reach"] else "",
        )
        for row in json.loads(out.read_text())["results"]
    ]
    head = ("slices", "experts", "Slicewatch", "Snorkel", "ratio", "target", "met")
    return (
        "`SliceAwareClassifier`, n = 1,586, d = 2,000, h = 256, batch 64, one thread each, alternating\n"
        "epochs, medians of five. Full rank is Snorkel's own network: with the same weights both return the\n"
        "same probabilities.\n\n" + markdown(head, rows)
    )


def tutorial(options: argparse.Namespace, folder: Path) -> str | None:
    """The tutorial's split over the seeds."""
    if not options.data:
        return None
    out = folder / "tutorial.md"
    run(
        "bench_tutorial.py",
        "--data",
        str(options.data / "youtube-spam"),
        "--seeds",
        str(options.seeds),
        "--out",
        str(out),
    )
    return out.read_text().strip()


def tutorial_code(options: argparse.Namespace, folder: Path) -> str | None:
    """Both tutorials with our imports."""
    if not options.data:
        return None
    out = folder / "tutorial_code.md"
    run("bench_tutorial_code.py", "--data", str(options.data / "youtube-spam"), "--out", str(out))
    return out.read_text().strip()


def learner(options: argparse.Namespace, folder: Path) -> str | None:
    """Our learners and their plain peers on planted slices and text messages."""
    if not options.data:
        return None
    out = folder / "learner.json"
    arguments = ("--seeds", str(options.seeds), "--data", str(options.data), "--who", options.learner)
    run("bench_learner.py", *arguments, "--out", str(out))
    measured = json.loads(out.read_text())
    figures = LearnerFigures(measured["cells"])
    said = (
        "Accuracy in %, means over seeds that no choice was made on, with the 95 % t interval of paired differences "
        "(none of a single seed). In the geometry two small discs contradict a line, and functions see them displaced; "
        "worst and mean are over the true and the displaced. In keyword text four of the slices turn the label round, "
        "the others mean nothing. The spurious feature is larger than the true one and agrees with the class in 95 % "
        "of the rows; cells of it and the class are judged. SMS and YouTube are the UCI collections; all seeds of "
        "YouTube have the tutorial's split, of which only networks are drawn again. `default` is the search of `train` "
        "(`learner.kind: auto`), with n-grams for its linear models; the networks of all others read hashed words."
    )
    rules = (
        "No peer reads memberships at serving. Each trains at least 15 networks of the same recipe, the most that the "
        "search for the slice-residual network trains, or 15 last layers on the network of ERM, and chooses "
        "checkpoint and setting on the same validation rows by the same score; worst-class selection by classes alone. "
        "The best blind peer of a set-up is the one with the best mean of the worst slice on the test rows themselves, "
        "which favours it. Attention over slices has one training and does not count."
    )
    last = (
        "The slice adapter on frozen models: overall / worst slice. Networks are those of the recipe, and linear "
        "models read n-grams of SMS and YouTube. A base without a gain on validation is shipped without an adapter, "
        "and so has a difference of 0. Trees are not searched beyond 500 features."
    )
    judged = "The lowest figure of all set-ups, or of those named, with that set-up; points. `met` is of the default."
    peers_said = "All peers: overall / worst slice."
    tried = (
        "Tried before on other seeds for what is missed, and without a gain: gates by memberships alone, and by "
        "predictions alone, of 100 slices; gates of few slices; a penalty on the slice heads, and a hidden layer in "
        "them; weights by the errors of a first network; no memberships for a third or half of the training rows; "
        "predicted in place of unknown memberships. Shipped are a mixture of both gates, chosen on validation rows as "
        "the weights are, a refitted last layer, and a companion without slices where they bring nothing."
    )
    parts = [
        (f"{paragraph(said)}\n\n{paragraph(rules)}", learners_table(figures)),
        (peers_said, peers_table(figures)),
        (paragraph(last), adapters_table(figures)),
        (judged, verdicts_table(figures, measured["cost"])),
    ]
    tables = [f"{text}\n\n{markdown(*each)}" for text, each in parts]
    return "\n\n".join([*tables, paragraph(tried)])


def panel(options: argparse.Namespace, folder: Path) -> str | None:
    """The default learner against scikit-learn on ten data sets."""
    if not options.data:
        return None
    out = folder / "panel.json"
    run("bench_panel.py", "--data", str(options.data), "--out", str(out), "--seeds", str(options.seeds))
    return panel_page(json.loads(out.read_text()))


def panel_page(measured: dict[str, Any]) -> str:
    """Return the section of the panel."""
    found, verdicts = measured["sets"], measured["verdicts"]
    said = (
        "`train` with its defaults against the best of scikit-learn's logistic regression (TF-IDF words, TF-IDF "
        "characters, one-hot) and histogram gradient boosting with theirs, on the same rows: a third of each data set "
        f"is the test. Accuracy in %, mean over {measured['seeds']} splits with its 95 % t interval; the best of the "
        "others is that with the best mean, for all rows and for the worst slice each. Processor time of one thread."
    )
    head = ["data set", "rows", "overall", "best of the others", "difference", "worst slice", "best of the others"]
    head += ["difference", "time", "theirs together", "shipped"]
    rows = []
    for each in found:
        forms = [form.split(",")[0] for form in each["forms"]]
        bases = ("linear", "trees", "mean of linear and trees")
        kinds = [form if form in bases else "network" for form in forms]
        shipped = ", ".join(f"{kinds.count(kind)} x {kind}" for kind in sorted(set(kinds)))
        cells = [each[part][key] for part in ("overall", "worst") for key in ("own", "best", "shown")]
        times = [f"{each[key]:.1f} s" for key in ("seconds", "their_seconds")]
        rows.append([each["set"], f"{each['rows']:,}", *cells, *times, shipped])
    total = sum(each["seconds"] for each in found) / sum(each["their_seconds"] for each in found)
    lowest = {part: min(each[part]["difference"] for each in found) for part in ("overall", "worst")}
    clear = sum(each["worst"]["difference"] >= 0.03 for each in found)
    targets = [
        (
            "lowest difference overall, points",
            f"{100 * lowest['overall']:.1f}",
            ">= -0.3",
            verdict(verdicts["overall"]),
        ),
        ("lowest difference in the worst slice", f"{100 * lowest['worst']:.1f}", ">= 0", verdict(verdicts["worst"])),
        ("sets with 3 points more in the worst slice", str(clear), ">= 3", verdict(verdicts["clear"])),
        ("training time, times theirs together", f"{total:.1f} x", "<= 3 x", verdict(verdicts["time"])),
    ]
    return "\n\n".join(
        [paragraph(said), markdown(head, rows), markdown(["measurement", "value", "target", "met"], targets)]
    )


def serving(_options: argparse.Namespace, folder: Path) -> str:
    """Requests per second, layer by layer."""
    out = folder / "serving.json"
    run("bench_serving.py", "--out", str(out))
    measured = json.loads(out.read_text())
    rows = [
        (
            row["what"],
            f"{row['requests_per_second']:,} ({row['lowest']:,} to {row['highest']:,})",
            f"{row['p50_ms']} ms",
            f"{row['p99_ms']} ms",
            f"{row['cpu_microseconds']:,} us",
            "" if row["added_microseconds"] is None else f"{row['added_microseconds']:+,} us",
        )
        for row in measured["results"]
    ]
    head = ("layer", "requests/s", "p50", "p99", "CPU time", "added")
    return (
        "`POST /v1/predict` with one comment of four fields, over 16 connections; a connection sends the next request\n"
        "after the response to the last (wrk, one thread). The server has one core, wrk another. The model is\n"
        "slice-aware (`slice_residual`), trained on 2,000 generated comments with the 50 functions, all templates.\n"
        f"The layers take turns of {measured['seconds']} s (the last one of a whole tick, 10 s); medians of "
        f"{measured['rounds']}, with the\nlowest and highest rate. CPU time is that of the server process per "
        "request; added is the difference from the\nlayer below.\n\n"
        f"{markdown(head, rows)}\n\n{targets(measured)}"
    )


def start(_options: argparse.Namespace, folder: Path) -> str:
    """Time and memory of a start, and the wait of a restart."""
    out = folder / "start.json"
    run("bench_start.py", "--out", str(out))
    measured = json.loads(out.read_text())
    rows = [(row["what"], row["value"], row["reach"], verdict(row["reached"])) for row in measured["results"]]
    return (
        "The project of `slicewatch init`, trained; times are from the start of the process. The time of a command is\n"
        "that of the processor. During the restart (SIGUSR2) one client sends predictions one after the other on one\n"
        "connection. Memory is that of the service and of the processes of the functions. Medians of "
        f"{measured['rounds']}.\n\n"
        f"{markdown(('measurement', 'value', 'target', 'met'), rows)}"
    )


def targets(measured: dict[str, Any]) -> str:
    """Return the table of the figures that are to be reached."""
    figures = [(row["what"], row["value"], row["reach"], verdict(row["reached"])) for row in measured["targets"]]
    return markdown(("measurement", "value", "target", "met"), figures)


def rows(_options: argparse.Namespace, folder: Path) -> str:
    """Rows per second in batches, and Python functions."""
    out = folder / "rows.json"
    run("bench_rows.py", "--out", str(out))
    measured = json.loads(out.read_text())
    table = [
        (
            row["what"],
            f"{row['rows_per_second']:,}",
            f"{row['requests_per_second']:,} ({row['lowest']:,} to {row['highest']:,})",
            f"{row['p99_ms']} ms",
            f"{row['cpu_per_row']} us",
        )
        for row in measured["results"]
    ]
    said = (
        "`slicewatch up` with the processes of its functions has one core, wrk another; model and templates are those "
        "above. 16 connections, 8 for the batches of 100. Turns of "
        f"{measured['seconds']} s, medians of {measured['rounds']}. CPU time is that of a row."
    )
    head = ("request", "rows/s", "requests/s", "p99", "CPU time")
    return f"{paragraph(said)}\n\n{markdown(head, table)}\n\n{targets(measured)}"


def peers(options: argparse.Namespace, folder: Path) -> str | None:
    """MLServer and LitServe with the same network."""
    if not (options.mlserver and options.litserve):
        return None
    out = folder / "peers.json"
    run("bench_peers.py", "--mlserver", options.mlserver, "--litserve", options.litserve, "--out", str(out))
    measured = json.loads(out.read_text())
    table = [
        (
            row["what"],
            f"{row['cores']}",
            f"{row['requests_per_second']:,} ({row['lowest']:,} to {row['highest']:,})",
            f"{row['p50_ms']} ms",
            f"{row['p99_ms']} ms",
            f"{row['cpu_microseconds']:,} us",
        )
        for row in measured["results"]
    ]
    said = (
        "MLServer 1.7.1 and LitServe 0.2.19 serve the network of the model above as TorchScript, with the same "
        "features of the same comment, without functions, log, metrics and monitor. `slicewatch up` does all of that; "
        "all give the same probabilities. MLServer has one process and no access log, LitServe an API process and a "
        f"worker, joined by ZeroMQ; batches of both have at most {measured['batch_rows']} rows. 16 connections, "
        f"turns of {measured['seconds']} s, medians of {measured['rounds']}. A server has one core and wrk another, "
        "or all share both. On one core Slicewatch is compared with the better form of each peer."
    )
    head = ("server", "cores", "requests/s", "p50", "p99", "CPU time")
    return f"{paragraph(said)}\n\n{markdown(head, table)}\n\n{targets(measured)}"


def load(_options: argparse.Namespace, folder: Path) -> str:
    """Latency on a schedule, and twice the capacity."""
    out = folder / "load.json"
    run("bench_load.py", "--out", str(out))
    measured = json.loads(out.read_text())
    table = [
        (
            f"{row['load']:.0%}",
            f"{row['offered_per_second']:,}",
            f"{row['answered_per_second']:,}",
            f"{row['p50_ms']} ms",
            f"{row['p99_ms']} ms",
            f"{row['refused_per_second']:,}",
            f"{row['refused_p99_ms']} ms" if row["refused_per_second"] else "",
            f"{row['cpu_microseconds']:,} us",
        )
        for row in measured["results"]
    ]
    client = measured["client"]
    said = (
        "Requests arrive independently (Poisson) on a schedule that slow answers do not delay; latencies run from the "
        "scheduled time. Each request is one comment with an id of its own. `slicewatch up` has one core, the client "
        f"another; the queue holds {measured['queue_rows']} records. The capacity is measured in each turn with 64 "
        f"connections that always wait for an answer: {measured['capacity_per_second']:,}/s (median). CPU time is "
        f"that of an offered request. Turns of {measured['seconds']} s, medians of {measured['rounds']}. To an "
        f"application that does nothing the client sends {client['sent_per_second']:,} requests/s, "
        f"{client['late_share']:.2%} of them more than 1 ms late; of a run that counts at most "
        f"{measured['late_share']:.2%} were late, and {measured['discarded']} runs were discarded. After the last "
        f"turn the service is killed, and the {measured['acknowledged']:,} acknowledged ids are looked up in its log."
    )
    head = ("of the capacity", "offered/s", "answered/s", "p50", "p99", "refused/s", "p99 of refusals", "CPU time")
    return f"{paragraph(said)}\n\n{markdown(head, table)}\n\n{targets(measured)}"


def label_models(options: argparse.Namespace, folder: Path) -> str:
    """Label models against Snorkel's, and an end model on their labels."""
    out = folder / "label_models.json"
    data = ("--data", str(options.data)) if options.data else ()
    run("bench_label_models.py", "--peer-python", options.peer_python, "--out", str(out), *data)
    measured = json.loads(out.read_text())
    names = ("matrix", "triplets")
    likeness = [
        (
            row["votes"],
            *(
                f"{row[f'{name} agreement']:.1%}, {row[f'{name} difference']:.3f}: {verdict(row['reached'][name])}"
                for name in ("Snorkel's steps", *names)
            ),
            f"{row['faster']:.0f} x: {verdict(row['reached']['faster'])}",
        )
        for row in measured["results"]
    ]
    truth = [
        (
            row["votes"],
            f"{row['judged']:,.0f}",
            *(
                f"{row[f'{name} accuracy']:.1%}, {row[f'{name} error']:.3f}"
                for name in (*names, "abstentions", "snorkel")
            ),
            f"{row['majority accuracy']:.1%}",
        )
        for row in measured["results"]
    ]
    seeds = measured["seeds"]
    said = (
        "The same votes and class balance; Snorkel's model runs 500 epochs. Generated votes are 10 functions on 10,000 "
        "rows, means of 5 seeds; a function votes for all classes, or for one as keywords do. Of each model: labels "
        "that agree with Snorkel's on rows with a vote, mean difference of the functions' accuracies, and whether the "
        "targets are met (97 %, 0.03); and how many times faster triplets are fitted (50 x). `Snorkel's steps` is "
        "`LabelModel.fit(lr=0.01, n_epochs=500)` with Snorkel's seed. `matrix`, its default, goes on to the optimum, "
        "which Snorkel's steps had not reached with four classes and one a function, and leaves out functions that "
        "depend on each other, as those of YouTube do. The next table tells which is nearer to the truth."
    )
    known = (
        "Against the true classes: labels that are right on rows with a vote, and mean error of the accuracies. "
        "`abstentions` is `DawidSkeneLabelModel` without a labelled row, the label model of `train`. Of a collection "
        "only three tenths of the contents count, for which neither the functions (twelve word lists and forms for "
        "each) nor the label models were developed."
    )
    end = (
        "A logistic regression (words and pairs of words, TF-IDF) trained on the other contents with these labels: "
        "accuracy in percent on the test rows, and difference to true labels of the same rows, means over "
        f"{seeds['end']} seeds with 95 % t intervals. A seed draws four fifths of the training contents, and "
        f"{seeds['labelled']} labelled rows. Rows without a vote are left out."
    )
    whole = (
        "`train` (`learner.kind: auto`) on the same test rows: with all true labels, with a tenth of them drawn at "
        f"random, and with `labels: from functions` for the other rows, too. Means over {seeds['train']} seeds, "
        "difference to all true labels."
    )
    parts = [
        (said, ("votes", "Snorkel's steps", "matrix", "triplets", "triplets faster"), likeness),
        (known, ("votes", "rows", "matrix", "triplets", "abstentions", "Snorkel", "majority"), truth),
    ]
    for text, key in ((end, "models"), (whole, "train")):
        ends = [
            (f"{row['collection']}, {row['test_rows']:,}", each["labels"], each["accuracy"], each["difference"])
            for row in measured["end_models"]
            for each in row[key]
        ]
        parts += [(text, ("collection, test rows", "labels", "accuracy", "difference"), ends)] if ends else []
    return "\n\n".join(f"{paragraph(text)}\n\n{markdown(head, rows)}" for text, head, rows in parts)


def drift(_options: argparse.Namespace, folder: Path) -> str:
    """False alarms on calm traffic, delays of changes, slides, the first week, and what the monitor costs."""
    parts = []
    for name in ("calm", "delays", "slide", "first_week", "cost"):
        out = folder / f"{name}.json"
        run(f"bench_drift_{name}.py", "--out", str(out), "--cache", "build/drift")
        tables = json.loads(out.read_text())["tables"]
        parts += [f"{paragraph(each['said'])}\n\n{markdown(each['head'], each['rows'])}" for each in tables]
    return "\n\n".join(parts)


def incidents(_options: argparse.Namespace, folder: Path) -> str:
    """How often a planted cause comes first in its incident."""
    out = folder / "incidents.json"
    run("bench_incidents.py", "--out", str(out))
    measured = json.loads(out.read_text())
    rows = [
        (
            row["change"],
            f"{row['runs']}",
            f"{row['alarms']}",
            f"{row['first']}",
            f"{row['found']}",
            f"{row['one_incident']}",
            f"{row['moved_share']:.0%}",
        )
        for row in measured["results"]
    ]
    found = measured["found"]
    figures = [
        (
            f"cause in the first {measured['first']}",
            f"{found['count']} of {measured['runs']}",
            f">= {found['reach']:.0%}",
            verdict(found["reached"]),
        )
    ]
    said = (
        f"Each run has {measured['slices']:,} slices of 0.2 % to 30 % of the rows: tags, conjunctions and disjunctions "
        "of them, and slices that contain others. The rows of one become more or fewer (odds of its coverage times 1.5 "
        "to 6, or 0.65 to 0.001), or its predictions worse (odds of an error times 2 to 8). Runs with at most "
        f"{measured['first']} alarms are left out. The grouping reads {measured['rows']:,} rows from before and as "
        f"many since the change; with up to {measured['most_alarms']} alarms it took at most "
        f"{measured['slowest_ms'] / 1000:.1f} s of one core. The last column counts the other alarms of which the rows "
        "show, at 95 %, that they moved with another slice; the rest have too few rows, or moved by themselves."
    )
    head = ("change", "runs", "alarms, median", "cause first", f"in the first {measured['first']}")
    head += ("one incident", "moved with another")
    table = markdown(("measurement", "value", "target", "met"), figures)
    return f"{paragraph(said)}\n\n{markdown(head, rows)}\n\n{table}"


def drift_peers(options: argparse.Namespace, folder: Path) -> str:
    """Drift detectors of other tools on the same streams."""
    out = folder / "drift_peers.json"
    run("bench_drift_peers.py", "--out", str(out), "--images", str(options.out.parent / "images"))
    return drift_peers_page(json.loads(out.read_text()))


def drift_peers_page(measured: dict[str, Any]) -> str:
    """Return the section of these measurements."""
    names = list(measured["calm"][0]["detectors"])
    calm = [(row["kind"], *(f"{row['detectors'][name]['alarms']:,}" for name in names)) for row in measured["calm"]]
    said = (
        f"False alarms over {measured['slices']} slices in {measured['days']} days of traffic without a change, 1,000 "
        "rows in each block of 10 s, after four weeks for learning; none is scaled. Rates are between 0.2 % and 30 %. "
        "Slicewatch learns its baseline in these weeks as the service does. Its budget, and so its threshold, is that "
        f"of 1 a month over {measured['budget_slices']:,} slices, half of it for coverage; the others have none. ADWIN "
        "and Page-Hinkley are those of river, on the proportions of blocks; PSI is Evidently's, and the mean ± 3 sd "
        "NannyML's, hour by hour against the four weeks, as is the z-test, which controls the false discoveries of "
        "each hour (5 %). Always fire raises one alarm a slice and hour."
    )
    parts = [paragraph(said), markdown(("traffic", *names), calm), image("false alarms", "false-alarms")]
    said = (
        f"Mean time from a change of a slice to its alarm, over {measured['streams']} streams of each row, after four "
        "weeks for learning; in brackets those that were missed, since nothing was raised in three days. A minute has "
        "6,000 rows. A detector that raises false alarms on this traffic has found little by a short delay."
    )
    parts.append(paragraph(said))
    for kind in dict.fromkeys(row["kind"] for row in measured["changes"]):
        delays = [
            (f"{row['coverage']:.1%} x {row['ratio']:g}", *(delay(row["detectors"][name]) for name in names))
            for row in measured["changes"]
            if row["kind"] == kind
        ]
        name = f"delays-{kind.replace(' ', '-')}"
        parts += [f"Traffic: {kind}", markdown((kind, *names), delays), image(f"delays, {kind}", name)]
    said = (
        "Skill: the share of the cost that a detector saves, of what the cheaper of firing always and firing never "
        "costs. An hour of an undetected change costs 1, at most 24; so does a calm day of a slice with a false alarm. "
        "The density is the share of the days of a slice on which it changes. Perfect is 1, and both trivial policies "
        "have at most 0 at every density. In brackets the lower limit: with the upper 95 % limits of false alarms and "
        "mean delay."
    )
    skilled = [*names, "never fire"]
    skills = [
        (row["kind"], f"{row['density']:.1%}", *(skill(row["detectors"][name]) for name in skilled))
        for row in measured["skills"]
    ]
    return "\n\n".join([*parts, paragraph(said), markdown(("traffic", "density", *skilled), skills), targets(measured)])


def image(text: str, name: str) -> str:
    """Return the picture of the drift detectors with this name."""
    return f"![Drift detectors: {text}](images/drift-peers-{name}.svg)"


def delay(figures: dict[str, Any]) -> str:
    """Return a mean delay with the number of missed changes."""
    missed = f" ({figures['missed']} missed)" if figures["missed"] else ""
    minutes = figures["mean_minutes"]
    if minutes is None:
        return "missed"
    return (f"{minutes / 60:.1f} h" if minutes >= 120 else f"{minutes:.1f} min") + missed


def skill(figures: dict[str, float]) -> str:
    """Return a skill with its lower limit; below -9.99 they are not told apart."""
    return "< -9.99" if figures["skill"] < -9.99 else f"{figures['skill']:.2f} ({max(figures['lower'], -9.99):.2f})"


def elec(options: argparse.Namespace, folder: Path) -> str | None:
    """A real series with real seasons, shuffled copies of it, and messages with a new topic."""
    if not options.data or not (options.data / "elec/elec.csv").exists():
        return None
    out, image = folder / "elec.json", options.out.parent / "images/elec-weeks.svg"
    files = ("--data", str(options.data), "--out", str(out), "--image", str(image))
    run("bench_elec.py", *files, "--cache", "build/drift")
    measured = json.loads(out.read_text())
    changes, *others = (
        f"{paragraph(each['said'])}\n\n{markdown(each['head'], each['rows'])}" for each in measured["tables"]
    )
    weekly = measured["dispersion"]
    shown = (
        "The rates week by week, each from 0 up: the weeks of the limits are shaded, dashed lines are listed changes, "
        f"and dots alarms. Weeks vary {weekly[len(weekly) // 2]:.0f} times as much as those of "
        f"independent rows would (median over the slices), and up to {weekly[-1]:.0f} times."
    )
    picture = "![Weekly rates of the slices of the electricity market, with alarms](images/elec-weeks.svg)"
    return "\n\n".join([changes, paragraph(shown), picture, *others])


TITLES: dict[str, tuple[str, Callable[[argparse.Namespace, Path], str | None]]] = {
    "functions": ("Slicing functions against Snorkel", functions),
    "engines": ("Slicing functions on every engine", engines),
    "epoch": ("Training epoch against Snorkel", epoch),
    "tutorial": ("The tutorial's split", tutorial),
    "tutorial_code": ("The code of Snorkel's tutorials", tutorial_code),
    "learner": ("Slice-aware and plain learners", learner),
    "panel": ("A panel of ten data sets", panel),
    "label_models": ("Label models against Snorkel's", label_models),
    "serving": ("Requests per second, layer by layer", serving),
    "start": ("Start, restart and commands", start),
    "rows": ("Rows per second in batches", rows),
    "peers": ("Requests per second against MLServer and LitServe", peers),
    "load": ("Latency and refusals under load", load),
    "drift": ("Drift of coverage: false alarms and delays", drift),
    "incidents": ("The cause of many alarms", incidents),
    "drift_peers": ("Drift detectors of other tools on the same traffic", drift_peers),
    "elec": ("Real series: the electricity market, and messages with a new topic", elec),
}


def machine() -> str:
    """Return what the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.machine())
    return f"{cpu}, {os.cpu_count()} cores; Python {platform.python_version()}, torch {torch.__version__}"


def kept(page: Path) -> dict[str, str]:
    """Return the sections that a page already has, by title."""
    if not page.exists():
        return {}
    parts = page.read_text().split("\n## ")[1:]
    return {title: body.strip() for title, _, body in (part.partition("\n") for part in parts)}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="an interpreter that has Snorkel 0.10.0")
    parser.add_argument("--mlserver", help="an interpreter that has MLServer 1.7.1")
    parser.add_argument("--litserve", help="an interpreter that has LitServe 0.2.19")
    parser.add_argument("--out", type=Path, required=True, help="the page to write")
    parser.add_argument("--data", type=Path, default=os.environ.get("SLICEWATCH_TEST_DATA"), help="public data")
    parser.add_argument("--seeds", type=int, default=10)
    who = {"choices": ("all", "peers", "ours", "finished"), "default": "all"}
    parser.add_argument("--learner", **who, help="cells of the learner benchmark to measure where they are missing")
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=SECTIONS, help="leave the others as they were")
    options = parser.parse_args()
    options.data = Path(options.data) if options.data else None
    sections: dict[str, Any] = kept(options.out)
    for name in options.only:
        title, measure = TITLES[name]
        with tempfile.TemporaryDirectory() as folder:
            measured = measure(options, Path(folder))
        if measured:
            sections[title] = f"{measured}\n\nMeasured on {machine()}."
    head = "# Results\n\nGenerated by `make bench`; no figure is edited by hand. Missed targets are marked."
    ordered = [f"## {title}\n\n{sections[title]}" for title, _ in TITLES.values() if title in sections]
    options.out.write_text("\n\n".join([head, *ordered]) + "\n")


if __name__ == "__main__":
    main()
