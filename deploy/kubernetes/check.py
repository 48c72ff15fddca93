#!/usr/bin/env python3
"""Checks the rendered manifests beyond their schema.

    deploy/kubernetes/check.py RENDERED…

Each file is the output of `kubectl kustomize` for one variant. Each line of the output is one problem. The gate
containers of all variants must be equal except for the keys in OWN. Needs PyYAML.
"""

import sys
import tomllib

import yaml

CONFIG = "/etc/claimgate"
# Keys that differ between a native sidecar, a second container and a pod with a Unix socket.
OWN = ("restartPolicy", "lifecycle", "volumeMounts")


def seconds(hook):
    """Sleep of the app's preStop hook, in seconds."""
    command = hook.get("preStop", {}).get("exec", {}).get("command", [])
    if command[:1] == ["sleep"]:
        return int(command[1])
    return hook.get("preStop", {}).get("sleep", {}).get("seconds", 0)


def gates(pod):
    """Gate containers: native sidecars and second containers."""
    containers = pod.get("initContainers", []) + pod.get("containers", [])
    return [container for container in containers if container["name"] == "claimgate"]


def apps(pod):
    """Containers other than the gate."""
    return [container for container in pod.get("containers", []) if container["name"] != "claimgate"]


def mounted(container, path):
    """Mount that contains the path, or None."""
    mounts = [mount for mount in container.get("volumeMounts", []) if path.startswith(mount["mountPath"] + "/")]
    return mounts[0] if mounts else None


def check_container(container, pod, problems):
    """Checks security context, resources, probe ports and mounts of a container."""
    name = container["name"]
    context = {**pod.get("securityContext", {}), **container.get("securityContext", {})}

    def require(truth, text):
        if not truth:
            problems.append(f"container {name}: {text}")

    user = context.get("runAsUser")
    require(isinstance(user, int) and user > 0, "runAsUser must be a number above 0")
    require(context.get("runAsNonRoot") is True, "runAsNonRoot must be true")
    require(context.get("readOnlyRootFilesystem") is True, "readOnlyRootFilesystem must be true")
    require(context.get("allowPrivilegeEscalation") is False, "allowPrivilegeEscalation must be false")
    require(context.get("capabilities", {}).get("drop") == ["ALL"], "capabilities.drop must be [ALL]")
    require(context.get("seccompProfile", {}).get("type") == "RuntimeDefault", "seccompProfile must be RuntimeDefault")
    require("/" in container["image"], "the image has no registry; check `images:` of the kustomization")

    resources = container.get("resources", {})
    require("cpu" not in resources.get("limits", {}), "has a CPU limit, which adds latency")
    require("memory" in resources.get("limits", {}), "has no memory limit")
    require("cpu" in resources.get("requests", {}), "has no CPU request")

    own = {port.get("name") for port in container.get("ports", [])}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        request = container.get(probe, {}).get("httpGet", {})
        port = request.get("port")
        require(not isinstance(port, str) or port in own, f"{probe} names port {port!r} of another container")
        require("host" not in request, f"{probe} sets host, which Pod Security rejects")

    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        volume = volumes.get(mount["name"])
        require(volume is not None, f"mounts {mount['name']}, but the pod has no such volume")
        if volume is not None and any(kind in volume for kind in ("configMap", "secret", "projected")):
            require("subPath" not in mount, f"mounts {mount['name']} by subPath, which prevents hot reload")
            require("fsGroup" in pod.get("securityContext", {}), f"needs an fsGroup to read {mount['name']}")


def check_gate(gate, pod, problems):
    """Checks the probes, the preStop hook and the configuration directory of the gate."""
    def require(truth, text):
        if not truth:
            problems.append(f"the gate: {text}")

    probes = [("readinessProbe", "/readyz"), ("livenessProbe", "/livez"), ("startupProbe", "/startupz")]
    for probe, path in probes:
        request = gate.get(probe, {}).get("httpGet", {})
        require((request.get("path"), request.get("port")) == (path, "admin"), f"{probe} must be {path} on port admin")

    drain = gate.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
    require(drain[:2] == ["/claimgate", "drain"], "preStop must run `/claimgate drain`")
    ports = {port["name"]: port["containerPort"] for port in gate.get("ports", [])}
    address = f"127.0.0.1:{ports.get('admin')}"
    require(drain[2:4] == ["--admin", address], f"preStop must pass `--admin {address}`: config.toml may be broken")
    if gate in pod.get("initContainers", []):
        require(gate.get("restartPolicy") == "Always", "restartPolicy must be Always for a native sidecar")
        require("--wait" not in drain, "preStop must not wait: a native sidecar ends after the app")
    else:
        wait = int(drain[5].removesuffix("s")) if drain[4:5] == ["--wait"] else 0
        require(wait >= 5, f"preStop waits {wait} s, which loses requests at every update")
        least = min(seconds(app.get("lifecycle", {})) for app in apps(pod))
        require(least > wait, f"preStop waits {wait} s, but an app ends after {least} s")

    folders = [mount["name"] for mount in gate.get("volumeMounts", []) if mount["mountPath"] == CONFIG]
    maps = {volume["name"] for volume in pod.get("volumes", []) if "configMap" in volume}
    require(len(folders) == 1 and set(folders) <= maps, f"{CONFIG} must be one ConfigMap mounted as a directory")


