# Made by scripts/stubs.py from the module beside it.
"""Labelled 4 s notes from NSynth, from SoundFonts, from a folder or from a small synthesiser, behind one interface"""
from typing import Any
from typing_extensions import Self
__all__ = ['FAMILIES', 'SOURCES', 'VELOCITIES', 'Credit', 'Recipe', 'RECIPES', 'ADDITIVE_CREDIT', 'HeldOut', 'NSYNTH_CREDIT', 'NSYNTH_SPLITS', 'FLUID_RENDERINGS', 'NSYNTH_URL', 'NSYNTH_SHA256', 'QUALITIES', 'KNOWN_SOUNDFONTS', 'SOUNDFONT_SHA256', 'MIT_NOTICE', 'Note', 'parse_note_str', 'labels_dict', 'cache_dir', 'RowCache', 'to_int16', 'LabelTable', 'Notes', 'additive_note', 'AdditiveNotes', 'matches', 'select', 'NotesView', 'ConcatNotes', 'Batches', 'batches', 'Splits', 'split_by_instrument', 'hold_out', 'save_wave', 'write_whole', 'read_audio', 'load_wave', 'fit_note', 'NoteFolder', 'NSynth', 'fetch', 'unpack_nsynth', 'download_nsynth', 'write_nsynth_fixture', 'SoundFontNotes', 'default_notes', 'credits_text', 'write_credits']
import bisect, csv, hashlib, io, json, operator, os, re, shutil, sys, tarfile, tempfile, urllib.error, urllib.request, warnings, zlib
from collections import namedtuple
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
import numpy as np
import torch
from .soundfont import GM_RANGES, N_SAMPLES, SAMPLE_RATE, SoundFont, find_renderer, find_soundfont, gm_label, gm_programs, peak_normalize, render_note, resample
FAMILIES: tuple
SOURCES: tuple
VELOCITIES: tuple

def _name(value, names, what):
    """Turn a name or an id into the name."""
    ...

def _whole(value, lo, hi, what):
    ...

@dataclass(frozen=True)
class Note:
    """What is known of one note, in NSynth's terms; raises ValueError for a label out of range."""
    pitch: int
    velocity: int
    family: str
    source: str
    instrument: str

    def __post_init__(self):
        ...

    @property
    def family_id(self) -> int:
        ...

    @property
    def source_id(self) -> int:
        ...

    @property
    def note_str(self) -> str:
        ...

def parse_note_str(note_str: str) -> Note:
    """Read a note's labels from its NSynth name, from the right; raise ValueError if it is none."""
    ...

def labels_dict(notes) -> dict:
    """Collect labels as the model takes them."""
    ...
Credit = namedtuple('Credit', 'source licence attribution')
Credit: str

def cache_dir() -> Path:
    """Name the folder for converted notes: `$MARS_CACHE`, else the user's cache folder."""
    ...

def _cache_files(n):
    ...

def _cache_fault(folder, about, n):
    """Say what is wrong with a cache folder, or nothing."""
    ...

def _make_cache(folder, about, n, labels):
    """Make a cache folder aside and rename it, so that it is there complete or not at all."""
    ...

class RowCache:
    folder: Any
    rows: Any
    crcs: Any
    checked: Any
    'Keep int16 notes in one memory-mapped file; a row counts only if its checksum does. Raises OSError on a full disk.'

    def __init__(self, folder, about: dict, labels=...):
        ...

    @staticmethod
    def crc(data):
        ...

    def get(self, i):
        """Give row i, or None where it is not there yet or is damaged."""
        ...

    def put(self, i, row):
        """Write row i, then its checksum: a write cut short leaves a row that does not count."""
        ...

def to_int16(wave) -> np.ndarray:
    """Round a wave to 16 bits."""
    ...

class LabelTable:
    """What a set of notes knows without a sound: `notes`, a list of `Note`, and tables made of it."""
    notes: tuple
    credits: tuple
    kin: dict
    missing: tuple

    def __len__(self):
        ...

    def __repr__(self):
        ...

    @property
    def instruments(self) -> list:
        ...

    @property
    def families(self) -> list:
        ...

    @property
    def table(self) -> list:
        """The names of the columns, then the values of each note."""
        ...

    @cached_property
    def labels(self):
        """The fields of `Note`, both ids and note_str."""
        ...

    @cached_property
    def targets(self) -> dict:
        """Labels of all notes as the model takes them."""
        ...

