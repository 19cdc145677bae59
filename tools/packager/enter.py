# SPDX-License-Identifier: Apache-2.0
"""Run a command in a throw-away copy of a chroot. Root starts this in namespaces of its own:

    unshare --mount --pid --fork --kill-child [--net] python3 enter.py \\
        ROOT SCRATCH USER BINDS -- COMMAND

The copy is an overlay whose upper layer is in memory: it costs nothing, needs no flush to disk,
and vanishes with the namespace. BINDS are ``outside:inside`` directories, separated by commas.
"""

import fcntl
import os
import pwd
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1"}


def mount(*arguments: str | Path) -> bool:
    """Whether the mount succeeded."""
    return subprocess.run(["mount", *map(str, arguments)], check=False).returncode == 0


def must(done: bool, what: str) -> None:
    if not done:
        sys.exit(f"enter: {what} is not permitted here: run in a container with CAP_SYS_ADMIN")


def copy(root: Path, scratch: Path) -> Path:
    """A writable copy of ``root`` below ``scratch``."""
    must(mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", scratch), "mounting a tmpfs")
    new, upper, work = (scratch / name for name in ("root", "upper", "work"))
    for directory in (new, upper, work):
        directory.mkdir()
    layers = f"lowerdir={root},upperdir={upper},workdir={work}"
    if not mount("-t", "overlay", "-o", layers, "overlay", new):
        print("enter: there is no overlay file system here; copying the chroot", file=sys.stderr)
        new.rmdir()
        subprocess.run(["cp", "-a", root, new], check=True)
    return new


def furnish(root: Path) -> None:
    """Give the copy its devices, /proc and /sys."""
    must(mount("-t", "proc", "proc", root / "proc"), "mounting /proc")
    dev = root / "dev"
    must(mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", dev), "mounting /dev")
    for device in DEVICES:
        (dev / device).touch()
        must(mount("--bind", f"/dev/{device}", dev / device), f"binding /dev/{device}")
    for name, target in LINKS.items():
        (dev / name).symlink_to(target)
    (dev / "pts").mkdir()
    (dev / "shm").mkdir(mode=0o1777)
    (dev / "shm").chmod(0o1777)
    options = "newinstance,ptmxmode=0666,mode=0620,gid=5"
    must(mount("-t", "devpts", "-o", options, "devpts", dev / "pts"), "mounting /dev/pts")
    must(mount("--rbind", "/sys", root / "sys"), "binding /sys")
    # apt needs name resolution; a separate network namespace has none.
    if Path("/etc/resolv.conf").exists():
        (root / "etc/resolv.conf").unlink(missing_ok=True)
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")


def loopback_up() -> None:
    """In a new network namespace the loopback device is down."""
    get, set_, up = 0x8913, 0x8914, 1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, get, struct.pack("16sh14x", b"lo", 0))
        (flags,) = struct.unpack_from("h", answer, 16)
        if not flags & up:
            fcntl.ioctl(any_socket, set_, struct.pack("16sh14x", b"lo", flags | up))


def main() -> None:
    root, scratch, user, binds, _, *command = sys.argv[1:]
    new = copy(Path(root), Path(scratch))
    furnish(new)
    loopback_up()
    for bind in filter(None, binds.split(",")):
        outside, inside = bind.split(":")
        target = new / inside.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        must(mount("--bind", outside, target), f"binding {outside}")
    os.chroot(new)
    os.chdir("/")
    someone = pwd.getpwnam(user)
    os.initgroups(user, someone.pw_gid)
    os.setgid(someone.pw_gid)
    os.setuid(someone.pw_uid)
    os.umask(0o022)
    environment = {
        "HOME": someone.pw_dir,
        "LC_ALL": "C.UTF-8",
        "LOGNAME": user,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "USER": user,
    }
    os.execvpe(command[0], command, environment)


if __name__ == "__main__":
    main()
