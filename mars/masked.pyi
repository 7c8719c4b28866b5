# Made by scripts/stubs.py from the module beside it.
"""The third order of prediction: each map is filled in over a few passes, the surest tokens first."""
from typing import Any
from typing_extensions import Self
__all__ = ['mask_spans', 'MaskedScale', 'left_masked', 'MaskedPasses', 'likelihood']
import math
import torch, torch.nn.functional as F
from torch import nn
from .nexttoken import NextToken
from .var import VAR, Passes, check_seed, linear, note_uniforms, sample, scale_settings

def mask_spans(shape: tuple, rate: torch.Tensor, span: int=..., generator=...) -> torch.Tensor:
    """Mask runs of cells along the longer side of a map, in random order, until enough cells are masked."""
    ...

class MaskedScale(VAR):
    known: Any
    'Masked transformer over the same token maps and trunk: each map in a few passes (MAGNeT, Ziv et al. 2024, with a scale as a stage).'
    system: str
    span: int
    at_once: int

    def ends(self, std):
        ...
    codes: Any

    def see(self, k, tokens, known):
        """Embed the tokens that are known."""
        ...

    def hide(self, B, generator=...):
        """Make holes in the maps of a batch."""
        ...

    def forward(self, tokens: list, labels: dict | None=..., known: list | None=...) -> torch.Tensor:
        """Score all scales at once by teacher forcing, each given the earlier ones and what is known of itself."""
        ...

    def loss(self, tokens: list, labels: dict | None=..., known: list | None=...):
        """Mean cross-entropy of the masked tokens."""
        ...
    runner: Any

    def steps(self, wanted=...) -> list:
        """Say how many passes each map takes."""
        ...
    n_passes: Any

    @torch.no_grad()
    def stream(self, labels: dict | None=..., n: int | None=..., *, steps=..., seed: int | None=..., first: int=..., graph: bool | None=..., **settings):
        """Write the tokens of n notes and show them after each scale."""
        ...

    def generate(self, labels: dict | None=..., n: int | None=..., *, steps=..., cfg_scale: float=..., cfg_ramp: bool=..., top_k: float=..., top_p: float=..., temperature: float=..., seed: int | None=..., first: int=..., graph: bool | None=...) -> list:
        """Write the tokens of n notes, map by map, each over a few passes."""
        ...

def left_masked(n: int, steps: int) -> list:
    """Count the tokens that are masked before each pass over a map."""
    ...

class MaskedPasses(Passes):
    left: Any
    u: Any
    us: Any
    'The passes of one generation of a `MaskedScale`; a record holds all those of a scale.'

    def __init__(self, var, n, settings):
        ...

    def write(self, k, logits):
        """Draw what is masked and keep the likeliest, pass after pass."""
        ...

def likelihood(logits, tokens, temperature):
    """Give the log-probability of tokens, of all parts together."""
    ...
