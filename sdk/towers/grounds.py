"""What a judge of the semantic view cannot know, and so must neither be taught to say nor be quoted with.

It is shown pictures whose pixel traces were erased, and it is shown no file: a claim about noise, compression or
metadata is made up, and the name of a generator or a collection is a guess at the source and not a reason.
"""

from __future__ import annotations

import re

# Regular expressions for whole words, but that a star allows any ending. Words that a picture's content is often
# described with are left out though they can mean traces or sources too: grain, sharp, glide, playground.
_PIXELS = (
    "pixel*", "noise", "noisy", "denois*", "grainy", "film grain", "sharpness", "sharpening", "oversharp*",
    "blur*", "compress*", "jpe?g*", "png", "webp", "artefact*", "artifact*", "aliasing", "antialias*", "moire",
    "checkerboard*", "upsampl*", "upscal*", "downscal*", "resampl*", "interpolat*", "resolution*",
    "low-res", "high-res", "frequenc*", "spectr(?:um|al)*", "fourier", "wavelet*", "residual*", "quantiz*", "quantis*",
    "bit depth", "dithering", "banding", "chromatic aberration*", "demosaic*", "bayer", "sensor*", "prnu", "exif",
    "metadata", "watermark*", "file format*", "file size", "file name*", "dpi",
)  # fmt: skip
_SOURCES = (
    "midjourney*", "dall-?e*", "stable ?diffusion*", "sd ?1\\.[45]", "sdxl", "sd ?3*", "flux", "gpt-?4o*",
    "gpt-?image*", "chatgpt*", "openai*", "imagen", "gemini*", "nano ?banana", "firefly*", "ideogram*", "kandinsky*",
    "big-?gan", "style-?gan*", "pro-?gan", "cycle-?gan", "gans?", "vq-?dm", "wukong", "adm", "diffusion model*",
    "latent diffusion", "autoencoder*", "vaes?", "hidream", "qwen*", "seedream", "jimeng", "minimax", "hunyuan*",
    "playground v?\\d*", "pixart*", "kolors", "recraft*", "runway*", "grok", "lora",
    "coco", "laion*", "imagenet*", "flickr*", "unsplash*", "pexels*", "shutterstock*", "getty*", "ffhq", "celeba*",
    "wikimedia*", "wikipedia", "reddit", "twitter", "facebook", "instagram", "dataset*", "training set",
    "training data",
)  # fmt: skip


def _pattern(terms: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(rf"(?<!\w){t.replace('*', chr(92) + 'w*')}(?!\w)" for t in terms), re.IGNORECASE)


_KINDS = {"pixel traces": _pattern(_PIXELS), "sources": _pattern(_SOURCES)}


def ungrounded(text: str) -> tuple[str, ...]:
    """Terms in `text` for which a judge of meaning has no grounds, as "kind: term" in their order; empty if none.

    >>> ungrounded("The JPEG noise points to Midjourney.")
    ('pixel traces: jpeg', 'pixel traces: noise', 'sources: midjourney')
    """
    return tuple(f"{kind}: {hit[0].lower()}" for kind, pattern in _KINDS.items() for hit in pattern.finditer(text))
