"""The manifests in deploy/kubernetes: what they name is what the code has, and Kubernetes takes them."""

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.distributed.run import get_args_parser

from app.settings import PREFIX, Settings
from app.telemetry.metrics import Metrics
from tests.support.cluster import kustomized, needed
from tests.support.engines import ScriptedEngine
from tests.support.http_side import http_side
from tests.support.server import PROJECT
from training.command_line import parser

FOLDER = PROJECT / "deploy" / "kubernetes"
DOCKERFILE = (PROJECT / "Dockerfile").read_text()
OVERLAYS = ["base", "overlays/cpu", "overlays/gpu", "overlays/s3"]
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.yaml"))


def manifest(path: str) -> Any:
    return yaml.safe_load((FOLDER / path).read_text())


DEPLOYMENT = manifest("base/deployment.yaml")
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


def everything(value: Any) -> Iterator[Any]:
    """Each object and list in a manifest, also in patches, which are text."""
    if isinstance(value, str) and "\n" in value:
        yield from everything(yaml.safe_load(value))
    elif isinstance(value, dict):
        yield value
        for each in value.values():
            yield from everything(each)
    elif isinstance(value, list):
        for each in value:
            yield from everything(each)


def variables(path: str) -> dict[str, str]:
    return {
        each["name"]: each["value"]
        for each in everything(manifest(path))
        if str(each.get("name", "")).startswith(PREFIX) and "value" in each
    }


def of_the_image(instruction: str) -> str:
    (rest,) = re.findall(rf"^{instruction} (.*)$", DOCKERFILE, re.MULTILINE)
    return str(rest)


