"""Slicing functions applied to comments, against Snorkel's applier, one thread each.

    python tests/benchmarks/bench_functions.py --peer-python PATH --out FILE.json

Ours and Snorkel's alternate on the same generated comments; each figure is a median, and the answers are
checked to be equal first. Of the 300 functions Snorkel gets fewer rows (--peer-rows): its speed does not depend
on their number. The request path has no peer: it is the time of one call, shared among its rows.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from peer import Peer
from seed_functions import FIVE

from models.comments.generate import generate
from sfs.apply import apply
from sfs.function import SlicingFunction
from sfs.library.spam import TEMPLATES
from sfs.registry import FunctionSet
from sfs.template import Template, template

SEED = 0
REQUESTS = 600


def comments(n: int, folder: Path) -> Path:
    """Write n generated comments; return the file."""
    path = folder / "comments.csv"
    generate(n, seed=SEED).assign(likes=lambda frame: frame["likes"].fillna(0)).to_csv(path, index=False)
    return path


def declarations(frame: pd.DataFrame, n: int) -> list[dict[str, Any]]:
    """Return n declarations, keywords and patterns in turn, of words that occur in the comments."""
    counts = Counter(word for text in frame["text"].head(20_000) for word in text.lower().split())
    words = [word for word, _ in counts.most_common(4_000) if word.isascii() and word.isalpha() and len(word) > 2]
    rng = np.random.default_rng(SEED)
    out: list[dict[str, Any]] = []
    for i in range(n):
        one, other = rng.choice(words, 2, replace=False).tolist()
        patterns = [f"{one}.*{other}", f"{one}s? {other}", f"({one}|{other})!+", f"[0-9]+ {one}", f"{one}$"]
        asked = {"words": [one, other]} if i % 2 else {"pattern": patterns[i // 2 % len(patterns)]}
        out.append({"name": f"function{i:03d}", **asked})
    return out


def declared(declaration: dict[str, Any]) -> Template:
    """Return the template of a declaration."""
    if "words" in declaration:
        return template(declaration["name"], keyword={"field": "text", "words": declaration["words"]})
    regex = {"field": "text", "pattern": declaration["pattern"], "ignore_case": True}
    return template(declaration["name"], regex=regex)


def request_templates(found: list[dict[str, Any]]) -> list[Template]:
    """Return 50 templates of every kind, over four fields."""
    return [
        *(declared(each) for each in found[:24]),
        *(template(f"words{n}", length={"field": "text", "unit": "words", "below": n}) for n in (3, 5, 8, 13, 21)),
        *(template(f"likes{n}", compare={"field": "likes", "at_least": n}) for n in range(1, 9)),
        *(template(f"video{n}", one_of={"field": "video", "values": [f"{n}", "other"]}) for n in range(4)),
        *(template(f"no_{field}", missing={"field": field}) for field in ("text", "likes", "video", "author")),
        *(template(f"both{n}", all=[declared(found[n]).spec, {"not": declared(found[n + 1]).spec}]) for n in range(5)),
    ]


class Snorkel(Peer):
    """Snorkel over a file of rows."""

    def __init__(self, python: str, rows: Path, folder: Path) -> None:
        super().__init__(python, "peer_snorkel_functions.py")
        self.answers = folder / "answers.npy"
        self.ask(rows=str(rows))

    def seconds(self, functions: Any, first: int) -> float:
        """Return the time of applying the functions to the first rows."""
        return float(self.ask(functions=functions, first=first, answers=str(self.answers)))


def seconds_of(call: Callable[[], object]) -> float:
    """Return the time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(
    what: str,
    reach: float,
    ours: Any,
    theirs: Any,
    frame: pd.DataFrame,
    peer: Snorkel,
    first: int,
    rounds: int,
) -> dict[str, Any]:
    """Return one row of results, measured in turn after one turn that warms up and checks the answers."""
    peer.seconds(theirs, first)
    S = apply(ours, frame.head(first))
    if S.unknown.any() or not np.array_equal(S.member, np.load(peer.answers) == 1):
        raise SystemExit(f"{what}: the answers differ from Snorkel's")
    mine, others = [], []
    for _ in range(rounds):
        mine.append(seconds_of(lambda: apply(ours, frame)))
        others.append(peer.seconds(theirs, first))
    ours_rate, peer_rate = len(frame) / statistics.median(mine), first / statistics.median(others)
    return {
        "what": what,
        "functions": len(ours),
        "rows": len(frame),
        "peer_rows": first,
        "ours_rows_per_second": round(ours_rate),
        "snorkel_rows_per_second": round(peer_rate),
        "ratio": round(ours_rate / peer_rate, 1),
        "reach": reach,
        "reached": ours_rate / peer_rate >= reach,
    }


