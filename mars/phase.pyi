# Made by scripts/stubs.py from the module beside it.
"""What Griffin-Lim costs, and how to win it back"""
from typing import Any
from typing_extensions import Self
__all__ = ['RESOLUTIONS', 'HANN', 'VOCODERS', 'STAGE', 'FORMAT', 'STFTDistance', 'stft_distance', 'onset', 'pre_echo', 'partial_noise', 'phase_gradient', 'turn', 'centred', 'phase_steps', 'heap_integrate', 'tree_integrate', 'integrate', 'pghi', 'refine', 'sounding', 'from_phases', 'VocoderConfig', 'Vocoder', 'von_mises_loss', 'step_loss', 'Crops', 'model_copies', 'vocoder_settings', 'train_vocoder']
import json, math
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
import mars
from .stft import PHASES, LogSpectrogram, _as_wave, _fast_griffin_lim, _forward, _gain, _inverse, compress, griffin_lim, note_phases
from .tokenizer import config_class
RESOLUTIONS: tuple

def _two(reference, wave):
    """Return both as float32 (B, N), or raise ValueError."""
    ...

@dataclass(frozen=True)
class STFTDistance:
    """Distances of notes, means over the resolutions, (B,) each."""
    convergence: torch.Tensor
    log_magnitude: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        ...

def stft_distance(reference, wave, resolutions=..., floor: float=...) -> STFTDistance:
    """Compare waves by the magnitudes of several STFTs, blind to their own phase (Yamamoto et al. 2020)."""
    ...

def onset(wave, within: float=...) -> torch.Tensor:
    """Find the first sample within 40 dB of the note's peak."""
    ...

def pre_echo(reference, wave, span: int=...) -> torch.Tensor:
    """Measure the power in the 64 ms before the attack, relative to that of the reference in the 64 ms after it."""
    ...

def partial_noise(reference, wave, n_fft: int=..., depth: float=...) -> torch.Tensor:
    """Measure the power of a wave where the reference has none, between its partials: per cell, relative to the reference's mean."""
    ...
HANN: float

def phase_gradient(log_magnitude, hop_length: int=..., n_fft: int=..., gamma: float | None=...) -> tuple:
    """Read the steps of the phase off the magnitude (Prusa, Balazs and Sondergaard 2017), without the advance of the bin's own frequency."""
    ...

def turn(n_bins: int, hop_length: int=..., n_fft: int=..., device=...) -> torch.Tensor:
    """Return what a bin's own frequency turns from frame to frame."""
    ...

def centred(S) -> torch.Tensor:
    """Move the origin of the phases from the frame's start to its middle, or back."""
    ...

def phase_steps(S, hop_length: int=..., n_fft: int=...) -> tuple:
    """Measure the steps of the phase that `phase_gradient` estimates."""
    ...

def heap_integrate(magnitude, advance, delay, start, tolerance: float=...) -> np.ndarray:
    """Add up the steps from the strongest cell outwards, with a heap (Prusa et al. 2017, algorithm 1)."""
    ...

def _follow(step, up):
    """Add up the steps along the pointers `up` until they point at themselves: (sums, ends)."""
    ...

def _climb(m, on, advance, delay):
    """Follow each cell to the top of its hill: (phase minus that of the top, index of the top), both (F*T,)."""
    ...

def _graph(rows, cols, values, n):
    """Put links into a sparse matrix, apart even where two join the same nodes."""
    ...

def _join(level, rows, cols, step, height):
    """Return the phase of each hill's top (n,): hills of that level, joined by passes (rows, cols) of that height, which the phase crosses with that step."""
    ...

def tree_integrate(magnitude, advance, delay, start, tolerance: float=...) -> np.ndarray:
    """Add up the steps along the spanning tree of strongest links: what the heap does, in array operations."""
    ...

def integrate(magnitude, advance, delay, hop_length: int=..., n_fft: int=..., seed: int=..., first: int=..., tolerance: float=..., method=...) -> torch.Tensor:
    """Turn steps of the phase into phases."""
    ...

def pghi(magnitude, n_fft: int=..., hop_length: int=..., gamma: float | None=..., seed: int=..., first: int=..., tolerance: float=..., method=...) -> torch.Tensor:
    """Find phases by phase-gradient heap integration."""
    ...

