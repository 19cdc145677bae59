# SPDX-License-Identifier: Apache-2.0
"""For tests of the package, which run on any machine, however busy it is."""

from hypothesis import settings

settings.register_profile("package", deadline=None)
settings.load_profile("package")