@pytest.mark.parametrize("path", FILES)
def test_every_variable_is_a_setting_with_a_value_that_it_may_have(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classifier.store.address.find_spec", lambda _: object())  # as in an image with extras
    for name, value in variables(path).items():
        monkeypatch.setenv(name, value)
        assert isinstance(value, str)
    settings = Settings.read([])
    for name in variables(path):
        assert name.removeprefix(PREFIX).lower() in settings.model_fields_set


def test_together_the_variables_of_all_files_are_not_none() -> None:
    assert len({name for path in FILES for name in variables(path)}) >= 6


def test_a_pod_gets_the_time_that_the_server_takes_to_end() -> None:
    given = {
        name.removeprefix(PREFIX).lower(): float(value)
        for name, value in variables("base/deployment.yaml").items()
        if "SECONDS" in name
    }
    assert POD["terminationGracePeriodSeconds"] >= given["drain_seconds"] + given["grace_seconds"] + 5
    assert 0 < given["drain_min_seconds"] <= given["drain_seconds"]


@pytest.mark.anyio
async def test_probes_and_prometheus_ask_for_what_there_is() -> None:
    asked = {CONTAINER[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    (endpoint,) = manifest("components/prometheus/service-monitor.yaml")["spec"]["endpoints"]
    async with http_side(ScriptedEngine()) as side, side.client() as client:
        for path in (*asked, endpoint["path"]):
            assert (await client.get(path)).status_code == 200, path
        side.server.drain()  # alive, and not ready
        assert (await client.get(CONTAINER["livenessProbe"]["httpGet"]["path"])).status_code == 200
        assert (await client.get(CONTAINER["readinessProbe"]["httpGet"]["path"])).status_code == 503


def test_all_speak_of_the_same_port() -> None:
    (port,) = CONTAINER["ports"]
    assert port["containerPort"] == int(of_the_image("EXPOSE")) == Settings.model_fields["port"].default
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert CONTAINER[probe]["httpGet"]["port"] == port["name"]
    (service,) = manifest("base/service.yaml")["spec"]["ports"]
    (endpoint,) = manifest("components/prometheus/service-monitor.yaml")["spec"]["endpoints"]
    (ingress,) = manifest("base/network-policy.yaml")["spec"]["ingress"]
    assert service["targetPort"] == service["name"] == endpoint["port"] == port["name"]
    assert ingress["ports"] == [{"port": port["name"]}]


def test_volumes_lie_where_the_image_looks() -> None:
    serving = [path for path in FILES if not path.startswith("training/")]
    mounted = {mount["mountPath"] for path in serving for each in everything(manifest(path)) for mount in _mounts(each)}
    expected = {re.search(rf"{PREFIX}{name}=(\S+)", DOCKERFILE)[1] for name in ("STORE", "CACHE")}  # type: ignore[index]
    assert mounted == expected


def _mounts(value: dict[str, Any]) -> list[dict[str, Any]]:
    mounts = value.get("volumeMounts", [])
    if str(value.get("path", "")).endswith("/volumeMounts"):
        mounts = value["value"]
    return list(mounts)


def test_the_cache_is_smaller_than_its_volume() -> None:
    values = list(everything(manifest("overlays/s3/kustomization.yaml")))
    (limit,) = (each["sizeLimit"] for each in values if "sizeLimit" in each)
    assert (
        float(variables("overlays/s3/kustomization.yaml")[f"{PREFIX}CACHE_GB"]) * 1e9
        < int(limit.removesuffix("Gi")) * 2**30
    )


def test_a_pod_may_do_no_more_than_it_must() -> None:
    assert POD["securityContext"]["runAsUser"] == int(of_the_image("USER"))
    assert POD["securityContext"]["runAsNonRoot"]
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (POD["automountServiceAccountToken"], POD["enableServiceLinks"]) == (False, False)


def test_cores_are_bounded_as_the_server_counts_them_by_the_bound() -> None:
    assert CONTAINER["resources"]["limits"].keys() == {"cpu", "memory"}
    assert CONTAINER["resources"]["limits"]["cpu"] == CONTAINER["resources"]["requests"]["cpu"]


def test_everything_selects_the_pods_by_their_labels() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    selectors = [
        DEPLOYMENT["spec"]["selector"]["matchLabels"],
        POD["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
        manifest("base/service.yaml")["spec"]["selector"],
        manifest("base/disruption-budget.yaml")["spec"]["selector"]["matchLabels"],
        manifest("base/network-policy.yaml")["spec"]["podSelector"]["matchLabels"],
        manifest("components/prometheus/service-monitor.yaml")["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector == labels for selector in selectors)
    names = {manifest("base/autoscaler.yaml")["spec"]["scaleTargetRef"]["name"]}
    names.add(manifest("components/keda/scaled-object.yaml")["spec"]["scaleTargetRef"]["name"])
    assert names == {DEPLOYMENT["metadata"]["name"]}


def test_the_number_that_scales_is_one_of_our_metrics() -> None:
    (trigger,) = manifest("components/keda/scaled-object.yaml")["spec"]["triggers"]
    (name,) = re.findall(r"flambeau_\w+", trigger["metadata"]["query"])
    assert f"# TYPE {name} gauge" in Metrics().exposition().decode()


def test_each_file_is_used() -> None:
    named = {
        (FOLDER / path).parent / each
        for path in FILES
        if path.endswith("kustomization.yaml")
        for each in manifest(path)["resources"]
    }
    used = {path.resolve().relative_to(FOLDER).as_posix() for path in named if path.suffix == ".yaml"}
    assert used == {path for path in FILES if not path.endswith("kustomization.yaml")}


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_takes_what_kustomize_makes(overlay: str, kubectl: str) -> None:
    validate = needed("kubernetes_validate").validate
    documents = kustomized(kubectl, FOLDER / overlay)
    assert {each["kind"] for each in documents} >= {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"}
    for document in documents:
        validate(document, "1.37", strict=True)  # raises


@pytest.mark.cluster
@pytest.mark.slow
def test_custom_resources_are_taken_by_their_own_schemas(node_models: Path) -> None:
    """KServe's two have none that could be had."""
    monitor = manifest("components/prometheus/service-monitor.yaml")
    scaled = manifest("components/keda/scaled-object.yaml")
    assert _problem(node_models, scaled) == ""
    assert _problem(node_models, monitor) == ""
    scaled["spec"]["maxReplicaCount"] = "10"
    assert "/spec/maxReplicaCount must be integer" in _problem(node_models, scaled)
    monitor["spec"]["endpoints"][0]["port"] = 8000
    assert "port must be string" in _problem(node_models, monitor)


def _problem(node_models: Path, document: dict[str, Any]) -> str:
    """Returns what is wrong with a custom resource, or nothing."""
    package = {"ScaledObject": "keda", "ServiceMonitor": "prometheus-operator"}[document["kind"]]
    place = f"@kubernetes-models/{package}/{document['apiVersion']}/{document['kind']}"
    script = f"""
        import {{ {document["kind"]} as Model }} from "{place}";
        try {{ new Model(JSON.parse(process.argv[1])).validate() }} catch (error) {{ console.log(error.message) }}
    """
    command = ["node", "--input-type=module", "--eval", script, json.dumps(document)]
    ended = subprocess.run(command, cwd=node_models, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_kserve_s_runtime_is_the_container_of_the_deployment() -> None:
    (container,) = manifest("kserve/serving-runtime.yaml")["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        ours = CONTAINER[probe]["httpGet"]
        assert container[probe]["httpGet"] == {"path": ours["path"], "port": CONTAINER["ports"][0]["containerPort"]}
    assert container["image"] == CONTAINER["image"]
    assert container["resources"] == CONTAINER["resources"]
    assert container["securityContext"].items() >= CONTAINER["securityContext"].items()
    assert container["securityContext"]["runAsUser"] == POD["securityContext"]["runAsUser"]
    assert variables("kserve/serving-runtime.yaml")[f"{PREFIX}STORE"] == "/mnt/models"  # where KServe puts a model
    given = {
        name: float(value) for name, value in variables("kserve/serving-runtime.yaml").items() if "SECONDS" in name
    }
    assert given[f"{PREFIX}DRAIN_SECONDS"] + given[f"{PREFIX}GRACE_SECONDS"] + 5 <= 30  # Kubernetes' own grace period


def test_kserve_s_example_asks_for_the_format_that_the_runtime_has() -> None:
    (supported,) = manifest("kserve/serving-runtime.yaml")["spec"]["supportedModelFormats"]
    model = manifest("kserve/inference-service.yaml")["spec"]["predictor"]["model"]
    assert model["modelFormat"]["name"] == supported["name"]
    assert supported["autoSelect"]


JOB = manifest("training/job.yaml")


def test_the_training_job_says_what_torchrun_and_training_can_read() -> None:
    (container,) = JOB["spec"]["template"]["spec"]["containers"]
    torchrun = get_args_parser().parse_args([*container["command"][1:], *container["args"]])
    assert (container["command"][0], torchrun.module, torchrun.training_script) == ("torchrun", True, "training")
    arguments = parser().parse_args(torchrun.training_script_args)
    assert arguments.resume  # each restart repeats the command
    assert int(torchrun.max_restarts) > 0
    most = int(torchrun.nnodes.partition(":")[2])
    assert most == JOB["spec"]["completions"] == JOB["spec"]["parallelism"]
    assert arguments.settings == [f"virtual_ranks={most * int(torchrun.nproc_per_node)}"]
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    for path in (Path(arguments.data), arguments.runs, arguments.store, Path(_value(container, "TORCH_HOME"))):
        assert any(path.is_relative_to(mount) for mount in mounted)
    assert _value(container, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE") == "1"


def test_the_first_pod_has_the_name_by_which_all_look_for_it() -> None:
    pod = JOB["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    torchrun = get_args_parser().parse_args([*container["command"][1:], *container["args"]])
    service = manifest("training/service.yaml")
    (port,) = service["spec"]["ports"]
    assert JOB["spec"]["completionMode"] == "Indexed"
    assert torchrun.rdzv_endpoint == f"{JOB['metadata']['name']}-0.{pod['spec']['subdomain']}:{port['port']}"
    assert service["metadata"]["name"] == pod["spec"]["subdomain"]
    assert service["spec"]["selector"] == pod["metadata"]["labels"]
    assert service["spec"]["publishNotReadyAddresses"]


def test_the_others_find_a_pod_by_its_address() -> None:
    (container,) = JOB["spec"]["template"]["spec"]["containers"]
    torchrun = get_args_parser().parse_args([*container["command"][1:], *container["args"]])
    (variable,) = (each for each in container["env"] if f"$({each['name']})" == torchrun.local_addr)
    assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}


def test_a_pod_that_trains_may_do_no_more_than_one_that_serves() -> None:
    pod = JOB["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"] == POD["securityContext"]
    assert container["securityContext"] == CONTAINER["securityContext"]
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)


def _value(container: dict[str, Any], name: str) -> str:
    (value,) = (each["value"] for each in container["env"] if each["name"] == name)
    return str(value)


@pytest.mark.cluster
@pytest.mark.slow
def test_kubernetes_takes_the_training_job(kubectl: str) -> None:
    validate = needed("kubernetes_validate").validate
    documents = kustomized(kubectl, FOLDER / "training")
    assert sorted(each["kind"] for each in documents) == ["Job", "Service"]
    for document in documents:
        validate(document, "1.37", strict=True)  # raises


@pytest.mark.cluster
@pytest.mark.slow
def test_a_misspelt_field_is_not_taken() -> None:
    validate = needed("kubernetes_validate").validate
    document = copy.deepcopy(DEPLOYMENT)
    document["spec"]["template"]["spec"]["containers"][0]["readyProbe"] = {}
    with pytest.raises(Exception, match="readyProbe"):
        validate(document, "1.37", strict=True)


@pytest.mark.cluster
@pytest.mark.slow
def test_the_components_go_with_an_overlay(kubectl: str, tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    kustomization = tmp_path / "kubernetes" / "own" / "kustomization.yaml"
    kustomization.parent.mkdir()
    components = ["../components/keda", "../components/prometheus"]
    kustomization.write_text(yaml.safe_dump({"resources": ["../overlays/cpu"], "components": components}))
    kinds = [each["kind"] for each in kustomized(kubectl, kustomization.parent)]
    assert sorted(kinds) == [
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "ScaledObject",
        "Service",
        "ServiceMonitor",
    ]
