# SPDX-License-Identifier: Apache-2.0
"""A throw-away virtual machine with a real Debian kernel and systemd, driven from a test on the
host.

QEMU boots an image of tests/kernel/image on an overlay that vanishes with it, without KVM, so that
it works wherever QEMU does.  Time in the guest is counted in instructions, 4 ns each, and leaps to
the next timer when the guest is idle (QEMU's -icount, docs/devel/tcg-icount.rst).  On a slow or
busy host tests take longer, but nothing else changes: every timer is punctual, and a minute may
pass in less.  In a guest that waits for the host, for example for a disk block, time leaps over the
wait as well; therefore the kernel's tick, 4 ms, does not stop (nohz=off).

Directories of the host are shared by 9p.  Commands go over a virtio port to an agent in the guest,
which writes their output into the results share.  ttyS0 is the console, kept in a log; ttyS1 is a
16550 whose wire ends in a file of the results share: the host is the witness of what a program
sent, and the guest can read it too.

    with Machine(image, results, shares={"csp1d": Share(source)}) as machine:
        machine.run(["systemctl", "is-system-running", "--wait"], timeout=60)
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import select
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

# Host seconds: twenty to thirty on an idle host, several times as many on a busy one.
BOOT_SECONDS = 300.0
# Maximum host seconds per guest second, and the time after a command's own
# time limit, which the guest watches over, it has stopped for sure.
SLOWNESS = 4.0
ANSWER_SECONDS = 30.0
QEMU = "/usr/bin/qemu-system-x86_64"
HOST_PACKAGES = {"qemu-system-x86": QEMU}
# Started with the death signal set, QEMU does not outlive a test that is killed.
WITH_PARENT = ["setpriv", "--pdeathsig", "KILL", "--"]


class MachineError(Exception):
    """The machine does not start, or no longer answers.  The text names the log and shows the end
    of the console.
    """


@dataclasses.dataclass(frozen=True)
class Share:
    """A directory of the host, seen in the guest as ``/<name>``."""

    path: Path
    read_only: bool = True


@dataclasses.dataclass(frozen=True)
class Completed:
    """How a command in the guest ended; 124 or 137 is the exit code of one that ran into its time
    limit.
    """

    arguments: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    @property
    def timed_out(self) -> bool:
        """Whether the command was ended by its time limit."""
        return self.returncode in (124, 137)


class CommandError(Exception):
    """A command in the guest failed although ``run`` was called with ``check``."""

    def __init__(self, completed: Completed) -> None:
        self.completed = completed
        output = (completed.stdout + completed.stderr).strip()
        super().__init__(
            f"{shlex.join(completed.arguments)}: exit code {completed.returncode}\n{output[-4000:]}"
        )


class _Tail:
    """Passes on the new content of a growing file, in whole characters."""

    def __init__(self, path: Path, sink: Callable[[str], None]) -> None:
        self.path, self.sink, self.position = path, sink, 0

    def forward(self, everything: bool = False) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.position)
            data = file.read()
        end = len(data) if everything else data.rfind(b"\n") + 1
        if end:
            self.position += end
            self.sink(data[:end].decode(errors="replace"))


class Machine:
    """A booted guest; a context manager that leaves nothing running.

    ``image`` is a directory made by tests/kernel/image.  ``results`` is created if missing and
    mounted read-write at /results; it holds ``console.log``, ``qemu.log`` and ``ttyS1`` (the bytes
    of the second UART).  ``shares`` are mounted at /<name>.  Raises MachineError when the guest
    does not come up.
    """

    def __init__(
        self,
        image: Path,
        results: Path,
        *,
        shares: Mapping[str, Share] | None = None,
        memory_mebibytes: int = 1024,
        kernel_arguments: Sequence[str] = (),
        boot_seconds: float = BOOT_SECONDS,
    ) -> None:
        self.image = image
        self.results = results
        self.shares = dict(shares or {})
        self.memory_mebibytes = memory_mebibytes
        self.kernel_arguments = tuple(kernel_arguments)
        self.boot_seconds = boot_seconds
        self.console = results / "console.log"
        self.wire = results / "ttyS1"
        self._requests = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._agent: socket.socket | None = None
        self._monitor: socket.socket | None = None
        self._received = b""
        self._answers: dict[str, int] = {}
        self._files = contextlib.ExitStack()

    def __enter__(self) -> Machine:
        try:
            self._start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def run(
        self,
        arguments: Sequence[str],
        *,
        timeout: float = 60.0,
        environment: Mapping[str, str] | None = None,
        directory: str = "/",
        on_output: Callable[[str], None] | None = None,
        check: bool = True,
    ) -> Completed:
        """Run a command as root in the guest and wait for its end.

        ``on_output`` gets standard output while the command runs.  Raises CommandError when
        ``check`` is set and the exit code is not 0, and MachineError when the guest stops
        answering.
        """
        settings = [f"{name}={value}" for name, value in (environment or {}).items()]
        script = f"cd {shlex.quote(directory)} && exec env {shlex.join([*settings, *arguments])}"
        self._requests += 1
        number = str(self._requests)
        output, errors = (self.results / ".agent" / f"{number}.{kind}" for kind in ("out", "err"))
        tail = _Tail(output, on_output) if on_output else None
        self._send(f"{number} {timeout:g} {base64.b64encode(script.encode()).decode()}\n")
        deadline = time.monotonic() + SLOWNESS * timeout + ANSWER_SECONDS
        while number not in self._answers:
            if time.monotonic() > deadline:
                raise self._failure(f"the guest does not answer ({shlex.join(arguments)[:200]})")
            self._receive(0.2)
            if tail:
                tail.forward()
        if tail:
            tail.forward(everything=True)
        completed = Completed(
            tuple(arguments),
            self._answers.pop(number),
            output.read_text(errors="replace"),
            errors.read_text(errors="replace"),
        )
        if check and completed.returncode != 0:
            raise CommandError(completed)
        return completed

    def shell(self, script: str, *, timeout: float = 60.0, check: bool = True) -> Completed:
        """Run a shell script in the guest, ended by its first failing command."""
        return self.run(["bash", "-euo", "pipefail", "-c", script], timeout=timeout, check=check)

    def reboot(self) -> None:
        """Shut the guest down cleanly, restart it with its disk state, and wait until it is up
        again.
        """
        self._send("0 30 " + base64.b64encode(b"systemctl reboot").decode() + "\n")
        self._await_boot()

    def reset(self) -> None:
        """Cut the power and switch it on again: nothing in the guest gets a chance to finish."""
        assert self._monitor is not None
        self._monitor.sendall(b"system_reset\n")
        self._await_boot()

    def kill(self) -> None:
        """End QEMU at once.  What the guest had not written into a share is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._files.close()
        shutil.rmtree(self.results / ".agent", ignore_errors=True)

    def _start(self) -> None:
        for name in ("disk.raw", "vmlinux", "initrd"):
            if not (self.image / name).exists():
                raise MachineError(
                    f"{self.image}: no {name}; tests/kernel/image makes such a directory"
                )
        for package, file in HOST_PACKAGES.items():
            if not Path(file).exists():
                raise MachineError(f"{file} is not there: install {package}")
        (self.results / ".agent").mkdir(parents=True, exist_ok=True)
        self.console.unlink(missing_ok=True)
        self._agent, agent = socket.socketpair()
        self._monitor, monitor = socket.socketpair()
        for end in (self._agent, agent, self._monitor, monitor):
            self._files.callback(end.close)
        log: BinaryIO = self._files.enter_context((self.results / "qemu.log").open("wb"))
        self._process = subprocess.Popen(
            [
                *WITH_PARENT,
                *self._command(agent.fileno(), monitor.fileno()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(agent.fileno(), monitor.fileno()),
        )
        agent.close()
        monitor.close()
        self._await_boot()

    def _command(self, agent: int, monitor: int) -> list[str]:
        shares = {**self.shares, "results": Share(self.results, read_only=False)}
        command = [
            QEMU,
            *(
                "-machine",
                "pc",
                "-cpu",
                "Nehalem",
                "-accel",
                "tcg",
                "-icount",
                "shift=2,sleep=off",
                "-nodefaults",
                "-display",
                "none",
                "-no-user-config",
            ),
            # Of two processors, one would wait for the other in a loop, and time would not leap.
            *("-smp", "1", "-m", str(self.memory_mebibytes)),
            *("-kernel", str(self.image / "vmlinux"), "-initrd", str(self.image / "initrd")),
            *("-append", " ".join(self._kernel_command_line())),
            *(
                "-drive",
                f"file={self.image / 'disk.raw'},format=raw,if=virtio,snapshot=on,cache=unsafe",
            ),
            *("-chardev", f"file,id=console,path={self.console}", "-serial", "chardev:console"),
            *("-chardev", f"file,id=wire,path={self.wire}", "-serial", "chardev:wire"),
            *("-chardev", f"socket,id=agent,fd={agent}", "-device", "virtio-serial-pci"),
            *("-device", "virtserialport,chardev=agent,name=agent"),
            *(
                "-chardev",
                f"socket,id=monitor,fd={monitor}",
                "-mon",
                "chardev=monitor,mode=readline",
            ),
        ]
        for name, share in shares.items():
            option = f"local,path={share.path},mount_tag={name},security_model=none,multidevs=remap"
            command += ["-virtfs", option + (",readonly=on" if share.read_only else "")]
        return command

    def _kernel_command_line(self) -> list[str]:
        # Mitigations and the self tests of the crypto modules are paid for dearly under emulation,
        # and so is every other clock than the time stamp counter.
        fast = ["mitigations=off", "cryptomgr.notests", "nokaslr", "no_timer_check", "tsc=reliable"]
        # No security module has a policy here, but with that of BPF, systemd would load a program
        # for RestrictFileSystems=, which no unit uses.
        fast += ["lsm="]
        # No test uses these devices, and probing them takes two seconds. Routing each device's
        # interrupt by ACPI takes a third of a second.
        fast += ["module_blacklist=floppy,pcspkr,psmouse", "acpi=noirq"]
        # See above: each leap is at most a tick.
        fast += ["nohz=off"]
        # QEMU translates code for the address at which it is mapped. With addresses that differ,
        # starting a program again would take twice as long.
        fast += ["norandmaps"]
        return ["root=/dev/vda", "rw", "console=ttyS0", "panic=-1", *fast, *self.kernel_arguments]

    def _await_boot(self) -> None:
        deadline = time.monotonic() + self.boot_seconds
        again = False
        self._answers.clear()
        while "ready" not in self._answers:
            if time.monotonic() > deadline:
                failure = self._failure(f"the guest was not up after {self.boot_seconds:g} s")
                if again:
                    raise failure
                # Seen once in some hundred boots: the kernel waits for QEMU's disk for ever.
                print(f"{failure}\nonce more, from a reset", flush=True)
                again, deadline = True, time.monotonic() + self.boot_seconds
                assert self._monitor is not None
                self._monitor.sendall(b"system_reset\n")
            self._receive(0.5)
        self._answers.clear()
        for name, share in self.shares.items():
            mode = "ro" if share.read_only else "rw"
            options = f"trans=virtio,version=9p2000.L,cache=none,msize=262144,{mode}"
            self.shell(f"mkdir -p /{name} && mount -t 9p -o {options} {name} /{name}")

    def _send(self, line: str) -> None:
        assert self._agent is not None, "the machine is not running"
        try:
            self._agent.sendall(line.encode())
        except OSError as error:
            raise self._failure("QEMU has ended") from error

    def _receive(self, seconds: float) -> None:
        """Take in the agent's answers, waiting for them at most ``seconds``."""
        assert self._agent is not None
        assert self._process is not None
        if select.select([self._agent], [], [], seconds)[0]:
            try:
                data = self._agent.recv(4096)
            except ConnectionError:
                data = b""
            if not data:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(5)
                raise self._failure("QEMU has ended")
            self._received += data
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            number, _, code = line.decode(errors="replace").partition(" ")
            self._answers[number] = int(code or 0)

    def _failure(self, what: str) -> MachineError:
        parts = [f"{self.image.name}: {what}"]
        for path in (self.results / "qemu.log", self.console):
            lines = path.read_text(errors="replace").splitlines()[-30:] if path.exists() else []
            if lines:
                parts.append(f"the end of {path}:")
                parts += [f"    {line}" for line in lines]
        return MachineError("\n".join(parts))


def source_tree() -> Path:
    """The directory that holds csp1d's source."""
    return Path(os.path.realpath(__file__)).parents[2]