class Notes(LabelTable):
    notes: list
    credits: list
    about: dict | None
    cache: Any
    kin: dict | None
    missing: list
    'Labelled notes of 64,000 samples. A source fills `notes`, `credits` and `_make(i)`; everything else is here.'

    def __init__(self, notes, credits=..., about: dict | None | None=..., cache=..., kin: dict | None | None=...):
        ...

    def _make(self, i):
        ...

    @cached_property
    def _rows(self):
        """Open the cache, or None where there is to be none."""
        ...

    def row(self, i: int) -> np.ndarray:
        """Give a note's samples from the cache; make them and put them there the first time."""
        ...

    def __getitem__(self, i: int) -> tuple:
        """Give one note."""
        ...

    def batch(self, indices) -> tuple:
        """Give notes for training: samples as stored, divide by 32768 on the device."""
        ...

    def prepare(self, progress: bool=..., workers: int=...) -> Notes:
        """Make every note once, so that all later passes only read the cache."""
        ...

    def select(self, which):
        """View the notes of these indices, or of this mask: see `select`."""
        ...

    def filter(self, families=..., sources=..., pitches=..., velocities=...):
        """View the notes that have all labels asked for: see `matches`."""
        ...

    def split_by_instrument(self, valid: float=..., test: float=..., seed: float=...):
        """Split into (train, valid, test): see `split_by_instrument`."""
        ...

    def hold_out(self, share: float=..., seed: float=...):
        """Hold out some pitches of every instrument: see `hold_out`."""
        ...

    def __add__(self, other):
        """Put two sets one after the other."""
        ...
Recipe = namedtuple('Recipe', 'source tilt even decay damping attack release stretch detune')
RECIPES: dict

def _partials(recipe, variant, pitch, velocity):
    """Frequencies (Hz), amplitudes and decays (1/s) of the partials below 7.8 kHz; a variant is brighter and shorter, or duller and longer."""
    ...

def additive_note(recipe, variant: int, pitch: int, velocity: int=...) -> np.ndarray:
    """Synthesise one note from decaying partials, held 3 s."""
    ...

def _several(values):
    ...

def _pitches(values):
    ...

def _velocities(values):
    ...
ADDITIVE_CREDIT: Any

class AdditiveNotes(Notes):
    voices: Any
    'Notes of a small additive synthesiser: our own sounds, named after what they imitate, for tests and for machines without a SoundFont.'

    def __init__(self, instruments=..., pitches=..., velocities=..., cache: bool=...):
        ...

    def _make(self, i):
        ...

def _wanted(values, names, what):
    """Turn a filter (one value or several, names or ids) into a set."""
    ...

def matches(notes, families=..., sources=..., pitches=..., velocities=...) -> np.ndarray:
    """Mark the notes that have everything asked for; raise ValueError if none does."""
    ...

def select(ds, which):
    """View some of the notes, in the order asked; raise ValueError or IndexError for a wrong mask or index."""
    ...

class NotesView(Notes):
    parent: Any
    index: Any
    missing: list
    notes: Any
    credits: Any
    kin: Any
    'Some notes of another source; nothing is copied.'

    def __init__(self, parent, index):
        ...

    def row(self, i):
        ...

class ConcatNotes(Notes):
    parts: Any
    ends: Any
    missing: list
    notes: Any
    credits: list
    kin: dict
    'Several sources as one, in order.'

    def __init__(self, parts):
        ...

    def row(self, i):
        ...

class Batches:
    n: Any
    batch_size: int
    seed: int
    orders: dict
    'Shuffled batches that any step can be asked for: a run resumes by its step number alone.'

    def __init__(self, n, batch_size: int, seed: int=...):
        ...

    def at(self, step: int) -> np.ndarray:
        """Give the indices of a step."""
        ...

def batches(ds, batch_size: int, seed: int=..., steps: int | None | None=..., start: int=...):
    """Yield shuffled index batches."""
    ...

class Splits(tuple):
    missing: list
    '(train, valid, test); `.missing` names the families that are in train only.'

    def __new__(cls, views, missing):
        ...
    train: Any
    valid: Any
    test: Any

def _units(notes):
    """Join instruments that share recordings: instrument -> the first name of its group."""
    ...

def _sides(notes, valid, test, seed):
    """Decide train, valid or test for each instrument; the order of the notes does not matter."""
    ...

def _take(left, goal, spare, sides, side, groups):
    """Hold out groups until the goal is met, `spare` of them at most; return how many."""
    ...

def split_by_instrument(ds, valid: float=..., test: float=..., seed: int=...) -> Splits:
    """Split so that no instrument, and no recording that instruments share, is on two sides; raise ValueError for shares of 1 or more."""
    ...
HeldOut = namedtuple('HeldOut', 'rest held')

def hold_out(ds, share: float=..., seed: int=...) -> HeldOut:
    """Hold out some pitches of every instrument; raise ValueError for a share outside 0..1."""
    ...

def save_wave(path, wave, sample_rate: int=...) -> Path:
    """Write a wave to a file that is there complete or not at all; raise ValueError for NaN, peaks above 1 or an unwritable place."""
    ...