def request_path(functions: FunctionSet, frame: pd.DataFrame, batch: int, reach: float) -> dict[str, Any]:
    """Return the median time of a row in calls of one batch, rows given as a request gives them."""
    records = frame.head(REQUESTS * batch).to_dict("records")
    batches = [records[start : start + batch] for start in range(0, len(records), batch)]
    apply(functions, batches[0])
    spent = statistics.median(seconds_of(lambda rows=rows: apply(functions, rows)) for rows in batches)
    microseconds = spent / batch * 1e6
    return {
        "what": f"{len(functions)} templates, batch of {batch}",
        "microseconds_per_row": round(microseconds, 1),
        "reach": reach,
        "reached": microseconds <= reach,
    }


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Return all rows of results."""
    path = comments(options.rows, folder)
    frame = pd.read_csv(path, keep_default_na=False, dtype={"text": str})
    found = declarations(frame, 300)
    five = FunctionSet(each for each in TEMPLATES if each.name in {f.__name__ for f in FIVE})
    many = FunctionSet(map(declared, found))
    plain = [SlicingFunction(f.__name__, f) for f in FIVE]
    peer = Snorkel(options.peer_python, path, folder)
    n, fewer, rounds = options.rows, min(options.peer_rows, options.rows), options.rounds
    try:
        results = [
            compare("five functions, plain", 4, plain, "five", frame, peer, n, rounds),
            compare("five functions, templates", 40, five, "five", frame, peer, n, rounds),
            compare("300 keywords and patterns", 100, many, found, frame, peer, fewer, rounds),
        ]
    finally:
        peer.close()
    fifty = FunctionSet(request_templates(found))
    return [*results, request_path(fifty, frame, 16, 25), request_path(fifty, frame, 1, 60)]


def shown(row: dict[str, Any]) -> str:
    """Return a row of results as a line."""
    verdict = "reached" if row["reached"] else "MISSED"
    if "ratio" not in row:
        spent = f"{row['microseconds_per_row']:>8.1f} us a row"
        return f"{row['what']:<28} {spent} (at most {row['reach']}): {verdict}"
    rates = f"{row['ours_rows_per_second']:>9,} rows/s against {row['snorkel_rows_per_second']:>7,}"
    return f"{row['what']:<28} {rates}: {row['ratio']:.1f} x (at least {row['reach']} x): {verdict}"


def main() -> int:
    """Measure, print and write; 1 when a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="an interpreter that has Snorkel 0.10.0")
    parser.add_argument("--out", type=Path, required=True, help="where the results go, as JSON")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--peer-rows", type=int, default=2_000, help="rows that Snorkel gets of the 300 functions")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, after one to warm up")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(options, Path(folder))
    print("\n".join(map(shown, results)))
    settings = {"seed": SEED, "rounds": options.rounds, "machine": f"{platform.machine()}, one thread each"}
    options.out.write_text(json.dumps({"settings": settings, "results": results}, indent=2) + "\n", encoding="utf-8")
    return int(not all(row["reached"] for row in results))


if __name__ == "__main__":
    sys.exit(main())
