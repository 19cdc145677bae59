# SPDX-License-Identifier: Apache-2.0
"""Which parts of the daemon a new configuration affects, and what a rejected one does."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from csp1d.config import Config
from csp1d.events import Event
from csp1d.loop import reload
from csp1d.loop.reload import Part, Reloads, affected_parts

BASE = Config()
CERTIFICATE = replace(BASE, http=replace(BASE.http, tls_certificate="a.pem", tls_key="a.key"))
OTHER_HTTP = replace(BASE, http=replace(CERTIFICATE.http, socket="other.sock"))


def changed(table: str, base: Config = BASE, **values: object) -> Config:
    """A copy of `base` with other values in one table."""
    new: Any = replace(getattr(base, table), **values)
    return replace(base, **{table: new})


L1 = replace(BASE.channels.L1, gain=1.1)
REQUEST = replace(BASE.p1.request, always=True)

# Each change of the configuration, and the parts that it affects.
CHANGES: dict[str, tuple[Config, Config, set[Part]]] = {
    "nothing": (BASE, Config(), set()),
    "the ADC": (BASE, changed("adc", device="other"), {Part.SAMPLER}),
    "the rate": (BASE, changed("adc", sampling_frequency_hz=8000), {Part.SAMPLER}),
    "a channel": (BASE, changed("channels", L1=L1), {Part.SAMPLER}),
    "a phase fewer": (
        BASE,
        changed("channels", L3=replace(BASE.channels.L3, input="")),
        {Part.SAMPLER, Part.SENDER},
    ),
    "the measurement": (BASE, changed("measurement", nominal_frequency_hz=60), {Part.SAMPLER}),
    "the direction": (
        BASE,
        changed("direction", reference="current"),
        {Part.SAMPLER, Part.SENDER},
    ),
    "export in the telegram": (BASE, changed("direction", export_current="zero"), {Part.SENDER}),
    "the port": (BASE, changed("p1", device="/dev/ttyS1"), {Part.SENDER}),
    "the request line": (BASE, changed("p1", request=REQUEST), {Part.SENDER}),
    "an LED": (BASE, changed("leds", p1=""), {Part.INDICATORS}),
    "the address": (BASE, changed("http", listen=""), {Part.HTTP}),
    "nothing, but the certificate may be new": (CERTIFICATE, CERTIFICATE, {Part.HTTP}),
    "no certificate any more": (CERTIFICATE, BASE, {Part.HTTP}),
    "the socket": (BASE, changed("http", socket=""), {Part.SOCKET}),
    "the name of the site": (BASE, changed("site", name="House 7"), {Part.HTTP}),
    "the main fuse": (BASE, changed("site", main_fuse_amperes=25), {Part.SAMPLER}),
    "the log level": (BASE, changed("log", level="debug"), set()),
    "all": (
        BASE,
        changed(
            "adc", changed("p1", changed("leds", OTHER_HTTP, p1=""), flag_id="ABC"), device="x"
        ),
        set(Part),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_affects_these_parts(change: str) -> None:
    old, new, parts = CHANGES[change]
    assert affected_parts(old, new) == parts


def test_a_valid_file_is_read_and_a_rejected_one_is_an_event(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "csp1d.toml"
    file.touch()
    reloads = Reloads()
    before_seconds = reloads.success_timestamp_seconds
    assert reloads.read_again(file) == (Config(), None)
    assert before_seconds < reloads.success_timestamp_seconds <= time.time()
    reloaded_seconds = reloads.success_timestamp_seconds
    file.write_text("[p1]\nflag = 3\ninterval_seconds = 0\n")
    assert caplog.messages == []
    assert reloads.read_again(file) is None
    assert not reloads.successful
    assert reloads.success_timestamp_seconds == reloaded_seconds
    assert [problem.reason for problem in reloads.problems] == caplog.messages
    assert [record.__dict__["CSP1D_KEY"] for record in caplog.records] == [
        "p1.flag",
        "p1.interval_seconds",
    ]
    for message in caplog.messages:
        assert message.startswith(f"configuration rejected: {file}: p1.")
        assert message.endswith("; keeping the previous configuration")
    file.write_text("")
    assert reloads.read_again(file)
    assert reloads.successful
    assert reloads.problems == []


def test_a_bug_in_reading_a_file_is_reported_and_does_not_end_the_daemon(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload, "load", lambda path: 1 // 0)
    reloads = Reloads()
    assert reloads.read_again(tmp_path / "csp1d.toml") is None
    assert not reloads.successful
    (record,) = caplog.records
    assert record.__dict__["CSP1D_EVENT"] == "internal-error"
    assert record.exc_info
    (problem,) = reloads.problems
    assert (problem.event, problem.reason) == (Event.CONFIGURATION_REJECTED, record.message)
