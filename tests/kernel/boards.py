#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Run csp1d on emulated arm64 boards, with Debian 13's kernel and device trees.

    tests/kernel/boards.py [--results DIR] [BOARD...]

    virt      QEMU's own board: PL061, PL011, overlays/virt.dts on QEMU's device tree
    raspi3b   a Raspberry Pi 3 B: Debian's device tree, overlays/csp1-hat.dts of the HAT itself,
              and overlays/emulated-adc.dts, which replaces the SPI controller alone

The ADC is the MCP3912 of module/csp1_mcp391x.c, behind the kernel's own driver. The guest has the
source tree's daemon, service, udev rules and the drop-in overlays/csp1-hat.toml, at the paths of
the package, and no test. The host is the charge point and the installer: it reads the wire of the
serial port, and through QEMU's qtest socket (docs/devel/qtest.rst) it drives the request line and
sees the pins of the LEDs.

Nothing is skipped: each board either does all that is expected of it or counts as failed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import math
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from guest.telegrams import split, with_amperes
from image import (
    ImageError,
    cache_directory,
    compiled_module,
    image,
    install_tools,
    kernel_version,
)
from machine import WITH_PARENT, source_tree

sys.path.append(str(Path(__file__).resolve().parents[1]))

from device_trees import compiled, run

SUITE, ARCHITECTURE = "trixie", "arm64"
HERE = Path(__file__).resolve().parent
QEMU = "/usr/bin/qemu-system-aarch64"
HOST_PACKAGES = {
    "cpio": "/usr/bin/cpio",
    "device-tree-compiler": "/usr/bin/fdtput",
    "qemu-system-arm": QEMU,
}
MODULE = "csp1_mcp391x"
RASPBERRY_OVERLAYS = (
    source_tree() / "overlays/csp1-hat.dts",
    HERE / "overlays/emulated-adc.dts",
)

AMPERES = (24.0, 10.0, 0.0)
# Of the drop-in overlays/csp1-hat.toml, and of the emulated ADC.
OHMS, TURNS, SCANS_PER_SECOND, MAINS_HERTZ = 8.0, 2000, 4000, 50
DITHER_NANOVOLTS = 100
"""One code, as the noise of a real ADC: an input that never moves does not answer."""

# Host seconds: on an idle host the slower board boots in two minutes.
BOOT_SECONDS = 900.0
REACTION_SECONDS = 300.0
TELEGRAMS = 3
QUIET_PULSES = 3
"""Pulses of the current LED, one per second, during which nothing may be sent."""

GOLDEN_SETTINGS = """[p1]
serial = "XMXCQA0000008879"
equipment_id = "E0000000000000000"
firmware_text = "XMX_P1CS_V05"
"""
COMMAND = """#!/usr/bin/python3
import sys
from csp1d.__main__ import main
sys.exit(main())
"""
# The user must exist before the udev rules run. Otherwise systemd looks for new users only after an
# upgrade of the system.
SYSUSERS_DROP_IN = "[Unit]\nConditionNeedsUpdate=\nConditionCredential=\n"
ADC_SERVICE = f"""[Unit]
Description=The currents of the house
Before=csp1d.service
After=sys-kernel-debug.mount

[Service]
Type=oneshot
ExecStart=/usr/sbin/insmod /usr/lib/csp1d-boards/{MODULE}.ko
ExecStart=/bin/sh -c 'cat /usr/lib/csp1d-boards/samples >/sys/kernel/debug/{MODULE}/samples'
"""
# Kernel messages that reveal a fault of the module or of a driver.
COMPLAINT = re.compile(
    r"\] (watchdog: )?(BUG:|WARNING: |Oops|Internal error|INFO: task .* blocked)"
)


class BoardError(Exception):
    """A board did not do what is expected of it."""


@dataclasses.dataclass(frozen=True)
class Board:
    """An emulated board. The numbers are lines of its GPIO controller."""

    name: str
    machine: tuple[str, ...]
    """Options of QEMU."""
    kernel_arguments: tuple[str, ...]
    gpio: str
    """QEMU's name of the type of the GPIO controller."""
    request: int
    leds: Mapping[str, int]
    tree: Callable[[Path, Path], Path]
    """Makes the device tree; takes a folder for it, and the unpacked image."""
    request_registers: tuple[int, int] | None = None
    """Where QEMU's model has no input pins: the registers that set and clear a level."""


