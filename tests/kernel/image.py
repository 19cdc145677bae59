#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Build the disk images on which csp1d meets real Debian kernels.

    tests/kernel/image SUITE [--architecture amd64|arm64] [--module]

An image is a directory, and its path is what this command prints:

    disk.raw     ext4 root file system with systemd, Debian's own kernel and csp1d's dependencies
    vmlinuz      that kernel, as it is packed
    vmlinux      on amd64: that kernel, unpacked for QEMU, since a guest that unpacks it takes ten
                 seconds, and a minute after a reboot, where it overwrites translated code
    initrd       an initramfs that can do no more than mount the disk: Debian's own, with udev,
                 would take eight seconds longer under emulation
    rootfs/      the same tree unpacked, in which kernel modules are compiled by chroot
    modules/     compiled test modules, a directory for each state of tests/kernel/module

It is kept outside the source tree, under a name that holds the hash of this file (which is
everything that goes into it), so a changed script makes a new image and an unchanged one costs
nothing.  ``--module`` also compiles tests/kernel/module for the image's kernel, and prints that
directory on a second line.

An arm64 image is built by QEMU's user mode emulation; tests/kernel/boards.py runs it. Where a
second initramfs brings /payload.cpio, that is unpacked into the disk.

The Debian mirror is taken from this machine's apt sources at run time.  Building needs root (sudo
is used otherwise).
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import lzma
import os
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUITES = ("bookworm", "trixie")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# The tools that build an image, each with a file that shows that it is installed.
HOST_PACKAGES = {
    "mmdebstrap": "/usr/bin/mmdebstrap",
    "e2fsprogs": "/sbin/mke2fs",
    "debian-archive-keyring": KEYRING,
    "zstd": "/usr/bin/zstd",
    "cpio": "/usr/bin/cpio",
}

ARCHITECTURES = ("amd64", "arm64")
# What runs programs of another architecture.
FOREIGN_PACKAGES = {
    "arch-test": "/usr/bin/arch-test",
    "qemu-user-static": "/usr/lib/binfmt.d/qemu-aarch64.conf",
}
# Where systemd runs, the package has registered its emulator with the kernel. Elsewhere, for
# example in a container, this does it: since Linux 6.7 for the container alone.
EMULATED = """
formats=/proc/sys/fs/binfmt_misc
[ -e $formats/register ] || mount -t binfmt_misc binfmt_misc $formats
[ -e $formats/qemu-aarch64 ] || cat /usr/lib/binfmt.d/qemu-aarch64.conf >$formats/register
exec "$@"
"""

SYSTEM = ["systemd", "systemd-sysv", "udev", "kmod", "procps"]
COMPILER = ["gcc", "make"]
CSP1D_DEPENDS = [
    "acl",
    "passwd",
    "python3",
    "python3-numpy",
    "python3-periphery",
    "python3-prometheus-client",
    "python3-pyudev",
    "python3-rich",
    "python3-systemd",
    "tzdata",
]
TESTS = ["iproute2", "python3-pytest"]

# What takes time to write. Drivers of hardware that the machine does not have are more than half of
# the kernel package.
UNUSED_DRIVERS = [
    "drivers/ata",
    "drivers/gpu",
    "drivers/infiniband",
    "drivers/media",
    "drivers/net",
    "drivers/scsi",
    "sound",
]
UNUSED = [
    *(
        f"{lib}/modules/*/kernel/{path}/*"
        for lib in ("/lib", "/usr/lib")
        for path in UNUSED_DRIVERS
    ),
    *(f"/usr/share/{path}/*" for path in ("doc", "info", "locale", "man")),
]
# What the initramfs needs to find the root file system: on arm64 also on a Raspberry Pi's SD card.
BOOT_MODULES = {
    "amd64": ["virtio_pci", "virtio_blk", "ext4", "crc32c_generic"],
    "arm64": ["virtio_pci", "virtio_blk", "ext4", "crc32c_generic", "bcm2835"],
}
# Units that cost boot time or wake up in the middle of a measurement.
MASKED = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty-static.service",
    "getty@tty1.service",
    "serial-getty@hvc0.service",
    "serial-getty@ttyAMA0.service",
    "serial-getty@ttyS0.service",
    "sys-fs-fuse-connections.mount",
    "systemd-binfmt.service",
    "systemd-journal-flush.service",
    "systemd-logind.service",
    "systemd-networkd.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-timesyncd.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-utmp.service",
    "systemd-user-sessions.service",
]
# At boot, udev processes only the devices of csp1d, the disk and the agent: for the hundreds of
# others, it would take ten seconds. A udev rule of csp1d for another subsystem needs that here.
COLDPLUG = """[Service]
ExecStart=
ExecStart=udevadm trigger --action=add --subsystem-match=block --subsystem-match=gpio \\
    --subsystem-match=iio --subsystem-match=leds --subsystem-match=pci --subsystem-match=tty \\
    --subsystem-match=virtio --subsystem-match=virtio-ports
"""
# An SD card of QEMU's has a power of two. The file has holes.
DISK_BYTES = 4 << 30

