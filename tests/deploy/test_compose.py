"""Image and Compose services, as far as testable without Docker: linted, parsed, and run natively."""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from factories import PATIENT

from service.__main__ import main

SERVICES = ("slicewatch", "prometheus", "alertmanager", "grafana")
BUILT = "slicewatch"


@pytest.fixture(scope="module")
def compose(deploy: Path) -> dict[str, Any]:
    """Parsed Compose file, with variables at their defaults; a variable without a default is a folder."""
    text = (deploy / "compose.yaml").read_text()
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
    return yaml.safe_load(re.sub(r"\$\{\w+:\?[^}]*\}", ".", text))


@pytest.fixture(scope="module")
def steps(root: Path) -> list[tuple[str, str]]:
    """Instructions of the Dockerfile with their arguments, without line continuations and comments."""
    lines = re.sub(r"^#.*\n", "", (root / "Dockerfile").read_text(), flags=re.MULTILINE)
    joined = re.sub(r"\s*\\\n\s*", " ", lines)
    return [(word, rest) for line in joined.splitlines() if line for word, _, rest in [line.partition(" ")]]


def of(steps: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for instruction, rest in steps if instruction == word]


def mounts(deploy: Path, service: Mapping[str, Any]) -> dict[str, Path | str]:
    """Return the mounts of a service by container path: a local path, or the name of a volume."""
    found = {}
    for each in service["volumes"]:
        source, target = each.split(":")[:2]
        found[target] = (deploy / source).resolve() if source.startswith(".") else source
    return found


def here(path: str, places: Mapping[str, Path | str]) -> Path | None:
    """Return the local path of a container path, or None if it is not in a mounted folder."""
    for target in sorted(places, key=len, reverse=True):
        place = places[target]
        if path == target or path.startswith(f"{target}/"):
            return Path(place) / path[len(target) :].lstrip("/")
    return None


# --- the image ---------------------------------------------------------------------------------------------


