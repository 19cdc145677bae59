# SPDX-License-Identifier: Apache-2.0
"""The operator's side: journal, systemd, metrics, HTTP and the command line."""
