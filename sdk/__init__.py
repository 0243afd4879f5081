"""Tell whether a picture is authentic, AI-generated, AI-edited or tampered with, and show why and where.

    import tellsign as sdk

    verdict = sdk.detect("photo.jpg")
    print(verdict.label, verdict.p_ai)

Importing this package imports none of what detection needs; each name below is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tellsign.schemas import (
        Category,
        Contribution,
        Evidence,
        Label,
        Notice,
        Picture,
        PredictionSet,
        Task,
        UncertainReason,
        Verdict,
    )

    from .decoding import Limits, decode
    from .default import detect, detect_many
    from .detector import Detector
    from .errors import (
        DecodeError,
        PluginError,
        PluginLoadError,
        SettingError,
        TellsignError,
        TimeLimitError,
        WeightsError,
    )
    from .stream import Unreadable
    from .tuning.tune import tune

    __version__: str
else:
    _HOME = {
        "tellsign.decoding": ("Limits", "decode"),
        "tellsign.default": ("detect", "detect_many"),
        "tellsign.detector": ("Detector",),
        "tellsign.errors": (
            "DecodeError",
            "PluginError",
            "PluginLoadError",
            "SettingError",
            "TellsignError",
            "TimeLimitError",
            "WeightsError",
        ),
        "tellsign.schemas": (
            "Category",
            "Contribution",
            "Evidence",
            "Label",
            "Notice",
            "Picture",
            "PredictionSet",
            "Task",
            "UncertainReason",
            "Verdict",
        ),
        "tellsign.stream": ("Unreadable",),
        "tellsign.tuning.tune": ("tune",),
    }
    _MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

    def __getattr__(name: str) -> object:
        """Load a public name when it is first used (PEP 562)."""
        from importlib import import_module, metadata

        if name == "__version__":
            value = metadata.version("tellsign")
        elif name in _MODULE_OF:
            value = getattr(import_module(_MODULE_OF[name]), name)
        else:
            raise AttributeError(f"module 'tellsign' has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_MODULE_OF, "__version__"})


__all__ = [
    "Category",
    "Contribution",
    "DecodeError",
    "Detector",
    "Evidence",
    "Label",
    "Limits",
    "Notice",
    "Picture",
    "PluginError",
    "PluginLoadError",
    "PredictionSet",
    "SettingError",
    "Task",
    "TellsignError",
    "TimeLimitError",
    "UncertainReason",
    "Unreadable",
    "Verdict",
    "WeightsError",
    "__version__",
    "decode",
    "detect",
    "detect_many",
    "tune",
]
