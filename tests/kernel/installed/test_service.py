# SPDX-License-Identifier: Apache-2.0
"""The installed service: its user, its rights, and what stops and restarts it."""

from __future__ import annotations

import json
import os
import re
import signal
import time
import urllib.request
from itertools import pairwise
from pathlib import Path

import pytest
from guest.board import CURRENT, P1, SECOND, wait_for
from guest.conftest import AMPERES
from guest.hat import TTY

from .service import (
    CONFIG,
    DROP_IN,
    IDENTITY,
    UNIT,
    InstalledBoard,
    Service,
    check_devices,
    check_other_devices,
    check_unprivileged,
    configure,
    cursor,
    entries,
    events,
    identity,
    measuring_again,
    run,
    show,
    wait_for_event,
)

EXPOSURE_AT_MOST = 1.5
# Maximum time of a restart during an upgrade, most of it the start of Python and NumPy.
SILENCE_SECONDS = 15
SAID_OF = {
    "tty": ("p1-port-lost", "p1-port-found"),
    "leds": ("led-lost", "led-found"),
    "line": ("request-line-lost", "request-line-found"),
}


def test_sends_telegrams_and_is_nobody_of_importance(board: InstalledBoard) -> None:
    service = board.daemon
    assert isinstance(service, Service)
    check_unprivileged(service.pid)
    check_devices(board.hat)
    check_other_devices()
    assert show("StatusText") == "Measuring; P1 port open; requesting"


def test_a_gpio_chip_that_a_later_rule_gives_to_another_group(board: InstalledBoard) -> None:
    """As on Raspberry Pi OS: csp1d may use that of its HAT all the same."""
    rules, chip = Path("/etc/udev/rules.d/99-gpio.rules"), Path("/dev/csp1d/request").resolve()

    def apply_rules() -> None:
        run("udevadm", "control", "--reload")
        run("udevadm", "trigger", "--settle", "--subsystem-match=gpio")

    rules.write_text('SUBSYSTEM=="gpio", GROUP="games", MODE="0660"\n')
    try:
        apply_rules()
        assert chip.group() == "games"
        for access in ("-r", "-w"):
            run("runuser", "-u", "csp1d", "--", "test", access, str(chip))
    finally:
        rules.unlink()
        run("setfacl", "--remove", "group:csp1d", str(chip))
        apply_rules()
    check_devices(board.hat)


def test_exposure() -> None:
    verdict = run("systemd-analyze", "--no-pager", "security", UNIT)
    match = re.search(rf"Overall exposure level for {UNIT}: ([0-9.]+)", verdict)
    assert match, verdict
    print(match.group())
    assert float(match.group(1)) <= EXPOSURE_AT_MOST, verdict


def test_the_sandbox_shows_it_nothing_to_spoil(board: InstalledBoard) -> None:
    """The effect of the unit's settings, seen from outside its namespaces."""
    seen = Path(f"/proc/{show('MainPID')}/root")

    def read_only(path: str) -> bool:
        return bool(os.statvfs(f"{seen}{path}").f_flag & os.ST_RDONLY)

    for path in ("/usr", "/etc", "/var/lib", "/sys/module", "/sys/kernel/debug"):
        assert read_only(path), path
    assert not read_only("/sys/devices/platform"), "the way to the LEDs and the ADC"
    assert not (seen / "proc/sys").exists()
    for home in ("home", "root"):
        assert list((seen / home).iterdir()) == []


def test_adc_that_appears_is_measured_within_5_s(board: InstalledBoard) -> None:
    before = cursor()
    board.hat.adc.unplug()
    wait_for("ADC down", lambda: board.daemon.metric("csp1d_adc_up") == 0, 10)
    time.sleep(3)
    board.hat.tty.clear()
    plugged_ns = time.monotonic_ns()
    board.hat.adc.plug()
    assert board.telegram_after(plugged_ns, 5) < 5
    assert events(before) == ["adc-lost", "adc-found"], "said once, and once when it ended"


