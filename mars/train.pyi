# Made by scripts/stubs.py from the module beside it.
"""Two stages: first the tokenizer, then the transformer on its tokens."""
from typing import Any
from typing_extensions import Self
__all__ = ['STAGES', 'OF_ONE', 'TrainConfig', 'lr_at', 'by_clock', 'seed_all', 'Team', 'Images', 'RunLog', 'flat_row', 'check_tracker', 'open_tracker', 'versions', 'peak_memory', 'read_log', 'plot_log', 'plot_runs', 'run_picture', 'Board', 'param_groups', 'autocast', 'Checkpoints', 'lasting', 'random_state', 'set_random_state', 'run_state', 'set_run_state', 'Term', 'backward_in_parts', 'average_gradients', 'average_metrics', 'Keeper', 'fit', 'MelLoss', 'TokenizerStage', 'train_tokenizer', 'names_hash', 'write_settings', 'open_first', 'spread', 'tokenizer_board', 'reconstruction_error', 'tokenize', 'fingerprint', 'cached_tokens', 'instrument_ids', 'Kin', 'begin_with', 'listener', 'embed_notes', 'train_var', 'var_board']
import hashlib, io, json, math, os, platform, random, signal, sys, threading, time, warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, asdict, replace
from pathlib import Path
import numpy as np
import torch
from torch import nn
from .cmx import CMX
from .stft import LogSpectrogram, active_frames, compress, expand, mel_filters
from .data import Batches, N_SAMPLES, write_whole
from .quantizer import MultiScaleQuantizer
from .tokenizer import STRIPS, Tokenizer, TokenizerConfig, config_class
from .discriminator import Adversary, AdversaryConfig
from .var import VAR, VARConfig
from .pipeline import Mars, pick_device

@dataclass(frozen=True)
class TrainConfig:
    """How one stage is trained. `preset(name, stage)` gives the usual values."""
    stage: str = ...
    steps: int = ...
    epochs: float = ...
    seconds: float = ...
    batch_size: int = ...
    accumulate: int = ...
    lr: float = ...
    warmup: int = ...
    final_lr: float = ...
    betas: tuple = ...
    weight_decay: float = ...
    clip: float = ...
    ema: float = ...
    precision: str = ...
    warm_start: int = ...
    revive_every: int = ...
    revive_patience: int = ...
    revive_until: float = ...
    compile: bool = ...
    seed: int = ...
    log_every: int = ...
    save_every: int = ...
    keep_last: int = ...
    max_bad: int = ...
    show_every: int = ...
    mel_weight: float = ...

    def __post_init__(self):
        ...

    @staticmethod
    def presets() -> dict:
        ...

    @classmethod
    def from_dict(cls, d: dict) -> Self:
        ...

    @classmethod
    def preset(cls, name: str, stage: str=..., **kwargs):
        """Return the usual settings of a stage at a size."""
        ...

    def for_notes(self, n: int) -> TrainConfig:
        """Turn epochs into steps."""
        ...
STAGES: dict

def lr_at(step: int, cfg: TrainConfig) -> float:
    """Linear warm-up, then a cosine to `final_lr` of the peak."""
    ...

def by_clock(step, first, spent, cfg) -> int:
    """Say which step of the schedule it is, when a share `spent` of the time since step `first` is gone."""
    ...

def seed_all(seed: int):
    """Seed python, numpy and torch (all devices)."""
    ...

class Team:
    n: int
    rank: int
    stop: bool
    device: Any
    'The processes that make a run together; just one where none were launched (by accelerate, torchrun or notebook_launcher).'

    def __init__(self, device=...):
        ...

    @property
    def main(self):
        ...

    def share(self, idx):
        """Deal out a batch."""
        ...

    def reduce(self, tensors, how=...):
        """Combine tensors over the processes, in one message for each type."""
        ...

    def same(self, tensors):
        """Give every process what the first one has."""
        ...

    def gather(self, x):
        """Put the batches of all processes together."""
        ...

    def objects(self, x):
        """Collect small python objects."""
        ...

    def wait(self):
        """Wait for the others."""
        ...

    def leave(self, status: float=...):
        """End a script of several processes, whose interpreters abort now and then while torch 2.11's gloo is torn down."""
        ...

class Images:
    notes: Any
    see: Any
    device: Any
    reader: Any
    ahead: dict
    kept: Any
    waves: Any
    'CMX images and labels of any source of notes, made on the device.'

    def __init__(self, notes, see, device=..., keep: int=..., hold: float=...):
        ...

    def __len__(self):
        ...

    def read(self, idx):
        ...

    def make(self, idx, then=...):
        ...

    def fits(self, hold):
        ...

    def load(self):
        """Move the whole set to the device."""
        ...

    def __call__(self, idx, then=...):
        ...