def virt_tree(folder: Path, root: Path) -> Path:
    """QEMU's tree of its board, with a label for the overlay."""
    base = folder / "base.dtb"
    run(QEMU, *VIRT.machine, "-machine", f"dumpdtb={base}", "-display", "none")
    run("fdtput", "-p", "-t", "s", base, "/__symbols__", "gpio", "/pl061@9030000")
    return with_overlays(base, folder, HERE / "overlays/virt.dts")


def raspberry_tree(folder: Path, root: Path) -> Path:
    """Debian's tree of the Raspberry Pi 3 B, with the overlay of the HAT."""
    trees = root / f"usr/lib/linux-image-{kernel_version(root)}/broadcom"
    return with_overlays(trees / "bcm2837-rpi-3-b.dtb", folder, *RASPBERRY_OVERLAYS)


def with_overlays(base: Path, folder: Path, *overlays: Path) -> Path:
    """The tree ``base`` with these overlays applied in turn, as a boot loader does it."""
    blobs = [compiled(path.read_text(), folder / f"{path.stem}.dtbo") for path in overlays]
    tree = folder / "board.dtb"
    run("fdtoverlay", "-i", base, "-o", tree, *blobs)
    return tree


VIRT = Board(
    "virt",
    ("-machine", "virt", "-cpu", "cortex-a53", "-smp", "1", "-m", "1024"),
    ("root=/dev/vda", "console=hvc0"),
    "pl061",
    request=1,
    leds={"power": 4, "current": 5, "p1": 6},
    tree=virt_tree,
)
RASPBERRY = Board(
    "raspi3b",
    ("-machine", "raspi3b"),
    # The HAT's overlay turns the mini UART off, so only the early console can write to it.
    (
        *("root=/dev/mmcblk0", "rootwait", "console=tty0", "maxcpus=1"),
        *("earlycon=bcm2835aux,mmio32,0x3f215040", "keep_bootcon"),
        # The driver of the firmware of the VideoCore crashes without it.
        "module_blacklist=vchiq",
    ),
    "bcm2835_gpio",
    request=17,
    leds={"power": 22, "current": 23, "p1": 24},
    tree=raspberry_tree,
    # GPSET0 and GPCLR0.
    request_registers=(0x3F20001C, 0x3F200028),
)
BOARDS = {board.name: board for board in (VIRT, RASPBERRY)}


def samples() -> bytes:
    """One mains cycle at the four inputs of the ADC, in nanovolts."""
    peaks = [amperes * math.sqrt(2) / TURNS * OHMS * 1e9 for amperes in (*AMPERES, 0.0)]
    rows = SCANS_PER_SECOND // MAINS_HERTZ
    return b"".join(
        struct.pack(
            "<4i",
            *(
                round(peak * math.sin(2 * math.pi * (row / rows - number / 3)))
                + row % 2 * DITHER_NANOVOLTS
                for number, peak in enumerate(peaks)
            ),
        )
        for row in range(rows)
    )


def initramfs(folder: Path, directory: Path) -> Path:
    """The initramfs of the image, and a second one that brings what csp1d's package would."""
    tree = folder / "payload"
    source = source_tree()
    module = compiled_module(directory, HERE / "module", ARCHITECTURE)
    libraries = tree / "usr/lib"
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source / "csp1d", libraries / "python3/dist-packages/csp1d", ignore=unwanted)
    for file, target in {
        "systemd/csp1d.service": "usr/lib/systemd/system/csp1d.service",
        "systemd/csp1d.sysusers": "usr/lib/sysusers.d/csp1d.conf",
        "systemd/40-csp1d.rules": "usr/lib/udev/rules.d/40-csp1d.rules",
        "systemd/csp1d-access": "usr/lib/udev/csp1d-access",
        "etc/csp1d.toml": "etc/csp1d/csp1d.toml",
        "overlays/csp1-hat.toml": "etc/csp1d/csp1d.toml.d/50-csp1-hat.toml",
    }.items():
        (tree / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / file, tree / target)
    units = tree / "etc/systemd/system"
    for path, text in {
        tree / "usr/bin/csp1d": COMMAND,
        tree / "etc/csp1d/csp1d.toml.d/60-golden.toml": GOLDEN_SETTINGS,
        units / "systemd-sysusers.service.d/always.conf": SYSUSERS_DROP_IN,
        units / "adc.service": ADC_SERVICE,
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tree / "usr/bin/csp1d").chmod(0o755)
    (units / "multi-user.target.wants").mkdir()
    for unit in ("adc.service", "csp1d.service"):
        link = units / "multi-user.target.wants" / unit
        link.symlink_to(
            f"/etc/systemd/system/{unit}"
            if unit == "adc.service"
            else f"/usr/lib/systemd/system/{unit}"
        )
    (libraries / "csp1d-boards").mkdir()
    shutil.copy(module / f"{MODULE}.ko", libraries / "csp1d-boards")
    (libraries / "csp1d-boards/samples").write_bytes(samples())
    outer = folder / "initramfs"
    outer.mkdir()
    for tree_of_archive, archive in ((tree, outer / "payload.cpio"), (outer, folder / "second")):
        run(
            "sh",
            "-c",
            f"find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 >'{archive}'",
            cwd=tree_of_archive,
        )
    result = folder / "initrd"
    first = (directory / "initrd").read_bytes()
    # The kernel finds a second archive only at a multiple of four.
    first += bytes(-len(first) % 4)
    result.write_bytes(first + (folder / "second").read_bytes())
    return result


