# Made by scripts/stubs.py from the module beside it.
"""The other sister system: frames of K tokens, written codebook after codebook by filling in what is masked; and next-token prediction on the same tokens."""
from typing import Any
from typing_extensions import Self
__all__ = ['frame_count', 'FlatPasses', 'Flat', 'delay', 'undelay', 'Frames', 'Memoryless', 'by_map', 'DelayedConfig', 'Delayed', 'DelayedPasses', 'span_rates', 'spans_for', 'widen', 'MAGNeTConfig', 'MAGNeT', 'mask_schedule', 'Decoding', 'span_scores', 'remask', 'MaskedPasses', 'hybrid']
import math
from dataclasses import dataclass
from typing import NamedTuple
import torch, torch.nn.functional as F
from torch import nn
from .aar import SISTERS, SisterConfig
from .nexttoken import NextToken
from .tokenizer import config_class
from .var import Passes, VAR, check_seed, linear, note_uniforms, sample, scale_mask, scale_settings

def frame_count(tok_cfg) -> int:
    """Return the number of frames."""
    ...

class FlatPasses(Passes):
    """One token a pass, frame by frame: every map is whole only at the end."""

    def run(self, labels, u):
        ...

class Flat(NextToken):
    """Next-token transformer over frames of K tokens: pass t*K + q writes token q of frame t."""
    system: str
    config: Any
    runner: Any

    def ends(self, std):
        ...

    def inputs(self, tokens):
        ...

    def follow(self, i, tokens, total):
        ...

    def forward(self, tokens, labels=...):
        ...

def delay(tokens: torch.Tensor, fill: int) -> torch.Tensor:
    """Shift codebook q by q frames (MusicGen's delay pattern)."""
    ...

def undelay(columns: torch.Tensor) -> torch.Tensor:
    """Undo `delay`, also for logits."""
    ...

class Frames(VAR):
    n_frames: Any
    word_embed: Any
    position: Any
    head: Any
    'Transformer over frames: the sum of K embeddings goes in, K heads come out.'
    config: Any

    def ends(self, std):
        ...

    @property
    def absent(self) -> int:
        ...

    def places(self):
        ...

    def embed(self, columns):
        ...

    def score(self, h):
        ...

    def score_map(self, h: torch.Tensor, q) -> torch.Tensor:
        """Run one of the K heads."""
        ...

class Memoryless:
    """In the place of a cache where every pass sees all anew: keeps nothing, and says that this is no training."""
    length: int

    def extend(self, block, k, v):
        ...

def by_map(sums: torch.Tensor, counts: torch.Tensor):
    """Average over the tokens that count."""
    ...

@dataclass(frozen=True)
class DelayedConfig(SisterConfig):
    """The shape of a delayed next-token transformer."""
    hide: float = ...

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

class Delayed(Frames):
    start: Any
    'Next-token transformer in the delay pattern: a column of K tokens a pass (MusicGen, Copet et al. 2023).'
    system: str
    config: Any

    def order(self):
        ...

    def ends(self, std):
        ...

    def read(self, tokens, cond, mods, cache=...):
        ...

    def forward(self, tokens: list, labels: dict | None=..., shown: torch.Tensor | None=...) -> torch.Tensor:
        """Score all tokens by teacher forcing."""
        ...

    def probability(self, tokens, q, cond, mods):
        ...

    def loss(self, tokens: list, labels: dict | None=...):
        """Cross-entropy by teacher forcing, over all codebooks that are shown."""
        ...
    runner: Any

    def settle(self, frames=..., cfg_ramp: bool=..., **settings):
        ...

    def generate(self, labels: dict | None=..., n: int | None=..., *, cfg_scale: float=..., cfg_ramp: bool=..., top_k: float=..., top_p: float=..., temperature: float=..., frames: int | None=..., seed: int | None=..., first: int=..., graph: bool | None=...) -> list:
        """Write the tokens of n notes, a column a pass; a list of K numbers sets cfg_scale, top_k, top_p or temperature for each codebook."""
        ...
    draws: Any

class DelayedPasses(Passes):
    frames: Any
    settings: Any
    alike: Any
    cache: Any
    s: Any
    real: Any
    x: Any
    mods: Any
    columns: list
    'A pass a column, seen by the next one.'

    def __init__(self, var, n, settings):
        ...

    def step(self, i):
        """Write column i."""
        ...

    def run(self, labels, u):
        ...

