"""Helm chart: linted and rendered by Helm, valid for Kubernetes, and in agreement with image and Compose file."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from service.settings import variable
from service.settings.schema import SETTINGS

OPEN = {"keys": {"secret": ""}, "insecure": True}
SCRAPED = {"serviceMonitor": {"enabled": True, "key": {"secret": "prometheus-key"}, "labels": {"release": "prom"}}}
RULES = {"prometheusRule": {"enabled": True, "labels": {"release": "prom"}}}
DASHBOARDS = {"dashboards": {"enabled": True}}
FROM_IMAGE = {"project": {"from": "image", "image": "shop/comments:7", "train": True}}
CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "open": OPEN,
    "scraped": SCRAPED,
    "rules": RULES,
    "dashboards": DASHBOARDS,
    "project of a claim": {"project": {"from": "claim", "name": "comments"}},
    "project of an image": FROM_IMAGE,
    "training": {"project": {"train": True}},
    "existing claim": {"persistence": {"existingClaim": "log"}},
    "storage": {"persistence": {"storageClass": "fast", "accessMode": "ReadWriteOncePod", "size": "1Ti"}},
    "no network policy": {"networkPolicy": {"enabled": False}},
    "network": {"networkPolicy": {"from": [], "egress": [{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]}},
    "placed": {
        "fullnameOverride": "comments",
        "image": {"repository": "registry.example/slicewatch", "tag": "1.2.3", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}],
        "service": {"type": "NodePort", "port": 80, "annotations": {"team": "trust"}},
        "podAnnotations": {"team": "trust"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "ml", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
        "hosts": ["slices.example.com"],
        "drainSeconds": 60,
        "resources": {"requests": {"cpu": 2, "memory": "2Gi"}, "limits": {"memory": "8Gi"}},
        "environment": {"SLICEWATCH_MONITOR_TICK_SECONDS": "30"},
    },
    "everything": {**SCRAPED, **RULES, **DASHBOARDS, **FROM_IMAGE},
}

TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
TEXTS = {"type": "object", "additionalProperties": TEXT}


def closed(*optional: str, **fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema of objects with these fields and no others."""
    needed = [name for name in fields if name not in optional]
    return {"type": "object", "properties": fields, "required": needed, "additionalProperties": False}


RULE = closed("alert", "record", "for", "keep_firing_for", "labels", "annotations", expr=TEXT, alert=TEXT, record=TEXT,
              **{"for": TEXT, "keep_firing_for": TEXT}, labels=TEXTS, annotations=TEXTS)  # fmt: skip
ENDPOINT = closed(
    "authorization",
    port=TEXT,
    path=TEXT,
    interval=TEXT,
    authorization=closed(type={"const": "Bearer"}, credentials=closed(name=TEXT, key=TEXT)),
)
LIMIT = {"type": "integer", "minimum": 1}
OPERATOR = {
    "ServiceMonitor": closed(
        jobLabel=TEXT,
        selector=closed(matchLabels=TEXTS),
        sampleLimit=LIMIT,
        labelLimit=LIMIT,
        labelValueLengthLimit=LIMIT,
        endpoints={"type": "array", "items": ENDPOINT, "minItems": 1},
    ),
    "PrometheusRule": closed(
        groups={"type": "array", "items": closed("interval", name=TEXT, interval=TEXT,
                                                 rules={"type": "array", "items": RULE})},
    ),
}  # fmt: skip
"""Schemas of `spec` in the Prometheus Operator's objects, reduced to the fields that the chart uses."""


def pod(helm_chart: Any, **values: object) -> dict[str, Any]:
    return helm_chart.object("Deployment", **values)["spec"]["template"]["spec"]


