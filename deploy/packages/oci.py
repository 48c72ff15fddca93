"""Writes an OCI image layout with one static binary and no other file, as deploy/Dockerfile builds it.

Format: OCI image specification 1.1 (image layout, manifest, configuration). All times are SOURCE_DATE_EPOCH, so that the
digest depends on the binary alone.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import tarfile
from datetime import datetime, timezone

EPOCH = int(os.environ["SOURCE_DATE_EPOCH"])


def entry(name: str, size: int, mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, mode, EPOCH
    return info


def add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644):
    archive.addfile(entry(name, len(content), mode), io.BytesIO(content))


def layer(binary: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        add(archive, "claimgate", binary, 0o755)
    return buffer.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--architecture", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("output")
    arguments = parser.parse_args()

    with open(arguments.binary, "rb") as file:
        uncompressed = layer(file.read())
    compressed = gzip.compress(uncompressed, compresslevel=9, mtime=0)
    created = datetime.fromtimestamp(EPOCH, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = {
        "org.opencontainers.image.title": "claimgate",
        "org.opencontainers.image.version": arguments.version,
        "org.opencontainers.image.licenses": "Apache-2.0",
    }
    configuration = {
        "created": created,
        "architecture": arguments.architecture,
        "os": "linux",
        "config": {
            "User": "65532:65532",
            "ExposedPorts": {"8080/tcp": {}, "9901/tcp": {}},
            "Entrypoint": ["/claimgate"],
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(uncompressed).hexdigest()]},
        "history": [{"created": created, "comment": "deploy/release"}],
    }

    blobs: dict[str, bytes] = {}

    def blob(content: bytes, media_type: str) -> dict:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(configuration).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [blob(compressed, "application/vnd.oci.image.layer.v1.tar+gzip")],
    }
    described = blob(json.dumps(manifest).encode(), manifest["mediaType"])
    described["platform"] = {"architecture": arguments.architecture, "os": "linux"}
    described["annotations"] = {"org.opencontainers.image.ref.name": f"claimgate:{arguments.version}"}
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [described],
    }
    with tarfile.open(arguments.output, "w", format=tarfile.GNU_FORMAT) as archive:
        add(archive, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        add(archive, "index.json", json.dumps(index).encode())
        for digest, content in sorted(blobs.items()):
            add(archive, f"blobs/sha256/{digest}", content)


if __name__ == "__main__":
    main()
