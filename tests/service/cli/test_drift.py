"""``slicewatch drift``."""

import json
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.api.schemas.alarms import alarm_out, drift_out, incident_out
from service.decisions import AccuracyFall, Alarm, DriftStatus, FallPart, Incident, ToleranceBand
from service.events import Freshness, Snapshot
from sfs.intervals import Rate

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
LINKS = DriftStatus(
    "links", "f", "coverage", ToleranceBand(Rate(400, 20_000), 0.018, 0.022, 0.1), 20.0, 16.0,
    AT - timedelta(minutes=20), "up", Rate(81, 1000), 0.06, 0.1,
)  # fmt: skip
RIGHT = replace(
    LINKS, kind="accuracy", zone=ToleranceBand(Rate(95, 100), 0.9, 1.0, 0.01), evidence=4.0, since=None, direction=None,
    observed=Rate(0, 0),
)  # fmt: skip
ALARM = Alarm(3, "orders", 1, AT, LINKS)
WHAT = "coverage of links is 8.1% since 11:40 UTC, expected 1.8% to 2.2%"


def alarms(*each: Alarm, next_: int | None = None) -> dict[str, Any]:
    return {"alarms": [document(one) for one in each], "next": next_}


def document(alarm: Alarm) -> Any:
    return alarm_out(alarm).model_dump(mode="json")


@pytest.fixture
def slices(service: Any) -> None:
    """Two slices, one of them monitored for both rates, with an alarm on its coverage."""
    stands = {each.kind: drift_out(each).model_dump(mode="json") for each in (RIGHT, LINKS)}
    told = [{"name": "short", "drift": None}, {"name": "links", "drift": stands}]
    service.documents["/v1/slices?window=1h"] = {
        "at": AT.isoformat(), "model": "orders", "version": 1, "slices": told,
    }  # fmt: skip
    service.documents["/v1/alarms?state=unresolved&limit=200"] = alarms(ALARM)


@pytest.mark.usefixtures("slices")
def test_the_nearest_to_an_alarm_is_first(cli: Callable, service: Any) -> None:
    """A line has expected and observed rate, start, evidence and alarm; the nearest to an alarm is first."""
    answer = cli("drift", "--url", service.url)
    assert (answer.code, answer.err) == (0, "")
    head, _, first, second = answer.out.splitlines()
    assert head.split() == [
        "slice",
        "kind",
        "expected",
        "observed",
        "of",
        "since",
        "(UTC)",
        "evidence",
        "alarm",
        "labels",
        "to",
        "an",
        "alarm",
    ]
    assert " ".join(first.split()) == "links coverage 1.8% to 2.2% 8.1% 1,000 2026-05-01 11:40:00 125% 3 -"
    assert " ".join(second.split()) == "links accuracy at least 90.0% - 0 - 25% - about 29 at 45.0%"


@pytest.mark.usefixtures("slices")
def test_families_are_listed_and_watch_slices_with_few_labels(cli: Callable, service: Any) -> None:
    """A family has a line of its own; slices with few labels are named below it."""
    listed = service.documents["/v1/slices?window=1h"]
    listed["slices"][1]["drift"]["accuracy"] = drift_out(replace(RIGHT, pooled=("web", "__all__"))).model_dump(
        mode="json"
    )
    family = replace(RIGHT, slice="web", kind="family_accuracy", evidence=8.0)
    listed["families"] = [
        {"name": "web", "slices": ["links", "short"], "drift": drift_out(family).model_dump(mode="json")},
        {"name": "new", "slices": ["a", "b"], "drift": None},
    ]
    answer = cli("drift", "--url", service.url)
    lines = answer.out.splitlines()
    assert [line.split()[:3] for line in lines[2:5]] == [
        ["links", "coverage", "1.8%"],
        ["web", "family", "accuracy"],
        ["links", "accuracy", "at"],
    ]
    last = "few labels for an accuracy alarm of their own, watched with family web and all traffic: links"
    assert lines[-1] == last


