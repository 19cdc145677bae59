# SPDX-License-Identifier: Apache-2.0
"""Properties that hold for any input: one function per kind of input, which takes bytes.

A function fails unless its input is accepted or rejected with the error type for it. The tests call
them with inputs from hypothesis (test_hostile.py), `tools/fuzz` with inputs that reach new code.
"""

import contextlib
import functools
import itertools
import json
import math
import os
import re
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from csp1d.config import Config, DirectionConfig, HttpConfig, P1Config, split_address
from csp1d.config_file import load
from csp1d.errors import CaptureError, ConfigError, ScanFormatError, ScanTypeError, ScenarioError
from csp1d.hat import scenario
from csp1d.hat.recording import Recording
from csp1d.hat.simulated import Player, SimulatedAdc
from csp1d.interfaces.http import SocketServer
from csp1d.interfaces.router import Page, Router, html_page
from csp1d.interfaces.snapshot import Snapshot
from csp1d.measuring.arrays import Integers
from csp1d.measuring.direction import DirectionMeter
from csp1d.measuring.metering import Metering
from csp1d.measuring.reading import DirectionReading, PhaseCurrent
from csp1d.measuring.replay import Replay, reading_json
from csp1d.measuring.scan import Channel, ScanFormat, Timestamp
from csp1d.p1.telegram import crc16_arc, encode, local_time_of
from csp1d.phase import Phase
from csp1d.scan_type import ScanType
from csp1d.status import LiveReading, Problem, parse, status_text, to_json
from csp1d.tool import capture
from csp1d.tool.client import Client, NoAnswerError
from csp1d.units import SECOND_NS

ROOT = Path(__file__).parents[1]
FOLDER = tempfile.TemporaryDirectory(prefix="csp1d-hostile-")
"""For inputs that are files. Shared, since a fuzzer makes thousands per second."""


def scan_types(data: bytes) -> None:
    """One line per element, and after a NUL the scans."""
    lines, _, scans = data.partition(b"\0")
    try:
        types = [ScanType.parse(line) for line in lines.decode(errors="replace").split("\n")]
    except ScanTypeError:
        return
    assert [ScanType.parse(str(type_)) for type_ in types] == types
    *elements, last = types
    timestamp = None
    if elements and (last.storage_bits, last.repeat) == (64, 1):
        timestamp = Timestamp(len(elements), last)
    else:
        elements = types
    made = ScanFormat(
        4000,
        tuple(Channel(f"c{n}", f"p{n}", n, type_, 1.0) for n, type_ in enumerate(elements)),
        timestamp,
    )
    try:
        decoded = made.decode(scans)
    except ScanFormatError:
        assert len(scans) % made.scan_bytes
        return
    for codes, type_ in zip(decoded.codes, elements, strict=True):
        assert len(codes) * made.scan_bytes == len(scans)
        assert ((codes >= type_.lowest) & (codes <= type_.highest)).all()
    assert (decoded.timestamps is None) == (timestamp is None)


def configuration(data: bytes) -> None:
    """A file, and after a NUL a drop-in."""
    file = Path(FOLDER.name) / "csp1d.toml"
    drop_in = file.with_name("csp1d.toml.d") / "10.toml"
    drop_in.parent.mkdir(exist_ok=True)
    for path, content in zip((file, drop_in), data.split(b"\0", 1), strict=False):
        path.write_bytes(content)
    try:
        config = load(file)
    except ConfigError as error:
        if not all(problem.reason for problem in error.problems):
            raise
        return
    finally:
        drop_in.unlink(missing_ok=True)
    usable(config)


def telegram(config: Config, amperes: Sequence[float]) -> bytes:
    return encode(config.p1, amperes, time.localtime(), config.direction)


def is_framed(data: bytes) -> bool:
    body, mark, checksum = data.rpartition(b"!")
    is_one = not body.count(b"!") and not body.count(b"\r\n/")
    return is_one and checksum == b"%04X\r\n" % crc16_arc(body + mark)


DAY_NS = 86_400 * SECOND_NS

CASE = struct.Struct("<BBd3d")
"""Profile, bits of the direction and of the phases that are not measured, Unix time, amperes."""
PROFILES: tuple[Literal["csp1", "smr5", "emucs"], ...] = ("csp1", "smr5", "emucs")


