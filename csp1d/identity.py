# SPDX-License-Identifier: Apache-2.0
"""What identifies this machine: serial number and equipment id, and its names in the network.

Consumers treat two devices with the same identity as one meter, so devices made from one image need
different ones: "auto" in the configuration stands for one from the machine's id (machine-id(5)),
which each machine makes at its first boot and keeps. That id is confidential: only one derived for
csp1d is sent (sd-id128(3)).
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from csp1d.config import P1Config
from systemd import id128

_APPLICATION = UUID("2a4cce25-01b3-4990-99fd-19876b7085a5")
"""Another value would give every device a new identity."""

_HOSTNAME, _HOSTS = Path("/etc/hostname"), Path("/etc/hosts")
_RESOLVER = Path("/etc/resolv.conf")


def identified(config: P1Config) -> P1Config:
    """The configuration with the identity of this machine in the place of "auto".

    A machine without an id, such as a container, has zeros.
    """
    if "auto" not in (config.serial, config.equipment_id):
        return config
    try:
        number = id128.get_machine_app_specific(_APPLICATION).int
    except OSError:
        number = 0
    serial, equipment_id = f"XMXCQA{number % 10**10:010}", f"E{number % 10**16:016}"
    return replace(
        config,
        serial=serial if config.serial == "auto" else config.serial,
        equipment_id=equipment_id if config.equipment_id == "auto" else config.equipment_id,
    )


def is_machine_name(name: str) -> bool:
    """Whether a host name in lower case is this machine's: its hostname, alone, with ".local"
    (multicast DNS) or with a domain.

    The domain is that of hosts(5), or one that resolv.conf(5) searches. No name server is asked:
    its answer could take long, and be false.
    """
    for hostname in _hostnames():
        host = hostname.partition(".")[0]
        if name in (hostname, host, f"{host}.local"):
            return True
        if name.startswith(f"{host}.") and name in _qualified(host):
            return True
    return False


def _hostnames() -> Iterator[str]:
    yield os.uname().nodename.lower()
    # A service does not see a new hostname (ProtectHostname=, systemd.exec(5)): the file has it.
    for name, *_ in _fields(_HOSTNAME):
        yield name


def _qualified(host: str) -> Iterator[str]:
    for _, *names in _fields(_HOSTS):
        yield from names
    for keyword, *domains in _fields(_RESOLVER):
        if keyword in ("domain", "search"):
            yield from (f"{host}.{domain.strip('.')}" for domain in domains)


def _fields(file: Path) -> Iterator[list[str]]:
    """The words of each line in lower case, without comments; none if there is no such file."""
    try:
        text = file.read_text(errors="replace").lower()
    except OSError:
        return
    yield from (fields for line in text.splitlines() if (fields := line.partition("#")[0].split()))