# The guest's half of machine.py.  A request is one line: a number, a time limit in seconds and the
# command in base64; its output goes to files of the results share, where the host sees it grow, and
# its exit code comes back on the port.  Requests run side by side, so that a hanging one can be
# examined.
AGENT = r"""#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
port=/dev/virtio-ports/agent
until [ -c "$port" ]; do sleep 0.1; done
exec 3<>"$port"
mkdir -p /results
# The mount loads it, too, but while udev is about to, it finds no share.
modprobe 9pnet_virtio
mount -t 9p -o trans=virtio,version=9p2000.L,cache=none,msize=262144 results /results || exit 1
echo ready >&3
while read -r -u 3 number seconds command; do
    {
        timeout --kill-after=5 "$seconds" bash -c "$(base64 -d <<<"$command")" \
            </dev/null >"/results/.agent/$number.out" 2>"/results/.agent/$number.err" 3>&-
        echo "$number $?" >&3
    } &
done
"""
AGENT_UNIT = """[Unit]
Description=Run the host's commands
After=basic.target

[Service]
ExecStart=/usr/local/lib/machine-agent
Environment=HOME=/root LANG=C.UTF-8
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
StandardOutput=journal+console
KillMode=process

[Install]
WantedBy=multi-user.target
"""

# The initramfs: this script, programs of klibc, and modules under names in the order of loading.
INIT = """#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
mount -t devtmpfs dev /dev
mount -t proc proc /proc
failed=
for module in /modules/*; do insmod "$module" || failed="$failed $module"; done
for option in $(cat /proc/cmdline); do
    case $option in root=*) root=${option#root=} ;; esac
done
# An SD card takes a moment.
tries=200
until mount -t ext4 -o noatime "$root" /root 2>/dev/null; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || break
    sleep 0.1
done
if [ $tries = 0 ]; then
    echo "init: no file system at $root; modules that do not load:$failed"
    sleep 1000000
fi
[ ! -e /payload.cpio ] || chroot /root cpio -idmu --quiet </payload.cpio
mount -o move /dev /root/dev
mount -o move /proc /root/proc
exec run-init /root /sbin/init </root/dev/console >/root/dev/console 2>&1
"""
INIT_PROGRAMS = ("cat", "chroot", "insmod", "mount", "run-init", "sh", "sleep")


class ImageError(Exception):
    """An image cannot be built; the text says what failed and where its log is."""


def privileged(command: Sequence[str]) -> list[str]:
    """``command``, by sudo unless this process is root already."""
    return list(command) if os.geteuid() == 0 else ["sudo", "--", *command]


def for_architecture(architecture: str, command: Sequence[str]) -> list[str]:
    """``command``, which runs programs of ``architecture``; for ``run``."""
    if architecture == "amd64":
        return list(command)
    return ["unshare", "--mount", "sh", "-ec", EMULATED, "sh", *command]


def run(command: Sequence[str], log: Path | None = None, stdin: str | None = None) -> str:
    """Standard output of ``command``, run as root; with ``log`` both outputs go to that file."""
    try:
        if log is None:
            return subprocess.run(
                privileged(command), check=True, stdout=subprocess.PIPE, text=True, input=stdin
            ).stdout
        with log.open("a") as file:
            print("+", shlex.join(command), file=file, flush=True)
            subprocess.run(
                privileged(command),
                check=True,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                input=stdin,
            )
        return ""
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        tail = ""
        if log is not None:
            tail = f"\nthe end of {log}:\n" + "\n".join(
                log.read_text(errors="replace").splitlines()[-25:]
            )
        raise ImageError(
            f"{shlex.join(command)[:200]}: {error.__class__.__name__}{tail}"
        ) from error


