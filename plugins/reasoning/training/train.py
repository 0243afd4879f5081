"""ReAlign's training: images are drawn to the texts about them while a head learns the label."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tellsign.errors import SettingError
from tellsign.plugins.reasoning.model import HIDDEN, Head, qkv_updates
from tellsign.towers import ClipTower, LoraSet
from tellsign.towers.clip import Block

from .facts import WHOLE, Facts
from .losses import BCE_WEIGHT, contrastive, total
from .lowrank import Frozen, class_token, freeze
from .statements import TEXT_KINDS, label_sentence, text_of
from .text import TextEncoder
from .tokens import TokenStore

MODES = ("joint", "sequential", "bce")
TUNED = ("lora", "full", "frozen")


@attrs.frozen(kw_only=True)
class Recipe:
    """Everything that decides what a run gives; written beside the weights.

    Rank, alpha, the weight of the label, the two-layer head and joint training are ReAlign's. Its rate of 1e-4 is for
    some hundred thousand pictures; a thousand take 1e-3.
    """

    text: str = "reasoning+label"
    """One of `statements.TEXT_KINDS`."""
    mode: str = "joint"
    """joint: both losses at once. sequential: first the texts, then the head alone. bce: the label alone."""
    tuned: str = "lora"
    """What changes in the tower's last blocks: low-rank updates, all of their weights, or nothing."""
    last: int = 12
    """Block after which the class token is read."""
    blocks: int = 1
    """How many blocks up to it may change; 0 is none."""
    rank: int = 6
    alpha: float = 6.0
    scale: float = 1.0
    """Of the similarities; 1 is the paper's formula as printed, 0 means learned from CLIP's 14.3 (1 / .07)."""
    weight: float = BCE_WEIGHT
    epochs: int = 10
    batch: int = 64
    rate: float = 1e-3
    decay: float = 1e-2
    texts: int = 3
    """Texts per picture, of which one is drawn in each epoch."""
    hidden: int = HIDDEN
    long: str = "split"
    """What becomes of long texts; see `TextEncoder.encode`."""
    forged: bool = False
    """Forgeries teach the texts as well; they never teach the label, which the view cannot show."""
    positives: bool = False
    """Equal texts in a batch count as belonging together."""
    seed: int = 0

    def __attrs_post_init__(self) -> None:
        for name, value, allowed in (
            ("text", self.text, TEXT_KINDS),
            ("mode", self.mode, MODES),
            ("tuned", self.tuned, TUNED),
        ):
            if value not in allowed:
                raise SettingError(name, f"one of {', '.join(allowed)}", value)
        if not 0 <= self.blocks <= self.last:
            raise SettingError("blocks", f"0 to {self.last}", self.blocks)
        if self.tuned != "frozen" and not self.blocks:
            raise SettingError("blocks", "at least 1 where something in them changes", self.blocks)


@attrs.frozen(kw_only=True, eq=False)
class Lesson:
    """Pictures with their texts, embedded once: the encoder is frozen."""

    texts: Tensor
    """float32 (n, texts, dim), unit vectors; zeros where a text is empty."""
    words: list[list[str]]
    """The texts themselves."""


def lesson(facts: Sequence[Facts], encoder: TextEncoder, kind: str, *, texts: int, long: str, seed: int) -> Lesson:
    """Write and embed texts about pictures; equal texts are embedded once."""
    rng = np.random.default_rng(seed)
    words = [[text_of(f, kind, rng) for _ in range(texts)] for f in facts]
    parts: dict[str, tuple[str, str]] = {}
    for f, mine in zip(facts, words, strict=True):
        prefix = label_sentence(f.fake) if "label" in kind else ""
        for text in mine:
            parts[text] = (prefix, text.removeprefix(prefix).strip())
    known = sorted(t for t in parts if t)
    embedded = encoder.encode([parts[t] for t in known], long=long) if known else torch.zeros(0, encoder.dim)
    at = {t: i for i, t in enumerate(known)}
    out = torch.zeros(len(facts), texts, encoder.dim)
    for i, mine in enumerate(words):
        for j, text in enumerate(mine):
            if text:
                out[i, j] = embedded[at[text]]
    return Lesson(texts=out, words=words)


