# SPDX-License-Identifier: Apache-2.0
"""From scans to readings: decoding, metering, and the ADC that is kept running for it."""
