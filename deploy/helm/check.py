#!/usr/bin/env python3
"""Compares the example chart with the Kustomize example.

    deploy/helm/check.py CHART KUSTOMIZED

Both files are rendered. The gate container must be equal in both, its volumes and the pod's settings except for names,
and the configuration except for comments. Needs PyYAML.
"""

import sys
import tomllib

import yaml


def parts(file):
    """The gate containers with their place, the gate's volumes, the settings of the pod and the configuration."""
    with open(file, encoding="utf-8") as source:
        objects = [item for item in yaml.safe_load_all(source) if item]
    [pod] = [item["spec"]["template"]["spec"] for item in objects if item["kind"] == "Deployment"]
    gates = [
        (place, container)
        for place in ("initContainers", "containers")
        for container in pod.get(place, [])
        if container["name"] == "claimgate"
    ]
    volumes = {volume["name"]: volume for volume in pod["volumes"] if volume["name"].startswith("claimgate-")}
    del volumes["claimgate-config"]["configMap"]["name"]
    own = ("containers", "initContainers", "volumes", "serviceAccountName", "topologySpreadConstraints")
    [text] = [item["data"]["config.toml"] for item in objects if item["kind"] == "ConfigMap"]
    return {
        "gate container": gates,
        "volumes": volumes,
        "pod": {key: value for key, value in pod.items() if key not in own},
        "configuration": tomllib.loads(text),
    }


def main():
    chart, kustomized = parts(sys.argv[1]), parts(sys.argv[2])
    if len(chart["gate container"]) != 1:
        sys.exit(f"{sys.argv[1]}: one container `claimgate` is required")
    differences = [key for key in chart if chart[key] != kustomized[key]]
    for key in differences:
        print(f"the {key} of the two differ:\n  {sys.argv[1]}: {chart[key]}\n  {sys.argv[2]}: {kustomized[key]}")
    if differences:
        sys.exit(1)
    print(f"{sys.argv[1]} has the gate of {sys.argv[2]}")


if __name__ == "__main__":
    main()