@torch.no_grad()
def refine(magnitude, angles, window, hop_length: int=..., n_iter: int=..., relax: float=..., momentum: float=...) -> torch.Tensor:
    """Improve phases by relaxed averaged alternating reflections (Luke 2005), then fast Griffin-Lim (the order of Peer et al. 2022)."""
    ...

def sounding(magnitude, n_fft: int=..., hop_length: int=...) -> int:
    """Count the frames that decide the wave: up to the last one that is not silent, and those that overlap it."""
    ...

def from_phases(ls: LogSpectrogram, magnitude, find, n_iter: int, first: int=...) -> torch.Tensor:
    """Find phases and refine them, note by note on a CPU, and only where there is sound."""
    ...

def _pghi(ls, magnitude, n_iter, seed, first):
    """PGHI, then 32 iterations unless told otherwise."""
    ...
PHASES: Any

@dataclass(frozen=True)
class VocoderConfig:
    """The shape of a vocoder."""
    fold: int = ...
    width: int = ...
    dilations: tuple = ...
    n_iter: int = ...

    def __post_init__(self):
        ...

    @property
    def reach(self) -> int:
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
VOCODERS: dict

class Vocoder(nn.Module):
    cfg: VocoderConfig
    spectrogram: LogSpectrogram
    info: dict
    stem: Any
    blocks: Any
    head: Any
    "Magnitude in, wave out: a network corrects PGHI's steps of the phase, the tree adds them up, an inverse STFT makes the sound."

    def __init__(self, cfg: VocoderConfig | None=..., spectrogram: LogSpectrogram | None=..., info: dict | None=...):
        ...

    def forward(self, spec) -> tuple:
        """Estimate the steps of the phase."""
        ...

    def save(self, folder: str | Path, half: bool=...):
        """Save vocoder.safetensors and vocoder.json."""
        ...

    @classmethod
    def from_pretrained(cls, name: str | None=...) -> Vocoder:
        """Load a vocoder."""
        ...

    @torch.no_grad()
    def phases(self, magnitude, seed: int=..., first: int=...) -> torch.Tensor:
        """Find the phases of magnitudes, a note at a time."""
        ...

    def wave(self, ls: LogSpectrogram, magnitude, n_iter: int | None=..., seed: int=..., first: int=...) -> torch.Tensor:
        """Turn magnitudes into waves."""
        ...

def von_mises_loss(guess, angle) -> torch.Tensor:
    """Score an angle under a von Mises distribution."""
    ...

def step_loss(vocoder: Vocoder, S, spec=..., margin: int=...) -> tuple:
    """Compare the network's steps with the true ones, each cell weighted by the root of its magnitude."""
    ...

class Crops:
    notes: Any
    ls: LogSpectrogram
    frames: int
    seed: int
    margin: int
    copies: Any
    share: float
    order: Any
    "Pieces of the spectrograms of notes, half of them with silence before the note, half of them at its attack; what the network sees of some is a model's copy."

    def __init__(self, notes, spectrogram: LogSpectrogram, batch_size: int=..., frames: int=..., seed: int=..., margin: int=..., copies=..., share: float=...):
        ...

    def __call__(self, step: int, part: int=..., parts: int=..., device=...) -> tuple:
        """Return the pieces of a step."""
        ...

@torch.no_grad()
def model_copies(notes, model, n: int=..., seed: int=...) -> tuple:
    """Let a model's tokenizer copy notes, for a vocoder to learn from."""
    ...
STAGE: dict

def vocoder_settings(name: str=..., **kwargs):
    """Return the usual training settings of a vocoder."""
    ...

def train_vocoder(notes, train=..., cfg: VocoderConfig | None=..., out: str | Path | None=..., device=..., progress: bool=..., log=..., spectrogram: LogSpectrogram | None=..., frames: int=..., margin: int=..., resume: bool=..., start: Vocoder | None=..., copies=...) -> Vocoder:
    """Train a vocoder on the phases of notes, by maximum likelihood of the steps."""
    ...
FORMAT: int

def _half_is_fast() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware."""
    ...

@lru_cache(maxsize=1)
def _packaged():
    ...

def _vocoder(ls, magnitude, n_iter, seed, first):
    """The package's vocoder."""
    ...
PHASES: Any