def test_a_fall_is_shown_by_class_and_slice(cli: Callable, service: Any) -> None:
    """Wrong labels of the class, of which slices, and how they are dispersed."""
    fall = AccuracyFall("spam", 12, 40, 0.04, 1.25, (FallPart("links", 9, 20), FallPart("short", 3, 20)))
    service.documents["/v1/alarms/3"] = document(replace(ALARM, drift=replace(RIGHT, since=AT, fall=fall)))
    answer = cli("drift", "show", "3", "--url", service.url)
    assert "recall of spam on links fell: 12 of 40 labels wrong" in answer.out
    assert "12 of 40 of spam, expected at most 4.0%" in answer.out
    assert "links 9 of 20, short 3 of 20" in answer.out
    assert "1.2" in answer.out


@pytest.mark.usefixtures("slices")
def test_a_rate_without_labels_is_unknown_since_the_last_one(cli: Callable, service: Any) -> None:
    """The list has a column for it, and the alarm a line, once a rate had no label for an hour."""
    dry = {"accuracy": drift_out(RIGHT, AT - timedelta(hours=9)).model_dump(mode="json")}
    service.documents["/v1/slices?window=1h"]["slices"][1]["drift"] |= dry
    head, _, coverage, accuracy = cli("drift", "--url", service.url).out.splitlines()
    assert head.endswith("unknown since (UTC)")
    assert accuracy.endswith("2026-05-01 03:00:00")
    assert coverage.split()[-1] == "-"
    fresh = Freshness("f", 9, AT, 99, 9, AT - timedelta(hours=9))
    snapshot = Snapshot(AT, "orders", 1, "", {}, AT, {"links": fresh})
    service.documents["/v1/alarms/3"] = alarm_out(replace(ALARM, drift=RIGHT), snapshot).model_dump(mode="json")
    shown = cli("drift", "show", "3", "--url", service.url).out
    assert "expected at least 90.0%; unknown since 2026-05-01 03:00 UTC" in shown
    assert "unknown since (UTC)" in shown
    assert "2026-05-01 03:00:00, the last label of the slice" in shown


@pytest.mark.usefixtures("slices")
@pytest.mark.parametrize(("hours", "said"), [(1, ["1 h"]), (0.5, ["0.5 h"]), (0, [])])
def test_labels_settle_before_they_are_evidence(cli: Callable, service: Any, hours: float, said: list[str]) -> None:
    """The list says how long, unless they are evidence at once."""
    service.documents["/v1/slices?window=1h"]["settling_hours"] = hours
    lines = [line for line in cli("drift", "--url", service.url).out.splitlines() if "settling" in line]
    assert lines == [f"accuracy: labels are evidence {each} after they arrive (drift.settling_hours)" for each in said]


@pytest.mark.usefixtures("slices")
def test_drift_is_one_document(cli: Callable, service: Any) -> None:
    """The document has the service's names."""
    told = json.loads(cli("drift", "--url", service.url, "--json").out)
    assert (told["model"], told["version"]) == ("orders", 1)
    assert [(each["slice"], each["kind"], each["alarm"]) for each in told["drifts"]] == [
        ("links", "coverage", 3),
        ("links", "accuracy", None),
    ]
    assert told["drifts"][0]["expected"]["lower"] == 0.018


def test_no_monitored_slice_is_a_sentence(cli: Callable, service: Any) -> None:
    """Nothing to list is a sentence, not an empty table."""
    service.documents["/v1/slices?window=1h"] = {"at": "", "model": "orders", "version": 1, "slices": []}
    service.documents["/v1/alarms?state=unresolved&limit=200"] = alarms()
    assert cli("drift", "--url", service.url).out.startswith("no slice is monitored for drift yet")


