# SPDX-License-Identifier: Apache-2.0
"""The HAT's devices: thin drivers over the kernel's interfaces, and a HAT made of memory."""
