# SPDX-License-Identifier: Apache-2.0
"""Device trees for the tests: Debian's of the Raspberry Pis, a compiler, and a reader.

The trees come from the kernel package for arm64. It is downloaded once, from the mirror that this
machine's apt uses; only its trees are kept, in the user's cache.
"""

import contextlib
import hashlib
import os
import re
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

SUITE = "trixie"
KERNEL = "linux-image-arm64"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "csp1d"

Tree = dict[str, dict[str, bytes]]
"""The properties of each node, by the node's path."""


def run(*command: str | Path, stdin: str | None = None, cwd: Path | None = None) -> str:
    """Run a command that must succeed; returns its standard output and error."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, input=stdin, cwd=cwd
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed: {done.stdout}")
    return done.stdout


def compiled(source: str, target: Path, warnings: bool = True) -> Path:
    """Compile a source to the blob `target`; `warnings`: fail on a warning."""
    switches = [] if warnings else ["-q"]
    output = run("dtc", "-@", *switches, "-I", "dts", "-O", "dtb", "-o", target, "-", stdin=source)
    assert output == ""
    return target


def read_tree(blob: Path) -> Tree:
    """A flattened device tree (Devicetree Specification, chapter 5)."""
    data = blob.read_bytes()
    structure, texts = struct.unpack_from(">II", data, 8)
    tree: Tree = {}
    path: list[str] = []

    def text(start: int) -> str:
        return data[start : data.index(b"\0", start)].decode()

    while (token := struct.unpack_from(">I", data, structure)[0]) != 9:
        structure += 4
        if token == 1:
            path.append(text(structure))
            tree["/".join(path) or "/"] = {}
            structure += (len(path[-1]) + 4) & ~3
        elif token == 2:
            path.pop()
        elif token == 3:
            length, name = struct.unpack_from(">II", data, structure)
            value = data[structure + 8 : structure + 8 + length]
            tree["/".join(path) or "/"][text(texts + name)] = value
            structure += (8 + length + 3) & ~3
    return tree


def strings(value: bytes) -> list[str]:
    return value.decode().removesuffix("\0").split("\0")


def cells(value: bytes) -> list[int]:
    return list(struct.unpack(f">{len(value) // 4}I", value))


def is_enabled(tree: Tree, path: str) -> bool:
    nodes = [path, *(str(parent) for parent in Path(path).parents)]
    return all(strings(tree[node].get("status", b"okay\0"))[0] == "okay" for node in nodes)


def node_of(tree: Tree, phandle: int) -> str:
    (path,) = (p for p, node in tree.items() if node.get("phandle") == struct.pack(">I", phandle))
    return path


def the_node(tree: Tree, name: str, value: str) -> str:
    """The path of the only node with this string property."""
    (path,) = (path for path, node in tree.items() if node.get(name) == value.encode() + b"\0")
    return path


def debian_trees(boards: Sequence[str]) -> Path:
    """The folder with Debian's BOARD.dtb of these boards, downloaded the first time."""
    key = hashlib.sha256(f"{SUITE} {sorted(boards)}".encode()).hexdigest()[:12]
    folder = CACHE / f"device-trees-{key}"
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            trees = Path(work) / "trees"
            trees.mkdir()
            _unpack(_download(Path(work)), boards, trees)
            # Another run may have created it meanwhile.
            with contextlib.suppress(OSError):
                trees.rename(folder)
    return folder


def _download(folder: Path) -> Path:
    """Download Debian's kernel package for arm64, also on machines of another architecture."""
    wanted = ("--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages")
    targets = run("apt-get", "indextargets", *wanted).splitlines()
    mirrors = [target.split("|")[1] for target in targets if target.startswith("Debian|")]
    assert mirrors, "apt knows no Debian mirror yet: run apt-get update"
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources").write_text(f"deb [signed-by={KEYRING}] {mirrors[0]} {SUITE} main\n")
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Dir::State": folder,
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder,
        "Dir::Etc::SourceList": folder / "sources",
        "Dir::Etc::SourceParts": "/dev/null",
    }
    options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    run("apt-get", *options, "update", "-qq")
    depends = run("apt-cache", *options, "depends", "--important", KERNEL)
    (package,) = re.findall(r"Depends: (linux-image-\S+)", depends)
    run("apt-get", *options, "download", "-qq", package, cwd=folder)
    (deb,) = folder.glob("*.deb")
    return deb


def _unpack(deb: Path, boards: Sequence[str], folder: Path) -> None:
    missing = {f"{board}.dtb" for board in boards}
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as unpacker:
        with tarfile.open(fileobj=unpacker.stdout, mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content and (name := Path(member.name).name) in missing:
                    (folder / name).write_bytes(content.read())
                    missing.remove(name)
                if not missing:
                    break
        # The trees come first; the modules after them need not be unpacked.
        unpacker.kill()
    assert not missing, f"{deb.name} lacks {', '.join(sorted(missing))}"