def test_alarms_are_listed_to_the_last_page(cli: Callable, service: Any) -> None:
    """All pages are listed, with --all also the resolved alarms."""
    ended = replace(ALARM, id=2, state="resolved")
    service.documents["/v1/alarms?state=all&limit=200"] = alarms(ALARM, next_=3)
    service.documents["/v1/alarms?state=all&limit=200&before=3"] = alarms(ended)
    lines = cli("drift", "alarms", "--all", "--url", service.url).out.splitlines()
    assert [(line.split()[0], line.split()[3]) for line in lines[2:]] == [("3", "open"), ("2", "resolved")]
    assert lines[2].endswith(WHAT)
    assert "raised (UTC, data time)" in lines[0]


@pytest.mark.parametrize(("more", "said"), [([], "no unresolved alarms\n"), (["--all"], "no alarms\n")])
def test_no_alarms_are_a_sentence(cli: Callable, service: Any, more: list[str], said: str) -> None:
    """An empty list is a sentence."""
    state = "all" if more else "unresolved"
    service.documents[f"/v1/alarms?state={state}&limit=200"] = alarms()
    assert cli("drift", "alarms", *more, "--url", service.url).out == said


def test_an_alarm_is_shown_with_its_evidence(cli: Callable, service: Any) -> None:
    """The output has sentence, counts, reference and evidence, and no empty fields."""
    service.documents["/v1/alarms/3"] = document(ALARM)
    answer = cli("drift", "show", "3", "--url", service.url)
    assert answer.out.startswith(f"alarm 3: {WHAT}\n")
    assert {"81 of 1,000", "400 of 20,000", "125% of the alarm threshold"} <= {
        line.split("  ")[-1].strip() for line in answer.out.splitlines()
    }
    assert "note" not in answer.out
    assert re.search(r"^raised \(UTC, data time\) +2026-05-01 12:00:00$", answer.out, re.MULTILINE)


def test_the_reference_of_an_alarm_has_the_counted_rows_and_the_effective_n(cli: Callable, service: Any) -> None:
    """Where contents repeat, both are shown."""
    band = ToleranceBand(Rate(2_600, 3_076, 3_070), 0.8, 0.9, 0.1)
    service.documents["/v1/alarms/3"] = document(replace(ALARM, drift=replace(LINKS, zone=band)))
    assert "2,600 of 3,076, effective n 3,070" in cli("drift", "show", "3", "--url", service.url).out


def test_an_alarm_about_a_target_names_it_and_no_reference(cli: Callable, service: Any) -> None:
    """The slice had no held-out rows."""
    missed = replace(RIGHT, zone=ToleranceBand(Rate(0, 0), 0.75, 1.0, 0.01, 0.75), observed=Rate(4, 33))
    service.documents["/v1/alarms/3"] = document(replace(ALARM, drift=missed))
    out = cli("drift", "show", "3", "--url", service.url).out
    assert re.search(r"^expected +at least 75.0% \(target\)$", out, re.MULTILINE)
    assert "\nreference" not in out


@pytest.mark.parametrize("action", ["acknowledge", "resolve"])
def test_an_alarm_is_acknowledged_or_resolved_with_a_note(cli: Callable, service: Any, action: str) -> None:
    """Name and note are sent to the service, and its response is printed."""
    known = replace(ALARM, state="acknowledged", acknowledged_at=AT, acknowledged_by="ada", note="a campaign")
    service.documents[f"/v1/alarms/3/{action}"] = document(known)
    answer = cli("drift", action, "3", "--by", "ada", "--note", "a campaign", "--url", service.url, "--json")
    assert json.loads(answer.out)["acknowledged_by"] == "ada"
    assert service.received == [(f"/v1/alarms/3/{action}", {"by": "ada", "note": "a campaign"})]


def test_options_before_an_action_count(cli: Callable, service: Any) -> None:
    """Options before an action apply to it."""
    service.documents["/v1/alarms/3"] = document(ALARM)
    assert json.loads(cli("drift", "--url", service.url, "--json", "show", "3").out)["id"] == 3