class RunLog:
    rows: list
    file: Any
    folder: Path
    trackers: Any
    'Metrics of a run: a list in memory and, with a folder, lines of JSON.'

    def __init__(self, folder: str | Path | None=..., trackers=..., settings: dict | None=...):
        ...

    def rewind(self, stage, step):
        """Forget what a stage logged from a step on: a resumed run will say it again."""
        ...

    def __call__(self, **row):
        ...

    def all(self):
        """Return the rows of the whole run, those of its earlier parts too."""
        ...

    def close(self):
        ...

def flat_row(row) -> dict:
    """Name the entries of lists, and each metric by its stage: 'tokenizer/usage/3'."""
    ...

def check_tracker(name) -> type:
    """Find the class of one of accelerate's trackers."""
    ...

def open_tracker(name, folder, settings: dict):
    """Start one of accelerate's trackers."""
    ...

def versions(device) -> dict:
    """Say what a run ran on."""
    ...

def peak_memory(device) -> float:
    """The most memory held so far: of the GPU by torch, or of the process."""
    ...

def read_log(folder: str | Path) -> list:
    """Read metrics.jsonl."""
    ...

def _curve(rows, key):
    ...

def plot_log(rows: list, stage: str, keys: tuple):
    """Draw metrics of a stage against the step."""
    ...

def plot_runs(runs: dict, stage: str, key: str):
    """Draw one metric of several runs."""
    ...

def run_picture(rows: list, stage: str, keys: tuple, above, below, titles: list) -> bytes:
    """Draw curves over two rows of spectrograms."""
    ...

class Board:
    path: Any
    handle: Any
    'Show a picture that is renewed: in the notebook, or as a file in the run folder.'

    def __init__(self, path=...):
        ...

    def __call__(self, png):
        ...

def param_groups(model, weight_decay):
    """Split parameters into those that decay and those that do not."""
    ...

def autocast(cfg, device):
    """The precision of a stage on a device."""
    ...

def _digest(tensors):
    ...

class Checkpoints:
    folder: Any
    stage: str
    about: Any
    keep: int
    said: Any
    'The checkpoints of one stage in a run folder.'

    def __init__(self, folder: str | Path, stage: str, about: dict, keep: int=...):
        ...

    def files(self):
        """List the checkpoints of this stage."""
        ...

    def save(self, step: int, tensors: dict):
        """Write a checkpoint and remove the oldest; ValueError where it cannot be written."""
        ...

    def clear(self):
        """Remove the checkpoints of an earlier run, which a new one must not mistake for its own."""
        ...

    def load(self):
        """Read the newest checkpoint that is whole."""
        ...

def lasting(cfg: TrainConfig) -> dict:
    """Drop what may change when a run is resumed."""
    ...

def random_state(device) -> dict:
    """Return the state of python's, numpy's and torch's random generators."""
    ...

def set_random_state(state, device):
    """Take back what `random_state` returned."""
    ...

def run_state(model, opt, average, extra, team) -> dict:
    """Everything that the next step of a run depends on."""
    ...

@torch.no_grad()
def set_run_state(state, model, opt, average, team) -> dict:
    """Take back what `run_state` returned."""
    ...

class Term:
    seen: bool
    old: Any
    'Notice SIGTERM instead of dying of it; only in the main thread, where python lets us.'

    def __enter__(self):
        ...

    def notice(self, *args):
        ...

    def __exit__(self, *args):
        ...

def backward_in_parts(loss_of, step, cfg, device):
    """Compute loss and gradient of a step, a part of the batch at a time."""
    ...

def average_gradients(params, loss, stop, team):
    """Average the gradients over the processes, in place, and with them the loss and the wish to stop."""
    ...

def average_metrics(metrics, team):
    """Average what is logged."""
    ...

class Keeper:
    parts: Any
    saved: Any
    state: Any
    restore: Any
    team: Any
    begin: int
    'Save the state of a run and take it back, in all processes at once.'

    def __init__(self, model, opt, average, saved, state, restore, team):
        ...

    def start(self, resume):
        """Go on from the newest checkpoint, or forget those of an earlier run."""
        ...

    def save(self, done):
        """Write a checkpoint in the first process; if that fails, all end."""
        ...

    def rewarm(self, step, warmup):
        """Warm up anew where the moments are young."""
        ...

def fit(model: nn.Module, loss_of, cfg: TrainConfig, log: RunLog, progress: bool=..., extra=..., after=..., saved: Checkpoints | None=..., resume: bool=..., state=..., restore=..., team: Team | None=..., show=...):
    """Run one stage; FloatingPointError when the loss is no number any more, SystemExit(143) after SIGTERM."""
    ...

