"""OpenAI CLIP's image tower in plain torch, with its intermediate tokens in reach and room for an adapter.

The parameter names are open_clip's (`ViT-B-16-quickgelu`, the `visual` part), so its state dicts load as they are; a
test holds the output against open_clip's. Beyond open_clip's module it can stop after any block, which is what pixel
detectors need (the traces live in the middle of the tower; RINE, arXiv 2402.19091), and it takes low-rank updates as an
argument instead of changing its weights, so that plugins with different adapters share one tower in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fused import linear, through
from .lora import LoraSet

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def clip_input(pixels: Tensor) -> Tensor:
    """Normalise pixels as CLIP was trained.

    Parameters
    ----------
    pixels : uint8 tensor of (B, H, W, 3)
        RGB, 0 to 255.

    Returns
    -------
    float32 tensor of (B, 3, H, W)
    """
    mean = torch.tensor(CLIP_MEAN, device=pixels.device)
    std = torch.tensor(CLIP_STD, device=pixels.device)
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


class Attention(nn.Module):
    """Multi-head self-attention with the packed projection of torch's and open_clip's naming."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.record: Callable[[Tensor], object] | None = None
        """Called with the weights (B, heads, N, N) where they are asked for (`tellsign.alignment.recorded`)."""
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor, lora: LoraSet | None, name: str) -> Tensor:
        """Tokens (B, N, width) to tokens of the same shape."""
        b, n, width = x.shape
        qkv = linear(x, self.in_proj_weight, self.in_proj_bias)
        if lora is not None:
            qkv = lora.add(f"{name}.in_proj", x, qkv)
        q, k, v = qkv.view(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        if self.record is None:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            weights = ((q.float() * q.shape[-1] ** -0.5) @ k.float().transpose(-2, -1)).softmax(dim=-1)
            self.record(weights)
            mixed = (weights @ v.float()).to(v.dtype)
        mixed = mixed.transpose(1, 2).reshape(b, n, width)
        out = through(self.out_proj, mixed)
        return out if lora is None else lora.add(f"{name}.out_proj", mixed, out)

    def keys_and_values(self, x: Tensor) -> Tensor:
        """Keys and values of tokens (B, N, width) without any update: (B, N, 2 * width)."""
        width = x.shape[2]
        return linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:])

    def class_token(self, x: Tensor, lora: LoraSet | None, name: str) -> Tensor:
        """`forward` for the class token alone: tokens (B, N, width) to (B, 1, width).

        Keys and values are computed of all tokens, the query and what follows it of one.
        """
        b, n, width = x.shape
        q = F.linear(x[:, :1], self.in_proj_weight[:width], self.in_proj_bias[:width])
        kv = self.keys_and_values(x)
        if lora is not None:
            change = lora.change(f"{name}.in_proj", x)
            if change is not None:
                q, kv = q + change[:, :1, :width], kv + change[..., width:]
        q = q.view(b, 1, self.heads, width // self.heads).transpose(1, 2)
        k, v = kv.view(b, n, 2, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, 1, width)
        out = through(self.out_proj, mixed)
        return out if lora is None else lora.add(f"{name}.out_proj", mixed, out)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x): the activation that OpenAI's weights were trained with; GELU loses accuracy silently."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        if torch.is_grad_enabled():
            return x * torch.sigmoid(1.702 * x)
        # In place: fresh memory for each step takes ten times as long as the arithmetic.
        return (1.702 * x).sigmoid_().mul_(x)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int, ratio: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict(
            {
                "c_fc": nn.Linear(width, int(width * ratio)),
                "gelu": QuickGELU(),
                "c_proj": nn.Linear(int(width * ratio), width),
            }
        )

    def forward(self, x: Tensor, lora: LoraSet | None, name: str) -> Tensor:
        """Tokens (B, N, width) to tokens of the same shape."""
        return self.after_attention(x + self.attn(self.ln_1(x), lora, f"{name}.attn"), lora, name)

    def class_token(self, x: Tensor, lora: LoraSet | None, name: str) -> Tensor:
        """`forward` for the class token alone: tokens (B, N, width) to (B, width)."""
        mixed = self.attn.class_token(self.ln_1(x), lora, f"{name}.attn")
        return self.after_attention(x[:, :1] + mixed, lora, name)[:, 0]

    def after_attention(self, x: Tensor, lora: LoraSet | None, name: str) -> Tensor:
        """The block's second half: tokens (B, N, width) to the same shape."""
        y = self.ln_2(x)
        hidden = through(self.mlp["c_fc"], y)
        if lora is not None:
            hidden = lora.add(f"{name}.mlp.c_fc", y, hidden)
        hidden = self.mlp["gelu"](hidden)
        out = through(self.mlp["c_proj"], hidden)
        if lora is not None:
            out = lora.add(f"{name}.mlp.c_proj", hidden, out)
        return x + out


class Transformer(nn.Module):
    """The blocks, under the name that the weights give them."""

    def __init__(self, width: int, heads: int, depth: int, ratio: float) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, ratio) for _ in range(depth))


