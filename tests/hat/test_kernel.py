# SPDX-License-Identifier: Apache-2.0
"""Events of udev on a real netlink socket. The kernel lets only root send them: tools/check has
these tests when root runs it, as CI does; as an ordinary user, and in the package's tests, they are
skipped.
"""

import os
import select
import socket
import struct
from collections.abc import Iterator

import pytest

from csp1d.hat.kernel import KernelHat

NETLINK_KOBJECT_UEVENT = 15
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 270, 1
UDEV_GROUP = 2

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may send events of udev")


@pytest.fixture
def hat() -> Iterator[KernelHat]:
    with KernelHat() as hat:
        with socket.socket(fileno=os.dup(hat.fileno())) as receiver:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            # libudev leaves the group out where no udev runs.
            receiver.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, UDEV_GROUP)
        yield hat


OF_NO_FORMAT = bytes(2000)
"""libudev's filter in the kernel passes what is not of udev's format."""

OF_ANOTHER_SUBSYSTEM = struct.pack(">8sI12xIIQ", b"libudev", 0xFEEDCAFE, 1, 0, 0) + bytes(2000)
"""udev's header with a hash of a subsystem that is none of the HAT's."""


def send(event: bytes, count: int = 1) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT) as sender:
        for _ in range(count):
            sender.sendto(event, (0, UDEV_GROUP))


def is_readable(hat: KernelHat) -> bool:
    return bool(select.select([hat], [], [], 0)[0])


@pytest.mark.parametrize("count", [1, 50], ids=["an event", "more events than fit"])
def test_events_are_one_change_after_which_the_descriptor_is_quiet(
    hat: KernelHat, count: int
) -> None:
    assert not is_readable(hat)
    assert not hat.changed()
    for _ in range(2):
        send(OF_NO_FORMAT, count)
        assert is_readable(hat)
        assert hat.changed()
        assert not is_readable(hat)
        assert not hat.changed()


def test_events_of_other_subsystems_do_not_wake_the_daemon(hat: KernelHat) -> None:
    send(OF_ANOTHER_SUBSYSTEM)
    assert not is_readable(hat)
    send(OF_NO_FORMAT)
    assert is_readable(hat)
