# SPDX-License-Identifier: Apache-2.0
"""Property tests have no time limit for a case: they run on any machine, however busy it is."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