def test_unplugged_ten_times(board: InstalledBoard) -> None:
    service = board.daemon
    assert isinstance(service, Service)
    pid = service.pid
    for number in range(10):
        board.hat.adc.unplug()
        time.sleep(0.1 * (number % 4))
        board.hat.tty.clear()
        plugged_ns = time.monotonic_ns()
        board.hat.adc.plug()
        measuring_again(board, plugged_ns)
        check_devices(board.hat)
        check_unprivileged(pid)
    check_other_devices()
    assert service.pid == pid


@pytest.mark.parametrize("part", ["tty", "leds", "line"])
def test_other_parts_may_leave_and_return(
    board: InstalledBoard, part: str, kernel: tuple[int, int]
) -> None:
    if part == "line" and kernel < (6, 9):
        # There the module refuses, since the kernel would crash.
        with pytest.raises(OSError, match="busy"):
            board.hat.line.unplug()
        return
    what = getattr(board.hat, part)
    before = cursor()
    what.unplug()
    time.sleep(4)  # An LED counts as missing only after some time.
    board.hat.tty.clear()
    board.hat.leds.clear()
    plugged_ns = time.monotonic_ns()
    what.plug()
    if part == "line":
        board.hat.line.set(True)
    measuring_again(board, plugged_ns)
    time.sleep(2)
    check_devices(board.hat)
    check_other_devices()
    assert board.lit(P1)
    wait_for("the current LED", lambda: board.lit(CURRENT), 2)
    lost, found = SAID_OF[part]
    said = events(before)
    assert said.count(lost) == said.count(found) == (3 if part == "leds" else 1), said


def test_the_current_led_ends_by_itself(board: InstalledBoard) -> None:
    """The LED uses the trigger, whose files udev must give to the service."""
    trigger = Path("/sys/class/leds", CURRENT, "trigger")
    trigger.write_text("none")
    before = cursor()
    run("systemctl", "restart", UNIT)
    wait_for("the trigger", lambda: "[transient]" in trigger.read_text(), 20)
    time.sleep(4)
    board.daemon.signal(signal.SIGSTOP)
    try:
        time.sleep(1.5)
        assert not board.lit(CURRENT)
    finally:
        board.daemon.signal(signal.SIGCONT)
    assert "led-lost" not in events(before), "while udev was at it"


def test_killed_it_is_back(board: InstalledBoard) -> None:
    board.daemon.signal(signal.SIGKILL)
    board.hat.tty.clear()
    measuring_again(board, time.monotonic_ns(), 15)
    assert show("ActiveState") == "active"


def test_hanging_it_is_restarted(board: InstalledBoard) -> None:
    service = board.daemon
    assert isinstance(service, Service)
    pid, restarts = service.pid, int(show("NRestarts"))
    service.signal(signal.SIGSTOP)
    time.sleep(1)
    board.hat.tty.clear()
    measuring_again(board, time.monotonic_ns(), 30)
    assert int(show("NRestarts")) == restarts + 1
    assert service.pid != pid
    assert "watchdog" in run("journalctl", f"--unit={UNIT}", "--lines=40").lower()


def test_restarts_have_no_limit() -> None:
    # A start takes too long here to come to systemd's own limit of five in ten seconds.
    assert (show("Restart"), show("StartLimitIntervalUSec")) == ("always", "0")


def test_broken_configuration_ends_in_78_and_stays_down(board: InstalledBoard) -> None:
    configure("\n[leds]\ncurent = 'a slip of the pen'\n")
    before = cursor()
    try:
        assert run("systemctl", "restart", UNIT, check=False)
        time.sleep(5)
        assert (show("ActiveState"), show("ExecMainStatus")) == ("failed", "78")
        assert show("NRestarts") == "0"
        status = run("systemctl", "status", "--no-pager", "--full", UNIT, check=False)
        assert re.search(
            r"test\.toml: leds\.curent: unknown key; did you mean 'current'", status
        ), status
        entry = wait_for_event("configuration-rejected", before)
        assert entry["CSP1D_FILE"] == "/etc/csp1d/csp1d.toml.d/test.toml"
        assert entry["CSP1D_KEY"] == "leds.curent"
    finally:
        configure()
    board.hat.tty.clear()
    started_ns = time.monotonic_ns()
    run("systemctl", "start", UNIT)
    measuring_again(board, started_ns, 15)