def telegrams(data: bytes) -> None:
    """One `CASE`: a reader gets the same current from the current's object and from the power's."""
    if len(data) < CASE.size:
        return
    profile, bits, seconds, *amperes = CASE.unpack_from(data)
    if not 0 <= seconds < 2**33:
        return
    config = P1Config(profile=PROFILES[profile % 3])
    is_signed, hides_export = bool(bits & 1), bool(bits & 2)
    direction = DirectionConfig(
        reference="voltage" if is_signed else "off",
        export_current="zero" if hides_export else "magnitude",
    )
    measured = [None if bits & 4 << number else value for number, value in enumerate(amperes)]
    values = [value for value in measured if value is not None]
    try:
        sent = encode(config, measured, local_time_of(seconds), direction)
    except ValueError:
        assert any(math.isnan(value) or (value < 0 and not is_signed) for value in values)
        return
    assert is_framed(sent)
    _, _, *lines, last = sent.decode().split("!")[0].split("\r\n")
    assert last == ""
    for line in lines:
        assert re.fullmatch(r"\d-\d:\d{1,2}\.\d{1,2}\.\d{1,2}(\([ -'*-~]*\))+", line), line
    objects = {code: value for line in lines for code, _, value in [line.partition("(")]}
    if config.profile != "csp1":
        assert re.fullmatch(r"\d{12}[SW]\)", objects["0-0:1.0.0"])
    step = 0.01 if config.profile == "emucs" else 1.0
    for number, value in enumerate(measured):
        codes = [f"1-0:{first + 20 * number}.7.0" for first in (31, 32, 21, 22)]
        if value is None and config.profile == "emucs":
            assert not objects.keys() & set(codes)
            continue
        exact = value or 0.0
        current, volts, plus, minus = (_number(objects.get(code, "0*")) for code in codes)
        shown = min(max(exact, 0.0) if hides_export else abs(exact), 1000 - step)
        assert abs(current - shown) <= step / 2 + 1e-9
        assert not plus or not minus
        if volts:
            watts = (plus - minus) * 1000
            most = min(abs(exact) * volts, 999 * volts, 99_999)
            assert abs(watts - math.copysign(most, exact)) <= 0.5 + 1e-6


def _number(value: str) -> float:
    return float(value.partition("*")[0])


def usable(config: Config) -> None:
    """A configuration that passes the checks works for telegram, address and metering."""
    assert is_framed(telegram(config, (1, 2.5, 1e9)))
    if config.http.listen:
        split_address(config.http.listen)
    with contextlib.closing(SimulatedAdc(config, PLAYER)) as adc:
        channels, meter = config.channels.used(), None
        try:
            if reference := config.reference():
                meter = DirectionMeter(adc.format, channels, config.direction, reference)
            metering = Metering(adc.format, channels, config.measurement, meter)
        except ValueError as error:
            # The scale of an ADC is known only now: `Sampler` reports a range that is impossible.
            if "the ADC is" not in str(error):
                raise
            return
        metering.feed(bytes(adc.format.scan_bytes * 10))


PLAYER = Player(scenario.parse(""), 0)


@contextlib.contextmanager
def capture_of(data: bytes) -> Iterator[Path]:
    """The name of a capture: the description, and after a NUL the scans. It may be rejected."""
    name = Path(FOLDER.name) / "capture"
    description, _, scans = data.partition(b"\0")
    Path(f"{name}.json").write_bytes(description)
    Path(f"{name}.bin").write_bytes(scans)
    try:
        yield name
    except CaptureError as error:
        if str(name) not in str(error):
            raise


def all_sendable(replay: Replay, config: Config) -> None:
    for reading in replay:
        json.dumps(reading_json(reading), allow_nan=False)
        telegram(config, [reading.amperes(phase) for phase in Phase])


def captures(data: bytes) -> None:
    """See `capture_of`; replayed."""
    config = Config()
    with capture_of(data) as name:
        all_sendable(capture.replay(capture.load(name), config), config)


def is_in_order(stamps: Integers) -> bool:
    return bool((stamps[:-1] <= stamps[1:]).all())


