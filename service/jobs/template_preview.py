"""Application of one declared function to some records, in a child process that is killed if it takes too long.

Neither the compilation of its patterns nor a slow search can then delay the service.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from time import monotonic
from typing import Any

from service.errors import Stopping
from service.jobs.child_process import ChildProcess, attach_to_parent, write_atomically
from sfs.apply import apply_with_stats
from sfs.declarations import from_declaration
from sfs.errors import InvalidFunction, SliceError
from sfs.template_limits import TemplateLimits

_INPUT, _OUTPUT = "input.json", "output.json"
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class TemplateResult:
    """Members among some records, and records of unknown membership, by position."""

    fingerprint: str
    members: Sequence[int]
    unknown: Sequence[int]
    reasons: Mapping[str, int]


def apply_in_child(
    declaration: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    limits: TemplateLimits,
    timeout_seconds: float,
    *,
    stop: Event | None = None,
    python: str | None = None,
) -> TemplateResult:
    """Return the result of a declared function on records of JSON values.

    Parameters
    ----------
    limits
        Limits of its patterns.
    stop
        Kills the child when set.

    Raises
    ------
    InvalidFunction
        If the declaration is wrong, or the child does not finish within the time.
    Stopping
        If ``stop`` was set.
    """
    with TemporaryDirectory(prefix="slicewatch-preview-") as name:
        folder = Path(name)
        inputs = {"declaration": dict(declaration), "records": [*records], "limits": asdict(limits)}
        (folder / _INPUT).write_text(json.dumps(inputs))
        process = ChildProcess("service.jobs.template_preview", folder, timeout_seconds, folder=folder, python=python)
        try:
            end = monotonic() + timeout_seconds
            while not process.wait(_POLL_SECONDS):
                if stop is not None and stop.is_set():
                    raise Stopping("the service is stopping: ask for the preview again later")
                if monotonic() > end:
                    raise InvalidFunction(
                        f"the preview was not finished within {timeout_seconds:g} s: send fewer records or shorter "
                        "texts, or simplify the patterns"
                    )
        finally:
            process.kill()
        try:
            output = json.loads((folder / _OUTPUT).read_bytes())
        except (OSError, ValueError):
            raise InvalidFunction(f"the preview {process.describe_exit()}: simplify the patterns") from None
    if "error" in output:
        raise InvalidFunction(output["error"])
    return TemplateResult(**output)


def main(folder: Path, timeout_seconds: float) -> None:
    """Read the input, and write the result or the error."""
    attach_to_parent(timeout_seconds)
    given = json.loads((folder / _INPUT).read_bytes())
    output: dict[str, Any]
    try:
        function = from_declaration(given["declaration"])
        TemplateLimits(**given["limits"]).require([function.spec])
        applied = apply_with_stats([function], given["records"])
        output = asdict(
            TemplateResult(
                function.fingerprint,
                applied.matrix.member[:, 0].nonzero()[0].tolist(),
                applied.matrix.unknown[:, 0].nonzero()[0].tolist(),
                dict(applied.stats[0].unknown),
            )
        )
    except SliceError as error:
        output = {"error": str(error)}
    write_atomically(folder / _OUTPUT, json.dumps(output))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
