"""Next-scale autoregression on spectrograms for sound generation (MARS, arXiv 2509.26007).

`import mars` is light: the names below, modules and sub-packages (`mars.eval`, `mars.data`) are imported on first use.
"""
# Written by hand. nbdev_export renews the line of the version and keeps the rest (tests/test_library.py).
__version__ = "0.1.0"

__all__ = ['CMX', 'LogSpectrogram', 'Mars', 'NSynth', 'Note', 'NoteFolder', 'SoundFontNotes', 'Tokenizer', 'TokenizerConfig',
           'VAR', 'VARConfig', 'demultiplex', 'multiplex']

import os as _os, sys as _sys
# Read by torch when it is imported: operations that MPS lacks then run on the CPU, with one warning
if _sys.platform == 'darwin' and 'torch' not in _sys.modules: _os.environ.setdefault('PYTORCH_ENABLE_MPS_FALLBACK', '1')
# Likewise: waiting threads of OpenMP sleep. With another busy process, spinning ones make a note take 6 s, not 0.2 s
if 'torch' not in _sys.modules: _os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cmx import CMX, demultiplex, multiplex
    from .data import NSynth, Note, NoteFolder, SoundFontNotes
    from .pipeline import Mars
    from .stft import LogSpectrogram
    from .tokenizer import Tokenizer, TokenizerConfig
    from .var import VAR, VARConfig

_HOMES = dict(CMX='cmx', demultiplex='cmx', multiplex='cmx', NSynth='data', Note='data', NoteFolder='data',
              SoundFontNotes='data', Mars='pipeline', LogSpectrogram='stft', Tokenizer='tokenizer',
              TokenizerConfig='tokenizer', VAR='var', VARConfig='var')

def _find(name):
    from importlib import import_module
    from os.path import dirname, exists, join
    if name in _HOMES: return getattr(import_module(f'mars.{_HOMES[name]}'), name)
    there = [join(dirname(__file__), *parts) for parts in ((f'{name}.py',), (name, '__init__.py'))]
    if not name.startswith('_') and any(map(exists, there)): return import_module(f'mars.{name}')
    raise AttributeError(f'module mars has no {name!r}; it has {", ".join(__all__)} and its modules')

if not TYPE_CHECKING: __getattr__ = _find # a type checker that sees it accepts any name

def __dir__(): return sorted([*globals(), *__all__])
