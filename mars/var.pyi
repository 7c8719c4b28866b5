# Made by scripts/stubs.py from the module beside it.
"""It predicts a whole token map at a time, from coarse to fine, told what note to play."""
from typing import Any
from typing_extensions import Self
__all__ = ['ONEDNN', 'VARConfig', 'scale_of', 'scale_mask', 'linear', 'KVCache', 'Attention', 'AdaBlock', 'init_trunk', 'Trunk', 'LabelEmbedding', 'drop_labels', 'VAR', 'descending', 'sample', 'note_uniforms', 'scale_settings', 'check_seed', 'Passes']
import math, numbers, platform, warnings
from contextlib import contextmanager
from dataclasses import dataclass, asdict
import numpy as np
import torch, torch.nn.functional as F
from torch import nn
from .quantizer import freeze
from .tokenizer import TokenizerConfig, Tokenizer, check_tokens, config_class, drop_path, make_quantizer

@dataclass(frozen=True)
class VARConfig:
    """The shape of a next-scale transformer. `preset` names the three sizes."""
    depth: int = ...
    width: int = ...
    heads: int = ...
    mlp_ratio: float = ...
    drop_path: float = ...
    qk_norm: bool = ...
    shared_adaln: bool = ...
    gamma_init: float = ...
    label_drop: float = ...
    label_drop_each: float = ...
    n_instruments: int = ...
    like_dim: int = ...
    like_drop: float = ...

    def __post_init__(self):
        ...

    @property
    def labels(self):
        """Number of values of each label that has ids; the null comes on top."""
        ...

    def kept(self) -> dict:
        """What a folder keeps: `like_dim` and `like_drop` only where they are in use."""
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

def scale_of(lengths) -> torch.Tensor:
    """The scale that each token belongs to."""
    ...

def scale_mask(lengths) -> torch.Tensor:
    """Block-causal mask over scales (VAR, Tian et al. 2024)."""
    ...
ONEDNN: Any

def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None=..., gelu: bool=...) -> torch.Tensor:
    """Multiply by a weight matrix, as `F.linear`; by oneDNN on a CPU when no gradient is wanted."""
    ...

class KVCache:
    kv: Any
    length: int
    'Preallocated keys and values of every block; `length` tokens are filled.'

    def __init__(self, depth, batch, heads, length, head_dim, device=..., dtype=...):
        ...

    def extend(self, block, k, v):
        ...

class Attention(nn.Module):
    heads: Any
    qk_norm: Any
    qkv: Any
    proj: Any
    q_bias: Any
    v_bias: Any
    log_scale: Any
    'Multi-head attention with normalised queries and keys; x (B, n, w) -> (B, n, w).'

    def __init__(self, width, heads, qk_norm: bool=...):
        ...

    def constants(self):
        """What the weights alone give: the bias of all three, and the scale of queries and (1) keys."""
        ...

    def forward(self, x, mask=..., cache=..., block: float=..., constants=...):
        ...

class AdaBlock(nn.Module):
    p_drop: Any
    attention: Any
    mlp: Any
    norm: Any
    offset: Any
    ada: Any
    'Transformer block modulated by six vectors of the condition.'

    def __init__(self, width, heads, mlp_ratio, qk_norm, p_drop, shared):
        ...

    def forward(self, x, mod, mask=..., cache=..., block: float=...):
        ...

@torch.no_grad()
def init_trunk(trunk, gamma_init):
    """VAR's initialisation: everything from one width-dependent normal, branches and gates shrunk."""
    ...

class Trunk(nn.Module):
    width: int
    heads: int
    shared: bool
    blocks: Any
    norm: Any
    head_ada: Any
    ada: Any
    'Blocks, adaptive norms and nothing else; shared by every transformer of this repo.'

    def __init__(self, width: int, depth: int, heads: int, mlp_ratio: float=..., qk_norm: bool=..., drop_path: float=..., shared_adaln: bool=..., gamma_init: float=...):
        ...

    def modulation(self, cond: torch.Tensor) -> tuple:
        """Compute all that depends on condition and weights alone; once per note."""
        ...

    def forward(self, x: torch.Tensor, mods: tuple, mask: torch.Tensor | None=..., cache: KVCache | None=...) -> torch.Tensor:
        """Run the blocks and the last adaptive norm."""
        ...

    def cache(self, batch, length, device=..., dtype=...):
        """Make an empty cache for `batch` sequences of at most `length` tokens."""
        ...

class LabelEmbedding(nn.Module):
    sizes: dict
    like_dim: Any
    tables: Any
    like: Any
    no_like: Any
    'Sum of one vector for each label, with a learned null for what is not given.'

    def __init__(self, sizes, width, like_dim: float=...):
        ...

    def check(self, labels: dict, n: int | None=..., device=...) -> dict:
        """Complete and validate labels."""
        ...

    def ids(self, name, v):
        """Turn a value or a list of them into a tensor of integers."""
        ...

    def forward(self, labels):
        ...

    def vectors(self, v) -> torch.Tensor:
        """Check embeddings of sounds to resemble."""
        ...

    def like_for(self, v, n):
        ...

    def resemble(self, v):
        ...

    def nothing(self, n, device):
        ...