@dataclasses.dataclass(frozen=True)
class Change:
    """A pin of the GPIO controller changes."""

    seconds: float
    """Host time."""
    line: int
    high: bool


class Emulation:
    """A board under QEMU; a context manager that leaves nothing running."""

    def __init__(self, board: Board, folder: Path, directory: Path) -> None:
        self.board = board
        self.wire, self.console = folder / "wire", folder / "console.log"
        self.changes: list[Change] = []
        self._log = folder / "qemu.log"
        self._files = contextlib.ExitStack()
        self._received = b""
        self._answers: list[str] = []
        self._tree = board.tree(folder, directory / "rootfs")
        self._initrd = initramfs(folder, directory)
        self._image = directory

    def __enter__(self) -> Emulation:
        self._qtest, qtest = socket.socketpair()
        self._monitor, monitor = socket.socketpair()
        for end in (self._qtest, qtest, self._monitor, monitor):
            self._files.callback(end.close)
        log = self._files.enter_context(self._log.open("wb"))
        self.start_seconds = time.monotonic()
        self._process = subprocess.Popen(
            [*WITH_PARENT, *self._command(qtest.fileno(), monitor.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(qtest.fileno(), monitor.fileno()),
        )
        qtest.close()
        monitor.close()
        try:
            self._gpio = self._find_gpio()
            self._ask(f"irq_intercept_out {self._gpio}")
        except OSError as error:
            self.__exit__()
            raise self._failure(f"QEMU does not answer: {error}") from error
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._files.close()

    def _command(self, qtest: int, monitor: int) -> list[str]:
        arguments = [
            *("rw", "rootflags=noatime", "loglevel=6", "panic=-1", "printk.devkmsg=on"),
            *("systemd.journald.forward_to_kmsg=1", "systemd.condition-needs-update=0"),
            "systemd.show_status=0",
            *("mitigations=off", "cryptomgr.notests"),
            *self.board.kernel_arguments,
        ]
        drive = "sd" if self.board is RASPBERRY else "virtio"
        command = [
            *(QEMU, *self.board.machine, "-accel", "tcg", "-icount", "shift=2,sleep=off"),
            *("-nodefaults", "-no-user-config"),
            *("-display", "none", "-dtb", str(self._tree)),
            *("-kernel", str(self._image / "vmlinuz"), "-initrd", str(self._initrd)),
            *("-append", " ".join(arguments)),
            "-drive",
            f"file={self._image / 'disk.raw'},format=raw,if={drive},snapshot=on,cache=unsafe",
            *("-chardev", f"file,id=wire,path={self.wire}", "-serial", "chardev:wire"),
            *("-chardev", f"file,id=console,path={self.console}"),
            *("-chardev", f"socket,id=qtest,fd={qtest}", "-qtest", "chardev:qtest"),
            *("-chardev", f"socket,id=monitor,fd={monitor}"),
            *("-mon", "chardev=monitor,mode=readline"),
        ]
        if self.board is RASPBERRY:
            return [*command, "-serial", "chardev:console"]
        return [*command, "-device", "virtio-serial-pci", "-device", "virtconsole,chardev=console"]

    def request(self, requested: bool) -> None:
        """Drive the request line as the charge point's optocoupler does: low is a request."""
        line = self.board.request
        if self.board.request_registers is None:
            self._ask(f"set_irq_in {self._gpio} unnamed-gpio-in {line} {int(not requested)}")
        else:
            register = self.board.request_registers[requested]
            self._ask(f"writel {register:#x} {1 << line:#x}")

    def lit(self, led: str) -> bool:
        """Whether an LED is on now."""
        changes = self.pulses(led)
        return bool(changes) and changes[-1].high

    def pulses(self, led: str) -> list[Change]:
        """The changes of an LED since the start."""
        return [change for change in self.changes if change.line == self.board.leds[led]]

    def rises(self, led: str) -> int:
        """The number of times that an LED came on."""
        return sum(change.high for change in self.pulses(led))

    def bytes_sent(self) -> bytes:
        """All that came over the wire of the serial port."""
        return self.wire.read_bytes()

    def wait_for(self, what: str, condition: Callable[[], bool], seconds: float) -> float:
        """Wait until ``condition`` holds; returns the seconds that it took."""
        start = time.monotonic()
        while not condition():
            if time.monotonic() > start + seconds:
                raise self._failure(f"not within {seconds:g} s: {what}")
            self._receive(0.05)
        return time.monotonic() - start

    def _find_gpio(self) -> str:
        """The path of the GPIO controller in QEMU's tree of objects."""
        self._monitor.settimeout(REACTION_SECONDS)
        self._monitor.sendall(b"info qom-tree\n")
        text = b""
        while text.count(b"(qemu)") < 2:
            if not (data := self._monitor.recv(65536)):
                raise self._failure("QEMU has ended")
            text += data
        path: list[str] = []
        for indent, name, kind in re.findall(r"^( *)/(\S+) \((\S+)\)", text.decode(), re.MULTILINE):
            path[len(indent) // 2 :] = [name]
            if kind == self.board.gpio:
                return "/" + "/".join(path)
        raise self._failure(f"QEMU's board has no {self.board.gpio}")

    def _ask(self, command: str) -> None:
        self._qtest.sendall(f"{command}\n".encode())
        self.wait_for(f"QEMU's answer to {command}", lambda: bool(self._answers), REACTION_SECONDS)
        if (answer := self._answers.pop(0)) != "OK":
            raise self._failure(f"{command}: {answer}")

    def _receive(self, seconds: float) -> None:
        self._qtest.settimeout(seconds)
        try:
            data = self._qtest.recv(65536)
        except TimeoutError:
            return
        except ConnectionError:
            data = b""
        if not data:
            raise self._failure("QEMU has ended")
        now = time.monotonic()
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            match line.decode().split():
                case ["IRQ", ("raise" | "lower") as kind, number]:
                    self.changes.append(Change(now, int(number), kind == "raise"))
                case words:
                    self._answers.append(" ".join(words))

    def _failure(self, what: str) -> BoardError:
        parts = [f"{self.board.name}: {what}"]
        for path in (self._log, self.console):
            lines = path.read_text(errors="replace").splitlines()[-40:] if path.exists() else []
            parts += [f"the end of {path}:", *(f"    {line}" for line in lines)]
        parts.append(f"the last changes of pins: {self.changes[-10:]}")
        return BoardError("\n".join(parts))


def telegrams(sent: bytes, expected: bytes) -> int:
    """The number of telegrams on the wire.  BoardError unless each is the expected one, byte for
    byte, and what was broken off is the beginning of one.
    """
    try:
        pieces = split(sent)
    except AssertionError as error:
        raise BoardError(str(error)) from error
    for piece in pieces:
        if piece.data != expected and not (expected.startswith(piece.data) and not piece.complete):
            raise BoardError(f"not the expected telegram: {piece.data!r}")
    return sum(piece.complete for piece in pieces)


def try_board(board: Board, results: Path, say: Callable[[str], None]) -> None:
    """Boot a board, and expect of it what a charge point and an installer expect."""
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    golden = (source_tree() / "tests/p1/golden-24A.p1").read_bytes()
    expected = with_amperes(golden, [round(a) for a in AMPERES])
    directory = image(SUITE, ARCHITECTURE)
    say(f"Linux {kernel_version(directory / 'rootfs')}, {run(QEMU, '--version').splitlines()[0]}")
    with Emulation(board, results, directory) as emulation:

        def sent(number: int) -> Callable[[], bool]:
            return lambda: telegrams(emulation.bytes_sent(), expected) >= number

        def since_start() -> float:
            return time.monotonic() - emulation.start_seconds

        emulation.wait_for("power LED on", lambda: emulation.lit("power"), BOOT_SECONDS)
        say(f"power LED on after {since_start():.0f} s")
        emulation.wait_for("a telegram", sent(1), BOOT_SECONDS)
        say(f"first telegram after {since_start():.0f} s")
        emulation.wait_for(f"{TELEGRAMS} telegrams", sent(TELEGRAMS), REACTION_SECONDS)
        emulation.wait_for("p1 LED on", lambda: emulation.lit("p1"), REACTION_SECONDS)
        emulation.wait_for(
            "pulses of the current LED",
            lambda: emulation.rises("current") > QUIET_PULSES,
            REACTION_SECONDS,
        )
        lit = lit_share(emulation)
        say(f"{TELEGRAMS} telegrams, each byte as expected; current LED on for {lit:.0%}")

        emulation.request(False)
        seconds = emulation.wait_for(
            "p1 LED off without a request", lambda: not emulation.lit("p1"), REACTION_SECONDS
        )
        count = emulation.rises("current")
        emulation.wait_for(
            "the next pulse of the current LED",
            lambda: emulation.rises("current") > count,
            REACTION_SECONDS,
        )
        before = emulation.bytes_sent()
        emulation.wait_for(
            "pulses of the current LED without a request",
            lambda: emulation.rises("current") > count + QUIET_PULSES,
            REACTION_SECONDS,
        )
        if emulation.bytes_sent() != before:
            raise BoardError("bytes were sent without a request")
        say(f"no request: p1 LED off after {seconds:.2f} s, nothing sent in {QUIET_PULSES} s")

        emulation.request(True)
        number = telegrams(before, expected)
        seconds = emulation.wait_for("a telegram again", sent(number + 1), REACTION_SECONDS)
        emulation.wait_for("p1 LED on", lambda: emulation.lit("p1"), REACTION_SECONDS)
        emulation.wait_for("telegrams again", sent(number + TELEGRAMS), REACTION_SECONDS)
        if not emulation.lit("power"):
            raise BoardError("the power LED is off")
        say(f"request: a telegram after {seconds:.2f} s; {number + TELEGRAMS} telegrams in all")
        console = emulation.console.read_text(errors="replace")
        if complaints := [line for line in console.splitlines() if COMPLAINT.search(line)]:
            raise BoardError("\n".join(["the kernel complains:", *complaints]))
        say(f"done after {since_start():.0f} s")


def lit_share(emulation: Emulation) -> float:
    """The share of time for which the current LED was on, over whole pulses."""
    changes = emulation.pulses("current")
    first, *_, last = (number for number, change in enumerate(changes) if change.high)
    lit = sum(
        after.seconds - before.seconds
        for before, after in itertools.pairwise(changes[first : last + 1])
        if before.high
    )
    return lit / (changes[last].seconds - changes[first].seconds)


def main(arguments: Sequence[str]) -> int:
    """Try the boards asked for; 0 when each of them did what is expected."""
    parser = argparse.ArgumentParser(prog="boards", description=__doc__.splitlines()[0])
    parser.add_argument(
        "boards", nargs="*", metavar="BOARD", help=f"{' or '.join(BOARDS)}; default: all of them"
    )
    parser.add_argument(
        "--results", type=Path, default=cache_directory() / "boards", help="default: %(default)s"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.boards) - set(BOARDS):
        parser.error(f"no such board: {', '.join(sorted(unknown))}; known: {', '.join(BOARDS)}")
    failed = []
    install_tools(HOST_PACKAGES)
    for name in options.boards or BOARDS:

        def say(text: str, name: str = name) -> None:
            print(f"[{name}] {text}", flush=True)

        try:
            try_board(BOARDS[name], options.results.resolve() / name, say)
        except (BoardError, ImageError, RuntimeError, OSError, subprocess.SubprocessError) as error:
            say(f"FAILED {error}")
            failed.append(name)
    print(f"{len(options.boards or BOARDS) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