class ClipTower(nn.Module):
    """Vision transformer of CLIP (Radford et al., arXiv 2103.00020).

    Parameters
    ----------
    depth : int, default 12
        Blocks that are there; a shallower tower takes the first ones of a deeper state dict.
    width, heads, patch, size, projection : int
        ViT-B/16 at 224 px unless said otherwise.
    ratio : float, default 4
        Hidden width of the MLP over `width`.
    """

    def __init__(
        self,
        *,
        depth: int = 12,
        width: int = 768,
        heads: int = 12,
        patch: int = 16,
        size: int = 224,
        projection: int = 512,
        ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.depth, self.width, self.patch, self.grid = depth, width, patch, size // patch
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(self.grid**2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, heads, depth, ratio)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, projection))

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], *, depth: int | None = None, copy: bool = True) -> ClipTower:
        """Build the tower that `state` describes, in float32.

        Parameters
        ----------
        state : mapping from name to tensor
            open_clip's names, any float dtype.
        depth : int, optional
            Use the first so many blocks only.
        copy : bool, default True
            False leaves float32 tensors of `state` where they are: they are the tower's from then on.

        Raises
        ------
        ValueError
            A tensor is missing or has another shape than the others imply.
        """
        blocks = 1 + max((int(k.split(".")[2]) for k in state if k.startswith("transformer.resblocks.")), default=-1)
        if not blocks or "conv1.weight" not in state or "positional_embedding" not in state:
            raise ValueError("state takes a CLIP image tower's tensors (conv1.weight, positional_embedding, blocks)")
        depth = blocks if depth is None else depth
        if not 1 <= depth <= blocks:
            raise ValueError(f"depth takes 1 to {blocks} for this state, got {depth}")
        width, _, patch, _ = state["conv1.weight"].shape
        # Without it the check below names what is missing.
        hidden = state.get("transformer.resblocks.0.mlp.c_fc.weight")
        # On "meta" nothing is drawn at random that the state replaces.
        with torch.device("meta"):
            tower = cls(
                depth=depth,
                width=width,
                heads=max(1, width // 64),
                patch=patch,
                size=patch * int((state["positional_embedding"].shape[0] - 1) ** 0.5),
                projection=state["proj"].shape[1] if "proj" in state else 1,
                ratio=4.0 if hidden is None else hidden.shape[0] / width,
            )
        own = tower.state_dict()
        # A shallow tower is used for its middle tokens: it may come without the last norm and the projection.
        optional = {"ln_post.weight": 1.0, "ln_post.bias": 0.0, "proj": 0.0}
        missing = [k for k in own if k not in state and k not in optional]
        if missing:
            more = f" and {len(missing) - 1} more are missing" if len(missing) > 1 else " is missing"
            raise ValueError(f"state takes every tensor of the tower, {missing[0]!r}{more}")
        for name, tensor in own.items():
            if name in state and state[name].shape != tensor.shape:
                raise ValueError(f"{name} takes shape {tuple(tensor.shape)}, got {tuple(state[name].shape)}")
        whole = {
            k: state[k].detach().to(torch.float32, copy=copy).contiguous()
            if k in state
            else torch.full(own[k].shape, optional[k])
            for k in own
        }
        tower.load_state_dict(whole, assign=True)
        return tower

    def embed(self, x: Tensor) -> Tensor:
        """Patch tokens with the class token first.

        Parameters
        ----------
        x : float tensor of (B, 3, H, W)
            Normalised by `clip_input`; H and W multiples of the patch. Other sizes than the tower's own get its
            positions interpolated.

        Returns
        -------
        float tensor of (B, 1 + rows * columns, width)
        """
        x = self.conv1(x)
        rows, columns = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x], dim=1)
        out: Tensor = self.ln_pre(x + self._positions(rows, columns))
        return out

    def _positions(self, rows: int, columns: int) -> Tensor:
        if (rows, columns) == (self.grid, self.grid):
            return self.positional_embedding
        grid = self.positional_embedding[1:].T.reshape(1, -1, self.grid, self.grid)
        grid = F.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False, antialias=True)
        return torch.cat([self.positional_embedding[:1], grid.flatten(2)[0].T])

    def tokens(self, x: Tensor, blocks: Collection[int], lora: LoraSet | None = None) -> dict[int, Tensor]:
        """Tokens after the named blocks, no block beyond the last of them being run.

        Parameters
        ----------
        x : float tensor of (B, 3, H, W)
        blocks : collection of int
            Counted from 1; 12 is the last of ViT-B.
        lora : LoraSet, optional
            Low-rank updates added to the blocks' linear maps.

        Returns
        -------
        dict from block to float tensor of (B, 1 + rows * columns, width)
        """
        last = max(blocks)
        if not 1 <= min(blocks) <= last <= self.depth:
            raise ValueError(f"blocks takes numbers from 1 to {self.depth}, got {sorted(blocks)}")
        x = self.embed(x)
        out: dict[int, Tensor] = {}
        for number, block in enumerate(self.transformer.resblocks[:last], start=1):
            x = block(x, lora, f"{number}")
            if number in blocks:
                out[number] = x
        return out

    def forward(self, x: Tensor) -> Tensor:
        """The image embedding that CLIP aligns with text, not normalised: (B, 3, H, W) to (B, projection)."""
        tokens = self.tokens(x, (self.depth,))[self.depth]
        out: Tensor = self.ln_post(tokens[:, 0]) @ self.proj
        return out
