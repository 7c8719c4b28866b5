"Notes with labels: NSynth, SoundFonts, folders of sounds, an additive synthesiser; views, splits, batches."
from .notes import *
from .folder import *
from .nsynth import *
from .soundfont import *
from .tuning import *
from .rendered import *
from .augment import AugmentConfig, AugmentedNotes
from .check import *
