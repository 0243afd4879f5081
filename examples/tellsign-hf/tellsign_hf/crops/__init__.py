"""The same, shown native crops."""

from tellsign.plugin import hookimpl


@hookimpl
def tellsign_detector() -> type:
    """The detector's class; transformers is imported with its first model."""
    from tellsign_hf.detector import Classifier

    return Classifier
