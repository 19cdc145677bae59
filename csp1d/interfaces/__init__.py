# SPDX-License-Identifier: Apache-2.0
"""The daemon's interfaces: HTTP pages, metrics, the journal and the service manager."""
