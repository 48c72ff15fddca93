#!/usr/bin/env python3
"""Checks of the rendered manifests that a schema cannot make.

    deploy/kubernetes/check.py RENDERED…

Each file is what `kubectl kustomize` has made of one variant. Each line of the output is one problem. The gates of all
variants must be alike but for what makes the variants. Needs PyYAML.
"""

import sys
import tomllib

import yaml

CONFIG = "/etc/claimgate"
# What a gate has one way as a sidecar and another way as a second container, or beside a socket.
OWN = ("restartPolicy", "lifecycle", "volumeMounts")


def seconds(hook):
    """How long a preStop of the app sleeps."""
    command = hook.get("preStop", {}).get("exec", {}).get("command", [])
    if command[:1] == ["sleep"]:
        return int(command[1])
    return hook.get("preStop", {}).get("sleep", {}).get("seconds", 0)


def gates(pod):
    """The gate, as a native sidecar or as a second container."""
    containers = pod.get("initContainers", []) + pod.get("containers", [])
    return [container for container in containers if container["name"] == "claimgate"]


def apps(pod):
    """Everything that serves behind the gate."""
    return [container for container in pod.get("containers", []) if container["name"] != "claimgate"]


def mounted(container, path):
    """The mount below which a path is, if there is one."""
    mounts = [mount for mount in container.get("volumeMounts", []) if path.startswith(mount["mountPath"] + "/")]
    return mounts[0] if mounts else None


def check_container(container, pod, problems):
    """What holds for every container: the security context, the memory, the probes' ports, the mounts."""
    name = container["name"]
    context = {**pod.get("securityContext", {}), **container.get("securityContext", {})}

    def require(truth, text):
        if not truth:
            problems.append(f"container {name}: {text}")

    user = context.get("runAsUser")
    require(isinstance(user, int) and user > 0, "runAsUser is not a number above 0")
    require(context.get("runAsNonRoot") is True, "runAsNonRoot is not true")
    require(context.get("readOnlyRootFilesystem") is True, "readOnlyRootFilesystem is not true")
    require(context.get("allowPrivilegeEscalation") is False, "allowPrivilegeEscalation is not false")
    require(context.get("capabilities", {}).get("drop") == ["ALL"], "does not drop all capabilities")
    require(context.get("seccompProfile", {}).get("type") == "RuntimeDefault", "has no seccomp profile")
    require("/" in container["image"], "has an image without a registry, as if `images:` had missed it")

    resources = container.get("resources", {})
    require("cpu" not in resources.get("limits", {}), "has a CPU limit, which is latency")
    require("memory" in resources.get("limits", {}), "has no memory limit")
    require("cpu" in resources.get("requests", {}), "requests no CPU")

    own = {port.get("name") for port in container.get("ports", [])}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        request = container.get(probe, {}).get("httpGet", {})
        port = request.get("port")
        require(not isinstance(port, str) or port in own, f"{probe} names port {port!r}, which is not its own")
        require("host" not in request, f"{probe} sets host, which Pod Security refuses")

    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        volume = volumes.get(mount["name"])
        require(volume is not None, f"mounts {mount['name']}, which is no volume of the pod")
        if volume is not None and ("configMap" in volume or "secret" in volume):
            require("subPath" not in mount, f"mounts {mount['name']} by subPath, which never changes again")
            require("fsGroup" in pod.get("securityContext", {}), f"may not be able to read {mount['name']}: no fsGroup")


def check_gate(gate, pod, problems):
    """What makes the gate one that drains and is probed on its own port."""
    def require(truth, text):
        if not truth:
            problems.append(f"the gate: {text}")

    probes = [("readinessProbe", "/readyz"), ("livenessProbe", "/livez"), ("startupProbe", "/startupz")]
    for probe, path in probes:
        request = gate.get(probe, {}).get("httpGet", {})
        require((request.get("path"), request.get("port")) == (path, "admin"), f"{probe} is not {path} on admin")

    drain = gate.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
    require(drain[:2] == ["/claimgate", "drain"], "preStop is not `/claimgate drain`")
    require(drain[2:4] == gate.get("args", [])[1:3], "preStop does not read the configuration that is served")
    if gate in pod.get("initContainers", []):
        require(gate.get("restartPolicy") == "Always", "restartPolicy is not Always, so it is no sidecar")
        require("--wait" not in drain, "preStop waits, although a sidecar ends after the app")
    else:
        wait = int(drain[5].removesuffix("s")) if drain[4:5] == ["--wait"] else 0
        require(wait >= 5, f"preStop waits {wait} s; requests are lost at every update")
        least = min(seconds(app.get("lifecycle", {})) for app in apps(pod))
        require(least > wait, f"waits {wait} s, and an app is gone after {least} s")

    folders = [mount["name"] for mount in gate.get("volumeMounts", []) if mount["mountPath"] == CONFIG]
    maps = {volume["name"] for volume in pod.get("volumes", []) if "configMap" in volume}
    require(len(folders) == 1 and set(folders) <= maps, f"{CONFIG} is not one ConfigMap mounted as a folder")


