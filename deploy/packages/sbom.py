"""Writes a CycloneDX SBOM of the crates in the gate's binary, and validates it against the CycloneDX schema.

The crates are those of the lock file for this platform, without the task service and without development dependencies.
"""

import json
import os
import subprocess
import sys
import uuid
from datetime import datetime, timezone

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

HOST = subprocess.run(["rustc", "--print", "host-tuple"], check=True, capture_output=True, text=True).stdout.strip()
COMMAND = ["cargo", "metadata", "--format-version=1", "--locked", "--offline", "--no-default-features",
           f"--filter-platform={HOST}"]


def linked(nodes: dict[str, dict], root: str) -> dict[str, list[str]]:
    """Packages that the root depends on at run time or at build time, each with its own dependencies."""
    found: dict[str, list[str]] = {}
    open_ids = [root]
    while open_ids:
        package = open_ids.pop()
        if package in found:
            continue
        dependencies = [
            dependency["pkg"] for dependency in nodes[package]["deps"]
            if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"])]
        found[package] = dependencies
        open_ids.extend(dependencies)
    return found


def main():
    metadata = json.loads(subprocess.run(COMMAND, check=True, capture_output=True).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    root = metadata["resolve"]["root"]
    graph = linked({node["id"]: node for node in metadata["resolve"]["nodes"]}, root)
    licenses = LicenseFactory()

    def component(identifier: str) -> Component:
        package = packages[identifier]
        license_text = package["license"]
        return Component(
            type=ComponentType.APPLICATION if identifier == root else ComponentType.LIBRARY,
            name=package["name"],
            version=package["version"],
            licenses=[licenses.make_from_string(license_text.replace("/", " OR "))] if license_text else [],
            purl=PackageURL("cargo", None, package["name"], package["version"]),
            bom_ref=f"{package['name']}@{package['version']}",
        )

    components = {identifier: component(identifier) for identifier in sorted(graph)}
    bom = Bom(
        components=[known for identifier, known in components.items() if identifier != root],
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(sorted(graph))),
    )
    bom.metadata.component = components[root]
    bom.metadata.timestamp = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), timezone.utc)
    for identifier, dependencies in graph.items():
        bom.register_dependency(components[identifier], [components[name] for name in dependencies])
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error is not None:
        sys.exit(f"invalid SBOM: {error}")
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write(text + "\n")
    print(f"SBOM: {len(components) - 1} crates")


if __name__ == "__main__":
    main()
