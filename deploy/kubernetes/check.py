#!/usr/bin/env python3
"""Checks of the rendered manifests that a schema cannot make.

    kubectl kustomize deploy/kubernetes | deploy/kubernetes/check.py

Each line of the output is one problem; none means that all is well. Needs PyYAML.
"""

import sys

import yaml

CONFIG = "/etc/claimgate"


def seconds(hook):
    """How long a preStop sleeps."""
    return hook.get("preStop", {}).get("sleep", {}).get("seconds", 0)


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


def check_sidecar(gate, pod, problems):
    """What makes the gate a native sidecar that drains and is probed on its own port."""
    def require(truth, text):
        if not truth:
            problems.append(f"the gate: {text}")

    require(gate.get("restartPolicy") == "Always", "restartPolicy is not Always, so it is no sidecar")
    for probe, path in (("startupProbe", "/startupz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")):
        request = gate.get(probe, {}).get("httpGet", {})
        require((request.get("path"), request.get("port")) == (path, "admin"), f"{probe} is not {path} on admin")

    args = gate.get("args", [])
    drain = gate.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
    require(drain[:2] == ["/claimgate", "drain"], "preStop is not `/claimgate drain`")
    require(args[-2:] == drain[-2:] and "--config" in args, "preStop does not read the configuration that is served")

    folders = [mount["name"] for mount in gate.get("volumeMounts", []) if mount["mountPath"] == CONFIG]
    maps = {volume["name"] for volume in pod.get("volumes", []) if "configMap" in volume}
    require(len(folders) == 1 and set(folders) <= maps, f"{CONFIG} is not one ConfigMap mounted as a folder")


def check_pod(pod, problems):
    """The pod as a whole: one gate before the apps, and an end in the right order."""
    gates = [container for container in pod.get("initContainers", []) if container["name"] == "claimgate"]
    apps = pod.get("containers", [])
    if len(gates) != 1 or not apps:
        problems.append("the pod has not one init container `claimgate` beside an app")
        return
    for container in gates + apps:
        check_container(container, pod, problems)
    check_sidecar(gates[0], pod, problems)

    for app in apps:
        sleep = seconds(app.get("lifecycle", {}))
        if sleep < 5:
            problems.append(f"container {app['name']}: preStop sleeps {sleep} s; requests are lost at every update")
        if pod.get("terminationGracePeriodSeconds", 30) < sleep + 30:
            problems.append("terminationGracePeriodSeconds leaves less than 30 s after the app's preStop")
    if pod.get("automountServiceAccountToken") is not False:
        problems.append("the pod gets a service account token that nothing needs")


def check_service(service, deployments, problems):
    """A service's selector finds a deployment, and its named target port is one of that pod's."""
    name = service["metadata"]["name"]
    selector = service["spec"]["selector"].items()
    found = [item for item in deployments if selector <= item["spec"]["template"]["metadata"]["labels"].items()]
    if not found:
        problems.append(f"service {name}: selects no pod")
    for item in found:
        pod = item["spec"]["template"]["spec"]
        gate = [container for container in pod.get("initContainers", []) if container["name"] == "claimgate"]
        names = {port.get("name") for container in gate for port in container.get("ports", [])}
        for port in service["spec"]["ports"]:
            if port.get("targetPort") not in names:
                problems.append(f"service {name}: port {port.get('targetPort')!r} is no named port of the gate")


def check(objects):
    """All problems of a rendered set of manifests."""
    problems = []
    deployments = [item for item in objects if item["kind"] == "Deployment"]
    services = [item for item in objects if item["kind"] == "Service"]
    if not deployments or not services:
        problems.append("there is no Deployment or no Service to check")
    if any(item["kind"] == "Secret" for item in objects):
        problems.append("a Secret is part of the manifests; it belongs outside of version control")
    maps = {item["metadata"]["name"] for item in objects if item["kind"] == "ConfigMap"}
    for item in deployments:
        pod = item["spec"]["template"]["spec"]
        check_pod(pod, problems)
        for volume in pod.get("volumes", []):
            if "configMap" in volume and volume["configMap"]["name"] not in maps:
                problems.append(f"volume {volume['name']}: there is no ConfigMap {volume['configMap']['name']}")
    for service in services:
        check_service(service, deployments, problems)
    return problems


def main():
    problems = check([item for item in yaml.safe_load_all(sys.stdin) if item])
    for problem in problems:
        print(problem)
    if problems:
        sys.exit(1)
    print("manifests: no problems")


if __name__ == "__main__":
    main()
