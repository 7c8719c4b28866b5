# Made by scripts/stubs.py from the module beside it.
"""Mars: wave to tokens, labels to wave, one folder on disk."""
from typing import Any
from typing_extensions import Self
__all__ = ['DTYPES', 'CARD_MARK', 'REPO', 'PAPER', 'FORMAT', 'SYSTEMS', 'save_weights', 'load_weights', 'label_ids', 'as_waves', 'Mars', 'pick_device', 'pick_dtype', 'cast_network', 'in_batches', 'card_text', 'find_model', 'find_system', 'find_kind']
import importlib, inspect, json, math, operator, os, re, warnings
from dataclasses import asdict
from pathlib import Path
import numpy as np
import torch
from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin
from torch import nn
import mars
from .cmx import CMX
from .stft import LogSpectrogram, _as_wave
from .phase import Vocoder
from .data import FAMILIES, SOURCES, write_whole
from .tokenizer import Tokenizer, TokenizerConfig
from .var import VAR, VARConfig, check_seed

def save_weights(module: nn.Module, path: str | Path, half: bool=...):
    """Save a module's state as safetensors; ValueError where the file cannot be written."""
    ...

def load_weights(module: nn.Module, path: str | Path) -> nn.Module:
    """Load a module's state, refusing damaged files and other shapes."""
    ...

def label_ids(value, names=...):
    """Turn label names into ids."""
    ...

def as_waves(wave, sample_rate: int=..., rate: int=..., name: str=...) -> torch.Tensor:
    """Bring sounds from elsewhere into the form that the models take."""
    ...

def _heard(x, name):
    ...

def _mono(wave, name):
    ...

def _listed(wave):
    ...

def _channels_last(shape):
    ...

def _alone(wave):
    ...

def _padded(waves):
    ...

