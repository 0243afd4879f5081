"""Any image classifier of the Hugging Face hub as a detector, shown whole pictures."""

from tellsign.plugin import hookimpl


@hookimpl
def tellsign_detector() -> type:
    """The detector's class; transformers is imported with its first model."""
    from .detector import Classifier

    return Classifier
