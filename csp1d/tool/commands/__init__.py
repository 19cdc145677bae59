# SPDX-License-Identifier: Apache-2.0
"""The commands of `csp1ctl`: `csp1ctl NAME` imports the module NAME and calls its `run`."""