def check_pod(pod, problems):
    """The pod as a whole: one gate before the apps, and an end in the right order."""
    if len(gates(pod)) != 1 or not apps(pod):
        problems.append("the pod has not one container `claimgate` beside an app")
        return
    for container in gates(pod) + apps(pod):
        check_container(container, pod, problems)
    check_gate(gates(pod)[0], pod, problems)

    for app in apps(pod):
        sleep = seconds(app.get("lifecycle", {}))
        if sleep < 5:
            problems.append(f"container {app['name']}: preStop sleeps {sleep} s; requests are lost at every update")
        if pod.get("terminationGracePeriodSeconds", 30) < sleep + 30:
            problems.append("terminationGracePeriodSeconds leaves less than 30 s after the app's preStop")
        if any(mount["name"] == "claimgate-secret" for mount in app.get("volumeMounts", [])):
            problems.append(f"container {app['name']}: has the gate's Secret, which has two lines while it is replaced")
        if app.get("ports"):
            problems.append(f"container {app['name']}: has ports, as if there were a way past the gate")
    if pod.get("automountServiceAccountToken") is not False:
        problems.append("the pod gets a service account token that nothing needs")


def check_config(config, pod, problems):
    """The configuration and the pod name the same ports, files, sockets and paths."""
    gate = gates(pod)[0]

    def require(truth, text):
        if not truth:
            problems.append(f"config.toml: {text}")

    ports = {port["name"]: port["containerPort"] for port in gate["ports"]}
    for section, name in (("listen", "http"), ("admin", "admin")):
        address = config[section]["address"]
        require(address == f"0.0.0.0:{ports.get(name)}", f"[{section}] is {address}, and port {name} is another")

    for issuer in config["issuers"].values():
        file = issuer.get("keys", {}).get("secret_file")
        mount = file and mounted(gate, file)
        require(not file or (mount and mount.get("readOnly")), f"{file} is in no volume that is mounted read-only")

    checks = set()
    for upstream in config["upstreams"].values():
        checks.add(upstream["health_check"]["path"])
        url = upstream["url"]
        socket = url.removeprefix("unix:")
        addresses = [value["value"] for app in apps(pod) for value in app["env"] if value["name"].endswith("_ADDRESS")]
        require(url.removeprefix("http://") in addresses, f"nobody listens on {url}: {addresses}")
        if socket == url:
            require(url.startswith("http://127.0.0.1:"), f"{url} is not loopback")
        else:
            shared = {(mounted(container, socket) or {}).get("name") for container in [gate, *apps(pod)]}
            require(len(shared) == 1 and None not in shared, f"{socket} is not in one volume of both")

    for app in apps(pod):
        request = app.get("readinessProbe", {}).get("httpGet", {})
        path, port = request.get("path", ""), request.get("port")
        known = port == ports.get("admin") and path.removeprefix("/upstream") in checks
        require(known, f"the probe {path} of {app['name']} on port {port} is no health check of an upstream")


def check_alike(variants, problems):
    """The gates of all variants, as the first has it."""
    first, *others = [{key: gate[key] for key in gate if key not in OWN} for gate in variants]
    for other in others:
        for key in sorted(first.keys() | other.keys()):
            if first.get(key) != other.get(key):
                problems.append(f"the gates of the variants differ in {key}: {first.get(key)} and {other.get(key)}")


def check_service(service, deployments, problems):
    """A service's selector finds a deployment, and its named target port is one of that pod's."""
    name = service["metadata"]["name"]
    selector = service["spec"]["selector"].items()
    found = [item for item in deployments if selector <= item["spec"]["template"]["metadata"]["labels"].items()]
    if not found:
        problems.append(f"service {name}: selects no pod")
    for item in found:
        names = {port.get("name") for gate in gates(item["spec"]["template"]["spec"]) for port in gate.get("ports", [])}
        for port in service["spec"]["ports"]:
            if port.get("targetPort") not in names:
                problems.append(f"service {name}: port {port.get('targetPort')!r} is no named port of the gate")


def check_beside(item, deployments, problems):
    """What stands beside a Deployment finds it: by its labels, its name, and the names of its containers and ports."""
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
            problems.append(f"{name}: there is no container {metric['containerResource']['container']}")
    target = spec.get("scaleTargetRef", {}).get("name")
    if target and target not in {deployment["metadata"]["name"] for deployment in deployments}:
        problems.append(f"{name}: there is no Deployment {target}")
    for endpoint in spec.get("podMetricsEndpoints", []):
        if endpoint["port"] not in ports:
            problems.append(f"{name}: there is no port {endpoint['port']}")
    if item["kind"] == "NetworkPolicy":
        inward = {port["port"] for rule in spec["ingress"] for port in rule["ports"]}
        if inward != set(ports.values()):
            problems.append(f"{name}: lets {inward} in, and the gate has {ports}")
        if not all("from" in rule for rule in spec["ingress"] for port in rule["ports"] if port["port"] == ports["admin"]):
            problems.append(f"{name}: lets everybody to the admin port")


BESIDE = ("NetworkPolicy", "PodDisruptionBudget", "HorizontalPodAutoscaler", "PodMonitor")


def check(objects):
    """All problems of a rendered set of manifests, and the gates that are in it."""
    problems = []
    deployments = [item for item in objects if item["kind"] == "Deployment"]
    services = [item for item in objects if item["kind"] == "Service"]
    if not deployments or not services:
        problems.append("there is no Deployment or no Service to check")
    if any(item["kind"] == "Secret" for item in objects):
        problems.append("a Secret is part of the manifests; it belongs outside of version control")
    maps = {item["metadata"]["name"]: item["data"] for item in objects if item["kind"] == "ConfigMap"}
    for item in deployments:
        pod = item["spec"]["template"]["spec"]
        check_pod(pod, problems)
        for volume in pod.get("volumes", []):
            if "configMap" in volume and volume["configMap"]["name"] not in maps:
                problems.append(f"volume {volume['name']}: there is no ConfigMap {volume['configMap']['name']}")
            elif "configMap" in volume:
                check_config(tomllib.loads(maps[volume["configMap"]["name"]]["config.toml"]), pod, problems)
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