def test_reload_with_a_good_file(board: InstalledBoard) -> None:
    service = board.daemon
    assert isinstance(service, Service)
    pid = service.pid
    later = DROP_IN.with_name("zz-later.toml")
    later.write_text("[p1]\nfirmware_text = 'XMX_P1CS_V77'\n")
    try:
        run("systemctl", "reload", UNIT)
        wait_for("the new text", lambda: b"(XMX_P1CS_V77)" in board.complete()[-1].data, 5)
    finally:
        later.unlink()
        run("systemctl", "reload", UNIT)
    wait_for("the old text", lambda: b"(XMX_P1CS_V05)" in board.complete()[-1].data, 5)
    assert service.pid == pid


def test_reload_with_a_bad_file(board: InstalledBoard) -> None:
    service = board.daemon
    assert isinstance(service, Service)
    pid, before = service.pid, cursor()
    configure("\n[log]\nlvel = 1\n")
    try:
        refusal = run("systemctl", "reload", UNIT, check=False)
        assert "failed" in refusal, refusal
        entry = wait_for_event("configuration-rejected", before)
        assert (entry["CSP1D_KEY"], entry["_PID"]) == ("log.lvel", str(pid))
        assert events(before).count("configuration-rejected") == 1
        wait_for(
            "the metric", lambda: service.metric("csp1d_config_last_reload_successful") == 0, 5
        )
        board.hat.tty.clear()
        measuring_again(board, time.monotonic_ns(), 3)
        assert service.pid == pid
    finally:
        configure()
        run("systemctl", "reload", UNIT)


def test_listen_is_the_one_place_that_says_who_may_scrape(board: InstalledBoard) -> None:
    configure('\n[http]\nlisten = ":19510"\n')
    try:
        run("systemctl", "reload", UNIT)
        run("ip", "address", "replace", "192.0.2.1/32", "dev", "lo")

        def scraped() -> bool:
            try:
                with urllib.request.urlopen("http://192.0.2.1:19510/metrics", timeout=5) as answer:
                    return b"csp1d_current_amperes" in answer.read()
            except OSError:
                return False

        wait_for("a scrape from elsewhere", scraped, 5)
    finally:
        configure()
        run("systemctl", "reload", UNIT)


def test_journal_has_fields_and_the_catalog_explains(board: InstalledBoard) -> None:
    before = cursor()
    board.hat.adc.unplug()
    lost = wait_for_event("adc-lost", before)
    board.hat.adc.plug()
    found = wait_for_event("adc-found", before)
    assert (lost["CSP1D_DEVICE"], lost["PRIORITY"]) == ("ADC", "4")
    assert lost["CSP1D_REASON"]
    assert found["PRIORITY"] == "6"
    for entry in (lost, found):
        assert re.fullmatch("[0-9a-f]{32}", entry["MESSAGE_ID"])
    explained = run("journalctl", "-x", "--no-pager", f"--unit={UNIT}", before)
    for text in ("Defined-By: csp1d", "Subject: The ADC is missing", "charge point"):
        assert text in explained
    started = [entry for entry in entries("--boot") if entry.get("CSP1D_EVENT") == "started"]
    assert started[-1]["CSP1D_VERSION"]


def test_what_an_operator_acts_on_is_told_once_and_explained(board: InstalledBoard) -> None:
    before = cursor()
    board.feeder.hole(400)
    wait_for_event("scans-lost", before)
    board.feeder.set(amperes=(140, *AMPERES[1:]))
    wait_for_event("clipping", before)
    board.feeder.set(amperes=AMPERES)
    board.hat.tty.adapter = board.hat.tty.stuck = True
    wait_for_event("telegram-dropped", before)
    cannot_flush = wait_for_event("p1-port-cannot-flush", before)
    assert (cannot_flush["CSP1D_DEVICE"], cannot_flush["PRIORITY"]) == ("P1 port", "4")
    time.sleep(2)
    board.hat.tty.adapter = board.hat.tty.stuck = False
    # A fault has ended when it has not been seen for ten seconds.
    for end in ("scans-complete", "clipping-ended", "telegrams-resumed"):
        wait_for_event(end, before, 20)
    told = events(before)
    assert sorted(told) == sorted({*told}), "each once"
    explained = run("journalctl", "-x", "--no-pager", f"--unit={UNIT}", before)
    overload = "Overload: the signal of a phase exceeds the ADC range"
    kept = "The P1 port cannot discard a telegram"
    for subject in ("Scans of the ADC were lost", overload, kept, "A telegram was dropped"):
        assert f"Subject: {subject}" in explained


