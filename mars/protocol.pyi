# Made by scripts/stubs.py from the module beside it.
"""From sets of notes to one table: embedders, matched labels, reference rows, intervals."""
from typing import Any
from typing_extensions import Self
__all__ = ['VGGISH_FILES', 'PAPER_COLUMNS', 'PAPER_ROWS', 'CAVEATS', 'NoteSet', 'as_int16', 'blocks', 'stored', 'match_labels', 'check_labels', 'MelPCA', 'VGGish', 'embed_set', 'lowpass', 'add_noise', 'griffin_lim_oracle', 'true_phase_oracle', 'class_means', 'memoriser', 'bins_for', 'evaluate', 'distance_columns', 'table_markdown', 'result_json', 'plot_features', 'plot_bins', 'worst_and_best', 'listen_html', 'save_report']
import hashlib, importlib.util, json, math, os, sys, time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
import numpy as np, torch
import torch.nn.functional as F
from .data import FAMILIES, SAMPLE_RATE, write_whole
from .stft import LogSpectrogram
from .eval import _clip_errors, _median_distance, cents_error, density_coverage, f0, f0_accuracy, frechet_distance, frechet_floor, frechet_infinity, inception_score, interval, share_interval, kad, kid, kid_nistal, kid_nistal_floor, label_accuracy, mel_distance, mel_features, memorisation, ndb, nearest_mel_error, posterior_kl, stft_distance, vendi_score

class NoteSet:
    name: Any
    source: Any
    waves: Any
    shape: Any
    labels: Any
    'Notes of one rate and length with their labels, read in slices as int16.'

    def __init__(self, waves, labels=..., rate=..., name=...):
        ...

    def __len__(self):
        ...

    def __repr__(self):
        ...

    def __getitem__(self, rows):
        ...

    def pick(self, rows, name=...):
        ...

class _Picked:
    notes: Any
    rows: Any
    n_samples: Any
    'Some notes of a set; nothing is copied.'

    def __init__(self, notes, rows):
        ...

    def __len__(self):
        ...

    def batch(self, i):
        ...

def as_int16(waves, name=...) -> torch.Tensor:
    """Round waves to 16 bits as a WAV file would; raise ValueError on NaN or another dtype."""
    ...

def blocks(notes, size: float=...):
    """Read a set piece by piece."""
    ...

def stored(waves, n, path, labels=..., name=...) -> NoteSet:
    """Write notes to a file as they are made, so that memory does not grow with their number; raise ValueError if there are not n."""
    ...

def _combos(labels, keys):
    """Return the label combination of each note as tuples."""
    ...

def match_labels(available, wanted, keys=..., seed: float=...) -> torch.Tensor:
    """Choose notes whose labels are the wanted ones, row by row; raise ValueError when a combination runs out."""
    ...

def check_labels(reference, notes, keys=...):
    """Raise ValueError unless two sets have the same number of notes and the same label mix."""
    ...

class MelPCA:
    dim: Any
    bands: Any
    frames: Any
    device: Any
    state: Any
    explained: float
    'A weight-free embedder: pooled log-mel pictures, standardised, on the principal axes of training notes.'
    name: str
    rate: Any

    def __init__(self, dim: float=..., bands: float=..., frames: float=..., device=...):
        ...

    def picture(self, waves):
        ...

    def fit(self, notes, size: float=...):
        """Fit mean, scale and axes; raise ValueError for too few notes."""
        ...

    def embed(self, waves):
        ...

    @property
    def digest(self) -> str:
        """Identify the fitted numbers, to four decimals."""
        ...

    def save(self, path):
        """Save the fitted numbers and the settings."""
        ...

    @classmethod
    def load(cls, path=..., device=...):
        """Load what `save` wrote."""
        ...
VGGISH_FILES: tuple

def _vggish_repo(folder):
    """Find the checkout and the weights, or say what must lie where."""
    ...

@contextmanager
def _offline(folder, repo):
    """Import and load without the net and without lasting changes."""
    ...

class VGGish:
    digest: Any
    fad: Any
    'VGGish embeddings by frechet-audio-distance, whose weights must be on the disk: the FAD of the literature.'
    name: str
    rate: Any
    dim: int

    def __init__(self, folder=...):
        ...

    def embed(self, waves):
        ...

