"""Project folder of the demo: settings, slices, comments, and the first training."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.demo.scenario import Scenario
from service.demo.service_process import COMMAND, environment, last_lines
from service.errors import MisuseError, ServiceError
from service.settings import FILE_NAME

MODEL = "comments"
TABLE, CLOCK, LOG, TRAINING_LOG = "comments.csv", "clock.json", "service.log", "training.log"
FILES = (FILE_NAME, "slices.yaml", "slices.py", TABLE, CLOCK, LOG, TRAINING_LOG)
FOLDER = ".slicewatch"
REPORT_SECONDS = 10.0
MARK = "# A project of `slicewatch demo`"
"""First words of the settings, by which an earlier demo is recognised."""

SETTINGS_TEXT = """\
{mark}: {title}.
# Paths are relative to this file; settings that are left out have their defaults.
name: {name}
data: {table}
label: label
features: {features}
functions: [slices.yaml, slices.py]

# Trains in seconds.
learner: {{kind: {kind}, epochs: {epochs}, batch_rows: {batch_rows}, seed: {seed}}}

# A fast clock: two minutes pass every second. All times below are in this clock.
clock: {clock}
monitor: {{tick_seconds: 120}}
# Its traffic has no day or week that would have to be learned first; labels are corrected within half an hour.
drift: {{swing: 0, settling_hours: 0.5}}
retrain:
  new_labels: {new_labels}
  check_seconds: 120
  margin: 0.03
  minimum_rows: 30
  wait_days: 7
  timeout_minutes: 600
report: {{every_hours: 12}}
"""

SLICES_YAML = r"""# Slices as templates. Protected: a new model must be shown to be as good there to be promoted.
slices:
  - name: short_comment
    description: at most four words
    owner: community
    target: 0.9
    protected: true
    length: {field: text, unit: words, below: 5}
  - name: keyword_please
    description: says please
    owner: community
    severity: info
    keyword: {field: text, words: [please, plz]}
  - name: keyword_subscribe
    description: asks to subscribe
    owner: growth
    target: 0.9
    keyword: {field: text, words: [subscribe]}
  - name: regex_check_out
    description: check out, check it out, check my video out
    owner: growth
    target: 0.9
    protected: true
    regex: {field: text, pattern: 'check.*out', ignore_case: true}
  - name: short_link
    description: contains a shortened link
    owner: trust
    severity: critical
    target: 0.85
    protected: true
    family: links
    regex: {field: text, pattern: '\w\.ly'}
  - name: has_url
    description: contains a web address
    owner: trust
    severity: critical
    target: 0.85
    family: links
    regex: {field: text, pattern: 'https?://|www\.|\.com'}
  - name: any_link
    description: contains a link of any kind
    owner: trust
    family: links
    any:
      - regex: {field: text, pattern: '\w\.ly'}
      - regex: {field: text, pattern: 'https?://|www\.|\.com'}
  - name: html_markup
    description: contains a line-break tag or an HTML entity
    owner: platform
    regex: {field: text, pattern: '<br|&(?:#[0-9]+|[a-zA-Z][a-zA-Z0-9]*);'}
  - name: giveaway
    description: gives something away
    owner: trust
    regex: {field: text, pattern: 'giveaway|raffle', ignore_case: true}
  - name: not_ascii
    description: contains a letter outside the English alphabet
    owner: community
    severity: info
    regex: {field: text, pattern: '[À-ÖØ-öø-ɏЀ-ӿ]'}
  - name: timestamp_mention
    description: quotes a time in the video
    owner: community
    severity: info
    regex: {field: text, pattern: '\b\d{1,2}:\d{2}\b'}
"""

LIKES_YAML = """\
  - name: many_likes
    description: at least ten likes
    owner: community
    severity: info
    compare: {field: likes, at_least: 10}
"""

SLICES_PY = '''\
"""Slices as Python functions: a function returns true for the comments of its slice."""

from sfs import slicing_function


@slicing_function(owner="community", severity="info")
def shouting(x):
    """Written in capitals."""
    return x.text is not None and len(x.text) > 8 and x.text.isupper()


@slicing_function(owner="community", severity="info")
def exclaiming(x):
    """At least three exclamation marks."""
    return x.text is not None and x.text.count("!") >= 3


SLICES = (shouting, exclaiming)
'''


class Project:
    """Project folder of the demo, with the paths in it; ``log`` is the standard error of the service."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config, self.log = folder, folder / FILE_NAME, folder / LOG
        self.clock, self.store = folder / CLOCK, folder / FOLDER / "store.sqlite3"
        self.functions = folder / "slices.yaml", folder / "slices.py"

    def train(self, report: Callable[[str], object]) -> dict[str, Any]:
        """Run ``slicewatch train`` as a child process, and return the document that it prints.

        ``report`` takes a message at regular intervals, until the process ends.

        Raises
        ------
        ServiceError
            If it fails, with the end of its log.
        """
        log = self.folder / TRAINING_LOG
        command = [*COMMAND, "train", "--config", str(self.config), "--json"]
        started, printed = time.monotonic(), ""
        with (
            log.open("wb") as stderr,
            subprocess.Popen(  # noqa: S603 - our own command
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, env=environment(), text=True
            ) as process,
        ):  # fmt: skip
            try:
                while process.returncode is None:
                    try:
                        printed, _ = process.communicate(timeout=REPORT_SECONDS)
                    except subprocess.TimeoutExpired:
                        report(f"  still training, after {time.monotonic() - started:.0f} s")
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise ServiceError(["the first training failed; end of its log:", *last_lines(log)])
        document: dict[str, Any] = json.loads(printed)
        return document


def write_project(folder: Path, scenario: Scenario) -> Project:
    """Write the project of a scenario; an earlier demo in the folder is replaced.

    Raises
    ------
    MisuseError
        If the folder contains anything else.
    """
    if folder.exists() and not folder.is_dir():
        raise MisuseError(f"{folder} is a file: pass a folder for the demo with --dir")
    existing = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    project, learning = Project(folder), scenario.learning
    if existing:
        config = project.config
        is_demo = config.is_file() and config.read_text(encoding="utf-8", errors="replace").startswith(MARK)
        if not is_demo:
            raise MisuseError(f"{folder} contains {existing[0]!r} and is not a demo: pass an empty folder with --dir")
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        for name in (FOLDER, "__pycache__"):
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
    folder.mkdir(parents=True, exist_ok=True)
    templates = SLICES_YAML + (LIKES_YAML if "likes" in learning.features else "")
    for path, text in zip(project.functions, (templates, SLICES_PY), strict=True):
        path.write_text(text, encoding="utf-8")
    features = ", ".join(f"{column}: {kind}" for column, kind in learning.features.items())
    settings = SETTINGS_TEXT.format(
        mark=MARK,
        title=scenario.title,
        name=MODEL,
        table=TABLE,
        clock=CLOCK,
        features=f"{{{features}}}",
        kind=learning.kind,
        epochs=learning.epochs,
        batch_rows=learning.batch_rows,
        seed=learning.seed,
        new_labels=learning.new_labels,
    )
    project.config.write_text(settings, encoding="utf-8")
    scenario.base().to_csv(folder / TABLE, index=False)
    return project