class Student(nn.Module):
    """The tower's last blocks with what may change in them, the projections, and the head: what a step sees.

    Parameters
    ----------
    tower : ClipTower
        Not changed: its blocks are copied.
    recipe : Recipe
    text_dim : int
    joint : bool
        The text's space is the tower's own.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, tower: ClipTower, recipe: Recipe, *, text_dim: int, joint: bool) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.first, self.last = recipe.last - recipe.blocks + 1, recipe.last
        self.projected = recipe.last == tower.depth
        self.dim = int(tower.proj.shape[1]) if self.projected else tower.width
        chosen = list(tower.transformer.resblocks[self.first - 1 : self.last])
        self.blocks = nn.ModuleList(copy.deepcopy(b) for b in chosen)
        self.blocks.requires_grad_(recipe.tuned == "full")
        if recipe.tuned != "full":
            self.blocks.bfloat16()
        self.ln_post, self.proj = copy.deepcopy(tower.ln_post).requires_grad_(False), tower.proj.detach().clone()
        self.lora: LoraSet | None = None
        if recipe.tuned == "lora":
            self.lora = qkv_updates(tower.width, self.first, self.last, rank=recipe.rank, alpha=recipe.alpha)
        # MiniLM knows no pictures: a map that is learned with the rest brings what it says into the image's space.
        self.text_projection = nn.Identity() if joint else nn.Linear(text_dim, self.dim, bias=False)
        if joint and text_dim != self.dim:
            raise SettingError("text", f"a text tower of the image tower's space ({self.dim})", text_dim)
        self.log_scale = nn.Parameter(torch.tensor(2.659), requires_grad=recipe.scale == 0)
        self.fixed_scale = recipe.scale
        self.head = Head(self.dim, recipe.hidden)
        self.register_buffer("mean", torch.zeros(tower.width))
        self.register_buffer("std", torch.ones(tower.width))

    @property
    def scale(self) -> Tensor | float:
        """Of the similarities."""
        return self.fixed_scale or self.log_scale.exp()

    def standardise(self, tokens: Tensor) -> None:
        """Set the statistics of the class tokens after block `last`, as the frozen tower gives them: (n, width)."""
        self.mean.copy_(tokens.float().mean(dim=0))
        self.std.copy_(tokens.float().std(dim=0) + 1e-4)

    def embed(self, given: Tensor | Frozen) -> Tensor:
        """What `Inputs.take` gave to unit vectors (B, dim)."""
        if isinstance(given, Tensor) and not len(self.blocks):
            return self._vector(given.float())
        ending = self.blocks[-1]
        assert isinstance(ending, Block)
        if isinstance(given, Frozen):
            return self._vector(class_token(ending, given, self.lora, f"{self.last}").float())
        with torch.autocast(given.device.type, torch.bfloat16):
            tokens: Tensor = given
            for number, block in enumerate(self.blocks[:-1], start=self.first):
                tokens = block(tokens, self.lora, f"{number}")
            token = ending.class_token(tokens, self.lora, f"{self.last}")
        return self._vector(token.float())

    def _vector(self, token: Tensor) -> Tensor:
        z = self.ln_post(token) @ self.proj if self.projected else (token - self.mean) / self.std
        return F.normalize(z, dim=1)

    def text(self, embedded: Tensor) -> Tensor:
        """The encoder's unit vectors (B, text_dim) to unit vectors in the image's space (B, dim)."""
        return F.normalize(self.text_projection(embedded), dim=1)


def facts_of(store: TokenStore) -> list[Facts]:
    """What is known of every picture of a store."""
    from .facts import look_of

    real = ("photo", "art", "screenshot", "scan")
    return [
        Facts(
            fake=bool(y),
            content=str(c) if not y and c in real else "",
            kind=str(k),
            region=str(r),
            share=float(s),
            look=look_of(square),
        )
        for y, c, k, r, s, square in zip(
            store.label, store.content, store.kind, store.region, store.share, store.squares, strict=True
        )
    ]


class Inputs:
    """What a recipe's model reads of a store.

    Where one block has updates, what is frozen in it is computed here and not in every step (`lowrank`).

    Parameters
    ----------
    store : TokenStore
    recipe : Recipe
    tower : ClipTower
    """

    def __init__(self, store: TokenStore, recipe: Recipe, tower: ClipTower) -> None:
        if recipe.blocks:
            self.tokens: NDArray[np.float16] = store.after(recipe.last - recipe.blocks)
        else:
            self.tokens = store.classes[:, recipe.last - 1]
        self.classes = store.classes[:, recipe.last - 1]
        self.frozen: Frozen | None = None
        if recipe.blocks == 1 and recipe.tuned != "full":
            block = copy.deepcopy(tower.transformer.resblocks[recipe.last - 1]).bfloat16()
            assert isinstance(block, Block)
            parts = [freeze(block, _bfloat(self.tokens[i : i + 64])) for i in range(0, len(self.tokens), 64)]
            self.frozen = Frozen(
                *(torch.cat(p) for p in zip(*(attrs.astuple(x, recurse=False) for x in parts), strict=True))
            )

    def take(self, rows: NDArray[np.int64]) -> Tensor | Frozen:
        """Of `rows`: what is frozen; or tokens (B, N, width), or (B, width) where nothing changes."""
        if self.frozen is not None:
            return self.frozen.take(torch.from_numpy(rows))
        order = np.argsort(rows)
        return _bfloat(self.tokens[rows[order]])[torch.from_numpy(np.argsort(order))]


def _bfloat(tokens: NDArray[np.float16]) -> Tensor:
    return torch.from_numpy(np.array(tokens)).bfloat16()


@torch.inference_mode()
def apply(student: Student, inputs: Inputs, rows: NDArray[np.int64], *, batch: int = 64) -> tuple[Tensor, Tensor]:
    """Unit vectors (n, dim) and raw log-odds (n,) of `rows`."""
    student.eval()
    out = [student.embed(inputs.take(rows[i : i + batch])) for i in range(0, len(rows), batch)]
    v = torch.cat(out)
    return v, student.head.raw(v)


def train(
    tower: ClipTower,
    store: TokenStore,
    rows: NDArray[np.int64],
    taught: Lesson,
    recipe: Recipe,
    *,
    weight: NDArray[np.float64] | None = None,
    joint: bool = False,
    inputs: Inputs | None = None,
) -> tuple[Student, list[dict[str, float]]]:
    """Train a model.

    Parameters
    ----------
    tower : ClipTower
    store : TokenStore
    rows : int64 array
        Pictures to learn from; forgeries among them are left out unless the recipe takes them.
    taught : Lesson
        Of all of the store's pictures.
    recipe : Recipe
    weight : float64 array, optional
        One for each of `rows`: how often a picture is drawn, so that topic and source say nothing of the label. By
        default all alike.
    joint : bool
        The texts are CLIP's.
    inputs : Inputs, optional
        Of the same store and recipe, where several runs share it.

    Returns
    -------
    student : Student
    curve : list of dict
        Mean losses by epoch.
    """
    inputs = inputs or Inputs(store, recipe, tower)
    student = Student(tower, recipe, text_dim=taught.texts.shape[2], joint=joint)
    whole = np.isin(store.kind, WHOLE)
    share = np.ones(len(rows)) if weight is None else weight
    if not recipe.forged:
        rows, share = rows[whole[rows]], share[whole[rows]]
    share = share / share.sum()
    student.standardise(torch.from_numpy(np.asarray(inputs.classes[rows], np.float32)))
    label = torch.from_numpy(store.label.astype(np.float32))
    # A label is taught only where the view can show why.
    sure = torch.from_numpy(whole.astype(np.float32))
    rng = np.random.default_rng(recipe.seed)
    curve: list[dict[str, float]] = []
    for stage in ("text", "head") if recipe.mode == "sequential" else ("both",):
        changing = [p for n, p in student.named_parameters() if p.requires_grad and _learns(n, stage)]
        optimiser = torch.optim.AdamW(changing, lr=recipe.rate, weight_decay=recipe.decay)
        steps = recipe.epochs * max(1, len(rows) // recipe.batch)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for epoch in range(recipe.epochs):
            student.train()
            sums = {"contrastive": 0.0, "bce": 0.0}
            order = rng.choice(rows, len(rows), p=share)
            size = min(recipe.batch, len(order))
            starts = range(0, len(order) - size + 1, size)
            for start in starts:
                part = order[start : start + size]
                v = student.embed(inputs.take(part))
                drawn = rng.integers(recipe.texts, size=size)
                given = taught.texts[torch.from_numpy(part), torch.from_numpy(drawn)]
                con, bce = _losses(student, v, given, label[part], sure[part], recipe)
                loss = {"both": total(con, bce, recipe.weight), "text": con, "head": bce}[stage]
                if recipe.mode == "bce":
                    loss = bce
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                sums["contrastive"] += float(con.detach())
                sums["bce"] += float(bce.detach())
            curve.append({"epoch": float(epoch), **{k: s / max(1, len(starts)) for k, s in sums.items()}})
    return student.eval(), curve


def _learns(name: str, stage: str) -> bool:
    head = name.startswith("head.")
    return stage == "both" or head == (stage == "head")


def _losses(
    student: Student, v: Tensor, given: Tensor, label: Tensor, sure: Tensor, recipe: Recipe
) -> tuple[Tensor, Tensor]:
    told = given.abs().sum(dim=1) > 0
    con = v.sum() * 0
    if recipe.mode != "bce" and int(told.sum()) > 1:
        mine = given[told]
        same = (mine @ mine.T > 1 - 1e-5) if recipe.positives else None
        con = contrastive(v[told], student.text(mine), student.scale, same)
    each = F.binary_cross_entropy_with_logits(student.head.raw(v), label, reduction="none")
    return con, (each * sure).sum() / sure.sum().clamp(min=1)