def containers(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def variables(container: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of a container, the Pod's address being 10.1.2.3."""
    given = {each["name"]: each.get("value", "10.1.2.3") for each in container["env"]}
    return {name: value.replace("$(POD_IP)", given["POD_IP"]) for name, value in given.items()}


# --- Helm and Kubernetes accept it -------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_the_objects_are_valid(helm_chart: Any, case: str) -> None:
    """The linter has no warning, and every object has only fields of its kind, in old and new Kubernetes."""
    rendered = helm_chart.rendered(**CASES[case])
    assert [each["error"] for each in rendered["lint"]] == ["icon is recommended"]
    texts = [text for path, text in rendered["files"].items() if path.endswith(".yaml")]
    found = [each for text in texts for each in yaml.safe_load_all(text) if each]
    assert len({(each["kind"], each["metadata"]["name"]) for each in found}) == len(found) >= 4
    for each in found:
        if each["apiVersion"] == "monitoring.coreos.com/v1":
            jsonschema.validate(each["spec"], OPERATOR[each["kind"]])
        else:
            for version in ("1.25", "1.37"):
                kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replicas": 2}, "'replicas' not allowed"),
        ({"persistence": {"accessMode": "ReadWriteMany"}}, "/persistence/accessMode"),
        ({"persistence": {"size": "20 GB"}}, "/persistence/size"),
        ({"drainSeconds": "20"}, "/drainSeconds"),
        ({"drainSeconds": 0}, "/drainSeconds"),
        ({"startSeconds": 5}, "/startSeconds"),
        ({"project": {"from": "git"}}, "/project/from"),
        ({"project": {"from": "image"}}, "/project/image"),
        ({"project": {"name": ""}}, "/project/name"),
        ({"environment": {"SLICEWATCH_STORE": "store"}}, "SLICEWATCH_STORE"),
        ({"environment": {"SLICEWATCH_MONITOR_TICK_SECONDS": 30}}, "/environment/SLICEWATCH_MONITOR_TICK_SECONDS"),
        ({"service": {"port": 70_000}}, "/service/port"),
        ({"service": {"type": "ExternalName"}}, "/service/type"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
        ({"fullnameOverride": "Comments"}, "/fullnameOverride"),
        ({"serviceMonitor": {"interval": "15"}}, "/serviceMonitor/interval"),
        ({"networkPolicy": {"from": [{}]}}, "/networkPolicy/from/0"),
        ({"keys": {"secret": ""}}, "keys.secret is empty: name a Secret with keys.json, or set insecure to true"),
        ({"insecure": True}, 'insecure is true, and keys.secret is not empty: set keys.secret to ""'),
        ({"serviceMonitor": {"enabled": True}}, "serviceMonitor.key.secret is empty: name a Secret"),
    ],
)
def test_wrong_values_are_refused(
    helm_chart: Any, refused: type[Exception], values: dict[str, Any], named: str
) -> None:
    """A value of a wrong type or range, an unknown one, and a contradiction are errors that name the value."""
    with pytest.raises(refused, match=re.escape(named)):
        helm_chart.rendered(**values)


def test_every_value_is_in_the_schema(helm_chart: Any) -> None:
    """The schema knows exactly the values of the defaults."""
    schema = json.loads((helm_chart.folder / "values.schema.json").read_text())
    defaults = yaml.safe_load((helm_chart.folder / "values.yaml").read_text())
    properties = schema["properties"]
    assert set(properties) - {"global"} == set(defaults)
    for name, value in defaults.items():
        if known := properties[name].get("properties"):
            assert set(known) == set(value), name


# --- one Pod that can do little ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_the_pod_is_restricted(helm_chart: Any, case: str) -> None:
    """It keeps the restricted Pod Security Standard, has a read-only root and no token of the API server."""
    objects = helm_chart.objects(**CASES[case])
    spec = next(each["spec"]["template"]["spec"] for each in objects if each["kind"] == "Deployment")
    account = next(each for each in objects if each["kind"] == "ServiceAccount")
    assert spec["serviceAccountName"] == account["metadata"]["name"]
    assert account["automountServiceAccountToken"] is spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(spec):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
    assert {next(iter(set(each) - {"name"})) for each in spec["volumes"]} <= {
        "configMap",
        "emptyDir",
        "persistentVolumeClaim",
        "secret",
    }


def test_there_is_one_pod(helm_chart: Any) -> None:
    """A Pod ends before the next one starts, and no disruption budget keeps a node from being drained."""
    objects = helm_chart.objects(**CASES["everything"])
    (deployment,) = (each["spec"] for each in objects if each["kind"] == "Deployment")
    assert deployment["replicas"] == 1
    assert deployment["strategy"] == {"type": "Recreate"}
    assert "PodDisruptionBudget" not in {each["kind"] for each in objects}


@pytest.mark.parametrize("seconds", [1, 20, 300])
def test_a_shutdown_has_the_time_that_it_may_take(helm_chart: Any, seconds: int) -> None:
    """Requests and log have drainSeconds each before the Pod is killed."""
    spec = pod(helm_chart, drainSeconds=seconds)
    assert variables(spec["containers"][0])["SLICEWATCH_SERVE_DRAIN_SECONDS"] == str(seconds)
    assert spec["terminationGracePeriodSeconds"] > 2 * seconds


def test_the_probes_ask_the_service(helm_chart: Any) -> None:
    """A start has startSeconds; a lost model makes the Pod unready, and only a hung process has it restarted."""
    (container,) = pod(helm_chart, startSeconds=90)["containers"]
    probes = {name: container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}
    assert {name: probe["httpGet"] for name, probe in probes.items()} == {
        "startup": {"path": "/healthz", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
        "liveness": {"path": "/healthz", "port": "http"},
    }
    assert probes["startup"]["periodSeconds"] * probes["startup"]["failureThreshold"] == 90
    assert helm_chart.object("Service")["spec"]["publishNotReadyAddresses"] is True


def test_the_network_is_closed(helm_chart: Any) -> None:
    """Only Pods of the namespace connect, with a monitor Prometheus too, to one port; the service connects to none."""
    policy = helm_chart.object("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == [{"from": [{"podSelector": {}}], "ports": [{"port": "http", "protocol": "TCP"}]}]
    assert policy["egress"] == []
    (rule,) = helm_chart.object("NetworkPolicy", **SCRAPED)["spec"]["ingress"]
    labels = {"kubernetes.io/metadata.name": "monitoring"}
    assert rule["from"] == [{"podSelector": {}}, {"namespaceSelector": {"matchLabels": labels}}]
    assert helm_chart.object("NetworkPolicy", networkPolicy={"from": []})["spec"]["ingress"] == []


def test_objects_select_the_pod(helm_chart: Any) -> None:
    """Service, network policy, monitor and Deployment select labels of the Pod, and of no other release."""
    objects = {each["kind"]: each["spec"] for each in helm_chart.objects(**SCRAPED) if "spec" in each}
    labels = objects["Deployment"]["template"]["metadata"]["labels"]
    selectors = [
        objects["Deployment"]["selector"]["matchLabels"],
        objects["Service"]["selector"],
        objects["NetworkPolicy"]["podSelector"]["matchLabels"],
        objects["ServiceMonitor"]["selector"]["matchLabels"],
    ]
    assert all(selector == selectors[0] for selector in selectors)
    assert labels.items() >= selectors[0].items() >= {"app.kubernetes.io/instance": "slicewatch"}.items()


# --- data and secrets --------------------------------------------------------------------------------------


def test_the_log_outlives_the_release(helm_chart: Any) -> None:
    """The volume of registry and store is kept when the release is deleted; an existing claim is used as it is."""
    claim = helm_chart.object("PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert claims(pod(helm_chart)) == {"data": claim["metadata"]["name"]}
    existing = helm_chart.objects(**CASES["existing claim"])
    assert "PersistentVolumeClaim" not in {each["kind"] for each in existing}
    assert claims(pod(helm_chart, **CASES["existing claim"])) == {"data": "log"}


def claims(spec: Mapping[str, Any]) -> dict[str, str]:
    found = {each["name"]: each.get("persistentVolumeClaim") for each in spec["volumes"]}
    return {name: claim["claimName"] for name, claim in found.items() if claim}


def test_keys_come_from_a_secret(helm_chart: Any) -> None:
    """The file of keys is a Secret that the group of the Pod reads; without one, the service is told so."""
    spec = pod(helm_chart)
    (volume,) = (each["secret"] for each in spec["volumes"] if each["name"] == "keys")
    assert volume == {"secretName": "slicewatch-keys", "defaultMode": 0o440}
    (container,) = spec["containers"]
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == "keys")
    given = variables(container)
    assert given["SLICEWATCH_SERVE_KEYS"] == f"{mount['mountPath']}/keys.json"
    assert not [name for name in given if "INSECURE" in name or "WITHOUT" in name]
    bare = pod(helm_chart, **OPEN)
    assert not [each for each in bare["volumes"] if each["name"] == "keys"]
    assert variables(bare["containers"][0])["SLICEWATCH_SERVE_INSECURE"] == "true"


@pytest.mark.parametrize(
    ("project", "volume"),
    [
        ({"from": "configMap", "name": "comments"}, {"configMap": {"name": "comments"}}),
        ({"from": "claim", "name": "comments"}, {"persistentVolumeClaim": {"claimName": "comments", "readOnly": True}}),
        ({"from": "image", "image": "shop/comments:7"}, {"emptyDir": {}}),
    ],
)
def test_the_project_is_read_only(helm_chart: Any, project: dict[str, Any], volume: dict[str, Any]) -> None:
    """ConfigMap, claim or copy from an image are mounted read-only where the image works."""
    spec = pod(helm_chart, project=project)
    assert next(each for each in spec["volumes"] if each["name"] == "project") == {"name": "project", **volume}
    mounted = [each for each in spec["containers"][0]["volumeMounts"] if each["name"] == "project"]
    assert mounted == [{"name": "project", "mountPath": "/project", "readOnly": True}]


def test_names_in_the_cluster_are_accepted(helm_chart: Any) -> None:
    """Requests may name the Service, the address of the Pod (probes and Prometheus do), and hosts of the values."""
    (container,) = pod(helm_chart, hosts=["slices.example.com"])["containers"]
    assert yaml.safe_load(variables(container)["SLICEWATCH_SERVE_HOSTS"]) == [
        "slicewatch",
        "slicewatch.shop",
        "slicewatch.shop.svc",
        "slicewatch.shop.svc.cluster.local",
        "10.1.2.3",
        "slices.example.com",
    ]


def test_variables_are_settings(helm_chart: Any) -> None:
    """Every variable that the chart sets overrides a setting, and those that it needs cannot be set in the values."""
    schema = json.loads((helm_chart.folder / "values.schema.json").read_text())
    reserved = set(schema["properties"]["environment"]["propertyNames"]["not"]["enum"])
    defaults = yaml.safe_load((helm_chart.folder / "values.yaml").read_text())["environment"]
    known = {variable(key) for key in SETTINGS}
    for values in ({}, OPEN):
        given = {name for name in variables(pod(helm_chart, **values)["containers"][0]) if name != "POD_IP"}
        assert given - set(defaults) <= reserved
        assert given <= known


# --- Prometheus and Grafana --------------------------------------------------------------------------------


def test_rules_and_alerts_are_those_of_prometheus(helm_chart: Any, deploy: Path, tmp_path: Path) -> None:
    """There is an object for each file, with its groups, and promtool accepts it."""
    objects = [each for each in helm_chart.objects(**RULES) if each["kind"] == "PrometheusRule"]
    specs = {each["metadata"]["name"].removeprefix("slicewatch-"): each["spec"] for each in objects}
    files = ("rules", "alerts")
    assert specs == {name: yaml.safe_load((deploy / "prometheus" / f"{name}.yml").read_text()) for name in files}
    for name, spec in specs.items():
        (tmp_path / name).write_text(yaml.safe_dump(spec))
    command = ["promtool", "check", "rules", *files]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("values", [SCRAPED, {**SCRAPED, "fullnameOverride": "comments"}])
def test_the_monitor_scrapes_as_prometheus_does(helm_chart: Any, deploy: Path, values: dict[str, Any]) -> None:
    """Job, interval and limits are those of prometheus.yml, which the alerts depend on; the key is a bearer token."""
    objects = {each["kind"]: each for each in helm_chart.objects(**values)}
    monitor, service = objects["ServiceMonitor"], objects["Service"]
    config = yaml.safe_load((deploy / "prometheus" / "prometheus.yml").read_text())
    scrape = config["scrape_configs"][0]
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == scrape["job_name"]
    limits = [monitor["spec"][name] for name in ("sampleLimit", "labelLimit", "labelValueLengthLimit")]
    assert limits == [scrape[name] for name in ("sample_limit", "label_limit", "label_value_length_limit")]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["interval"] == config["global"]["scrape_interval"]
    assert endpoint["port"] == service["spec"]["ports"][0]["name"]
    assert endpoint["authorization"]["credentials"] == {"name": "prometheus-key", "key": "key"}
    assert monitor["metadata"]["labels"]["release"] == "prom"


def test_the_dashboards_are_those_of_grafana(helm_chart: Any, deploy: Path) -> None:
    """Every dashboard is a ConfigMap that the sidecar of Grafana finds."""
    maps = [each for each in helm_chart.objects(**DASHBOARDS) if each["kind"] == "ConfigMap"]
    found = {name: text for each in maps for name, text in each["data"].items()}
    assert found == {path.name: path.read_text() for path in (deploy / "grafana" / "dashboards").glob("*.json")}
    assert found
    assert all(each["metadata"]["labels"]["grafana_dashboard"] == "1" for each in maps)


def test_operators_are_optional(helm_chart: Any) -> None:
    """By default there are no objects of other projects."""
    assert {each["kind"] for each in helm_chart.objects()} == {
        "Deployment",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "Service",
        "ServiceAccount",
    }


# --- image and Compose file --------------------------------------------------------------------------------


def test_chart_image_and_compose_agree(helm_chart: Any, root: Path, deploy: Path) -> None:
    """Port, user, folders, version, memory, time to stop and connections are the same."""
    dockerfile = (root / "Dockerfile").read_text()
    compose = yaml.safe_load(re.sub(r"\$\{\w+:\?[^}]*\}", ".", (deploy / "compose.yaml").read_text()))
    service, spec = compose["services"]["slicewatch"], pod(helm_chart)
    (container,) = spec["containers"]
    assert "command" not in container
    assert "args" not in container
    assert f"EXPOSE {container['ports'][0]['containerPort']}\n" in dockerfile
    user = spec["securityContext"]
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}\n" in dockerfile
    assert user["fsGroup"] == user["runAsGroup"]
    mounted = {each["mountPath"] for each in container["volumeMounts"] if each["name"] != "keys"}
    assert mounted == {each.split(":")[1] for each in service["volumes"]} | set(service["tmpfs"])
    assert container["image"] == service["image"]
    assert container["resources"]["limits"]["memory"] == service["mem_limit"].replace("g", "Gi")
    assert service["stop_grace_period"] == f"{spec['terminationGracePeriodSeconds']}s"
    peers = "SLICEWATCH_SERVE_PEER_CONNECTIONS"
    assert variables(container)[peers] == service["environment"][peers]
    chart = yaml.safe_load((helm_chart.folder / "Chart.yaml").read_text())
    version = re.search(r'^version = "(.+)"', (root / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert chart["appVersion"] == chart["version"] == version[1]


@pytest.mark.parametrize("case", ["defaults", "open", "training"])
def test_the_notes_say_the_next_steps(helm_chart: Any, case: str) -> None:
    """They name project, Secret and training as far as these are needed, and warn without authentication."""
    notes = helm_chart.rendered(**CASES[case])["files"]["slicewatch/templates/NOTES.txt"]
    assert "port-forward service/slicewatch 8000:8000" in notes
    assert "create configmap slicewatch-project" in notes
    assert ("create secret generic slicewatch-keys" in notes) is (case != "open")
    assert ("WARNING: there is no authentication" in notes) is (case == "open")
    assert ("-- slicewatch train" in notes) is (case != "training")
