# Made by scripts/stubs.py from the module beside it.
"""A PatchGAN that tells notes from averages of notes, and what it gives to the tokenizer's loss."""
from typing import Any
from typing_extensions import Self
__all__ = ['NORMS', 'ADVERSARIES', 'MOMENTS', 'init_patchgan', 'PatchGAN', 'hinge_discriminator', 'hinge_generator', 'adaptive_weight', 'LeCam', 'AdversaryConfig', 'Adversary', 'frozen']
import math
from contextlib import contextmanager
from dataclasses import dataclass
import torch, torch.nn.functional as F
from torch import nn
from .tokenizer import config_class
NORMS: tuple

def _norm(kind, c):
    ...

def init_patchgan(m):
    """Initialise convolutions from N(0, 0.02), normalisations from N(1, 0.02) and biases with 0 (pix2pix)."""
    ...

class PatchGAN(nn.Module):
    channels: int
    layers: int
    net: Any
    'Image (B, C, H, W) -> logits (B, 1, h, w), one for each overlapping patch (Isola et al. 2017).'

    def __init__(self, channels: int, width: int=..., layers: int=..., norm: str=...):
        ...

    def forward(self, image):
        ...

def hinge_discriminator(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Return the discriminator's hinge loss (Lim and Ye 2017)."""
    ...

def hinge_generator(fake: torch.Tensor) -> torch.Tensor:
    """Return the generator's hinge loss."""
    ...

def adaptive_weight(rec_loss: torch.Tensor, gen_loss: torch.Tensor, weight: torch.Tensor, reduce=...) -> torch.Tensor:
    """Return the factor that makes two gradients equally long at a weight (VQGAN, Esser et al. 2021)."""
    ...

class LeCam(nn.Module):
    decay: float
    'Penalise logits that leave the running mean of the other side far behind (Tseng et al. 2021).'

    def __init__(self, decay: float=...):
        ...

    @torch.no_grad()
    def update(self, real: torch.Tensor, fake: torch.Tensor, reduce=...):
        """Move the running means towards the means of this batch."""
        ...

    def forward(self, real, fake):
        ...

@dataclass(frozen=True)
class AdversaryConfig:
    """The adversarial part of stage one. `preset` names the three sizes."""
    weight: float = ...
    start: float = ...
    width: int = ...
    layers: int = ...
    norm: str = ...
    adaptive: bool = ...
    lecam: float = ...
    updates: int = ...
    lr: float = ...
    betas: tuple = ...
    weight_decay: float = ...
    warmup: int = ...
    adaptive_every: int = ...

    def __post_init__(self):
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
ADVERSARIES: dict

class Adversary(nn.Module):
    cfg: AdversaryConfig
    steps: int
    first: Any
    reduce: Any
    begin: int
    disc: Any
    lecam: Any
    opt: Any
    'The discriminator of a training run, with its optimiser, schedule and regularisation.'

    def __init__(self, cfg: AdversaryConfig, channels: int, steps: int, device=..., reduce=...):
        ...

    def build(self, channels) -> nn.Module:
        """Make the discriminator."""
        ...

    def active(self, step: int) -> bool:
        """Say whether the non-GAN phase is over."""
        ...

    def ramp(self, step: int) -> float:
        """Return the share of the warm-up that is done."""
        ...

    def lr_at(self, step: int) -> float:
        """Return the discriminator's learning rate: warm-up from the start, then a cosine to a tenth."""
        ...

    def generator_loss(self, step: int, recon: torch.Tensor, rec_loss: torch.Tensor, last_layer: torch.Tensor) -> tuple:
        """Return the adversarial term of the tokenizer's loss, weights included."""
        ...

    def update(self, step: int, real: torch.Tensor, fake: torch.Tensor) -> dict:
        """Train the discriminator on one batch, `cfg.updates` times."""
        ...

    def checkpoint(self) -> dict:
        """Return weights, running means, the last adaptive weight and the optimiser's state."""
        ...

    def restore(self, d: dict) -> Adversary:
        """Take back the state of `checkpoint`."""
        ...

@contextmanager
def frozen(module: nn.Module):
    """Use a module as a constant for a while."""
    ...
MOMENTS: tuple
