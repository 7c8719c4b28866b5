# Made by scripts/stubs.py from the module beside it.
"""The question every reader asks: why tokens at all? The same trunk, moving noise into the image of a note along straight lines."""
from typing import Any
from typing_extensions import Self
__all__ = ['FlowConfig', 'bent', 'note_noise', 'Flow', 'calls', 'FlowMars', 'train_flow']
import json, math
from dataclasses import asdict, dataclass
from pathlib import Path
import numpy as np
import torch
from torch import nn
from .cmx import CMX
from .data import Batches, write_whole
from .pipeline import Mars, find_model, load_weights, pick_device, pick_dtype, save_weights
from .stft import LogSpectrogram
from .tokenizer import config_class, patch_components, patchify, unpatchify
from .train import STAGES, Checkpoints, Images, RunLog, Team, TrainConfig, fit, instrument_ids, lasting, names_hash, open_first, seed_all, versions, write_settings
from .var import LabelEmbedding, Trunk, VARConfig, check_seed, drop_labels

@dataclass(frozen=True)
class FlowConfig(VARConfig):
    """The shape of a rectified flow. `preset` names the three sizes, whose trunks are those of `VARConfig`."""
    image_shape: tuple = ...
    patch: tuple = ...
    shift: float = ...

    def __post_init__(self):
        ...

    @property
    def patch_shape(self) -> tuple:
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

def bent(u: torch.Tensor, shift: float) -> torch.Tensor:
    """Bend times towards the noise (Esser et al. 2024)."""
    ...

def note_noise(seed: int, first: int, n: int, shape: tuple) -> torch.Tensor:
    """Draw normal numbers that depend only on the seed and a note's index."""
    ...

class Flow(nn.Module):
    cfg: FlowConfig
    trunk: Any
    labels: Any
    time: Any
    enter: Any
    leave: Any
    position: Any
    _passes: dict
    'Rectified flow from noise to the CMX image of a note (Liu et al. 2022), on the trunk of `VAR`.'
    system: str

    def __init__(self, cfg: FlowConfig):
        ...

    def forward(self, x: torch.Tensor, t: torch.Tensor, labels: dict) -> torch.Tensor:
        """Say where the paths end."""
        ...

    def loss(self, image: torch.Tensor, labels: dict | None=...):
        """Weighted squared error of the velocity at random times; in evaluation always at the same ones."""
        ...

    @torch.no_grad()
    def warm_start(self, image: torch.Tensor) -> Flow:
        """Start the first and the last layer from the principal components of patches."""
        ...

    @torch.no_grad()
    def stream(self, labels: dict | None=..., n: int | None=..., *, steps: int=..., method: str=..., cfg_scale: float=..., seed: int | None=..., first: int=...):
        """Make images of n notes and show after each step where their paths seem to end."""
        ...

    def generate(self, labels: dict | None=..., n: int | None=..., *, steps: int=..., method: str=..., cfg_scale: float=..., seed: int | None=..., first: int=...) -> torch.Tensor:
        """Make images of n notes."""
        ...

def calls(steps: int=..., method: str=...) -> int:
    """Count the passes of a note."""
    ...

class FlowMars(Mars):
    spectrogram: LogSpectrogram
    cmx: CMX
    tokenizer: Any
    var: Flow
    info: dict
    vocoder: Any
    'The whole path of a note with a flow in the place of tokenizer and transformer.'

    def __init__(self, flow: Flow, cmx: CMX | None=..., spectrogram: LogSpectrogram | None=..., info: dict | None=..., vocoder=...):
        ...

    @property
    def device(self):
        ...

    @property
    def dtype(self):
        ...

    def __repr__(self):
        ...

    def paint(self, image, n_scales=...):
        """Return the image that the flow has made: there are no tokens to decode."""
        ...

    def encode(self, wave):
        ...
    reconstruct: Any

    def save_pretrained(self, folder: str | Path, half: bool=...):
        """Save the model: config.json and flow.safetensors."""
        ...

    @classmethod
    def from_pretrained(cls, name, device=..., dtype=...) -> FlowMars:
        """Load a flow."""
        ...
STAGES: dict

def train_flow(notes, train: TrainConfig | None=..., cfg: FlowConfig | None=..., out: str | Path | None=..., device=..., progress: bool=..., log: RunLog | None=..., cmx: CMX | None=..., spectrogram: LogSpectrogram | None=..., resume: bool=..., trackers=...) -> FlowMars:
    """Train a rectified flow."""
    ...
