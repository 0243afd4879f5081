"""Tiny networks and drawn forgeries for the tests of the segmentation plugin."""

import csv

import numpy as np
import torch
from PIL import Image, ImageFilter

from tellsign.plugins.segmentation.encoders import MitEncoder
from tellsign.plugins.segmentation.model import GammaConfig, GammaModel

TINY = (8, 16, 24, 32)
HEADER = [
    "id",
    "path",
    "cls",
    "kind",
    "tool",
    "ai_mask",
    "ma_mask",
    "ai_loss",
    "ma_loss",
    "base",
    "donor",
    "group",
    "source",
    "seed",
    "share",
]


def tiny_model(seed=0, **settings):
    """The paper's network on a tiny MiT, in eval mode."""
    torch.manual_seed(seed)
    settings = {"energy": False, "contrast": False, **settings}
    config = GammaConfig(encoder="mit-b0", width=16, heads=2, residual=0, **settings)
    return GammaModel(config, MitEncoder(TINY, (1, 1, 1, 1))).eval()


def noisy(rng, side):
    """A picture with sensor-like noise, uint8 (side, side, 3)."""
    coarse = Image.fromarray(rng.integers(0, 255, (side // 16, side // 16, 3), dtype=np.uint8))
    base = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(float)
    return np.clip(base + rng.normal(0, 12, base.shape), 0, 255).astype(np.uint8)


def draw_forged(folder, count=8, side=128, seed=0):
    """A forged folder in the layout of `tellsign forge`: untouched, blended (blurred), copy-moved and generated."""
    (folder / "pictures").mkdir(parents=True)
    (folder / "masks").mkdir()
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(count):
        kind = ("untouched", "blend", "copymove", "generated")[i % 4]
        pixels, mask = noisy(rng, side), np.zeros((side, side), np.uint8)
        blurred = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)))
        extent = int(side * rng.uniform(0.35, 0.5))
        top, left = rng.integers(0, side - extent, 2)
        mask[top : top + extent, left : left + extent] = 1
        if kind == "blend":
            pixels = np.where(mask[..., None] > 0, blurred, pixels)
        elif kind == "copymove":
            y, x = rng.integers(0, side - extent, 2)
            piece = pixels[y : y + extent, x : x + extent].astype(float)
            pixels = pixels.copy()
            pixels[top : top + extent, left : left + extent] = np.clip(piece + rng.normal(0, 25, piece.shape), 0, 255)
        elif kind == "generated":
            pixels = blurred
        Image.fromarray(pixels).save(folder / "pictures" / f"{i}.png")
        Image.fromarray(mask * 255).save(folder / "masks" / f"{i}.png")
        there = f"masks/{i}.png"
        ai = {"blend": there, "generated": "ones"}.get(kind, "")
        moved = there if kind in ("blend", "copymove") else ""
        tool = {"blend": "blur", "copymove": "paste", "generated": "blurrer"}.get(kind, "")
        lines.append(
            [i, f"pictures/{i}.png", int(kind != "untouched"), kind, tool, ai, moved, 1, int(kind != "generated")]
        )
        lines[-1] += ["", "", f"group{i}", f"source{i % 3}", 0, mask.mean()]
    with (folder / "manifest.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(HEADER)
        writer.writerows(lines)
    return folder
