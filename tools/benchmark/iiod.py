# SPDX-License-Identifier: Apache-2.0
"""Serves scans to libiio without hardware: the part of its network protocol that a capture needs.

The commands are those of libiio 0.2x (iiod-client.c, network.c). It serves on loopback.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import BinaryIO
from xml.sax.saxutils import quoteattr

from benchmark.signal import Signal

DEVICE, TIMESTAMP = "iio:device0", "timestamp"
_INVALID = b"-22\n"

_DTD = (
    "<!DOCTYPE context ["
    "<!ELEMENT context (device)*><!ELEMENT device (channel)*>"
    "<!ELEMENT channel (scan-element?)><!ELEMENT scan-element EMPTY>"
    "<!ATTLIST context name CDATA #REQUIRED description CDATA #IMPLIED>"
    "<!ATTLIST device id CDATA #REQUIRED name CDATA #IMPLIED>"
    "<!ATTLIST channel id CDATA #REQUIRED type CDATA #REQUIRED>"
    "<!ATTLIST scan-element index CDATA #REQUIRED format CDATA #REQUIRED>"
    "]>"
)
"""libiio requires one."""


def context_xml(signal: Signal) -> str:
    """The context description for libiio: one device with the signal's elements."""
    form = signal.format
    elements = [(channel.id, channel.index, channel.type) for channel in form.channels]
    if form.timestamp:
        elements.append((TIMESTAMP, form.timestamp.index, form.timestamp.type))
    channels = "".join(
        f'<channel id="{name}" type="input">'
        f'<scan-element index="{index}" format={quoteattr(str(type_))}/></channel>'
        for name, index, type_ in elements
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>'
        f'{_DTD}<context name="network" description="bench">'
        f'<device id="{DEVICE}" name="adc">{channels}</device></context>'
    )


@contextlib.contextmanager
def serving(signal: Signal) -> Iterator[str]:
    """The URI of a context; each client reads the signal repeatedly from the start."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, signal), daemon=True).start()
        yield "ip:{}:{}".format(*listener.getsockname())
        # Wakes the thread, which then ends.
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, signal: Signal) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, signal), daemon=True).start()


def _serve(client: socket.socket, signal: Signal) -> None:
    with contextlib.suppress(OSError), client, client.makefile("rb") as commands:
        _answer(commands, client, signal)


def _answer(commands: BinaryIO, client: socket.socket, signal: Signal) -> None:
    xml = context_xml(signal).encode()
    second, mask = 0, b""
    for command in commands:
        words = command.split()
        match words[0].decode() if words else "":
            case "":
                continue
            case "VERSION":
                answer = b"0.24.bench00\n"
            case "PRINT":
                answer = b"%d\n%s\n" % (len(xml), xml)
            case "ZPRINT":
                answer = _INVALID
            case "OPEN":
                answer, mask = b"0\n", words[3]
            case "READBUF":
                data = signal.block(second % signal.seconds)
                second += 1
                answer = b"%d\n%s\n%s" % (len(data), mask, data)
            case "EXIT":
                return
            case _:
                answer = b"0\n"
        client.sendall(answer)
