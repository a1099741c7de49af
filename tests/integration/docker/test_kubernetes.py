"""The manifests against the API's schemas, and against each other."""

from pathlib import Path

import pytest
import yaml

from edgecount.config import parse

pytestmark = pytest.mark.integration
FOLDER = Path(__file__).resolve().parents[3] / "docker" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
DAEMONSET = yaml.safe_load((FOLDER / "daemonset.yaml").read_text())


@pytest.mark.parametrize("name", ["namespace.yaml", "serviceaccount.yaml", "daemonset.yaml"])
@pytest.mark.parametrize("version", ["1.29", "1.34"])
def test_the_api_knows_every_field(name, version):
    validate = pytest.importorskip("kubernetes_validate")
    validate.validate(yaml.safe_load((FOLDER / name).read_text()), version, strict=True)


def test_kustomize_finds_every_file():
    assert set(KUSTOMIZATION["resources"]) == {
        p.name for p in FOLDER.glob("*.yaml") if p.name != "kustomization.yaml"
    }
    (config,) = KUSTOMIZATION["configMapGenerator"]
    assert {FOLDER / f for f in config["files"]} == set((FOLDER / "config").glob("*.yaml"))


def test_the_pod_uses_what_is_generated_and_no_privilege():
    pod = DAEMONSET["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "edgecount"}}]
    assert {"name": "config", "configMap": {"name": "edgecount"}} in pod["volumes"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_monitor_selects_the_pods():
    monitor = yaml.safe_load((FOLDER / "podmonitor.yaml").read_text())
    labels = DAEMONSET["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"] == labels
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    names = [p["name"] for p in DAEMONSET["spec"]["template"]["spec"]["containers"][0]["ports"]]
    assert endpoint["port"] in names


@pytest.mark.parametrize("path", sorted((FOLDER / "config").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_configuration_of_each_node_is_good(path):
    environ = {"CAMERA_PASSWORD": "a", "MQTT_PASSWORD": "b"}
    assert parse(path.read_text(), path.name, environ).device == path.stem