def test_the_dockerfile_passes_the_linter(root: Path) -> None:
    """Hadolint reports nothing."""
    hadolint = Path(sys.executable).with_name("hadolint")
    said = subprocess.run([hadolint, "Dockerfile"], cwd=root, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_the_build_context_is_what_the_image_copies(root: Path, steps: list[tuple[str, str]]) -> None:
    """All copied paths exist and are in the build context, and the build context has no other paths."""
    copied = {source for each in of(steps, "COPY") if not each.startswith("--from") for source in each.split()[:-1]}
    rules = [line for line in (root / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied
    assert all((root / name).exists() for name in copied)


def test_every_stage_has_the_same_exact_base(steps: list[tuple[str, str]]) -> None:
    """Both stages have the same Python patch version, because the environment is copied between them."""
    bases = {each.split()[0] for each in of(steps, "FROM")}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", bases.pop())


def test_packages_have_the_versions_of_the_tests(steps: list[tuple[str, str]]) -> None:
    """Torch comes from its own index without CUDA; all packages obey the constraints."""
    installs = [each for each in of(steps, "RUN") if "pip install" in each]
    assert all("--constraint constraints.txt" in each for each in installs)
    assert [("https://download.pytorch.org/whl/cpu torch" in each) for each in installs] == [True, False]


def test_the_process_is_not_root(steps: list[tuple[str, str]]) -> None:
    """The user is numeric, so that an orchestrator can verify that it is not root, and owns the data."""
    assert of(steps, "USER") == ["10001:10001"]
    made = next(each for each in of(steps, "RUN") if "useradd" in each)
    assert "install --directory --owner=10001 --group=10001 /data /project" in made
    assert [word for word, _ in steps].index("USER") > max(k for k, (word, _) in enumerate(steps) if word == "RUN")


def test_the_command_gets_the_signals(steps: list[tuple[str, str]]) -> None:
    """Entry point, command and health check are lists, so no shell runs between them and the process."""
    commands = [*of(steps, "ENTRYPOINT"), *of(steps, "CMD"), of(steps, "HEALTHCHECK")[0].partition("CMD ")[2]]
    assert all(isinstance(yaml.safe_load(each), list) for each in commands)


# --- the services ------------------------------------------------------------------------------------------


def test_every_service_is_there_and_no_other(compose: Mapping[str, Any]) -> None:
    """The service, Prometheus, Alertmanager and Grafana."""
    assert tuple(compose["services"]) == SERVICES


def test_images_are_pinned(compose: Mapping[str, Any], root: Path) -> None:
    """Every image is pinned to a release; the service image to the version of the project."""
    images = {name: service["image"] for name, service in compose["services"].items()}
    assert all(re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", image) for image in images.values())
    version = re.search(r'^version = "(.+)"', (root / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert images[BUILT] == f"slicewatch:{version[1]}"


@pytest.mark.parametrize("name", SERVICES)
def test_only_this_machine_reaches_a_port(compose: Mapping[str, Any], name: str) -> None:
    """Published ports are bound to the loopback address and are the listen ports."""
    service = compose["services"][name]
    assert [each.rsplit(":", 2)[0] for each in service["ports"]] == ["127.0.0.1"]
    outer, inner = service["ports"][0].split(":")[1:]
    assert outer == inner == str(port_of(name, service))


def port_of(name: str, service: Mapping[str, Any]) -> int:
    """Return the listen port of a service: from its command, or Grafana's default."""
    said = re.search(r"(?:--port |--web\.listen-address=0\.0\.0\.0:)(\d+)", " ".join(service.get("command", [])))
    return int(said[1]) if said else {"grafana": 3000}[name]


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_confined(compose: Mapping[str, Any], name: str) -> None:
    """No capabilities, no new privileges, a memory limit; all but Grafana write to volumes only."""
    service = compose["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service.get("read_only", False) is (name != "grafana")


@pytest.mark.parametrize("name", SERVICES)
def test_mounts_exist(compose: Mapping[str, Any], deploy: Path, name: str) -> None:
    """Files and folders exist and are read-only; volumes are declared."""
    service = compose["services"][name]
    for target, place in mounts(deploy, service).items():
        if isinstance(place, Path):
            assert place.exists(), f"{target} of {name}: {place}"
            assert next(each for each in service["volumes"] if f":{target}:" in each).endswith(":ro")
        else:
            assert place in compose["volumes"]


def test_every_volume_is_used(compose: Mapping[str, Any], deploy: Path) -> None:
    """Every service has one volume for its data."""
    used = [
        place
        for service in compose["services"].values()
        for place in mounts(deploy, service).values()
        if isinstance(place, str)
    ]
    assert sorted(used) == sorted(compose["volumes"])


@pytest.mark.parametrize("name", ["prometheus", "alertmanager"])
def test_paths_in_a_command_are_mounted(compose: Mapping[str, Any], deploy: Path, name: str) -> None:
    """The configuration is an existing file, the storage a volume."""
    service = compose["services"][name]
    places = mounts(deploy, service)
    flags = dict(each.partition("=")[::2] for each in service["command"])
    config = here(flags["--config.file"], places)
    assert config is not None
    assert config.is_file()
    storage = next(value for flag, value in flags.items() if flag.startswith("--storage") and "path" in flag)
    assert isinstance(places[storage], str)


def test_the_service_keeps_its_data_on_its_volume(
    compose: Mapping[str, Any], deploy: Path, steps: list[tuple[str, str]]
) -> None:
    """Store and registry are in the folder that the image sets, owns, and declares as a volume."""
    places = mounts(deploy, compose["services"][BUILT])
    said = dict(re.findall(r"(SLICEWATCH_\w+)=(\S+)", " ".join(of(steps, "ENV"))))
    assert {name: str(Path(path).parent) for name, path in said.items()} == dict.fromkeys(
        ["SLICEWATCH_REGISTRY", "SLICEWATCH_STORE"], "/data"
    )
    assert places["/data"] == "data"
    assert yaml.safe_load(of(steps, "VOLUME")[0]) == ["/data"]


def test_the_services_find_each_other(compose: Mapping[str, Any], deploy: Path) -> None:
    """Every address in a configuration is the name and port of a service."""
    config = yaml.safe_load((deploy / "prometheus" / "prometheus.yml").read_text())
    source = yaml.safe_load((deploy / "grafana" / "provisioning" / "datasources" / "prometheus.yaml").read_text())
    asked = [
        *config["scrape_configs"][0]["static_configs"][0]["targets"],
        *config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"],
        source["datasources"][0]["url"].removeprefix("http://"),
    ]
    services = compose["services"]
    assert asked == [f"{name}:{port_of(name, services[name])}" for name in (BUILT, "alertmanager", "prometheus")]


def test_grafana_finds_its_dashboards(compose: Mapping[str, Any], deploy: Path) -> None:
    """The dashboards are mounted at the path of the provisioning file."""
    places = mounts(deploy, compose["services"]["grafana"])
    provider = yaml.safe_load((deploy / "grafana" / "provisioning" / "dashboards" / "slicewatch.yaml").read_text())
    folder = here(provider["providers"][0]["options"]["path"], places)
    assert folder is not None
    assert [path.name for path in folder.glob("*.json")] == ["slices.json"]
    assert places["/etc/grafana/provisioning"] == deploy / "grafana" / "provisioning"


def test_nobody_can_log_in_to_grafana(compose: Mapping[str, Any]) -> None:
    """There is no initial administrator with a default password."""
    environment = compose["services"]["grafana"]["environment"]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_the_receiver_is_reached_from_the_container(compose: Mapping[str, Any], deploy: Path) -> None:
    """The host name in Alertmanager's configuration is defined in its container."""
    config = yaml.safe_load((deploy / "alertmanager" / "alertmanager.yml").read_text())
    name = httpx.URL(config["receivers"][0]["webhook_configs"][0]["url"]).host
    assert compose["services"]["alertmanager"]["extra_hosts"] == [f"{name}:host-gateway"]


# --- the same commands, without containers -----------------------------------------------------------------


@contextmanager
def running(command: list[str], folder: Path, **started: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the block ends; it must still be running then, and exit cleanly."""
    log = folder / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, **started) as process,
    ):
        try:
            yield process
            assert process.poll() is None, log.read_text()
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0, log.read_text()


def answers(process: subprocess.Popen[bytes], url: str, **asked: Any) -> bool:
    assert process.poll() is None, "it has ended"
    try:
        return httpx.get(url, **asked).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("name", "program"), [("prometheus", "prometheus"), ("alertmanager", "prometheus-alertmanager")]
)
def test_prometheus_and_alertmanager_start_with_their_commands(
    name: str,
    program: str,
    compose: Mapping[str, Any],
    deploy: Path,
    tmp_path: Path,
    settled: Callable,
    free_port: Callable[[], int],
) -> None:
    """The real program accepts all flags and the shipped configuration, and passes its health check."""
    service, port = compose["services"][name], free_port()
    volume = {
        target: tmp_path / place if isinstance(place, str) else place
        for target, place in mounts(deploy, service).items()
    }
    flags = []
    for each in service["command"]:
        flag, _, value = each.partition("=")
        value = str(here(value, volume) or value).replace(f"0.0.0.0:{port_of(name, service)}", f"127.0.0.1:{port}")
        flags.append(f"{flag}={value}")
    asked = service["healthcheck"]["test"][-1].replace(str(port_of(name, service)), str(port))
    with running([program, *flags], tmp_path, cwd=tmp_path) as process:
        settled(lambda: answers(process, asked), name)


def test_the_service_has_the_command_of_the_image(compose: Mapping[str, Any], steps: list[tuple[str, str]]) -> None:
    """The Compose file repeats it."""
    assert compose["services"][BUILT]["command"] == yaml.safe_load(of(steps, "CMD")[-1])


@dataclass(frozen=True)
class Container:
    """Container of the service: its variables, the command that trains, and the paths of its probes."""

    environment: Mapping[str, str]
    train: list[str]
    probes: list[str]


@pytest.fixture(params=["compose", "chart"])
def container(
    request: pytest.FixtureRequest, compose: Mapping[str, Any], steps: list[tuple[str, str]], helm_chart: Any
) -> Container:
    """The container of the Compose file, or of the chart."""
    if request.param == "compose":
        entry = yaml.safe_load(of(steps, "ENTRYPOINT")[0])
        return Container(compose["services"][BUILT]["environment"], [*entry, "train"], [])
    values = {"keys": {"secret": ""}, "insecure": True, "project": {"train": True}}
    spec = helm_chart.object("Deployment", **values)["spec"]["template"]["spec"]
    (train,), (served,) = spec["initContainers"], spec["containers"]
    given = {each["name"]: each.get("value", "127.0.0.1").replace("$(POD_IP)", "127.0.0.1") for each in served["env"]}
    probes = [served[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")]
    return Container(given, train["command"], probes)


def mounted_as_config_map(project: Path) -> None:
    """Put links in the place of the files, as a mounted ConfigMap has them."""
    (project / "..2026_03_10").mkdir()
    (project / "..data").symlink_to("..2026_03_10")
    for file in [each for each in project.iterdir() if each.is_file()]:
        file.rename(project / "..data" / file.name)
        file.symlink_to(Path("..data") / file.name)


def test_the_service_runs_as_in_its_container(
    container: Container,
    steps: list[tuple[str, str]],
    tmp_path: Path,
    settled: Callable,
    free_port: Callable[[], int],
) -> None:
    """With the image's command it trains, is ready and scraped, predicts, writes to its volume only, and stops."""
    project, data, port = tmp_path / "project", tmp_path / "data", str(free_port())
    data.mkdir()
    assert main(["init", str(project), "--json"], environ={}) == 0
    table = project / "comments.csv"
    table.write_text("".join(table.read_text().splitlines(True)[:601]))
    mounted_as_config_map(project)
    before = sorted(path.name for path in project.iterdir())
    own = dict(re.findall(r"(\w+)=(\S+)", " ".join(of(steps, "ENV")[1:])))
    variables = {**own, **container.environment}
    environ = {name: value.replace("/data", str(data)) for name, value in variables.items()}
    environ |= {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path / "home")}
    environ |= {**PATIENT, "SLICEWATCH_LEARNER_KIND": "erm", "SLICEWATCH_LEARNER_EPOCHS": "1"}
    train = [word.replace("/data/", f"{data}/") for word in container.train]
    for _ in range(1 + bool(container.probes)):  # that of the chart is run at every start
        subprocess.run(train, cwd=project, env=environ, check=True, capture_output=True)
    assert len(list(data.glob("registry/*/versions/*"))) == 1
    command = [*yaml.safe_load(of(steps, "ENTRYPOINT")[0]), *yaml.safe_load(of(steps, "CMD")[-1])]
    command = [word.replace("8000", port) for word in command]
    check = yaml.safe_load(of(steps, "HEALTHCHECK")[0].partition("CMD ")[2])
    check = [word.replace("8000", port) for word in check]
    with running(
        [shutil.which(command[0], path=environ["PATH"]), *command[1:]], tmp_path, cwd=project, env=environ
    ) as process:
        url = f"http://127.0.0.1:{port}"
        settled(lambda: answers(process, f"{url}/readyz"), "readiness")
        assert all(answers(process, f"{url}{path}") for path in container.probes)
        assert subprocess.run(check, env=environ, capture_output=True, check=False).returncode == 0
        assert answers(process, f"{url}/metrics", headers={"host": "slicewatch:8000"})
        assert not answers(process, f"{url}/metrics", headers={"host": "elsewhere.example"})
        record = {"text": "check out bit.ly/x1", "video": None, "likes": 3}
        (predicted,) = httpx.post(f"{url}/v1/predict", json={"instances": [record]}, timeout=150).json()["predictions"]
        assert "short_link" in predicted["slices"]
    assert subprocess.run(check, env=environ, capture_output=True, check=False).returncode != 0
    assert sorted(path.name for path in project.iterdir()) == before
    assert (data / "store.sqlite3").is_file()
    assert not (tmp_path / "home").exists()