def install_tools(packages: Mapping[str, str]) -> None:
    """Install those of the packages whose file is missing on this machine."""
    with locked(cache_directory() / "apt.lock"):
        missing = [package for package, file in packages.items() if not Path(file).exists()]
        if missing:
            print(f"installing {' '.join(missing)}", file=sys.stderr)
            run(["apt-get", "update", "-qq"])
            subprocess.run(
                privileged(
                    ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing]
                ),
                check=True,
                stdout=sys.stderr,
            )


def apt_sources(suite: str) -> str:
    """One-line sources of ``suite`` on the mirrors of this machine's own Debian
    suite.
    """
    targets = [
        "apt-get",
        "indextargets",
        "--format",
        "$(ORIGIN)|$(LABEL)|$(RELEASE)|$(REPO_URI)",
        "Created-By: Packages",
    ]
    mirrors: dict[str, str] = {}
    for attempt in (1, 2):
        for line in subprocess.run(
            targets, check=True, stdout=subprocess.PIPE, text=True
        ).stdout.splitlines():
            origin, label, release, uri = line.split("|", 3)
            if origin == "Debian" and not release.endswith("-backports"):
                mirrors.setdefault(label, uri)
        if "Debian" in mirrors:
            break
        if (
            attempt == 1
        ):  # Origin and label stand in lists that a fresh machine has not fetched yet.
            with locked(cache_directory() / "apt.lock"):
                run(["apt-get", "update", "-qq"])
    else:
        raise ImageError(
            "no Debian mirror among this machine's apt sources (see: apt-get indextargets)"
        )
    option = f"[signed-by={KEYRING}]"
    lines = [
        f"deb {option} {mirrors['Debian']} {name} main" for name in (suite, f"{suite}-updates")
    ]
    if "Debian-Security" in mirrors:
        lines.append(f"deb {option} {mirrors['Debian-Security']} {suite}-security main")
    return "\n".join(lines) + "\n"


