# Made by scripts/stubs.py from the module beside it.
"""One codebook, many scales: how a latent map becomes token maps from coarse to fine."""
from typing import Any
from typing_extensions import Self
__all__ = ['resampling_matrix', 'lookup_keys', 'nearest_key', 'nearest_code', 'phi_schedule', 'MultiScaleQuantizer', 'usage_of', 'code_usage', 'ProductQuantizer', 'freeze']
import math
import torch, torch.nn.functional as F
from torch import nn

def resampling_matrix(src: tuple, dst: tuple, mode: str) -> torch.Tensor:
    """Return the matrix that does what `F.interpolate` does to a row-major flattened map."""
    ...

def lookup_keys(codebook: torch.Tensor, lookup: str=...) -> tuple:
    """Prepare a codebook for lookups."""
    ...

@torch.no_grad()
def nearest_key(x: torch.Tensor, keys: torch.Tensor, bias: torch.Tensor | None=..., block: int=...) -> torch.Tensor:
    """Find the nearest code of every vector without holding more than `block` similarities (or one row)."""
    ...

def nearest_code(x: torch.Tensor, codebook: torch.Tensor, lookup: str=..., block: int=...) -> torch.Tensor:
    """Find the nearest code of every vector."""
    ...

def phi_schedule(n_scales: int, n_phi: int) -> tuple:
    """Assign each scale the convolution whose tick is nearest (VAR's partially shared phi)."""
    ...

class MultiScaleQuantizer(nn.Module):
    scales: tuple
    beta: float
    phi_ratio: float
    lookup: str
    own: bool
    latent: Any
    channels: int
    phi_of: Any
    codebook: Any
    phi: Any
    'Turn a latent map into token maps from coarse to fine and back (VAR, Tian et al. 2024).'

    def __init__(self, scales: tuple, codebook_size: int, code_dim: int, n_phi: int=..., phi_ratio: float=..., beta: float=..., lookup: str=..., kernel: tuple=..., up: str=..., own: bool=...):
        ...

    def book(self, k):
        """Return the codebook of scale k."""
        ...

    def keys(self):
        """Prepare the codebooks of all scales for lookups."""
        ...

    def area(self, k: int, f: torch.Tensor) -> torch.Tensor:
        """Average a latent map over the cells of scale k."""
        ...

    def contribution(self, k: int, tokens: torch.Tensor) -> torch.Tensor:
        """Return what the tokens of scale k add to the latent map."""
        ...

    @torch.no_grad()
    def encode(self, f: torch.Tensor) -> list:
        """Quantize a latent map, coarse to fine."""
        ...

    def decode(self, tokens: list, n_scales: int | None=...) -> torch.Tensor:
        """Sum the contributions of the given scales."""
        ...

    def forward(self, f: torch.Tensor, keep: torch.Tensor | None=...):
        """Quantize with a straight-through gradient and count which codes were hit."""
        ...

    @torch.no_grad()
    def count(self, tokens):
        ...

    def usage(self, reset: bool=...) -> dict:
        """Return code usage per scale, from the training forward passes counted so far."""
        ...

    @torch.no_grad()
    def revive(self, f: torch.Tensor, patience: int=...) -> int:
        """Put dead codes where the vectors are."""
        ...

    @torch.no_grad()
    def next_inputs(self, tokens: list) -> torch.Tensor:
        """Return the teacher-forcing inputs of scales 2..K."""
        ...

def usage_of(hits: torch.Tensor, own: bool=...) -> dict:
    """Sum up code counts."""
    ...

def code_usage(tokens: list, codebook_size: int, own: bool=...) -> dict:
    """Return the code usage of given tokens; with P branches, a list of P."""
    ...

def _place(book, idle, wanted, patience):
    """Put the dead codes of a codebook onto random ones of the wanted vectors."""
    ...

class ProductQuantizer(nn.Module):
    parts: Any
    scales: Any
    latent: Any
    channels: Any
    'P multi-scale quantizers, each for its own channels (ImageFolder, Li et al. 2024).'

    def __init__(self, branches: int, *args, **kwargs):
        ...

    def split(self, f):
        ...

    def area(self, k, f):
        """Average a latent map over the cells of scale k."""
        ...

    def contribution(self, k, tokens):
        """Return what the tokens of scale k add to the latent map."""
        ...

    def encode(self, f):
        """Quantize a latent map, coarse to fine."""
        ...

    def revive(self, f, patience: float=...):
        """Put dead codes where the vectors are, in every branch."""
        ...

    def usage(self, reset: bool=...):
        """Return code usage per branch and scale."""
        ...

    def forward(self, f, keep=...):
        ...

    def decode(self, tokens: list, n_scales: int | None=...) -> torch.Tensor:
        """Sum the contributions of the given scales."""
        ...

    @torch.no_grad()
    def next_inputs(self, tokens: list) -> torch.Tensor:
        """Return the teacher-forcing inputs of scales 2..K."""
        ...

def freeze(module: nn.Module) -> nn.Module:
    """Turn every parameter of a module into a buffer."""
    ...
