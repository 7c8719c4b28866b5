# Made by scripts/stubs.py from the module beside it.
"""Scale lists, widths, judges, windows and shared convolutions: the claims of AAR's tables 1 to 6 and figures 4 and 5, as experiments."""
from typing import Any
from typing_extensions import Self
__all__ = ['STARTS', 'STUDY', 'STUDY_SIZES', 'WINDOWS', 'PRIORS', 'Windowed', 'EveryScale', 'gradient_scale', 'PeriodJudge', 'PeriodConfig', 'PeriodAdversary', 'StudyStage', 'WaveArm', 'make_arm', 'WaveData', 'wave_data', 'arm_settings', 'train_wave_arm', 'clip_features', 'joint_jump', 'wave_errors', 'one_step', 'gflop', 'arm_facts', 'compare_waves', 'wave_experiment', 'list_arms', 'plain_arms', 'width_arms', 'judge_arms', 'window_arms', 'prior_sets', 'token_entropy', 'write_notes', 'phi_arms', 'own_arms']
import copy, math, warnings
from dataclasses import asdict, dataclass, field, replace
from types import SimpleNamespace
import torch, torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.flop_counter import FlopCounterMode
from .aar import JudgeConfig, SAT, SATConfig, SisterConfig, WaveAdversary, WaveStage, rvq, scale_lengths
from .ablations import EXPERIMENTS, bits_of, default_sounds, split_notes
from .data import Batches, default_notes
from .eval import frechet_distance, log_mel_error, mel_features, stft_distance
from .pipeline import pick_device
from .prediction import cross_entropy, in_turns, train_arm
from .quantizer import MultiScaleQuantizer, code_usage
from .seanet import mel_loss
from .tokenizer import config_class
from .train import RunLog, TrainConfig, fit, seed_all
from .var import VAR, VARConfig

class Windowed(SAT):
    windows: int
    'A tokenizer that cuts clips into windows and codes each by itself.'

    def __init__(self, cfg: SATConfig, windows: int=...):
        ...

    def cut(self, clip):
        """Cut clips into windows."""
        ...

    def join(self, waves):
        ...

    def encode(self, clip):
        ...

    def decode(self, tokens, n_scales=...):
        ...

    def revive(self, clip, patience: float=...):
        ...

    def forward(self, clip):
        ...

class EveryScale(MultiScaleQuantizer):
    """The same values with the gradient of a straight-through step for every scale: K times the identity."""

    def forward(self, f, keep=...):
        ...

def gradient_scale(tok: SAT, wave: torch.Tensor) -> float:
    """Measure by how much the quantizer multiplies the gradient on its way to the encoder."""
    ...

class PeriodJudge(nn.Module):
    period: Any
    out: Any
    layers: Any
    'Wave (B, N) -> logits and the maps of four inner layers, along every `period`-th sample (HiFi-GAN, Kong et al. 2020).'

    def __init__(self, period, width: float=...):
        ...

    def forward(self, wave):
        ...

@dataclass(frozen=True)
class PeriodConfig(JudgeConfig):
    """Judges of spectrograms and of periods."""
    periods: tuple = ...

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

class PeriodAdversary(WaveAdversary):
    """Judges of both kinds; the losses are means over all of them."""

    def build(self, channels):
        ...

class StudyStage(WaveStage):
    """What one step of training an arm computes."""

    def rival(self, adversary, device, reduce):
        ...
STARTS: tuple

@dataclass(frozen=True)
class WaveArm:
    """One competitor of an experiment."""
    cfg: SATConfig
    windows: int = ...
    judges: JudgeConfig = ...
    start: str = ...
    every_scale: bool = ...
    revive: bool = ...

    def __post_init__(self):
        ...

    @property
    def n_samples(self) -> int:
        ...

    @property
    def n_tokens(self) -> int:
        ...

    @property
    def kbps(self) -> float:
        ...

def make_arm(arm: WaveArm, clips: torch.Tensor, seed: int=...) -> Windowed:
    """Build an arm in its first state."""
    ...
STUDY: dict
STUDY_SIZES: dict

@dataclass
class WaveData:
    """What arms learn from and what they are measured on."""
    train: torch.Tensor
    test: torch.Tensor
    labels: dict
    about: dict
    device: torch.device
    trained: dict = ...

    def clips(self, side, n):
        """Give the beginnings of the notes."""
        ...

def wave_data(preset: str=..., notes=..., device=...) -> WaveData:
    """Set instruments aside, and leave out what is silent at first."""
    ...

def arm_settings(preset, seed, steps=..., times: float=...):
    """How the arms of an experiment are trained at a size."""
    ...

def train_wave_arm(arm: WaveArm, data: WaveData, train: TrainConfig, progress: bool=...) -> tuple:
    """Train an arm, or give back the one that an earlier experiment has trained alike."""
    ...

def clip_features(wave):
    """Embed clips of any length by their log-mel pictures, 8 bands by 2 halves."""
    ...

def joint_jump(wave: torch.Tensor, pieces: int) -> float:
    """Compare the steps between neighbouring samples at the joins with those elsewhere."""
    ...

@torch.no_grad()
def wave_errors(tok: Windowed, clips: torch.Tensor, pieces: int=...) -> dict:
    """Measure reconstructions and codes."""
    ...

def one_step(arm: WaveArm, tok: Windowed, clips: torch.Tensor, train: TrainConfig):
    """Prepare a training step, judges included, without the optimiser's."""
    ...

def gflop(f) -> float:
    """Count FLOPs; an LSTM is only seen as matrix products without mkldnn."""
    ...

def arm_facts(arms, data, train, repeats: float=...):
    """Say what arms are and what they cost."""
    ...

def compare_waves(name: str, arms: dict, base: str, data: WaveData, train: TrainConfig, preset: str, pieces: int=..., also=..., progress: bool=..., repeats: int=...) -> dict:
    """Run all arms of an experiment alike."""
    ...

def wave_experiment(name, arms_of, times: float=..., also=...):
    """Make a runnable experiment of `arms_of(cfg, preset)`, the first of which is the base, on clips that are `times` as long as usual."""
    ...

def list_arms(cfg, preset):
    """Rules and numbers of scales."""
    ...

def plain_arms(cfg, preset):
    """Scales of time against codebooks at the full rate."""
    ...

def width_arms(cfg, preset):
    """Channels of a frame and length of a code."""
    ...
WINDOWS: tuple

def judge_arms(cfg, preset):
    """Who judges the reconstructions."""
    ...

def window_arms(cfg, preset):
    """A clip in two windows, or whole."""
    ...
PRIORS: dict

@torch.no_grad()
def prior_sets(tok, arm, data):
    """Turn the notes into tokens; a quarter of the training notes is kept from the transformer."""
    ...

def token_entropy(tokens, V):
    """Give the entropy of tokens of which only each scale's frequencies are known."""
    ...

def write_notes(tok, arm, data, train, preset, progress: bool=...):
    """Train a transformer on an arm's tokens, for as many steps as the arm, and let it write the notes kept from it."""
    ...

def phi_arms(cfg, preset):
    """Convolutions: none, one, six, one for each scale."""
    ...

def own_arms(cfg, preset):
    """Ours, and each thing that is ours taken away."""
    ...
