"""Snorkel's two slicing tutorials with our imports, at full width, beside the tables of their notebooks.

    python tests/benchmarks/bench_tutorial_code.py --data FOLDER --out FILE.md

FOLDER holds the five files of the YouTube Spam Collection.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import pandas as pd
from tutorial_code import Newer, Older, newer, older

from models.comments.public import youtube_tutorial_split

OLDER_LOGISTIC = {
    "overall": 0.925,
    "short_link": 0.5,
    "keyword_subscribe": 0.971429,
    "keyword_please": 1.0,
    "regex_check_out": 1.0,
    "short_comment": 0.666667,
    "textblob_polarity": 0.727273,
}
OLDER_SLICED = {
    "overall": 0.927928,
    "short_link": 0.5,
    "keyword_subscribe": 0.925373,
    "keyword_please": 0.977778,
    "regex_check_out": 1.0,
    "short_comment": 0.714286,
    "textblob_polarity": 0.8,
}
OLDER_PLAIN = {"valid": 0.901961, "test": 0.918182}
NEWER_SLICED = {
    "overall": 0.941704,
    "short_comment": 0.769231,
    "keyword_please": 0.977778,
    "regex_check_out": 1.0,
    "short_link": 0.5,
    "textblob_polarity": 0.8,
}


def by_slice(scores: pd.DataFrame, task: str) -> dict[str, float]:
    """Return the F1 on test rows by slice, of a table of `score` or `score_slices`."""
    chosen = scores[(scores["metric"] == "f1") & (scores["split"] == "test")]
    prefix = f"{task}_slice:"
    names = chosen["label"].str.removeprefix(prefix).str.removesuffix("_pred").replace(task, "overall")
    return dict(zip(names, chosen["score"], strict=True))


def lines_of(first: Older, second: Newer) -> list[str]:
    """Return the Markdown lines of both tutorials."""
    logistic, sliced = first.all["f1"].to_dict(), by_slice(first.sliced, "spam_task")
    lines = [
        "F1 on the 250 test rows after the code of the tutorials, with our imports; one run each with their seed: two",
        "seeds differ by more than the last digits. The older one (`MultitaskClassifier`, `convert_to_slice_tasks`):",
        "",
        "| slice | logistic regression | notebook | slice tasks, 1 epoch | notebook |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {logistic[name]:.4f} | {published:.4f} | {sliced[name]:.4f} | {OLDER_SLICED[name]:.4f} |"
        for name, published in OLDER_LOGISTIC.items()
    ]
    monitored = first.monitored[(first.monitored["label"] == "spam_task") & (first.monitored["metric"] == "f1")]
    plain = dict(zip(monitored["split"], monitored["score"], strict=True))
    both = ", ".join(f"{plain[split]:.4f} on {split} rows (notebook {OLDER_PLAIN[split]:.4f})" for split in OLDER_PLAIN)
    lines += ["", f"Without slices, 5 epochs: {both}.", "", "The newer one (`SliceAwareClassifier`), 2 epochs:", ""]
    lines += ["| slice | logistic regression | slice-aware | notebook |", "|---|---|---|---|"]
    logistic, sliced = second.all["f1"].to_dict(), by_slice(second.sliced, "task")
    lines += [
        f"| {name} | {logistic[name]:.4f} | {sliced[name]:.4f} | {published:.4f} |"
        for name, published in NEWER_SLICED.items()
    ]
    return lines


def main() -> int:
    """Run both and write their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the five YouTube files")
    parser.add_argument("--out", type=Path, required=True, help="where the Markdown goes")
    options = parser.parse_args()
    data = youtube_tutorial_split(options.data)
    started = time.perf_counter()
    first = older(data)
    middle = time.perf_counter()
    second = newer(data)
    took = f"{middle - started:.0f} s and {time.perf_counter() - middle:.0f} s, the functions on all rows included."
    lines = [*lines_of(first, second), "", took]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
