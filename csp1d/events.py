# SPDX-License-Identifier: Apache-2.0
"""The events that csp1d logs for operators. Their names and ids never change.

In the journal, an event has its id as MESSAGE_ID, by which `journalctl -x` finds the explanation in
systemd/csp1d.catalog, its name as CSP1D_EVENT, and details in further CSP1D_* fields
(systemd.journal-fields(7)). `loop/fault.py` decides when a fault is reported.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from logging import ERROR, INFO, WARNING, getLogger

_logger = getLogger("csp1d")


class Event(enum.Enum):
    """A kind of event: CSP1D_EVENT, MESSAGE_ID and log level."""

    STARTED = "started", "557a818f1f9441359103c9936c66f615", INFO
    STOPPED = "stopped", "138be84756d145afbba1253e2f8fc2e7", INFO
    INTERNAL_ERROR = "internal-error", "ebd4b0063d4f4a8ba2107c36a3fb2556", ERROR

    CONFIGURATION_REJECTED = "configuration-rejected", "52dcb6326ed34244ad7f4e1e6021d19b", ERROR
    CONFIGURATION_RELOADED = "configuration-reloaded", "adc0ad121d8941b88e05b81fae39268e", INFO
    CONFIGURATION_DOUBTFUL = "configuration-doubtful", "7d30f76c13bd497cb803ca680cf97ea0", WARNING

    ADC_LOST = "adc-lost", "be5fb44fd587407f8818c4af18129f1a", WARNING
    ADC_FOUND = "adc-found", "7833e8cd55524161870a05e7e887a78e", INFO
    ADC_STALLED = "adc-stalled", "2a69ea1db4444dfc9b84c74776f1821a", WARNING
    ADC_RESUMED = "adc-resumed", "137de83ed8c446e4814449e830239743", INFO
    ADC_SLOW = "adc-slow", "b4d170be01694dfe80c6809afdc73f3a", WARNING
    ADC_FAST_ENOUGH = "adc-fast-enough", "011c7587f85644cab12959e35ea82ed1", INFO
    ADC_CLOCK = "adc-clock", "63bab093dafe4e6c9e4caa8a55354ceb", WARNING
    ADC_CLOCK_GOOD = "adc-clock-good", "06353d4e877e4e11bfc57ca04fd4b613", INFO
    ADC_UNSTAMPED = "adc-unstamped", "524be46c4a744ecf806c629f7f7d428d", INFO
    ADC_RATE_REFUSED = "adc-rate-refused", "9ffec686a5f74b799d741f7826862f6a", WARNING
    ADC_RATE_TAKEN = "adc-rate-taken", "42601a577d6c4cf480e19764a43da23c", INFO
    ADC_RATE_DOUBTFUL = "adc-rate-doubtful", "51682c896e3f4d39a52788134c13f2f9", WARNING
    ADC_RATE_PLAUSIBLE = "adc-rate-plausible", "af432398b481424cac14f9003790627e", INFO
    ADC_SCALE_DOUBTFUL = "adc-scale-doubtful", "157357c1ff5a4e8097c0bdf6bbe4b84e", WARNING
    ADC_SCALE_PLAUSIBLE = "adc-scale-plausible", "f5fa386f277f4f6db15e6b239d12845e", INFO
    SCANS_LOST = "scans-lost", "e2c0e5ffc0ae40b8bd704b147c03a21d", WARNING
    SCANS_COMPLETE = "scans-complete", "8eb77003444949acac0e25672cb5acd7", INFO
    READINGS_LOST = "readings-lost", "9653419fd22d4ff18785feacaf8f884b", WARNING
    READINGS_FOUND = "readings-found", "9e0aa6346afd4f6985c961ab0ec54d4d", INFO
    CLIPPING = "clipping", "8eeba357c9f247a385463382b7a88f96", WARNING
    CLIPPING_ENDED = "clipping-ended", "07160acb9bad4488b830e04a9ad7f3c7", INFO
    INPUT_FAILED = "input-failed", "0567248566b84c4d94360d36866c21da", WARNING
    INPUT_GOOD = "input-good", "cff86a1a1e994efab49f8a7b65d0875d", INFO
    CURRENTS_DOUBTFUL = "currents-doubtful", "8ddcbed62c634dfe8b754168daf3915e", WARNING
    CURRENTS_PLAUSIBLE = "currents-plausible", "2066e8a227f640d89ea3ff39b0097856", INFO
    REFERENCE_LOST = "reference-lost", "ce82571ddc464b63a3b5b0de88199b57", WARNING
    REFERENCE_FOUND = "reference-found", "9f24390de1ce448eb3282625cb6acb65", INFO
    WIRING_DOUBTFUL = "wiring-doubtful", "2e11249f5e1542ef87c8ee7034be0536", WARNING
    WIRING_FITS = "wiring-fits", "246a854447c941f3b7a8640c5bbf3657", INFO

    P1_PORT_LOST = "p1-port-lost", "09592628bd1d4af49e9c53272d0fa4c9", WARNING
    P1_PORT_FOUND = "p1-port-found", "9c6db4e7a1d4473fb6064c807972a98e", INFO
    P1_PORT_CANNOT_FLUSH = "p1-port-cannot-flush", "a6124f5be25c4074a6c032ca272fa519", WARNING
    TELEGRAM_DROPPED = "telegram-dropped", "64deb061b3044d8a93b5af4d34239630", WARNING
    TELEGRAMS_RESUMED = "telegrams-resumed", "70985584daf542919cece63ce9619070", INFO
    TELEGRAMS_ABORTED = "telegrams-aborted", "c037f1a1e50b4b17a97824cc5c144f04", WARNING
    TELEGRAMS_COMPLETE = "telegrams-complete", "b6640f6d476b44b590fad5ad176cd827", INFO
    REQUEST_LINE_LOST = "request-line-lost", "d477b364a78d403c9ee29a3c8610caf5", WARNING
    REQUEST_LINE_FOUND = "request-line-found", "55fc072695b84b358559e306aa9e3b32", INFO

    LED_LOST = "led-lost", "1bce0ccdbbc9428fb74e6a306460ec66", WARNING
    LED_FOUND = "led-found", "58107e3135374d178b76d64b9c31cd24", INFO
    LED_TRIGGER_LOST = "led-trigger-lost", "d9501182f9344c1abcd93438867018c5", WARNING
    LED_TRIGGER_FOUND = "led-trigger-found", "46e0b796df1d4b54b8840433541a41ed", INFO
    HTTP_LOST = "http-lost", "91bc5590816f4e168fc3f6ac39b672c6", WARNING
    HTTP_FOUND = "http-found", "03158e9947ba4ba691a69c08c2c78993", INFO

    def __init__(self, event_name: str, message_id: str, level: int) -> None:
        self.event_name = event_name
        self.message_id = message_id
        self.level = level

    def log(
        self,
        text: str,
        *args: object,
        exc_info: bool = False,
        stacklevel: int = 2,
        **fields: object,
    ) -> str:
        """Log the event and return its message.

        Each of `fields` becomes CSP1D_NAME, except those that are None or "".
        """
        known = {name: value for name, value in fields.items() if value not in (None, "")}
        extra = {f"CSP1D_{name.upper()}": str(value) for name, value in known.items()}
        extra |= {"CSP1D_EVENT": self.event_name, "MESSAGE_ID": self.message_id}
        _logger.log(self.level, text, *args, exc_info=exc_info, stacklevel=stacklevel, extra=extra)
        return text % args


CHAPTERS: Mapping[Event, str | None] = {
    Event.STARTED: None,
    Event.STOPPED: None,
    Event.INTERNAL_ERROR: None,
    Event.CONFIGURATION_REJECTED: "service-failed",
    Event.CONFIGURATION_RELOADED: None,
    Event.CONFIGURATION_DOUBTFUL: "service-failed",
    Event.ADC_LOST: "no-current",
    Event.ADC_FOUND: None,
    Event.ADC_STALLED: "no-current",
    Event.ADC_RESUMED: None,
    Event.ADC_SLOW: "no-current",
    Event.ADC_FAST_ENOUGH: None,
    Event.ADC_CLOCK: "time-and-rate",
    Event.ADC_CLOCK_GOOD: None,
    Event.ADC_UNSTAMPED: None,
    Event.ADC_RATE_REFUSED: "time-and-rate",
    Event.ADC_RATE_TAKEN: None,
    Event.ADC_RATE_DOUBTFUL: "time-and-rate",
    Event.ADC_RATE_PLAUSIBLE: None,
    Event.ADC_SCALE_DOUBTFUL: "wrong-currents",
    Event.ADC_SCALE_PLAUSIBLE: None,
    Event.SCANS_LOST: "lost-scans",
    Event.SCANS_COMPLETE: None,
    Event.READINGS_LOST: "no-current",
    Event.READINGS_FOUND: None,
    Event.CLIPPING: "clipping",
    Event.CLIPPING_ENDED: None,
    Event.INPUT_FAILED: "a-failed-input",
    Event.INPUT_GOOD: None,
    Event.CURRENTS_DOUBTFUL: "wrong-currents",
    Event.CURRENTS_PLAUSIBLE: None,
    Event.REFERENCE_LOST: "wrong-direction",
    Event.REFERENCE_FOUND: None,
    Event.WIRING_DOUBTFUL: "wrong-direction",
    Event.WIRING_FITS: None,
    Event.P1_PORT_LOST: "no-telegrams",
    Event.P1_PORT_FOUND: None,
    Event.P1_PORT_CANNOT_FLUSH: None,
    Event.TELEGRAM_DROPPED: "no-telegrams",
    Event.TELEGRAMS_RESUMED: None,
    Event.TELEGRAMS_ABORTED: "no-telegrams",
    Event.TELEGRAMS_COMPLETE: None,
    Event.REQUEST_LINE_LOST: "no-telegrams",
    Event.REQUEST_LINE_FOUND: None,
    Event.LED_LOST: "leds",
    Event.LED_FOUND: None,
    Event.LED_TRIGGER_LOST: "leds",
    Event.LED_TRIGGER_FOUND: None,
    Event.HTTP_LOST: "no-page",
    Event.HTTP_FOUND: None,
}
"""Which events can last: those with the chapter of docs/troubleshoot.md (its anchor) that explains
the fault and its remedy. The others only occur."""


@dataclass(frozen=True)
class ActiveProblem:
    """A fault that lasts: its event has been logged, its end has not."""

    event: Event
    device: str
    """The device, phase or part concerned."""
    reason: str
    """The message in the journal: reason and remedy."""
    since_ns: int
    """When the fault began (CLOCK_MONOTONIC)."""
