"""A detector without a model: how much noise a picture has."""

from tellsign.plugin import hookimpl


@hookimpl
def tellsign_detector() -> type:
    """The detector's class."""
    from .detector import Noise

    return Noise
