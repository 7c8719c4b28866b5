# Made by scripts/stubs.py from the module beside it.
"""One small network that hears pitch, family and source of a note: trained on some instruments, judged on others."""
from typing import Any
from typing_extensions import Self
__all__ = ['CLASSIFIERS', 'HEADS', 'FORMAT', 'ClassifierConfig', 'mel_bank', 'LogMel', 'Residual', 'make_trunk', 'Classifier', 'whole_notes', 'find_classifier', 'augment', 'Mels', 'fit_temperature', 'calibration_error', 'head_losses', 'fit_temperatures', 'Best', 'train_classifier', 'measure_classifier']
import hashlib, json, math
from dataclasses import asdict, dataclass
from pathlib import Path
import numpy as np
import torch, torch.nn.functional as F
from torch import nn
import mars
from .stft import mel_filters
from .data import FAMILIES, SOURCES, Batches, write_whole
from .pipeline import load_weights, pick_device, save_weights
from .tokenizer import config_class
from .train import STAGES, Checkpoints, RunLog, TrainConfig, autocast, fit, lasting, seed_all, versions

@dataclass(frozen=True)
class ClassifierConfig:
    """The shape of a classifier. `preset` names the three sizes."""
    n_fft: int = ...
    hop_length: int = ...
    n_mels: int = ...
    range_db: float = ...
    widths: tuple = ...
    depth: int = ...
    squeeze: int = ...
    features: int = ...
    dropout: float = ...
    pitch_range: tuple = ...

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
CLASSIFIERS: dict

def mel_bank(n_fft: int, n_mels: int) -> torch.Tensor:
    """Slaney's mel bands from 0 to 8000 Hz at 16 kHz; ValueError if a band is narrower than a bin."""
    ...

class LogMel(nn.Module):
    cfg: ClassifierConfig
    'Waves (B, 64000) to pictures (B, 1, n_mels, frames) in [0, 1], blind to level.'

    def __init__(self, cfg: ClassifierConfig):
        ...

    @property
    def shape(self):
        ...

    def forward(self, waves):
        ...

class Residual(nn.Module):
    main: Any
    skip: Any
    'Two 3x3 convolutions beside a shortcut: x (B, a, H, W) -> (B, b, H/s, W/t).'

    def __init__(self, a, b, stride=...):
        ...

    def forward(self, x):
        ...

def make_trunk(cfg: ClassifierConfig, shape: tuple) -> nn.Sequential:
    """Stack stem, stages and the layer of the penultimate features."""
    ...
HEADS: dict

class Classifier(nn.Module):
    cfg: ClassifierConfig
    info: dict
    mel: Any
    trunk: Any
    heads: Any
    'Pitch, family and source of whole 4 s notes at 16 kHz, and the features behind them.'

    def __init__(self, cfg: ClassifierConfig | None=..., info: dict | None=...):
        ...

    @property
    def device(self):
        ...

    def __repr__(self):
        ...

    def forward(self, mel):
        ...

    @torch.no_grad()
    def judge(self, waves, batch_size: int | None=..., calibrated: bool=...) -> tuple:
        """Judge notes: features and logits from one pass."""
        ...

    def logits(self, waves) -> dict:
        """Give the calibrated logits of notes."""
        ...

    def features(self, waves) -> torch.Tensor:
        """Give the penultimate features of notes."""
        ...

    @property
    def digest(self) -> str:
        """Hash the names and values of all weights, temperatures included."""
        ...

    def describe(self) -> dict:
        """Say what judged."""
        ...

    def save_pretrained(self, folder: str | Path, half: bool=...):
        """Save the classifier: config.json and classifier.safetensors; ValueError where that cannot be done."""
        ...

    @classmethod
    def from_pretrained(cls, name: str=..., device=...) -> Classifier:
        """Load a classifier."""
        ...

def whole_notes(waves) -> torch.Tensor:
    """Take 4 s notes at 16 kHz as they come; ValueError with one sentence for anything else."""
    ...
FORMAT: int

def _is_classifier(folder):
    ...

def find_classifier(name) -> Path:
    """Find a classifier's folder."""
    ...

def augment(mel: torch.Tensor, generator: torch.Generator, range_db: float=...) -> torch.Tensor:
    """Spoil pictures of notes: shift, blur, equaliser, noise, jitter and masks, drawn for each note."""
    ...
STAGES: dict

class Mels:
    notes: Any
    clf: Classifier
    kept: Any
    'Pictures and labels of any source of notes.'

    def __init__(self, notes, clf: Classifier, keep: int=...):
        ...

    def __len__(self):
        ...

    @torch.no_grad()
    def make(self, idx):
        ...

    def __call__(self, idx):
        ...

def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Find the temperature with the lowest cross-entropy. Guo et al. 2017."""
    ...

def calibration_error(logits: torch.Tensor, labels: torch.Tensor, bins: int=...) -> float:
    """Give the expected calibration error: the gap between confidence and accuracy, averaged over bins by their notes. Guo et al. 2017."""
    ...

def head_losses(logits, labels):
    """Cross-entropy of each head."""
    ...

@torch.no_grad()
def fit_temperatures(clf: Classifier, valid: Mels) -> tuple:
    """Find the temperature of each head, and what loss it leaves."""
    ...

class Best:
    clf: Any
    valid: Any
    every: Any
    train: Any
    loss: Any
    seen: dict
    weights: Any
    'The weights with the lowest validation loss so far; `fit` calls its methods.'

    def __init__(self, clf, valid, every, train):
        ...

    def after(self, step):
        ...

    def state(self):
        ...

    def restore(self, tensors):
        ...

def train_classifier(notes, valid, train: TrainConfig | None=..., cfg: ClassifierConfig | None=..., out: str | Path | None=..., device=..., progress: bool=..., log: RunLog | None=..., info: dict | None=..., valid_every: int=..., resume: bool=...) -> Classifier:
    """Train a classifier; ValueError for notes outside its pitch range or an instrument on both sides."""
    ...

def measure_classifier(clf: Classifier, notes, batch_size: int=..., change=...) -> dict:
    """Measure accuracy and calibration."""
    ...
