"""Start of ``slicewatch up`` with a champion that cannot be loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

REASON = "the champion, version 1, cannot be loaded: versions/000001/weights.safetensors was altered"
PAGES = ("/", "/models", "/alarms", "/runs", "/reports", "/metrics", "/v1/models", "/v1/models/1")


def test_a_damaged_champion_does_not_end_the_service(
    project: Path, up: Any, records: list[dict[str, Any]], until: Callable[..., Any]
) -> None:
    """Labels, pages, metrics and logged predictions work, the log names the reason once, and a repair is found."""
    first = up(project)
    assert first.ask("POST", "/v1/predict", {"instances": records[:1], "ids": ["before"]}).status == 200
    assert first.stop() == 0
    (weights,) = (project / ".slicewatch" / "registry").rglob("weights.safetensors")
    content = weights.read_bytes()
    weights.write_bytes(content[:1000])

    running = up(project)
    assert running.ask("POST", "/v1/predict", {"instances": records[:1]}).status == 503
    reasons = running.ask("GET", "/readyz").json["reasons"]
    assert reasons["model"].startswith(REASON)
    labelled = running.ask("POST", "/v1/labels", {"labels": [{"id": "before", "label": "ham"}]})
    assert labelled.json["labels"][0]["outcome"] == "accepted"
    logged = {"predictions": [{"id": "logged", "features": records[1], "label": "spam"}]}
    assert running.ask("POST", "/v1/predictions", logged).status == 200
    until(lambda: running.slices("1h"))
    assert {page: running.ask("GET", page).status for page in PAGES} == dict.fromkeys(PAGES, 200)
    assert REASON in running.ask("GET", "/").body.decode().replace("The champion", "the champion")
    assert len([line for line in running.lines() if REASON in line["message"]]) == 1
    assert not [line for line in running.lines() if "exc_info" in line]

    weights.write_bytes(content)
    until(lambda: running.ask("GET", "/readyz").status == 200)
    assert running.ask("POST", "/v1/predict", {"instances": records[:1]}).status == 200
    assert running.stop() == 0
