# SPDX-License-Identifier: Apache-2.0
"""The identity of a machine: each has its own, keeps it, and does not give away its machine id."""

import os
import re
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from csp1d import identity
from csp1d.config import P1Config
from csp1d.identity import identified, is_machine_name
from systemd import id128

AUTO = P1Config()

# The last 64 bits of the derived id, and the identity that they give.
NUMBERS = [
    (0, "XMXCQA0000000000", "E0000000000000000"),
    (7, "XMXCQA0000000007", "E0000000000000007"),
    (9_876_543_210_123_456, "XMXCQA3210123456", "E9876543210123456"),
    (19_876_543_210_123_456, "XMXCQA3210123456", "E9876543210123456"),
]


@pytest.mark.parametrize(("number", "serial", "equipment_id"), NUMBERS)
def test_auto_is_the_machines_number(
    monkeypatch: pytest.MonkeyPatch, number: int, serial: str, equipment_id: str
) -> None:
    monkeypatch.setattr(id128, "get_machine_app_specific", lambda app: uuid.UUID(int=number))
    made = identified(AUTO)
    assert (made.serial, made.equipment_id) == (serial, equipment_id)
    assert identified(replace(AUTO, serial="MINE")).serial == "MINE"
    assert identified(replace(AUTO, serial="MINE")).equipment_id == equipment_id
    assert identified(replace(AUTO, equipment_id="")).equipment_id == ""
    assert identified(replace(AUTO, equipment_id="")).serial == serial


def test_a_configured_identity_asks_for_no_machine_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(id128, "get_machine_app_specific")
    config = P1Config(serial="MINE", equipment_id="MINE TOO")
    assert identified(config) is config


def test_a_machine_without_an_id_has_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(application: uuid.UUID) -> uuid.UUID:
        raise OSError(123, "No medium found")

    monkeypatch.setattr(id128, "get_machine_app_specific", none)
    assert identified(AUTO).serial == "XMXCQA0000000000"
    assert identified(AUTO).equipment_id == "E0000000000000000"


def test_the_number_is_the_id_that_systemd_derives_for_csp1d() -> None:
    """Zeros on a machine for which it derives none."""
    command = ["systemd-id128", "machine-id", f"--app-specific={identity._APPLICATION.hex}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    number = int(done.stdout, 16) if done.returncode == 0 else 0
    assert identified(AUTO).equipment_id == f"E{number % 10**16:016}"
    assert re.fullmatch(r"XMXCQA\d{10}", identified(AUTO).serial)


@pytest.mark.parametrize(
    ("hostname", "own", "foreign"),
    [
        (
            "CSP1",
            ["csp1", "csp1.local", "csp1.house.example", "csp1.lan", "csp1.fritz.box"],
            ["csp1.evil.example", "csp2.house.example", "house.example", "csp1.", ".local", ""],
        ),
        ("csp1.rack.example", ["csp1", "csp1.local", "csp1.rack.example"], ["csp1.example"]),
        ("csp2", ["csp2", "csp2.lan"], ["csp1", "csp1.lan", "csp2.house.example"]),
    ],
)
def test_the_names_of_a_machine_are_found_without_a_name_server(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hostname: str,
    own: list[str],
    foreign: list[str],
) -> None:
    for name in ("_HOSTNAME", "_HOSTS", "_RESOLVER"):
        monkeypatch.setattr(identity, name, tmp_path / name)
    machine = os.uname_result(("Linux", hostname, "6", "1", "x"))
    monkeypatch.setattr(os, "uname", lambda: machine)
    assert is_machine_name(own[0])
    assert not is_machine_name(f"{own[0]}.house.example")
    (tmp_path / "_HOSTS").write_bytes(
        b"127.0.0.1 localhost\n127.0.1.1\tCSP1.house.example csp1 # csp1.evil.example\n\xff\n"
    )
    (tmp_path / "_RESOLVER").write_text("nameserver 10.0.0.1\n\ndomain lan\nsearch a fritz.box.\n")
    assert [name for name in own if not is_machine_name(name)] == []
    assert [name for name in foreign if is_machine_name(name)] == []


def test_a_machine_that_was_renamed_has_both_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hostname").write_text("# hostname(5)\n\nHouse-12\n")
    monkeypatch.setattr(identity, "_HOSTNAME", tmp_path / "hostname")
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "debian", "6", "1", "x")))
    for name in ("house-12", "house-12.local", "debian", "debian.local"):
        assert is_machine_name(name)
    assert not is_machine_name("house-12.evil.example")
    assert not is_machine_name("hostname(5)")
