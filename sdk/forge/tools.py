"""What forgeries are made with."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.errors import SettingError

from .enhance import Enhancer, super_resolved
from .errors import ForgeError
from .inpaint import Diffusers, Inpainter, Latent, MiGan
from .roundtrip import RoundTrip
from .upscale import OnnxUpscaler, Upscaler

LATENT_NOISE = (0.0, 0.1)
"""Noise on the latents of a local round trip, so that its content moves a little as an edit's would."""

NEEDS = {
    "inpaint": "an inpainter that writes the whole picture (--diffusers, --inpainter, or --migan with --autoencoders)",
    "blend": "an inpainter (--migan, --diffusers or --inpainter)",
    "roundtrip": "an autoencoder (--autoencoders)",
    "upscale": "a network that doubles pictures (--upscaler)",
    "generated": "generated pictures (--generated, or rows of label 1)",
    "aisplice": "generated pictures (--generated, or rows of label 1)",
}
"""Kind -> what it cannot be made without; the other kinds need nothing."""


@attrs.frozen(kw_only=True)
class Tools:
    """Every tool by its name, which the manifest tells."""

    plain: Mapping[str, Inpainter] = attrs.field(factory=dict)
    """Inpainters that write the whole picture, for the kind "inpaint"."""
    blend: Mapping[str, Inpainter] = attrs.field(factory=dict)
    """Inpainters of whose answer the region is taken."""
    roundtrip: Mapping[str, RoundTrip] = attrs.field(factory=dict)
    upscale: Mapping[str, Upscaler] = attrs.field(factory=dict)
    enhance: Mapping[str, Enhancer] = attrs.field(factory=dict)
    """Of whole photographs; where there is none, `enhance.denoised` is."""
    sam: Callable[[NDArray[np.uint8]], Sequence[NDArray[np.bool_]]] | None = None
    """Proposes masks, such as `sam.SamMasks`."""
    annotations: Path | None = None
    """Folder of masks named after the pictures' stems; values above 1 are inside."""

    def of(self, kind: str) -> Sequence[str]:
        """Names of the tools that make `kind`, sorted; empty where it needs none or none is there."""
        tools: Mapping[str, object] = {
            "inpaint": self.plain,
            "blend": self.blend,
            "roundtrip": self.roundtrip,
            "upscale": self.upscale,
            "enhanced": self.enhance,
        }.get(kind, {})
        return sorted(tools)


def gather(
    *,
    migan: Path | None = None,
    diffusers: str | None = None,
    prompt: str = "",
    inpainter: str | None = None,
    autoencoders: Path | None = None,
    upscaler: Path | None = None,
    sam: Path | None = None,
    sam_points: int = 8,
    annotations: Path | None = None,
    device: str = "cpu",
) -> Tools:
    """Load the tools that files and names describe.

    Parameters
    ----------
    migan : Path, optional
        `migan_pipeline_v2.onnx`.
    diffusers : str, optional
        Folder or hub name of an inpainting pipeline.
    prompt : str, default ""
        For that pipeline.
    inpainter : str, optional
        "module:callable" of an `inpaint.Inpainter`.
    autoencoders : Path, optional
        Folder of the tiny autoencoders' safetensors.
    upscaler : Path, optional
        ONNX file that doubles a picture.
    sam : Path, optional
        Checkpoint of MobileSAM or Segment Anything.
    sam_points : int, default 8
        See `sam.SamMasks`.
    annotations : Path, optional
        Folder of mask pictures.
    device : str, default "cpu"
        For diffusers and SAM.

    Raises
    ------
    WeightsError
        A file is missing or is not what it should be.
    ForgeError
        A library is missing, or the callable or the pipeline cannot be loaded.
    SettingError
        A folder is none.
    """
    if annotations is not None and not annotations.is_dir():
        raise SettingError("annotations", "a folder of mask pictures", str(annotations))
    encoders = _autoencoders(autoencoders) if autoencoders is not None else {}
    blend: dict[str, Inpainter] = {}
    plain: dict[str, Inpainter] = {}
    if migan is not None:
        blend["migan"] = MiGan(migan)
        plain |= {f"migan+{name}": Latent(blend["migan"], RoundTrip(ae)) for name, ae in encoders.items()}
    if diffusers is not None:
        blend[diffusers] = plain[diffusers] = Diffusers.load(diffusers, prompt=prompt, device=device)
    if inpainter is not None:
        blend[inpainter] = plain[inpainter] = _callable(inpainter)
    upscalers: dict[str, Upscaler] = {} if upscaler is None else {upscaler.stem: OnnxUpscaler(upscaler)}
    proposer = None
    if sam is not None:
        from .sam import SamMasks

        proposer = SamMasks(sam, points=sam_points, device=device)
    return Tools(
        plain=plain,
        blend=blend,
        roundtrip={name: RoundTrip(ae, noise=LATENT_NOISE) for name, ae in encoders.items()},
        upscale=upscalers,
        enhance={name: RoundTrip(ae) for name, ae in encoders.items()}
        | {name: super_resolved(network) for name, network in upscalers.items()},
        sam=proposer,
        annotations=annotations,
    )


def _autoencoders(folder: Path) -> dict[str, object]:
    from tellsign.data.autoencoders import NAMES, Autoencoder

    there = [n for n in NAMES if (folder / f"{n}_encoder.safetensors").is_file()]
    if not there:
        raise SettingError("autoencoders", f"a folder with NAME_encoder.safetensors of {', '.join(NAMES)}", str(folder))
    return {name: Autoencoder.load(folder, name) for name in there}


def _callable(spec: str) -> Inpainter:
    module, colon, name = spec.partition(":")
    if not (module and colon and name):
        raise SettingError("inpainter", "module:callable", spec)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ForgeError(f"the inpainter {spec} cannot be imported: {error}") from error
    if not callable(found):
        raise SettingError("inpainter", "module:callable", spec)
    return found  # type: ignore[no-any-return]