def playing(data: bytes) -> None:
    """See `capture_of`; played by the simulated ADC for some seconds, read ten times per second."""
    config = Config()
    with capture_of(data) as name:
        loaded = capture.load(name)
        capture.replay(loaded, config)  # Rejects one that does not fit the configuration.
        recording = Recording(loaded.format, loaded.scans_path)
        counts = [recording.count(n * SECOND_NS // 10) for n in range(35)]
        chunks = [recording.scans(a, b, SECOND_NS) for a, b in itertools.pairwise(counts)]
        sizes = [(b - a) * loaded.format.scan_bytes for a, b in itertools.pairwise(counts)]
        assert [len(chunk) for chunk in chunks] == sizes
        recorded = loaded.format.decode(loaded.scans_path.read_bytes()).timestamps
        if recorded is not None and is_in_order(recorded) and recorded[-1] - recorded[0] < DAY_NS:
            stamps = loaded.format.decode(b"".join(chunks)).timestamps
            assert stamps is not None
            assert is_in_order(stamps)
        all_sendable(Replay(loaded.format, chunks, config), config)


def scenarios(data: bytes) -> None:
    """The content of a scenario file, or a command-line argument if it begins like one."""
    if data.startswith(b"L"):
        # A command-line argument holds no NUL.
        text = data.replace(b"\0", b"").decode(errors="surrogateescape")
    else:
        file = Path(FOLDER.name) / "scenario.toml"
        file.write_bytes(data)
        text = str(file)
    try:
        steps = scenario.parse(text)
    except ScenarioError:
        return
    times = [step.at_seconds for step in steps]
    assert times == sorted(set(times))
    assert times[0] == 0
    for step in steps:
        player = Player((replace(step, at_seconds=0.0),), 0)
        with contextlib.closing(SimulatedAdc(Config(), player)) as adc, np.errstate(all="raise"):
            assert adc._scans((adc._start_ns, adc._start_ns + 5_000_000, step))


def statuses(data: bytes) -> None:
    """The body of /status.json."""
    try:
        status = parse(data)
    except ValueError as error:
        assert "not the status of this version of csp1d" in str(error)  # noqa: PT017
        assert str(error).isprintable()  # noqa: PT017
        return
    assert all(line.isprintable() for line in status_text(status, "/http.sock").split("\n"))
    assert parse(to_json(status)) == status


def requests(data: bytes) -> None:
    """The head of an HTTP request."""
    for router in (Router(PAGES, bool), Router(PAGES, lambda name: False, is_secure=True)):
        assert is_answer(b"".join(router.answer(data)), bool(data))


def is_answer(answer: bytes, is_due: bool) -> bool:
    status = re.match(rb"HTTP/1\.0 (200|4\d\d|50[15]) [A-Za-z- ]+\r\n", answer)
    ends = [answer.count(b"\r\nConnection: close\r\n"), answer.count(b"\r\n\r\n")]
    return bool(status) == is_due and ends == [is_due, is_due]


def connections(data: bytes) -> None:
    """What a client sends to the server at http.socket, which then serves the next one."""
    path = _socket_server()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        # The server may have closed: it reads no more than the limit of a head.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := client.recv(65536):
                answer += part
    assert is_answer(answer, bool(data))
    assert Client(HttpConfig(socket=path)).get("/metrics") == b"a 1\n"


@functools.cache
def _socket_server() -> str:
    path = f"{FOLDER.name}/served.sock"
    SocketServer(path, PAGES)
    return path


def answers(data: bytes) -> None:
    """What a server at http.socket sends to csp1ctl."""
    path = f"{FOLDER.name}/answering.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        server = threading.Thread(target=_send, args=(listener, data))
        server.start()
        try:
            client = Client(HttpConfig(socket=path))
            body = client.get("/status.json", most_bytes=4096)
            assert len(body) < 4096
            assert data.endswith(body)
            client.parse(body)
        except NoAnswerError as error:
            assert path in str(error)  # noqa: PT017
            assert str(error).isprintable()  # noqa: PT017
        finally:
            server.join()
            os.unlink(path)


def _send(listener: socket.socket, data: bytes) -> None:
    connection, _ = listener.accept()
    with connection, contextlib.suppress(OSError):
        connection.recv(4096)
        connection.sendall(data)


PAGES = {"/": html_page(b"<p>"), "/metrics": Page("text/plain", lambda: b"a 1\n")}


def _capture(scan_type: bytes, scan_bytes: int, stamped: bool) -> bytes:
    """A capture of 2.5 seconds at 200 Hz."""
    stamps = np.arange(500) * 5_000_000
    codes = np.rint(20_000 + 9_000 * np.sin(stamps * (2 * np.pi * 50.2 / 1e9)))
    scans = np.zeros((500, scan_bytes // 2), "<i2")
    scans[:, :3] = codes[:, None]
    if stamped:
        scans[:, 4:] = stamps[:, None].view("<i2")
    description = {
        "sampling_frequency_hz": 200,
        "scan_bytes": scan_bytes,
        "channels": [
            {
                "id": f"voltage{index}",
                "phase": str(phase),
                "index": index,
                "type": scan_type.decode(),
                "scale": 0.1,
                "offset": -20000,
            }
            for index, phase in enumerate(Phase)
        ],
        "timestamp": {"index": 3, "type": "le:s64/64>>0"} if stamped else None,
    }
    return json.dumps(description).encode() + b"\0" + scans.tobytes()


CAPTURES = [_capture(b"le:u16/16>>0", 16, True), _capture(b"be:s12/16>>4", 6, False)]
STATUS = to_json(Snapshot().status(0, 0.0))
REQUESTS = [
    b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:80\r\nConnection: close\r\n\r\n",
    b"POST / HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
    b"HEAD http://[::1]/metrics?a=b HTTP/1.1\r\nHost: localhost\r\n a\r\n\r\n",
]

SEEDS: dict[str, list[bytes]] = {
    "scan-types": [b"le:s12/16>>4\nbe:u24/32X2>>8\nle:s64/64>>0\0" + bytes(48)],
    "configuration": [(ROOT / "etc/csp1d.toml").read_bytes() + b"\0[p1]\nprofile='csp1'"],
    "telegram": [
        CASE.pack(profile, bits, 1.8e9, 24.0, -10.5 if bits & 1 else 10.5, 999.4)
        for profile in range(3)
        for bits in (0, 1, 3, 16)
    ],
    "capture": CAPTURES,
    "play": CAPTURES,
    "scenario": [
        b'[[step]]\namperes = { L1 = 6.3, L2 = 0.8 }\nrequest = "poll"\nfrequency_hz = 49.9\n'
        b"[[step]]\nat_seconds = 8\nharmonics_percent = { 3 = 60 }\nstall_seconds = 4\n",
        b"L1=24, L2=10.5,L3=0",
    ],
    "status": [
        STATUS,
        to_json(
            replace(
                Snapshot().status(0, 0.0),
                problems=(
                    Problem("adc-lost", "ADC", "ADC missing; plug it in", "no-current", 1e9),
                ),
                reading=LiveReading(
                    *(7, 0.4, 1.0, 49.98, 4000, 2),
                    {Phase.L1: PhaseCurrent(24.1, 34.0, 0.2, 0)},
                    DirectionReading({Phase.L1: -24.0}, frozenset({Phase.L1}), "", None),
                ),
            )
        ),
    ],
    "request": REQUESTS,
    "socket": REQUESTS,
    "answer": [
        b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(STATUS), STATUS),
        b"HTTP/1.0 503 Service Unavailable\r\n\r\n",
    ],
}
"""Valid inputs of each kind, to be mutated."""

WORDS = sorted(
    {
        word
        for seeds in SEEDS.values()
        for seed in seeds
        for word in re.findall(r"[\w.]{2,}", seed.partition(b"\0")[0].decode(errors="ignore"))
    }
)
"""Words of the valid inputs, to be inserted elsewhere."""

TARGETS: dict[str, Callable[[bytes], None]] = {
    "scan-types": scan_types,
    "configuration": configuration,
    "telegram": telegrams,
    "capture": captures,
    "play": playing,
    "scenario": scenarios,
    "status": statuses,
    "request": requests,
    "socket": connections,
    "answer": answers,
}
