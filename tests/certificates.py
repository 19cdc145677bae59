# SPDX-License-Identifier: Apache-2.0
"""Self-signed certificates for tests of TLS."""

import subprocess
from pathlib import Path


def make_certificate(folder: Path, name: str, names: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """Paths of a certificate for these names (by default 127.0.0.1), and of its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        f" -subj /CN={name} -addext subjectAltName={names} -keyout {key} -out {certificate}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return certificate, key
