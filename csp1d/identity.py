# SPDX-License-Identifier: Apache-2.0
"""The serial number and the equipment id of this machine, where the configuration says "auto".

Consumers treat two devices with the same identity as one meter, so devices made from one image need
different ones. They come from the machine's id (machine-id(5)), which each machine makes at its
first boot and keeps. That id is confidential: only one derived for csp1d is sent (sd-id128(3)).
"""

from dataclasses import replace
from uuid import UUID

from csp1d.config import P1Config
from systemd import id128

_APPLICATION = UUID("2a4cce25-01b3-4990-99fd-19876b7085a5")
"""Another value would give every device a new identity."""


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
