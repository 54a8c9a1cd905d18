"""What a fit says beside its figures."""

from types import SimpleNamespace

from ohmgrad.devices import SoftBounds
from ohmgrad.report.device_fit import beyond


def test_bounds_that_no_reading_determines_are_said():
    device = SoftBounds(w_max=99.9, w_min=-2.1)
    found = SimpleNamespace(device=device, errors={"w_max": 1531.0, "w_min": 0.6})
    (says,) = beyond(found)
    assert says.startswith("w_max = 99.9 is not determined by these readings")
