# SPDX-License-Identifier: Apache-2.0
"""The service after a boot, with and without the ADC."""

from __future__ import annotations

import json
import time

import pytest
from guest.board import wait_for
from guest.conftest import AMPERES
from guest.hat import Feeder, Hat

from .service import (
    IDENTITY,
    UNIT,
    InstalledBoard,
    check_devices,
    check_other_devices,
    check_unprivileged,
    events,
    identity,
    run,
    show,
)


@pytest.fixture
def booted(hat: Hat, feeder: Feeder) -> InstalledBoard:
    """The state after the boot."""
    wait_for("the service", lambda: show("ActiveState") == "active", 60)
    assert show("NRestarts") == "0"
    hat.tty.clear()
    hat.line.set(True)
    return InstalledBoard(hat, feeder)


def test_boot_with_the_adc(booted: InstalledBoard) -> None:
    assert booted.hat.adc.plugged
    assert booted.telegram_after(time.monotonic_ns(), 5) < 5
    check_devices(booted.hat)
    check_other_devices()
    check_unprivileged(int(show("MainPID")))
    lost = {event for event in events("--boot") if event.endswith("-lost")}
    assert lost <= {"scans-lost"}
    # While a machine under load still boots, its buffer may overflow: no other loss is reported.
    assert booted.daemon.counter("csp1d_scans_lost_total") <= booted.hat.adc.dropped
    assert identity(booted) == json.loads(IDENTITY.read_text())


def test_boot_without_the_adc_that_is_plugged_30_s_later(booted: InstalledBoard) -> None:
    assert not booted.hat.adc.plugged
    time.sleep(30)
    assert booted.telegrams() == []
    assert events("--boot").count("adc-lost") == 1
    plugged_ns = time.monotonic_ns()
    booted.hat.adc.plug()
    assert booted.telegram_after(plugged_ns, 5) < 5
    booted.wait_until_measuring(AMPERES)
    check_devices(booted.hat)
    check_other_devices()
    check_unprivileged(int(show("MainPID")))
    assert "No ADC" not in run("systemctl", "status", "--no-pager", UNIT)
    # For this boot tests/kernel/run has made it another machine with the same image.
    serial, equipment_id = identity(booted)
    other_serial, other_equipment_id = json.loads(IDENTITY.read_text())
    assert serial != other_serial
    assert equipment_id != other_equipment_id
