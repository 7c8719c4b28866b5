# Made by scripts/stubs.py from the module beside it.
"""A ViT that turns the image of a note into token maps from coarse to fine, and back."""
from typing import Any
from typing_extensions import Self
__all__ = ['PRESETS', 'STRIPS', 'TokenizerConfig', 'config_class', 'drop_path', 'Block', 'init_vit', 'Blocks', 'make_blocks', 'Positions', 'patchify', 'unpatchify', 'Encoder', 'Decoder', 'check_tokens', 'make_quantizer', 'Tokenizer', 'patch_components']
import math
from dataclasses import dataclass, fields
import torch, torch.nn.functional as F
from torch import nn
from .quantizer import MultiScaleQuantizer, ProductQuantizer, resampling_matrix

def _pair(v):
    ...

@dataclass(frozen=True)
class TokenizerConfig:
    """The shape of a tokenizer. `preset` names the three sizes."""
    image_shape: tuple = ...
    patch: tuple = ...
    width: int = ...
    encoder_depth: int = ...
    decoder_depth: int = ...
    heads: int = ...
    mlp_ratio: float = ...
    layer_scale: float = ...
    drop_path: float = ...
    local: bool = ...
    scales: tuple = ...
    codebook_size: int = ...
    code_dim: int = ...
    branches: int = ...
    n_phi: int = ...
    phi_ratio: float = ...
    beta: float = ...
    lookup: str = ...
    vq_weight: float = ...
    quantizer_dropout: float = ...
    dropout_start: int = ...

    def __post_init__(self):
        ...

    @property
    def grid(self):
        ...

    @property
    def latent(self):
        ...

    @property
    def n_tokens(self):
        ...

    @classmethod
    def preset(cls, name: str, *args: Any, **fields: Any) -> Self:
        ...

    @staticmethod
    def presets() -> dict:
        ...

    @classmethod
    def from_dict(cls, d: dict) -> Self:
        ...
PRESETS: dict
STRIPS: dict

def _preset(cls, name: str, **kwargs):
    """Return the config of a named size, with overrides by keyword."""
    ...

def _from_dict(cls, d: dict):
    """Build a config from a dict, refusing names it does not know."""
    ...

def config_class(cls, presets):
    """Give a frozen dataclass `preset`, `presets`, `from_dict`."""
    ...

def drop_path(x, p, training):
    """Drop whole samples of a residual branch with probability p, rescaling the rest."""
    ...

class Block(nn.Module):
    heads: Any
    p_drop: Any
    norm1: Any
    norm2: Any
    q: Any
    kv: Any
    proj: Any
    mlp: Any
    scale1: Any
    scale2: Any
    'Pre-norm ViT block: x (B, L, D) -> (B, L, D), or only the rows of L that are wanted.'

    def __init__(self, width, heads, mlp_ratio: float=..., layer_scale: float=..., p_drop: float=...):
        ...

    def attend(self, x, rows):
        ...

    def forward(self, x, rows=...):
        ...

def init_vit(m):
    """Initialise the linear layers of a ViT."""
    ...

class Blocks(nn.Sequential):
    """A stack of blocks; the last one computes only the rows that are wanted."""

    def forward(self, x, rows=...):
        ...

def make_blocks(cfg, depth):
    """Stack blocks whose stochastic depth rises linearly from 0."""
    ...

class Positions(nn.Module):
    branches: Any
    cls: Any
    table: Any
    level: Any
    'Learned positions of the patch grid, resampled for each latent grid, plus a level vector for each of these grids.'

    def __init__(self, cfg, branches: float=...):
        ...

    def forward(self, patches, latents):
        ...

def patchify(image, patch):
    """Cut images (B, C, H, W) into patches (B, N, C*ph*pw), row-major."""
    ...

def unpatchify(x, image_shape, patch):
    """Put patches (B, N, C*ph*pw) back into images (B, C, H, W)."""
    ...

class Encoder(nn.Module):
    patch: Any
    latent: Any
    branches: Any
    local: Any
    embed: Any
    latents: Any
    positions: Any
    blocks: Any
    norm: Any
    to_code: Any
    'Image (B, C, H, W) -> latent map (B, P*d, h, w).'

    def __init__(self, cfg):
        ...

    def forward(self, image):
        ...

class Decoder(nn.Module):
    patch: Any
    image_shape: Any
    n: Any
    local: Any
    from_code: Any
    mask: Any
    positions: Any
    blocks: Any
    norm: Any
    to_pixels: Any
    'Quantized latent map (B, P*d, h, w) -> image (B, C, H, W), not clamped.'

    def __init__(self, cfg):
        ...

    def forward(self, z):
        ...

def check_tokens(tokens, cfg, n_scales):
    """Refuse token maps that do not fit the config, in one sentence."""
    ...

def make_quantizer(cfg):
    """Build the quantizer of a config: `MultiScaleQuantizer`, or `ProductQuantizer` for more than one branch."""
    ...

class Tokenizer(nn.Module):
    cfg: TokenizerConfig
    encoder: Any
    decoder: Any
    quantizer: Any
    'Image <-> token maps, coarse to fine (MARS, figure 2).'

    def __init__(self, cfg: TokenizerConfig):
        ...

    def check_shape(self, image):
        """Refuse what has not the shape of the config."""
        ...

    def check(self, image):
        """Refuse what is no image for this tokenizer, in one sentence."""
        ...

    @torch.no_grad()
    def encode(self, image: torch.Tensor) -> list:
        """Turn images into token maps."""
        ...

    @torch.no_grad()
    def decode(self, tokens: list, n_scales: int | None=...) -> torch.Tensor:
        """Turn token maps back into images."""
        ...

    def forward(self, image: torch.Tensor):
        """Reconstruct and return the losses of stage one."""
        ...

    def keep(self, B: int, device):
        """Draw how many scales each note of a training batch uses (ImageFolder's quantizer dropout)."""
        ...

    @torch.no_grad()
    def revive(self, image: torch.Tensor, patience: int=...) -> int:
        """Put dead codes onto vectors that this batch asks for."""
        ...

    @torch.no_grad()
    def warm_start(self, image: torch.Tensor) -> Tokenizer:
        """Start the patch and code layers from the principal components of patches."""
        ...

def patch_components(x, most):
    """Find the principal components of patches; above 2048 values only the strongest, since a full decomposition grows with the cube."""
    ...
