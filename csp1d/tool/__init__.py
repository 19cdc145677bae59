# SPDX-License-Identifier: Apache-2.0
"""`csp1ctl`: the command-line tool that sets csp1d up, calibrates it and watches it."""