def test_hrtimer_trigger_is_made_without_root(
    board: InstalledBoard, kernel: tuple[int, int]
) -> None:
    board.hat.adc.configure(triggered=True)
    drop_in = DROP_IN.with_name("zz-trigger.toml")
    drop_in.write_text('[adc]\ntrigger = "hrtimer:csp1d-own"\n')
    before = cursor()
    try:
        run("systemctl", "reload", UNIT)
        if kernel < (6, 12):  # Debian's 6.1 was built without them: then the journal reports it.
            wait_for_event("adc-lost", before, reason="hrtimer")
            return
        reloaded_ns = time.monotonic_ns()
        board.hat.tty.clear()
        measuring_again(board, reloaded_ns, 10)
        trigger = board.hat.adc.device / "trigger/current_trigger"
        assert trigger.read_text().strip() == "csp1d-own"
        # The virtual ADC has its own clock, but a real one would follow this.
        rates = [
            float((made / "sampling_frequency").read_text())
            for made in Path("/sys/bus/iio/devices").glob("trigger*")
            if (made / "name").read_text().strip() == "csp1d-own"
        ]
        assert rates == [4000]
        assert "adc-rate-refused" not in events(before)
    finally:
        drop_in.unlink()
        configure()
        board.hat.adc.configure(triggered=False)
        run("systemctl", "reload", UNIT)


def test_stable_names_serve_in_the_configuration(board: InstalledBoard) -> None:
    names = DROP_IN.with_name("zz-names.toml")
    names.write_text('[p1]\ndevice = "/dev/csp1d/p1"\n[p1.request]\nchip = "/dev/csp1d/request"\n')
    port, other = (
        run("udevadm", "info", "--query=property", f"--name={name}")
        for name in ("/dev/csp1d/p1", "/dev/ttyS0")
    )
    # ModemManager must not probe the port.
    assert "ID_MM_PORT_IGNORE=1" in port
    assert "ID_MM_PORT_IGNORE" not in other
    try:
        run("systemctl", "reload", UNIT)
        for replug in (False, True):
            if replug:
                board.hat.tty.unplug()
                time.sleep(1)
                board.hat.tty.plug()
            board.hat.tty.clear()
            measuring_again(board, time.monotonic_ns())
    finally:
        names.unlink()
        run("systemctl", "reload", UNIT)


def test_upgrade_keeps_the_operators_text_and_the_identity_and_hardly_interrupts(
    board: InstalledBoard, tmp_path: Path
) -> None:
    service = board.daemon
    assert isinstance(service, Service)
    before = identity(board)
    IDENTITY.write_text(json.dumps(before))
    pid, text = service.pid, CONFIG.read_text()
    board.hat.tty.clear()
    board.wait_for_telegram(3)
    CONFIG.write_text(text + "\n# The operator was here.\n")
    try:
        run("apt-get", "install", "--yes", str(later_version(tmp_path)))
        assert CONFIG.read_text().endswith("# The operator was here.\n")
        assert service.pid != pid
        board.wait_for_telegram(15)
    finally:
        CONFIG.write_text(text)
    gaps = [(b.start_ns - a.start_ns) / SECOND for a, b in pairwise(board.complete())]
    assert max(gaps) < SILENCE_SECONDS
    assert show("ActiveState") == "active"
    check_unprivileged(service.pid)
    assert Path(TTY).exists()
    assert identity(board) == before


def later_version(folder: Path) -> Path:
    """The same package with another version."""
    (package,) = Path("/package").glob("csp1d_*_all.deb")
    tree, later = folder / "tree", folder / "csp1d_later_all.deb"
    run("dpkg-deb", "--raw-extract", str(package), str(tree))
    control = tree / "DEBIAN/control"
    control.write_text(re.sub("(?m)^Version: .*", r"\g<0>+later", control.read_text()))
    run("dpkg-deb", "-Znone", "--build", str(tree), str(later))
    folder.chmod(0o755)
    return later