def _show(show, model, step):
    """Make a picture; a run does not end because none can be made."""
    ...

def _bar(steps, show):
    ...

class MelLoss(nn.Module):
    cmx: CMX
    floor: Any
    frames: Any
    'Images (B, C, H, W), reconstruction and truth -> mean absolute difference of log-mel pictures, in units of the spectrogram.'

    def __init__(self, ls: LogSpectrogram, cmx: CMX, resolutions: tuple=...):
        ...

    def pictures(self, image):
        """Average the magnitudes over bands and frames."""
        ...

    def forward(self, recon, image):
        ...

class TokenizerStage:
    mel: Any
    view: Any
    tok: Any
    batch: Any
    train: Any
    revived: int
    seen: dict
    parts: list
    team: Any
    books: Any
    gan: Any
    'What one step of stage one computes; `fit` calls its methods.'

    def __init__(self, tok, batch, train, adversary=..., team=..., mel=..., view=...):
        ...

    def rival(self, adversary, device, reduce):
        """Make the adversary; an image too small for it is refused now, not when the GAN starts."""
        ...

    def against(self, step, image, recon, losses):
        """Compute the adversarial term of the loss."""
        ...

    def loss(self, step, part: float=...):
        ...

    def after(self, step):
        ...

    def revive(self, image):
        """Revive codes that no process has used; the first one's choice holds for all."""
        ...

    def sync(self):
        """Move the counts of all processes to the first."""
        ...

    def state(self):
        ...

    def restore(self, tensors):
        ...

    def extra(self):
        ...

def train_tokenizer(notes, train: TrainConfig | None=..., cfg: TokenizerConfig | None=..., out: str | Path | None=..., device=..., progress: bool=..., log: RunLog | None=..., cmx: CMX | None=..., spectrogram: LogSpectrogram | None=..., adversary: AdversaryConfig | None=..., resume: bool=..., trackers=..., pipeline: type=..., stage: type=...) -> nn.Module:
    """Train the tokenizer (MARS, equation 1)."""
    ...

def names_hash(notes) -> str:
    """Hash the names of all notes: a resumed run must have the same ones, in the same order."""
    ...

def write_settings(folder, stage, settings):
    """Keep what a stage was started with, from its first moment, in settings.json."""
    ...

def open_first(notes, team):
    """Let one process make the cache of a set, then the others open it."""
    ...

def spread(n, most: float=...):
    """Pick a few notes that lie far apart."""
    ...

def tokenizer_board(m, images, notes, log, out, stage=...):
    """Show curves, and real over reconstructed notes."""
    ...

@torch.no_grad()
def reconstruction_error(model: Mars, notes, batch_size: int=...) -> dict:
    """Measure the tokenizer's squared error on notes, in the spectrogram's units of [-1, 1]."""
    ...

@torch.no_grad()
def tokenize(notes, model: Mars, batch_size: int=..., team: Team | None=...) -> tuple:
    """Turn a whole set into tokens, once."""
    ...

def fingerprint(notes, model: Mars) -> str:
    """Hash a tokenizer, the names of all notes and the sound of some."""
    ...

def cached_tokens(notes, model: Mars, folder: str | Path, team: Team | None=...) -> tuple:
    """Read a set's tokens, or compute and keep them."""
    ...

def instrument_ids(notes, size: int) -> tuple:
    """Number the instruments of a set."""
    ...

class Kin:
    seed: int
    order: Any
    begin: Any
    count: Any
    'Draws, for each note of a batch, a note of the same instrument.'

    def __init__(self, notes, seed: int=...):
        ...

    def at(self, step: int, idx) -> np.ndarray:
        """Draw for a step."""
        ...

def begin_with(var, init):
    """Copy the weights of a trained transformer; ValueError where shape or tokenizer differ."""
    ...

def listener(cfg: VARConfig, classifier=..., device=...):
    """Find the classifier whose features are the label `like`."""
    ...

def embed_notes(notes, classifier, folder: str | Path | None=..., team: Team | None=...) -> torch.Tensor:
    """Embed a whole set, once: read the features of its notes, or compute and keep them."""
    ...
OF_ONE: tuple

def train_var(notes, tok: Tokenizer, train: TrainConfig | None=..., cfg: VARConfig | None=..., out: str | Path | None=..., device=..., progress: bool=..., log: RunLog | None=..., cmx: CMX | None=..., spectrogram: LogSpectrogram | None=..., info: dict | None=..., resume: bool=..., trackers=..., model: type=..., classifier=..., init: VAR | None=...) -> VAR:
    """Train the next-scale transformer, or one of another order, on cached tokens by teacher forcing."""
    ...

def var_board(m, var, tokens, labels, notes, log, out):
    """Show the curve, and tokens of real notes over tokens generated from their labels."""
    ...