class Mars(ModelHubMixin, library_name='mars-spectrogram', license='apache-2.0', pipeline_tag='text-to-audio', tags=['audio-generation', 'music', 'spectrogram', 'next-scale', 'mars']):
    spectrogram: LogSpectrogram
    cmx: CMX
    tokenizer: Tokenizer
    var: VAR | None
    info: dict
    vocoder: Vocoder | None
    'The whole path of a note: encode, decode, reconstruct, generate, save, load.'

    def __init__(self, tokenizer: Tokenizer, var: VAR | None=..., cmx: CMX | None=..., spectrogram: LogSpectrogram | None=..., info: dict | None=..., vocoder: Vocoder | None=...):
        ...
    parts: tuple
    kind: Any
    classifier: Any

    @property
    def device(self):
        ...

    @property
    def dtype(self):
        ...

    @property
    def sample_rate(self) -> int:
        ...

    @property
    def n_samples(self) -> int:
        ...

    def __repr__(self):
        ...

    def to(self, device=..., dtype=...) -> Mars:
        """Move the networks to a device and a precision."""
        ...

    def half(self) -> Mars:
        """Set the networks to float16."""
        ...

    def image(self, wave: torch.Tensor) -> torch.Tensor:
        """Turn waves into CMX images."""
        ...

    def picture(self, image: torch.Tensor) -> torch.Tensor:
        """Turn images into spectrograms."""
        ...

    def encode(self, wave: torch.Tensor) -> list:
        """Turn waves into tokens."""
        ...

    def paint(self, tokens: list, n_scales: int | None=...) -> torch.Tensor:
        """Turn tokens into images."""
        ...

    def spec(self, tokens: list, n_scales: int | None=...) -> torch.Tensor:
        """Turn tokens into spectrograms."""
        ...

    def wave(self, spec: torch.Tensor, n_iter: int | None=..., seed: int=..., phase: str=..., first: int=...) -> torch.Tensor:
        """Turn spectrograms into waves that begin at rest. A note that would clip is turned down as a whole."""
        ...

    def sound(self, image: torch.Tensor, n_iter: int | None=..., seed: int=..., phase: str=..., first: int=...) -> torch.Tensor:
        """Turn images into waves."""
        ...

    def decode(self, tokens: list, n_scales: int | None=..., n_iter: int | None=..., seed: int=..., phase: str=..., first: int=...) -> torch.Tensor:
        """Turn tokens into waves."""
        ...

    def listen(self, wave, sample_rate: int=...) -> torch.Tensor:
        """Embed sounds that notes should resemble."""
        ...

    def sampling(self, given: dict=...) -> dict:
        """Complete the settings of sampling."""
        ...

    def stream(self, n: int | None=..., *, seed: int | None=..., n_iter: int | None=..., phase: str=..., batch_size: int=..., progress: bool | None=..., **asked):
        """Make notes from labels, batch after batch."""
        ...

    def generate(self, n: int | None=..., *, pitch=..., family=..., source=..., velocity=..., seed: int | None=..., instrument=..., like=..., like_rate: int=..., cfg_scale=..., cfg_ramp: bool | None=..., top_k=..., top_p=..., temperature=..., n_iter: int | None=..., phase: str=..., batch_size: int=..., progress: bool | None=..., **settings) -> torch.Tensor:
        """Make notes from labels."""
        ...

    def preview(self, n: int | None=..., *, seed: int | None=..., n_iter: int | None=..., phase: str=..., **asked):
        """Make notes from labels and show them after each scale."""
        ...

    def reconstruct(self, wave, sample_rate: int=..., n_iter: int | None=..., seed: int=..., phase: str=..., batch_size: int=...) -> torch.Tensor:
        """Send waves through the tokenizer and back."""
        ...

    def edit(self, wave, sample_rate: int=..., *, keep_scales: int | None=..., time_range=..., freq_range=..., labels: dict | None=..., like=..., n: int | None=..., seed: int | None=..., n_iter: int | None=..., phase: str=..., batch_size: int=..., **settings) -> torch.Tensor:
        """Keep a part of a note and draw the rest."""
        ...

    def interpolate(self, a, b, weights: float=..., sample_rate: int=..., *, keep_scales: int | None=..., labels: dict | None=..., seed: int | None=..., n_iter: int | None=..., phase: str=..., **settings) -> torch.Tensor:
        """Go from one note to another, or from one set of labels to another."""
        ...

    def generate_model_card(self, *args, **kwargs) -> ModelCard:
        """Make the model's card: YAML metadata and a text."""
        ...

    def save_pretrained(self, folder: str | Path, half: bool=..., *, push_to_hub: bool=..., repo_id: str | None=..., config=..., model_card_kwargs=..., **push) -> str | None:
        """Save the model: config.json, README.md, tokenizer.safetensors and, if there is a transformer, var.safetensors."""
        ...

    @classmethod
    def from_pretrained(cls, name: str | Path=..., device=..., dtype=..., **hub) -> Mars:
        """Load a model."""
        ...

def pick_device(device=...) -> torch.device:
    """Choose a device."""
    ...
DTYPES: dict

def pick_dtype(dtype=...) -> torch.dtype:
    """Choose a precision."""
    ...

def cast_network(net: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Set the precision of a network, except for its quantizer."""
    ...

def in_batches(f, n: int, batch_size: int, progress: bool | None=...):
    """Run something batch by batch, and a batch that does not fit into memory in halves."""
    ...

def _bar(items, show):
    ...

def _wishes(self, n, asked):
    """Check labels given by name or number, and give back what else was asked."""
    ...
CARD_MARK: str
REPO: str
PAPER: str

def _flat(d, before=...):
    ...

def _said(info):
    ...

def card_text(m) -> str:
    """Write what a card says about a model."""
    ...

def _limits(m, data):
    ...

def _rights(credits):
    ...
FORMAT: int

def find_model(name, **hub) -> Path:
    """Find a model's folder; one of the hub is downloaded, or taken from the hub's cache."""
    ...
SYSTEMS: dict

def find_system(name: str) -> type:
    """Find the class of a transformer by its order of prediction."""
    ...

def find_kind(name=...) -> 'type[Mars]':
    """Find the class of a pipeline."""
    ...
