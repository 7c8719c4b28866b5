# Made by scripts/stubs.py from the module beside it.
"""A family or one sound in, a playable instrument out; and a tune that generated notes play."""
from typing import Any
from typing_extensions import Self
__all__ = ['Wish', 'Struck', 'Sample', 'measure_f0', 'shift', 'steadiest', 'Bank', 'timbre_steps', 'loudness', 'find_loop', 'zones', 'sfz_text', 'pitch_range', 'export_instrument', 'read_midi', 'mix', 'play_midi']
import json, math
from collections import Counter, namedtuple
from dataclasses import dataclass
from pathlib import Path
import numpy as np
import torch
from .data import FAMILIES, SOURCES, VELOCITIES, fit_note, read_audio, save_wave, write_whole
from .eval import f0
from .soundfont import N_SAMPLES, SAMPLE_RATE, gm_label, peak_normalize
Wish = namedtuple('Wish', 'pitch velocity family source', defaults=(None, None))

@dataclass(frozen=True)
class Sample:
    """A generated note that is in tune, and what was measured of it."""
    wish: Wish
    wave: np.ndarray
    f0: float
    right: int

    @property
    def cents(self) -> float:
        ...

def measure_f0(waves) -> np.ndarray:
    """Measure the pitches of notes."""
    ...

def shift(wave: np.ndarray, cents: float) -> np.ndarray:
    """Shift the pitch of a wave by playing it faster or slower."""
    ...

def steadiest(features: np.ndarray, usable: np.ndarray, like: np.ndarray | None=...) -> list:
    """Choose one try of each note so that neighbours are as alike as possible."""
    ...

def _snake(wishes):
    """Sort wishes by pitch, velocities upwards and downwards in turn."""
    ...

class Bank:
    m: Any
    tries: int
    like: Any
    seed: int
    cents: float
    progress: bool | None
    settings: Any
    classifier: Any
    samples: dict
    drawn: int
    wrong: int
    'Notes of one model by their labels; each label is drawn once.'

    def __init__(self, m, tries: int=..., like=..., seed: int=..., cents: float=..., progress: bool | None=..., **settings):
        ...

    def ears(self):
        ...

    def unit(self, waves):
        ...

    def stream(self, wishes):
        ...

    def __repr__(self):
        ...

    def draw(self, wishes) -> tuple:
        """Draw notes and measure them; nothing is remembered."""
        ...

    def fetch(self, wishes) -> list:
        """Give samples, and draw those that are not there yet."""
        ...

def _finish(wave):
    ...

def timbre_steps(waves, notes, embed, step: int=...) -> dict:
    """Measure how far timbre moves from a note to one `step` semitones above, in one instrument and between two."""
    ...

def loudness(wave: np.ndarray) -> float:
    """Measure the level of the loudest 0.2 s."""
    ...

def find_loop(wave: np.ndarray, drop: float=..., fit: float=...) -> tuple:
    """Find a piece of a note that can be repeated."""
    ...

def zones(values, low: int, high: int) -> list:
    """Give every step of a scale to the nearest value."""
    ...

def sfz_text(samples, names, loops=..., release: float=..., about=...) -> str:
    """Write an SFZ instrument."""
    ...

def pitch_range(m) -> tuple:
    """Tell which pitches a model was trained on; 36..96 where it does not say."""
    ...

def _numbers(values, low, high, what):
    ...

def _sound(like):
    ...

def _folder(path):
    ...

def _credits(m):
    ...

def _write_sfz(m, out, name, samples, loop, release):
    ...

def _write_wav(m, out, name, samples, family, source):
    ...

def export_instrument(m, out, family=..., source=..., like=..., pitches=..., velocities=..., format: str=..., tries: int=..., seed: int=..., loop: bool=..., release: float=..., progress: bool | None=..., **settings) -> dict:
    """Make a playable instrument from labels, or from one sound."""
    ...
Struck = namedtuple('Struck', 'start end pitch velocity program channel')

def read_midi(path) -> tuple:
    """Read the notes of a MIDI file."""
    ...

class _Keys:
    down: dict
    kept: set
    pedal: set
    programs: Any
    'The keys that are down, and the pedals.'

    def __init__(self):
        ...

    def stop(self, now, which=...):
        ...

    def __call__(self, msg, now):
        ...

def _nearest(values, v):
    ...

def _borrow(bank, wish):
    """The sample of a wish, or the nearest of its family and source."""
    ...

def mix(struck, samples, release: float=...) -> np.ndarray:
    """Add up notes."""
    ...

def play_midi(m, tune, out=..., family=..., source=..., like=..., release: float=..., velocities=..., tries: int=..., seed: int=..., progress: bool | None=..., **settings) -> tuple:
    """Play a MIDI file with generated notes."""
    ...

def _told(left):
    ...
