# SPDX-License-Identifier: Apache-2.0
"""Names for the arrays of numpy that csp1d computes with.

As `numpy.typing.NDArray` has them, which would be loaded for nothing else: 0.4 MiB.
"""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Integers = np.ndarray[Any, np.dtype[np.int64]]
Complexes = np.ndarray[Any, np.dtype[np.complex128]]