@pytest.mark.parametrize("alarm", ["0", "x", "-1", "1.5"])
def test_an_alarm_is_a_number(cli: Callable, alarm: str) -> None:
    """Anything else is refused."""
    answer = cli("drift", "show", "--", alarm)
    assert answer.code == 2
    assert "expected an integer, at least 1" in answer.err


@pytest.mark.parametrize("argv", [["drift"], ["drift", "alarms"], ["retrain"], ["retrain", "list"]])
def test_a_missing_service_is_reported_with_advice(cli: Callable, project: Path, argv: list[str]) -> None:
    """The message has the address of the settings, and the command that starts the service."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        port = str(taken.getsockname()[1])
        answer = cli(*argv, "--config", project, SLICEWATCH_SERVE_PORT=port)
    assert (answer.code, answer.out) == (1, "")
    assert f"no service answers at http://127.0.0.1:{port}" in answer.err
    assert "slicewatch up" in answer.err


def test_another_projects_service_is_not_asked(cli: Callable, project: Path, service: Any) -> None:
    """A service of another model is refused."""
    service.documents["/v1/models"] = {"model": "books", "models": []}
    answer = cli("drift", "--config", project, SLICEWATCH_SERVE_PORT=str(service.server_port))
    assert answer.code == 2
    assert "serves the model 'books', but this project's model is 'orders'" in answer.err


def test_the_service_itself_is_understood(cli: Callable, running: tuple[Path, str]) -> None:
    """A new service has no alarms; its errors end with their message and code 1."""
    _, url = running
    assert cli("drift", "alarms", "--url", url).out == "no unresolved alarms\n"
    answer = cli("drift", "acknowledge", "7", "--url", url)
    assert (answer.code, answer.out) == (1, "")
    assert "there is no alarm 7" in answer.err


def incident(*each: Alarm) -> Any:
    return incident_out(Incident(4, "orders", each)).model_dump(mode="json")


CAUSE, MOVED = replace(ALARM, incident=4, moved="by itself"), replace(ALARM, id=5, incident=4, moved="with links")


def test_incidents_are_listed_with_their_alarms(cli: Callable, service: Any) -> None:
    """The cause is first, and a line says how each rate moved."""
    service.documents["/v1/incidents?state=unresolved&limit=200"] = {
        "incidents": [incident(CAUSE, MOVED)],
        "next": None,
    }
    answer = cli("drift", "incidents", "--url", service.url)
    head, _, _, first, second = answer.out.splitlines()
    assert head == "incident 4: links, open, since 2026-05-01 12:00:00 UTC"
    assert " ".join(first.split()).startswith("3 links coverage open by itself coverage of links")
    assert " ".join(second.split()).startswith("5 links coverage open with links coverage of links")


@pytest.mark.parametrize(("more", "said"), [([], "no unresolved incidents\n"), (["--all"], "no incidents\n")])
def test_no_incidents_are_a_sentence(cli: Callable, service: Any, more: list[str], said: str) -> None:
    """An empty list is a sentence; as JSON it is an empty list."""
    state = "all" if more else "unresolved"
    service.documents[f"/v1/incidents?state={state}&limit=200"] = {"incidents": [], "next": None}
    assert cli("drift", "incidents", *more, "--url", service.url).out == said
    assert json.loads(cli("drift", "incidents", *more, "--json", "--url", service.url).out) == {"incidents": []}


@pytest.mark.parametrize(("action", "path"), [("show", ""), ("acknowledge", "/acknowledge"), ("resolve", "/resolve")])
def test_commands_take_an_incident(cli: Callable, service: Any, action: str, path: str) -> None:
    """In place of an alarm; one of the two is required, and not both."""
    service.documents[f"/v1/incidents/4{path}"] = incident(CAUSE, MOVED)
    assert cli("drift", action, "--incident", "4", "--url", service.url).out.startswith("incident 4: links")
    assert cli("drift", action, "--url", service.url).code == 2
    assert cli("drift", action, "3", "--incident", "4", "--url", service.url).code == 2
