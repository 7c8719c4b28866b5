# Made by scripts/stubs.py from the module beside it.
"""The sister system: a tokenizer that reads the wave itself, in scales of time, and the same transformer on top."""
from typing import Any
from typing_extensions import Self
__all__ = ['SATS', 'SISTERS', 'AAR_SAMPLING', 'scale_lengths', 'SATConfig', 'rvq', 'SAT', 'JudgeConfig', 'WaveAdversary', 'WaveStage', 'WaveMars', 'train_sat', 'SisterConfig']
import math
from dataclasses import dataclass
from pathlib import Path
import torch, torch.nn.functional as F
from torch import nn
from .cmx import CMX
from .stft import LogSpectrogram, _as_wave
from .seanet import Conv, Decoder, Encoder, Judges, calibrate, feature_loss, judge_loss, mel_loss, pass_loss
from .quantizer import nearest_code
from .tokenizer import check_tokens, config_class, make_quantizer
from .discriminator import Adversary, AdversaryConfig, frozen
from .var import VARConfig
from .pipeline import Mars
from .train import STAGES, RunLog, TokenizerStage, TrainConfig, train_tokenizer

def scale_lengths(n_frames: int, n_scales: int=..., rule: str=...) -> tuple:
    """Spread the tokens of a clip over scales of time (AAR, table 3)."""
    ...

@dataclass(frozen=True)
class SATConfig:
    """The shape of a scale-level tokenizer of waves. `preset` names the three sizes."""
    n_samples: int = ...
    sample_rate: int = ...
    width: int = ...
    ratios: tuple = ...
    dimension: int = ...
    lstm: int = ...
    code_dim: int = ...
    codebook_size: int = ...
    lengths: tuple = ...
    n_phi: int = ...
    phi_kernel: int = ...
    phi_ratio: float = ...
    beta: float = ...
    lookup: str = ...
    time_weight: float = ...

    def __post_init__(self):
        ...

    @property
    def n_frames(self) -> int:
        ...

    @property
    def scales(self) -> tuple:
        ...

    @property
    def n_tokens(self) -> int:
        ...

    @property
    def branches(self) -> int:
        ...

    @property
    def quantizer(self) -> dict:
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
SATS: dict

def rvq(n_codebooks: int=..., n_frames: int=...) -> dict:
    """Turn the scales into K codebooks at the full rate: a plain residual quantizer, as MAGNeT's tokenizer has it."""
    ...

class SAT(nn.Module):
    cfg: SATConfig
    encoder: Any
    decoder: Any
    enter: Any
    leave: Any
    quantizer: Any
    'Wave <-> tokens of scales of time (AAR, section 3.1).'

    def __init__(self, cfg: SATConfig):
        ...

    def check(self, wave):
        """Refuse what is no wave for this tokenizer, in one sentence."""
        ...

    def latent(self, wave):
        ...

    def sound(self, latent):
        ...

    @torch.no_grad()
    def encode(self, wave: torch.Tensor) -> list:
        """Turn waves into tokens."""
        ...

    @torch.no_grad()
    def decode(self, tokens: list, n_scales: int | None=...) -> torch.Tensor:
        """Turn tokens into waves."""
        ...

    def forward(self, wave: torch.Tensor):
        """Reconstruct, with the losses of training but those of the judges."""
        ...

    @torch.no_grad()
    def revive(self, wave: torch.Tensor, patience: int=...) -> int:
        """Put dead codes where the frames are."""
        ...

    @torch.no_grad()
    def warm_start(self, wave: torch.Tensor) -> 'SAT':
        """Calibrate all convolutions, then put the codes of every scale on what is left there of a batch; where there are more codes than vectors, the rest stay."""
        ...
    pipeline: Any

@dataclass(frozen=True)
class JudgeConfig(AdversaryConfig):
    """The judges of a tokenizer of waves. `preset` names the three sizes."""
    weight: float = ...
    feature_weight: float = ...
    start: float = ...
    windows: tuple = ...
    width: int = ...
    rest: int = ...
    lr: float = ...
    betas: tuple = ...
    weight_decay: float = ...

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

class WaveAdversary(Adversary):
    """The judges of a training run, with their optimiser and schedule."""

    def build(self, channels):
        ...

    def generator_loss(self, step: int, recon: torch.Tensor, wave: torch.Tensor) -> tuple:
        """Return the adversarial terms of the loss, weights included."""
        ...

    @property
    def last(self):
        ...

    def update(self, step: int, real: torch.Tensor, fake: torch.Tensor) -> dict:
        """Train the judges on one batch; in the first of every `cfg.rest` steps they rest."""
        ...

class WaveStage(TokenizerStage):
    """What one step of training a tokenizer of waves computes."""

    def __init__(self, tok, batch, train, adversary=..., team=..., mel=...):
        ...

    def rival(self, adversary, device, reduce):
        ...

    def against(self, step, image, recon, losses):
        ...
STAGES: dict

class WaveMars(Mars):
    spectrogram: LogSpectrogram
    cmx: Any
    vocoder: Any
    tokenizer: SAT
    var: Any
    info: dict
    'A `Mars` whose tokenizer reads and writes waves: its image is the wave, and no phase is looked for.'
    parts: tuple
    kind: str

    def __init__(self, tokenizer: SAT, var=..., cmx: CMX | None=..., spectrogram: LogSpectrogram | None=..., info: dict | None=..., vocoder=...):
        ...

    @property
    def sample_rate(self) -> int:
        ...

    @property
    def n_samples(self) -> int:
        ...

    def image(self, wave: torch.Tensor) -> torch.Tensor:
        """Cut or pad waves to what the tokenizer reads."""
        ...

    def picture(self, image: torch.Tensor) -> torch.Tensor:
        """Turn waves into spectrograms, to look at."""
        ...

    def sound(self, image: torch.Tensor, n_iter: int | None=..., seed: int=..., phase: str=..., first: int=...) -> torch.Tensor:
        """Return the wave that the tokenizer has written."""
        ...

def train_sat(notes, train: TrainConfig | None=..., cfg: SATConfig | None=..., out: str | Path | None=..., device=..., progress: bool=..., log: RunLog | None=..., adversary: JudgeConfig | None=..., **more) -> SAT:
    """Train a tokenizer of waves; its transformers are trained by `train_var`."""
    ...
SISTERS: dict
AAR_SAMPLING: dict

@dataclass(frozen=True)
class SisterConfig(VARConfig):
    """The shape of a transformer of the sister systems; AAR's is VAR's own. `preset` names the three sizes."""

    @classmethod
    def preset(cls, name: str, *args: Any, **fields: Any) -> Self:
        ...

    @staticmethod
    def presets() -> dict:
        ...

    @classmethod
    def from_dict(cls, d: dict) -> Self:
        ...