def drop_labels(labels: dict, p_all: float, p_each: float, p_like: float=...) -> dict:
    """Forget labels at random."""
    ...

class VAR(nn.Module):
    cfg: VARConfig
    tok_cfg: TokenizerConfig
    lengths: Any
    pass_lengths: Any
    branches: Any
    quantizer: Any
    trunk: Any
    labels: Any
    _passes: dict
    word_embed: Any
    head: Any
    start: Any
    position: Any
    level: Any
    'Next-scale transformer over token maps (MARS; VAR, Tian et al. 2024).'
    system: str
    config: Any

    def __init__(self, cfg: VARConfig, tok_cfg: TokenizerConfig):
        ...

    def ends(self, std):
        ...

    def __getstate__(self):
        ...

    def bind(self, tok: Tokenizer) -> 'VAR':
        """Copy the tokenizer's quantizer into this model."""
        ...

    def order(self):
        ...

    def inputs(self, tokens):
        ...

    def follow(self, k, tokens, total):
        ...

    def places(self):
        ...

    def embed(self, z):
        ...

    def score(self, h):
        ...

    def forward(self, tokens: list, labels: dict | None=..., more=...) -> torch.Tensor:
        """Score all scales at once by teacher forcing; labels are dropped at random in training."""
        ...

    def prepare(self, tokens, labels):
        ...

    def loss(self, tokens: list, labels: dict | None=...):
        """Next-scale cross-entropy by teacher forcing."""
        ...
    runner: Any

    @contextmanager
    def passes(self, n, settings, graph):
        """Lend passes for so many notes and these settings, recorded ones if the last two kinds of call fit."""
        ...

    @torch.no_grad()
    def stream(self, labels: dict | None=..., n: int | None=..., *, seed: int | None=..., first: int=..., graph: bool | None=..., **settings):
        """Write the tokens of n notes and show them after each scale."""
        ...

    def generate(self, labels: dict | None=..., n: int | None=..., *, cfg_scale: float=..., cfg_ramp: bool=..., top_k: float=..., top_p: float=..., temperature: float=..., seed: int | None=..., first: int=..., graph: bool | None=...) -> list:
        """Write the tokens of n notes, one pass a scale; a list of K numbers sets cfg_scale, top_k, top_p or temperature for each scale."""
        ...

    def settle(self, **settings):
        ...

    def draws(self, settings):
        ...

def descending(x, k):
    """The k greatest values of each row, greatest first."""
    ...

def sample(logits: torch.Tensor, u: torch.Tensor, temperature: float=..., top_k: int=..., top_p: float=...) -> torch.Tensor:
    """Draw codes by inverting the cumulative distribution; codes that tie with the last one kept are kept too."""
    ...

def note_uniforms(seed: int, first: int, n: int, length: int) -> torch.Tensor:
    """Uniform numbers that depend only on the seed and a note's index."""
    ...

def scale_settings(K: int, codebook_size: int, cfg_scale: float=..., cfg_ramp: bool=..., temperature: float=..., top_k: float=..., top_p: float=...) -> tuple:
    """Spread sampling settings over the scales, refusing in one sentence what makes no sense."""
    ...

def check_seed(seed, name=...) -> int:
    """Complete and validate a seed."""
    ...

class Passes:
    begin: Any
    settings: Any
    last: Any
    us: Any
    cache: Any
    var: Any
    n: Any
    guided: Any
    graphs: Any
    ids: Any
    u: Any
    x: Any
    mods: Any
    places: Any
    total: int
    tokens: list
    'The passes of one generation on fixed buffers; `record` turns them into CUDA graphs.'

    def __init__(self, var: 'VAR', n: int, settings: tuple):
        ...

    def hold(self, var, n, guided, *shape):
        """Make the buffers that `fill` fills: labels, and so many uniform numbers a note."""
        ...

    def fill(self, labels, u):
        """Copy what a call brings into the buffers."""
        ...

    def condition(self):
        """Embed the labels; under guidance a second time without them."""
        ...

    def play(self, k):
        """Run pass k, or its record."""
        ...

    def step(self, k):
        """Run pass k: self.tokens[k] from what the passes before have left."""
        ...

    def hear(self, k, x):
        """Score what pass k sees, behind what is cached of earlier passes."""
        ...

    def write(self, k, logits):
        """Draw the tokens of pass k."""
        ...

    def record(self):
        """Record every pass as a CUDA graph; if that fails, say so and go on without."""
        ...

    def run(self, labels, u):
        """Fill the buffers, then yield the token maps so far after each scale."""
        ...