def check_pod(pod, problems):
    """Checks a pod: one gate, at least one app, termination order, no bypass of the gate."""
    if len(gates(pod)) != 1 or not apps(pod):
        problems.append("the pod must have one container `claimgate` and an app")
        return
    for container in gates(pod) + apps(pod):
        check_container(container, pod, problems)
    check_gate(gates(pod)[0], pod, problems)

    for app in apps(pod):
        sleep = seconds(app.get("lifecycle", {}))
        if sleep < 5:
            problems.append(f"container {app['name']}: preStop sleeps {sleep} s, which loses requests at every update")
        if pod.get("terminationGracePeriodSeconds", 30) < sleep + 30:
            problems.append("terminationGracePeriodSeconds must be at least 30 s longer than the app's preStop")
        if any(mount["name"] == "claimgate-secret" for mount in app.get("volumeMounts", [])):
            problems.append(f"container {app['name']}: mounts the gate's Secret, which has two lines during a rotation")
        if app.get("ports"):
            problems.append(f"container {app['name']}: has ports, which clients could use to bypass the gate")
    if pod.get("automountServiceAccountToken") is not False:
        problems.append("automountServiceAccountToken must be false")


def check_config(config, pod, problems):
    """Compares ports, files, sockets and paths of the configuration with the pod."""
    gate = gates(pod)[0]

    def require(truth, text):
        if not truth:
            problems.append(f"config.toml: {text}")

    ports = {port["name"]: port["containerPort"] for port in gate["ports"]}
    for section, name in (("listen", "http"), ("admin", "admin")):
        address = config[section]["address"]
        require(address == f"0.0.0.0:{ports.get(name)}", f"[{section}] is {address}, which differs from port {name}")

    for issuer in config["issuers"].values():
        keys = issuer.get("keys", {})
        for file in filter(None, map(keys.get, ("secret_file", "ca_file", "token_file"))):
            mount = mounted(gate, file)
            require(mount and mount.get("readOnly"), f"{file} must be in a volume mounted read-only")
            shared = [app["name"] for app in apps(pod) if mount and mounted(app, file)]
            require(not shared, f"{file} must not be mounted in {shared}")

    checks = set()
    for upstream in config["upstreams"].values():
        checks.add(upstream["health_check"]["path"])
        url = upstream["url"]
        socket = url.removeprefix("unix:")
        addresses = [value["value"] for app in apps(pod) for value in app["env"] if value["name"].endswith("_ADDRESS")]
        require(url.removeprefix("http://") in addresses, f"no app listens on {url}: {addresses}")
        if socket == url:
            require(url.startswith("http://127.0.0.1:"), f"{url} must be loopback")
        else:
            shared = {(mounted(container, socket) or {}).get("name") for container in [gate, *apps(pod)]}
            require(len(shared) == 1 and None not in shared, f"{socket} must be in one volume of gate and app")

    for app in apps(pod):
        request = app.get("readinessProbe", {}).get("httpGet", {})
        path, port = request.get("path", ""), request.get("port")
        known = port == ports.get("admin") and path.removeprefix("/upstream") in checks
        require(known, f"the probe {path} of {app['name']} on port {port} must be the health check of an upstream")


def check_alike(variants, problems):
    """Compares the gates of all variants with the first one."""
    first, *others = [{key: gate[key] for key in gate if key not in OWN} for gate in variants]
    for other in others:
        for key in sorted(first.keys() | other.keys()):
            if first.get(key) != other.get(key):
                problems.append(f"the gates of the variants differ in {key}: {first.get(key)} and {other.get(key)}")


def check_service(service, deployments, problems):
    """Checks the selector of a Service, and its named target port."""
    name = service["metadata"]["name"]
    selector = service["spec"]["selector"].items()
    found = [item for item in deployments if selector <= item["spec"]["template"]["metadata"]["labels"].items()]
    if not found:
        problems.append(f"service {name}: selects no pod")
    for item in found:
        names = {port.get("name") for gate in gates(item["spec"]["template"]["spec"]) for port in gate.get("ports", [])}
        for port in service["spec"]["ports"]:
            if port.get("targetPort") not in names:
                problems.append(f"service {name}: port {port.get('targetPort')!r} is not a named port of the gate")


