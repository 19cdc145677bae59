# SPDX-License-Identifier: Apache-2.0
"""Types of the NumPy arrays that csp1d computes with, and their median.

The types are those of `numpy.typing.NDArray`; importing that module would take another 0.4 MiB.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Rows = Sequence[Array] | Array
"""Arrays of one length: one for each channel, or the rows of one array."""
Floats = np.ndarray[Any, np.dtype[np.float64]]
Integers = np.ndarray[Any, np.dtype[np.int64]]
Complexes = np.ndarray[Any, np.dtype[np.complex128]]


def median(values: Array) -> float:
    """The median of at least one value; the upper one of two in the middle.

    `np.median` of floats imports numpy.ma at its first call (NumPy 2), which takes longer than a
    reading may.
    """
    middle = len(values) // 2
    return float(np.partition(values, middle)[middle])