def embed_set(embedder, notes, size: float=...) -> torch.Tensor:
    """Embed notes piece by piece; raise ValueError where an embedder returns something else."""
    ...

def _float(waves):
    ...

def lowpass(waves, cutoff: float=...) -> torch.Tensor:
    """Remove everything above a frequency."""
    ...

def add_noise(waves, snr: float=..., seed: float=..., first: float=...) -> torch.Tensor:
    """Add white noise; that of note i depends on (seed, first+i) alone."""
    ...

def griffin_lim_oracle(waves, ls=..., cmx=..., n_iter: float=..., seed: float=..., first: float=..., phase=..., device=...) -> torch.Tensor:
    """Send notes through the spectrogram and back with recovered phase: the ceiling of a model."""
    ...

def true_phase_oracle(waves, ls=..., device=...) -> torch.Tensor:
    """Send notes through the spectrogram and back with their own phase."""
    ...

def _fit(made, waves):
    """Turn down notes that would clip, and give them the length of the original."""
    ...

def class_means(train, wanted, key=..., ls=..., n_iter: float=..., size: float=..., device=...):
    """Decode the mean spectrogram of a class for each wanted note; raise ValueError for a class without training notes."""
    ...

def memoriser(train, wanted, keys=..., seed: float=...) -> NoteSet:
    """Copy training notes: the row that must trip the memorisation alarms; raise ValueError where labels run out."""
    ...

def _pass(notes, embedders, classifier, size):
    """Read a set once: features of each embedder, logits and features of the classifier, silent and clipped notes."""
    ...

def _whole_kid(x, y):
    ...

def _finite(logits):
    ...

def _scaled(reference, logits):
    """Give logits zero mean per note and the reference unit scale: softmax ignores the first, a cubic kernel must not depend on the second."""
    ...

def bins_for(n):
    """Choose the number of bins that n reference notes allow."""
    ...

def _between(f, x, y, seed, draws):
    """Give a distance an interval; rows with the same labels are drawn together, else the sets would seem less alike than they are."""
    ...

def _distance_name(name):
    ...

def _features_block(name, x, y, seed, draws):
    """Distances of one embedder's features, (n, windows, d); row i of both has the same labels."""
    ...

def _logits_block(ref_logits, logits, labels, seed, draws):
    """Scores of the classifier's logits; row i of both has the same labels."""
    ...

def _waves_block(reference, notes, paired, n_f0, seed, draws, size, device):
    """Errors measured on the sound itself."""
    ...

def evaluate(reference, rows, train=..., embedders=..., classifier=..., paired=..., keys=..., n_f0: float=..., draws: float=..., seed: float=..., size: float=..., device=..., progress: bool=...) -> dict:
    """Measure every row against the reference; raise ValueError for sets that cannot be compared."""
    ...

def _bar(items, show):
    ...

def _settings(reference, embedders, classifier, keys, seed, draws, k, n_f0, train):
    """List everything that the numbers depend on."""
    ...
PAPER_COLUMNS: tuple
PAPER_ROWS: dict
CAVEATS: tuple

def distance_columns(result) -> list:
    """Find the columns of the Fréchet distances."""
    ...

def table_markdown(result) -> str:
    """Write the table in the paper's column order."""
    ...

def result_json(result) -> str:
    """Write everything but the features as JSON."""
    ...

def plot_features(result, names=...):
    """Show the first two principal axes of the reference, with other rows on top."""
    ...

def plot_bins(bins, title=...):
    """Show the shares of both sides in each bin, those that differ in red."""
    ...

def worst_and_best(reference, notes, n: float=..., size: float=...) -> list:
    """Find the reconstructions to listen to."""
    ...

def _player(wave):
    """Return an HTML player that holds the sound."""
    ...

def listen_html(reference, rows, n: float=..., size: float=...) -> str:
    """Put the worst and the best reconstructions of each row on one page, beside the original."""
    ...

def save_report(result, folder, reference=..., paired=..., names=..., table=...) -> list:
    """Write everything to a folder; raise ValueError where that fails."""
    ...

def _png(fig):
    ...