def check_beside(item, deployments, problems):
    """Checks the references of other objects to a Deployment: labels, name, containers and ports."""
    name = f"{item['kind']} {item['metadata']['name']}"
    spec = item["spec"]
    selector = spec.get("podSelector", spec.get("selector", {})).get("matchLabels", {}).items()
    labels = [deployment["spec"]["template"]["metadata"]["labels"].items() for deployment in deployments]
    if not any(selector <= found for found in labels):
        problems.append(f"{name}: selects no pod")
    pods = [deployment["spec"]["template"]["spec"] for deployment in deployments]
    containers = {container["name"] for pod in pods for container in gates(pod) + apps(pod)}
    ports = {port["name"]: port["containerPort"] for pod in pods for gate in gates(pod) for port in gate["ports"]}
    for metric in spec.get("metrics", []):
        if metric["containerResource"]["container"] not in containers:
            problems.append(f"{name}: no container {metric['containerResource']['container']}")
    target = spec.get("scaleTargetRef", {}).get("name")
    if target and target not in {deployment["metadata"]["name"] for deployment in deployments}:
        problems.append(f"{name}: no Deployment {target}")
    for endpoint in spec.get("podMetricsEndpoints", []):
        if endpoint["port"] not in ports:
            problems.append(f"{name}: no port {endpoint['port']}")
    if item["kind"] == "NetworkPolicy":
        inward = {port["port"] for rule in spec["ingress"] for port in rule["ports"]}
        if inward != set(ports.values()):
            problems.append(f"{name}: allows ports {inward}, but the gate has {ports}")
        if not all("from" in rule for rule in spec["ingress"] for port in rule["ports"] if port["port"] == ports["admin"]):
            problems.append(f"{name}: the admin port must have a `from` rule")


BESIDE = ("NetworkPolicy", "PodDisruptionBudget", "HorizontalPodAutoscaler", "PodMonitor")


def check_egress(objects, config, problems):
    """Compares the URLs of key sets with the egress ports of the NetworkPolicies."""
    keys = [issuer.get("keys", {}) for issuer in config["issuers"].values()]
    urls = [url for key in keys for url in (key.get("jwks_url"), key.get("discovery")) if url]
    policies = [item for item in objects if item["kind"] == "NetworkPolicy"]
    ports = {port["port"] for item in policies for rule in item["spec"]["egress"] for port in rule["ports"]}
    if urls and 443 not in ports:
        problems.append(f"the NetworkPolicy allows no egress to {urls}")


def check(objects):
    """Returns all problems of one rendered variant, and its gate containers."""
    problems = []
    deployments = [item for item in objects if item["kind"] == "Deployment"]
    services = [item for item in objects if item["kind"] == "Service"]
    if not deployments or not services:
        problems.append("no Deployment or no Service to check")
    if any(item["kind"] == "Secret" for item in objects):
        problems.append("the manifests contain a Secret, which belongs outside version control")
    maps = {item["metadata"]["name"]: item["data"] for item in objects if item["kind"] == "ConfigMap"}
    for item in deployments:
        pod = item["spec"]["template"]["spec"]
        check_pod(pod, problems)
        for volume in pod.get("volumes", []):
            if "configMap" in volume and volume["configMap"]["name"] not in maps:
                problems.append(f"volume {volume['name']}: no ConfigMap {volume['configMap']['name']}")
            elif "configMap" in volume:
                config = tomllib.loads(maps[volume["configMap"]["name"]]["config.toml"])
                check_config(config, pod, problems)
                check_egress(objects, config, problems)
    for service in services:
        check_service(service, deployments, problems)
    beside = [item for item in objects if item["kind"] in BESIDE]
    if not set(BESIDE[:3]) <= {item["kind"] for item in beside}:
        problems.append(f"one of {BESIDE[:3]} is missing")
    for item in beside:
        check_beside(item, deployments, problems)
    return problems, [gate for item in deployments for gate in gates(item["spec"]["template"]["spec"])]


def main():
    variants, found = [], 0
    for file in sys.argv[1:]:
        with open(file, encoding="utf-8") as source:
            problems, own = check([item for item in yaml.safe_load_all(source) if item])
        variants += own
        found += len(problems)
        for problem in problems:
            print(f"{file}: {problem}")
    problems = []
    check_alike(variants, problems)
    for problem in problems:
        print(problem)
    if found or problems:
        sys.exit(1)
    print(f"manifests: {len(variants)} variants, no problems")


if __name__ == "__main__":
    main()