def apt_options() -> list[str]:
    """This machine's apt options that decide whether its mirror can be reached and is believed."""
    dump = subprocess.run(
        ["apt-config", "dump"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    wanted = ("Acquire::http::", "Acquire::https::", "Acquire::Check-")
    return [
        f"--aptopt={line}"
        for line in dump.splitlines()
        if line.startswith(wanted) and not line.endswith('"";')
    ]


def write(root: Path, path: str, text: str, mode: str = "0644") -> None:
    """Write a file of the image, which belongs to root."""
    target = root / path
    run(["mkdir", "-p", str(target.parent)])
    run(["tee", str(target)], stdin=text)
    run(["chmod", mode, str(target)])


def build(suite: str, architecture: str, directory: Path) -> None:
    """Fill ``directory`` with the image of ``suite`` for ``architecture``."""
    log = directory / "build.log"
    root = directory / "rootfs"
    kernel = [f"linux-image-{architecture}", f"linux-headers-{architecture}"]
    packages = SYSTEM + kernel + COMPILER + CSP1D_DEPENDS + TESTS
    options = ["--mode=root", "--variant=apt", f"--architectures={architecture}"]
    options += [f"--include={','.join(packages)}"]
    options += [f"--dpkgopt=path-exclude={path}" for path in UNUSED]
    # /etc/kernel/postinst.d/initramfs-tools: no initramfs of Debian's.
    command = ["env", "INITRD=No", "mmdebstrap", *options, *apt_options(), suite, str(root), "-"]
    run(
        for_architecture(architecture, command),
        log,
        stdin=apt_sources(suite),
    )

    # Nothing of the build's surroundings stays in the image: not the mirror, not this machine's
    # apt and dpkg options.
    for path in (
        "etc/apt/sources.list",
        "etc/apt/apt.conf.d/99mmdebstrap",
        "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
        "etc/resolv.conf",
    ):
        run(["rm", "-f", str(root / path)])
    run(["sh", "-c", f"rm -rf {shlex.quote(str(root))}/var/lib/apt/lists/*"])
    write(root, "etc/hostname", "csp1-hat\n")
    write(root, "etc/hosts", "127.0.0.1 localhost csp1-hat\n")
    write(root, "etc/fstab", "/dev/vda / ext4 rw,noatime 0 0\n")
    # A machine without an id takes the boot for its first one and presets every unit.
    write(root, "etc/machine-id", "c5b1d0000000400080000000000000d1\n")
    write(root, "etc/systemd/journald.conf.d/volatile.conf", "[Journal]\nStorage=volatile\n")
    run(["systemctl", f"--root={root}", "set-default", "multi-user.target"], log)
    if architecture == "amd64":
        write(root, "usr/local/lib/machine-agent", AGENT, "0755")
        write(root, "etc/systemd/system/machine-agent.service", AGENT_UNIT)
        run(["systemctl", f"--root={root}", "enable", "machine-agent.service"], log)
        write(root, "etc/systemd/system/systemd-udev-trigger.service.d/coldplug.conf", COLDPLUG)
        # No generated unit is needed, but each reload of the manager would run all generators.
        generators = root / "etc/systemd/system-generators"
        run(["mkdir", "-p", str(generators)])
        for generator in (root / "lib/systemd/system-generators").iterdir():
            run(["ln", "-s", "/dev/null", str(generators / generator.name)])
        # What is installed in a machine ends with it.
        write(root, "etc/dpkg/dpkg.cfg.d/unsafe-io", "force-unsafe-io\n")
    run(["systemctl", f"--root={root}", "mask", *MASKED], log)
    # Nothing is to be updated at the first boot.
    run(["touch", str(root / "etc/.updated"), str(root / "var/.updated")])

    version = kernel_version(root)
    command = ["chroot", str(root), "modprobe", "--set-version", version, "--show-depends", "--all"]
    shown = run(for_architecture(architecture, [*command, *BOOT_MODULES[architecture]]))
    make_initramfs(root, shown, directory / "initrd")
    run(
        [
            "install",
            "-m",
            "0644",
            str(root / "boot" / f"vmlinuz-{version}"),
            str(directory / "vmlinuz"),
        ]
    )
    if architecture == "amd64":
        packed = (directory / "vmlinuz").read_bytes()
        (directory / "vmlinux").write_bytes(unpacked_kernel(packed))

    disk = directory / "disk.raw"
    run(["truncate", "-s", str(DISK_BYTES), str(disk)])
    # Overlays are thrown away, so a journal would only slow the guest down.
    run(
        [
            "/sbin/mke2fs",
            "-q",
            "-t",
            "ext4",
            "-O",
            "^has_journal",
            "-m",
            "0",
            "-d",
            str(root),
            str(disk),
        ],
        log,
    )
    run(["chmod", "0644", str(disk)])
    (directory / "modules").mkdir()


def make_initramfs(root: Path, shown: str, archive: Path) -> None:
    """Make ``archive`` of files of ``root``, with the modules that modprobe --show-depends has
    ``shown``. It is not compressed, and neither are the modules, as klibc's insmod needs it.
    """
    lines = [line.split() for line in shown.splitlines()]
    modules = dict.fromkeys(words[1] for words in lines if words[0] == "insmod")
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory)
        for name in ("bin", "dev", "modules", "proc", "root", "usr/lib"):
            (tree / name).mkdir(parents=True)
        (tree / "init").write_text(INIT)
        (tree / "init").chmod(0o755)
        for program in INIT_PROGRAMS:
            shutil.copy(root / "usr/lib/klibc/bin" / program, tree / "bin")
        (interpreter,) = (root / "usr/lib").glob("klibc-*.so")
        shutil.copy(interpreter, tree / "usr/lib")
        (tree / "lib").symlink_to("usr/lib")
        for number, module in enumerate(modules, 10):
            content = Path(f"{root}{module}").read_bytes()
            name = Path(module).name.removesuffix(".xz")
            (tree / "modules" / f"{number}-{name}").write_bytes(
                lzma.decompress(content) if module.endswith(".xz") else content
            )
        pack = (
            f"find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 >{shlex.quote(str(archive))}"
        )
        subprocess.run(["sh", "-c", pack], cwd=tree, check=True)


def unpacked_kernel(image: bytes) -> bytes:
    """The ELF file within a bzImage (Linux, Documentation/arch/x86/boot.rst: payload_offset)."""
    protected_mode = (image[0x1F1] + 1) * 512
    offset, length = struct.unpack_from("<II", image, 0x248)
    # Its unpacked size follows the compressed stream.
    payload = image[protected_mode + offset :][: length - 4]
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.decompress(payload)
    return subprocess.run(
        ["zstd", "--decompress", "--stdout"], input=payload, check=True, stdout=subprocess.PIPE
    ).stdout


def kernel_version(root: Path) -> str:
    """Release of the one kernel in the tree."""
    versions = sorted(path.name for path in (root / "usr/lib/modules").iterdir())
    if len(versions) != 1:
        raise ImageError(f"{root}/usr/lib/modules: one kernel expected, found {versions or 'none'}")
    return versions[0]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``: of two builds of one image the second waits and finds it
    finished.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cache_directory() -> Path:
    """Where images are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "csp1d" / "kernel"


def image(suite: str, architecture: str = "amd64") -> Path:
    """Directory of the image of ``suite``, built now unless it is there."""
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    name = f"{suite}-{architecture}-{digest}"
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    finished = cache / name
    with locked(cache / f"{name}.lock"):
        for leftover in cache.glob(
            f"{name}.partial-*"
        ):  # Left by a killed build: no other process holds the lock.
            # The next build removes what is still mounted there.
            subprocess.run(
                privileged(["rm", "-rf", "--one-file-system", str(leftover)]), check=False
            )
        if not finished.is_dir():
            install_tools(HOST_PACKAGES | ({} if architecture == "amd64" else FOREIGN_PACKAGES))
            start = time.monotonic()
            minutes = "two" if architecture == "amd64" else "twenty"
            print(f"{name}: building (about {minutes} minutes)", file=sys.stderr)
            partial = Path(tempfile.mkdtemp(prefix=f"{name}.partial-", dir=cache))
            partial.chmod(0o755)
            build(suite, architecture, partial)
            partial.rename(finished)
            print(f"{name}: built in {time.monotonic() - start:.0f} s", file=sys.stderr)
    return finished


def compiled_module(directory: Path, source: Path, architecture: str = "amd64") -> Path:
    """Directory of the kernel objects made from ``source`` for the kernel of the image in
    ``directory``.
    """
    files = sorted(
        path
        for path in source.iterdir()
        if path.suffix in (".c", ".h") or path.name in ("Makefile", "Kbuild")
    )
    if not files:
        raise ImageError(f"{source}: no kernel module source")
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    finished = directory / "modules" / digest.hexdigest()[:12]
    with locked(directory / "modules" / "lock"):
        if finished.is_dir():
            return finished
        root = directory / "rootfs"
        work = Path(run(["mktemp", "-d", str(root / "tmp" / "module-XXXXXX")]).strip())
        try:
            run(["cp", *map(str, files), str(work)])
            inside = "/" / work.relative_to(root)
            # The compiler's words go to standard error as they are: they are what the author of
            # the module wants.
            make = [
                "chroot",
                str(root),
                "make",
                "-C",
                f"/lib/modules/{kernel_version(root)}/build",
                f"M={inside}",
                "modules",
            ]
            if (
                subprocess.run(
                    privileged(for_architecture(architecture, make)), stdout=sys.stderr
                ).returncode
                != 0
            ):
                raise ImageError(
                    f"{source}: does not compile for {kernel_version(root)} ({directory.name})"
                )
            partial = Path(tempfile.mkdtemp(prefix="partial-", dir=directory / "modules"))
            partial.chmod(0o755)
            for path in sorted(work.glob("*.ko")):
                shutil.copy(path, partial)
            partial.rename(finished)
        finally:
            run(["rm", "-rf", str(work)])
    return finished


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what is asked for, and print where it is."""
    parser = argparse.ArgumentParser(
        prog="image", description="Build a disk image of a Debian suite; print its directory."
    )
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="amd64")
    parser.add_argument(
        "--module",
        action="store_true",
        help="compile tests/kernel/module too, print that directory",
    )
    options = parser.parse_args(arguments)
    try:
        directory = image(options.suite, options.architecture)
        print(directory)
        if options.module:
            print(compiled_module(directory, HERE / "module", options.architecture))
    except (ImageError, subprocess.CalledProcessError, OSError) as error:
        print(f"image {options.suite}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
