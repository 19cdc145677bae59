# SPDX-License-Identifier: Apache-2.0
"""Property tests have no time limit for a case, and draw the same cases each time.

`pytest --hypothesis-profile=new` draws others.
"""

import signal

from hypothesis import settings

settings.register_profile("new", deadline=None)
settings.register_profile("same", deadline=None, derandomize=True)
settings.load_profile("same")

# What a script runs in the background ignores Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