def span_rates(n_frames: int, span: int=...) -> torch.Tensor:
    """Return the mask rate of so many distinct starts."""
    ...

def spans_for(rate, n_frames: int, span: int=...):
    """Return the least number of spans whose expected rate reaches this one."""
    ...

def widen(starts: torch.Tensor, span: int) -> torch.Tensor:
    """Mask every start and the span-1 frames behind it."""
    ...

@dataclass(frozen=True)
class MAGNeTConfig(SisterConfig):
    """The shape of a MAGNeT and how it is masked. `preset` names the three sizes."""
    span: int = ...
    context: int = ...
    prompt: float = ...

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

class MAGNeT(Frames):
    """Masked transformer over frames, one codebook after the other (MAGNeT, Ziv et al. 2024)."""
    system: str
    config: Any

    def order(self):
        ...

    def ends(self, std):
        ...

    @property
    def start(self):
        ...

    def forward(self, tokens: list, labels: dict | None=..., stage: float=..., masked: torch.Tensor | None=..., prompt: torch.Tensor | None=...) -> torch.Tensor:
        """Score the tokens of one codebook of each note from the codebooks before it and what is not masked."""
        ...

    def look(self, columns, mods, see=..., cache=...):
        ...

    def draw(self, n: int, generator=...) -> tuple:
        """Draw what a training step masks: each note has its own stage, rate, spans and prompt."""
        ...

    def loss(self, tokens: list, labels: dict | None=..., generator=...):
        """Cross-entropy of the masked tokens, each note at a stage of its own."""
        ...
    runner: Any

    def settle(self, cfg_scale: float=..., cfg_ramp: bool=..., temperature: float=..., top_k: float=..., top_p: float=..., steps=..., scoring=..., score=..., prompt: float=..., rescorer=..., rescore_weight: float=...):
        ...
    draws: Any

    def prompt_of(self, prompt):
        ...

    @torch.no_grad()
    def stream(self, labels: dict | None=..., n: int | None=..., *, prompt: list | None=..., seed: int | None=..., first: int=..., graph: bool | None=..., **settings):
        """Write the tokens of n notes and show them after each stage."""
        ...

    def generate(self, labels: dict | None=..., n: int | None=..., *, cfg_scale: float=..., cfg_ramp: bool=..., temperature: float=..., top_k: float=..., top_p: float=..., steps=..., scoring: str=..., score: str | None=..., prompt: list | None=..., rescorer: Delayed | None=..., rescore_weight: float=..., seed: int | None=..., first: int=..., graph: bool | None=...) -> list:
        """Write the tokens of n notes by masked decoding; a list of K numbers sets cfg_scale, temperature, top_k, top_p or steps for each stage."""
        ...

def mask_schedule(units: int, steps: int) -> list:
    """Return how much is masked at each step of a stage."""
    ...

class Decoding(NamedTuple):
    """The settings of a masked generation, checked."""
    each: tuple
    anneal: bool
    steps: tuple
    scoring: str
    score: str
    prompt: int
    rescorer: nn.Module = ...
    weight: float = ...

def span_scores(p: torch.Tensor, masked: torch.Tensor, span: int, stride: int, score: str) -> torch.Tensor:
    """Score spans from the probabilities of their tokens; the last ones may be shorter."""
    ...

def remask(p: torch.Tensor, masked: torch.Tensor, count: int, span: int, scoring: str, score: str) -> torch.Tensor:
    """Choose what is masked again: the spans that score highest."""
    ...

class MaskedPasses(Passes):
    d: Any
    settings: list
    prompt: Any
    see: Any
    mods: Any
    shown: list
    half: Any
    columns: Any
    cond: Any
    heard: Any
    masked: Any
    p: Any
    'A pass a step: mask, look, fill.'

    def __init__(self, var, n, settings):
        ...

    def begin(self):
        """Condition the passes and mask everything."""
        ...

    def fresh(self, k):
        ...

    def step(self, j):
        """Mask again, fill in, and say how sure each token is."""
        ...

    def run(self, labels, u, prompt=...):
        ...

def _steps(K, steps):
    ...

def hybrid(magnet: MAGNeT, delayed: Delayed, prompt_frames: int, labels: dict | None=..., n: int | None=..., *, seed: int | None=..., first: int=..., graph: bool | None=..., begin: dict | None=..., **settings) -> list:
    """Write the first frames one after another and the rest by masked decoding."""
    ...