def write_whole(path, data):
    """Write a file aside and rename it, so that no half of it is ever seen; raise ValueError where that fails."""
    ...

def read_audio(path) -> tuple:
    """Read a file as mono; raise ValueError if it is no audio, or empty, silent or not finite."""
    ...

def load_wave(path, sample_rate: int=...) -> torch.Tensor:
    """Load a sound; another rate is resampled, with a warning that says so."""
    ...

def fit_note(wave: np.ndarray, rate: int=...) -> np.ndarray:
    """Resample to 16 kHz, pad or cut to 4 s, round to 16 bits."""
    ...

def _check_files(files):
    """Look at the headers: say what will be changed; raise ValueError for what is no audio."""
    ...

def _stamp(files):
    """Fingerprint files by name, size and time."""
    ...

class NoteFolder(Notes):
    files: Any
    'Notes from a folder of wav, flac, ogg or mp3 files, labelled by NSynth-like names or by a CSV; raises ValueError naming the file at fault.'

    def __init__(self, folder, labels_csv=..., cache=...):
        ...

    def _make(self, i):
        ...

def _read_csv(folder, labels_csv):
    ...
NSYNTH_CREDIT: Any
NSYNTH_SPLITS: tuple

class NSynth(Notes):
    folder: Any
    examples: Any
    files: Any
    'A split of NSynth as published: examples.json and audio/; raises ValueError for a split or a file that is not there.'

    def __init__(self, root, split: str | None | None=..., families=..., sources=..., pitches=..., velocities=..., cache=...):
        ...

    def _make(self, i):
        ...

    @classmethod
    def download(cls, split=..., root=..., **kwargs):
        """Download a split (see `download_nsynth`) and open it."""
        ...

def _nsynth_folder(root, split):
    """Find the folder of a split."""
    ...

def _nsynth_note(example):
    """Read labels by their ids, which the published file always has."""
    ...

def _nsynth_credits(examples):
    """Credit each repository that a note names (x_license, x_repo), or else NSynth itself."""
    ...
FLUID_RENDERINGS: dict

def _nsynth_kin(examples):
    ...
NSYNTH_URL: str
NSYNTH_SHA256: dict

def fetch(url: str, path, sha256: str | None | None=..., progress: bool=...) -> str:
    """Download a file; go on where an earlier call stopped; raise ValueError if it stops early or has another hash."""
    ...

def _sha256(path):
    ...

def _pour(reply, f, have, total, progress):
    ...

def unpack_nsynth(archive, folder, split: str, max_bytes: int=...):
    """Unpack examples.json and audio/*.wav, and nothing else; raise ValueError at a path that escapes, a link, a device or too much."""
    ...

def _safe_member(member, split, archive):
    """Name where a member goes, or None to pass over it."""
    ...

def download_nsynth(split: str=..., root=..., url: str=..., sha256: str | None | None=..., progress: bool=..., keep: bool=...) -> Path:
    """Download, check, unpack and convert a split of NSynth; call it again to go on after an interruption."""
    ...
QUALITIES: tuple

def _example(i, note, qualities):
    """Describe a note as NSynth's examples.json does."""
    ...

def write_nsynth_fixture(root, splits=..., families=..., pitches=..., velocities=..., extra_pitch: int | None=...) -> Path:
    """Write a small synthesised set in NSynth's exact layout, for tests."""
    ...
KNOWN_SOUNDFONTS: dict
SOUNDFONT_SHA256: dict

def _soundfont_credit(font):
    ...

class SoundFontNotes(Notes):
    fonts: Any
    normalize: str | None
    renderer: Any
    keys: list
    "Notes rendered from SoundFonts by NSynth's protocol: held 3 s, released, 4 s in all; keys that make no sound are left out."

    def __init__(self, path=..., programs=..., pitches=..., velocities=..., normalize: str | None=..., renderer: str=..., cache=...):
        ...

    def _make(self, i):
        ...

@lru_cache(maxsize=8)
def _soundfont(path, mtime):
    ...

def _open_fonts(path):
    ...

def _font_programs(font, programs):
    """List (bank, program) pairs; refuse those that the file does not have or NSynth has no family for."""
    ...

def _font_kin(fonts, keys, notes):
    """Name what instruments share: most of the samples of one of the two, or a place in Fluid (R3) and its descendants."""
    ...

def default_notes(programs=..., instruments=..., pitches=..., velocities=..., cache=..., verbose: bool=...) -> Notes:
    """Make the notes that this machine can: from a SoundFont where one and a renderer are found, else by the additive synthesiser."""
    ...
MIT_NOTICE: str

def credits_text(credits) -> str:
    """Write records as a table, with the MIT notice where one of them needs it."""
    ...

def write_credits(path, sources=...) -> list:
    """Write CREDITS.md: the SoundFonts that we render from, our own synthesis, and every source given."""
    ...
