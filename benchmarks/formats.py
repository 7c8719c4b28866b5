"""Train models of other rates and lengths and measure them:  python benchmarks/formats.py --preset small --out x.json

Trains a tokenizer and a transformer for each of --models on SoundFont notes rendered in its format: `44100 Hz, 4 s`
and `16000 Hz, 8 s`. Then it generates notes with labels of training notes and reconstructs notes of held-out
instruments, and measures, on the waves:

pitch     share of notes within 50 cents of the requested pitch by pYIN: generated, reconstructed and real
levels    energy in octave bands in dB: of generated notes and of real ones with the same labels against training
          notes; of reconstructions and of notes through the spectrogram and Griffin-Lim (`oracle`) against those notes
error     MSE of the reconstructed spectrograms, on all and on active frames, and its RMS there in dB

Runs are kept in --folder and continue where they were stopped; a finished stage is not repeated. The result of each
model is added to --out, with losses, seconds, parameters and FLOPs. --clips writes a few notes of each model, real and
generated, as MP3.
"""
import argparse, json, time
from dataclasses import asdict, replace
from pathlib import Path
import numpy as np, soundfile as sf, torch
from mars.ablations import activation_bytes, run_info, step_flops, step_seconds
from mars.cli.data import with_data
from mars.data import AdditiveNotes, NoteFormat, SoundFontNotes
from mars.eval import band_name, cents_error, f0, octave_bands, octave_energy, octave_levels
from mars.evaluation.protocol import griffin_lim_oracle
from mars.evaluation.report import make_splits
from mars.parts.codec import Codec
from mars.parts.files import make_folder, write_atomic
from mars.parts.warm_start import init_from_format
from mars.pipeline import Mars
from mars.stft import LogSpectrogram
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.train import DecoderTrainingModule, TokenizerTrainingModule, TrainConfig, train_tokenizer, train_var
from mars.training.log import read_log
from mars.training.reconstruction import reconstruction_error
from mars.training.run import init_from
from mars.training.tokens import spread
from mars.var import VAR, VARConfig

MODELS = {'44100 Hz, 4 s': (NoteFormat(44100, 4.), 2048), '16000 Hz, 8 s': (NoteFormat(16000, 8.), 1024)} # n_fft
BATCH = 8 # notes measured at a time
SAMPLING = dict(cfg_scale=2., cfg_ramp=False, top_k=20, temperature=.8) # of a model from scratch

# ---- data and configurations

def open_notes(args, format):
    "Training and test notes of different instruments in a format."
    if args.quick: notes = AdditiveNotes(None, range(60, 68, 4), (100,), format=format)
    else: notes = SoundFontNotes(pitches=args.pitches, velocities=args.velocities, label='key', format=format)
    splits = make_splits(notes)
    return splits.train, splits.test

def of_instruments(notes, n):
    "Notes of n instruments, evenly spaced in the list of all; 0 is all."
    if not n: return notes
    names = sorted({note.instrument for note in notes.notes})
    chosen = {names[i] for i in spread(len(names), n)}
    return notes.select([note.instrument in chosen for note in notes.notes])

def spectrogram_of(format, n_fft):
    "The spectrogram of a format with a window of `n_fft` samples and a quarter of it as hop."
    return LogSpectrogram.for_duration(format.sample_rate, format.seconds, n_fft, n_fft//4)

def configs(args, ls, init):
    "Shapes of tokenizer and transformer: those of --init or the preset, with as many channels as CMX needs."
    image = dict(image_shape=(ls.shape[1]*ls.shape[2]//256**2, 256, 256))
    if init: return replace(init.tokenizer.cfg, **image), init.var.cfg
    return TokenizerConfig.preset(args.preset, **image), VARConfig.preset(args.preset)

def train_configs(args):
    "Settings of both stages."
    given = dict(batch_size=args.batch_size, precision=args.precision, seed=args.seed)
    given = {k: v for k, v in given.items() if v is not None}
    if args.init: given['revive_every'] = 0 # codes keep their meaning for the transformer of --init
    steps = dict(tokenizer=args.steps, var=args.var_steps)
    mel = dict(tokenizer=dict(mel_weight=args.mel_weight), var={})
    return {stage: TrainConfig.preset(args.preset, stage, **given, **mel[stage],
                                      **(dict(steps=n, warmup=n//10) if n else {})) for stage, n in steps.items()}

# ---- training

def check_settings(folder, settings):
    "ValueError if the folder holds a run with other settings."
    file = folder/'benchmark.json'
    if file.exists() and json.loads(file.read_text()) != settings:
        raise ValueError(f'{folder} holds a run with other settings; give another --folder')
    write_atomic(file, json.dumps(settings, indent=1))

def finished(folder, stage): return (folder/f'{stage}.safetensors').exists()

def train_model(args, folder, notes, known, format, n_fft): # known: notes of the transformer
    "Train or continue both stages in a run folder -> the model."
    ls, train = spectrogram_of(format, n_fft), train_configs(args)
    init = Mars.from_pretrained(args.init) if args.init else None
    cfg, var_cfg = configs(args, ls, init)
    settings = dict(format=asdict(format), n_fft=n_fft, tokenizer=asdict(cfg), var=asdict(var_cfg), init=args.init,
                    decoder_only=args.decoder_only, notes=[len(notes), len(known)],
                    train={k: asdict(v) for k, v in train.items()})
    check_settings(make_folder(folder), json.loads(json.dumps(settings)))
    options = dict(device=args.device, progress=False, resume=True)
    module = DecoderTrainingModule if args.decoder_only else TokenizerTrainingModule
    if not finished(folder, 'tokenizer'):
        train_tokenizer(notes, train['tokenizer'], cfg, folder, spectrogram=ls, init=init, module=module, **options)
    if not finished(folder, 'var'):
        m = Mars.from_pretrained(folder)
        m.info = with_data(m.info, known)
        if init: m.info['sampling'] = init.info.get('sampling', SAMPLING)
        train_var(known, m, train['var'], var_cfg, folder, init=init and init.var, **options)
    m = Mars.from_pretrained(folder, args.device)
    m.info.setdefault('sampling', SAMPLING)
    if args.cfg_scale is not None: # none in the last map, as in the packaged model
        m.info['sampling']['cfg_scale'] = [args.cfg_scale]*(len(m.tokenizer.cfg.scales) - 1) + [0.]
    return m

def stretched(args, format, n_fft):
    "The model of --init in another format, without training."
    ls, init = spectrogram_of(format, n_fft), Mars.from_pretrained(args.init)
    cfg, var_cfg = configs(args, ls, init)
    codec = Codec(Tokenizer(cfg), spectrogram=ls)
    init_from_format(codec.tokenizer, codec.cmx, init.tokenizer, init.cmx)
    var = codec.transformer(VAR)(var_cfg, cfg).bind(codec.tokenizer)
    init_from(var, init.var)
    info = dict(sampling=init.info.get('sampling', SAMPLING))
    return Mars(codec.tokenizer, var, codec.cmx, ls, info=info).to(args.device or 'cpu')

# ---- measurements

def in_tune(waves, pitches, rate):
    "Share of notes within 50 cents of a pitch; an unvoiced one is a miss."
    return float(np.mean([abs(cents_error(f0(w, rate).midi, p)) <= 50 for w, p in zip(waves, pitches)]))

def batches(notes, n):
    "Waves as floats and labels of n notes that are spread over a set, a few at a time."
    rows = spread(len(notes), n)
    for i in range(0, len(rows), BATCH):
        waves, labels = notes.batch(rows[i:i+BATCH])
        yield i, waves.float()/32768, labels

class Levels:
    "Octave-band energies and pitches of sets of notes, collected batch by batch."
    def __init__(self, rate): self.rate, self.energy, self.pitch = rate, {}, {}

    def add(self, name, waves, pitches=None):
        self.energy.setdefault(name, []).append(octave_energy(waves, self.rate))
        if pitches is not None: self.pitch.setdefault(name, []).append((in_tune(waves, pitches, self.rate), len(waves)))

    def result(self, reference): # -> levels against the reference, shares in tune
        energy = {name: torch.cat(parts) for name, parts in self.energy.items()}
        bands = [band_name(*b) for b in octave_bands(self.rate)]
        real = energy.pop(reference)
        levels = {name: dict(zip(bands, octave_levels(real, x))) for name, x in energy.items()}
        shares = {name: sum(share*n for share, n in parts)/sum(n for _, n in parts)
                  for name, parts in self.pitch.items()}
        return dict(levels=levels, in_tune=shares)

def measure_generated(args, m, notes):
    """Generated notes with labels of training notes, and those notes; levels against many more training notes, since a
    few bright ones decide the mean energy of a high octave."""
    found = Levels(m.sample_rate)
    for _, real, _ in batches(notes, args.n_reference): found.add('training', real)
    for i, real, labels in batches(notes, args.n_measure):
        asked = {k: labels[k].tolist() for k in ('pitch', 'family', 'source', 'velocity')}
        waves = m.generate(len(real), **asked, seed=args.seed + i, n_iter=args.n_iter, progress=False)
        found.add('real', real, asked['pitch'])
        found.add('generated', waves, asked['pitch'])
    return found.result('training')

def measure_reconstructed(args, m, notes):
    "Reconstructions of held-out instruments, and the notes through the spectrogram alone."
    found = Levels(m.sample_rate)
    for i, real, labels in batches(notes, args.n_measure):
        pitches = labels['pitch'].tolist()
        found.add('real', real, pitches)
        found.add('reconstructed', m.decode(m.encode(real), n_iter=args.n_iter, first=i), pitches)
        found.add('oracle', griffin_lim_oracle(real, m.spectrogram, m.cmx, args.n_iter, first=i), pitches)
    return found.result('real')

def measure_all(args, m, known, test):
    return dict(generated=measure_generated(args, m, known), reconstructed=measure_reconstructed(args, m, test),
                error=reconstruction_error(m, test, BATCH))

def save_clips(args, m, notes, folder, n=3):
    "Write n notes and generated ones with their labels as MP3 -> file names."
    rows = spread(len(notes), n + 2)[1:-1] # not the lowest and the highest
    waves, labels = notes.batch(rows)
    asked = {k: labels[k].tolist() for k in ('pitch', 'family', 'source', 'velocity')}
    made = m.generate(n, **asked, seed=args.seed, n_iter=args.n_iter, progress=False)
    names = [f'{k}-{notes.notes[i].pitch:03d}-{notes.notes[i].family}' for k, i in enumerate(rows)]
    for name, real, generated in zip(names, waves.float()/32768, made):
        for kind, wave in (('real', real), ('generated', generated)):
            path = make_folder(folder/kind)/f'{name}.mp3'
            sf.write(path, wave.numpy(), m.sample_rate, format='MP3', compression_level=.7)
    return names

def curve(folder, stage, points=60):
    "Loss by step, and the seconds until the last logged step."
    rows = [r for r in read_log(folder) if r.get('stage', stage) == stage]
    key = 'recon' if stage == 'tokenizer' else 'loss'
    rows = [r for r in rows if key in r]
    kept = rows[::max(1, len(rows)//points)] + rows[-1:]
    losses = [[r['step'], float(f'{r[key]:.5g}')] for r in kept]
    return dict(losses=losses, seconds=rows[-1]['seconds'])

def cost_ratios(m, batch_size=4, rounds=5):
    "Time and memory of a training step of the tokenizer over those of 4 s at 16 kHz, the steps taken in turn."
    toks = dict(other=m.tokenizer, nsynth=Tokenizer(replace(m.tokenizer.cfg, image_shape=(2, 256, 256))).to(m.device))
    images = {k: torch.rand(batch_size, *tok.cfg.image_shape, device=m.device) - 0.5 for k, tok in toks.items()}
    seconds = step_seconds(toks, images, rounds)
    memory = {k: activation_bytes(tok, images[k]) for k, tok in toks.items()}
    m.tokenizer.eval()
    return dict(time=seconds['other']/seconds['nsynth'], memory=memory['other']/memory['nsynth'])

def describe(m):
    "Sizes of the model and the cost of a training step of one note."
    tok, cfg = m.tokenizer, m.tokenizer.cfg
    image = torch.zeros(1, *cfg.image_shape, device=m.device)
    return dict(samples=m.n_samples, sample_rate=m.sample_rate, spectrogram=m.spectrogram.config, image=cfg.image_shape,
                fold=[m.cmx.f, m.cmx.t], tokens=cfg.n_tokens, gflop_per_note=step_flops(tok, image)/1e9,
                ratios=cost_ratios(m),
                parameters=dict(tokenizer=sum(p.numel() for p in tok.parameters()),
                                var=sum(p.numel() for p in m.var.parameters())))

def measure_model(args, name):
    "Train one model and measure it."
    start, (format, n_fft) = time.perf_counter(), MODELS[name]
    train, test = open_notes(args, format)
    folder = Path(args.folder)/name.replace(' ', '').replace(',', '-')
    print(f'{name}: {len(train)} training notes, {len(test)} test notes, run folder {folder}', flush=True)
    known = of_instruments(train, args.instruments)
    m = train_model(args, folder, train, known, format, n_fft)
    some = test.select(spread(len(test), args.n_measure))
    untrained = measure_all(args, stretched(args, format, n_fft), known, some) if args.init else None
    clips = save_clips(args, m, known, args.clips/folder.name) if args.clips else []
    return dict(sizes=describe(m), clips=clips, untrained=untrained, **measure_all(args, m, known, some),
                curves={s: curve(folder, s) for s in ('tokenizer', 'var')},
                notes=dict(train=len(train), test=len(test), measured=len(some), n_iter=args.n_iter,
                           train_instruments=len(train.instruments), test_instruments=len(test.instruments),
                           var=len(known), var_instruments=len(known.instruments)),
                train={k: asdict(v) for k, v in train_configs(args).items()}, init=args.init,
                decoder_only=args.decoder_only, sampling=m.info['sampling'], info=run_info(start, args.device))

# ---- command

def numbers(text):
    "Whole numbers, such as 48-72, 36-84:3 or 50,100."
    if '-' not in text: return [int(x) for x in text.split(',')]
    ends, _, step = text.partition(':')
    low, high = map(int, ends.split('-'))
    return list(range(low, high + 1, int(step or 1)))

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--preset', default='tiny', help='tiny, small or paper; default: %(default)s')
    ap.add_argument('--models', nargs='+', default=[*MODELS], choices=[*MODELS], metavar='NAME',
                    help=f'of {"; ".join(MODELS)}; default: all')
    ap.add_argument('--init', metavar='MODEL', help='start from its weights, such as small; default: from scratch')
    ap.add_argument('--decoder-only', action='store_true', help='of --init; its tokens stay as they are')
    ap.add_argument('--steps', type=int, help="of the tokenizer; default: the preset's")
    ap.add_argument('--var-steps', type=int, help="of the transformer; default: the preset's")
    ap.add_argument('--batch-size', type=int, help="notes a step; default: the preset's")
    ap.add_argument('--mel-weight', type=float, default=0.,
                    help='weight of the mel loss of the tokenizer; default: %(default)s')
    ap.add_argument('--precision', choices=('fp32', 'bf16'), help='default: bf16 on a GPU and fp32 elsewhere')
    ap.add_argument('--pitches', type=numbers, default='48-72:2', metavar='LOW-HIGH:STEP', help='default: %(default)s')
    ap.add_argument('--velocities', type=numbers, default='75,127', help='default: %(default)s')
    ap.add_argument('--instruments', type=int, default=0,
                    help='of the transformer, evenly spaced; 0 (default) is all')
    ap.add_argument('--n-measure', type=int, default=64, help='notes measured of each set; default: %(default)s')
    ap.add_argument('--cfg-scale', type=float, help='of the trained model; default: that of --init')
    ap.add_argument('--n-reference', type=int, default=1024,
                    help='training notes for the levels of generated ones; default: %(default)s')
    ap.add_argument('--n-iter', type=int, default=64, help='iterations of Griffin-Lim; default: %(default)s')
    ap.add_argument('--seed', type=int, default=0)
    ap.add_argument('--device', help='cpu or cuda; default: a GPU if there is one')
    ap.add_argument('--folder', default='runs/formats', help='of the runs; default: %(default)s')
    ap.add_argument('--quick', action='store_true', help='a few synthesised notes, to test the script')
    ap.add_argument('--out', help='a JSON file')
    ap.add_argument('--clips', type=Path, help='a folder for a few notes of each model')
    return ap

def print_model(name, r):
    for key in ('generated', 'reconstructed'):
        print(f'{name}, {key}: within 50 cents', {k: round(v, 3) for k, v in r[key]['in_tune'].items()})
        for row, levels in r[key]['levels'].items():
            print(f'  {row:14}', {k: round(v, 1) for k, v in levels.items()}, 'dB')
    print(f'  error {({k: round(v, 4) for k, v in r["error"].items()})}', flush=True)

def main(argv=None):
    ap = parser()
    args = ap.parse_args(argv)
    if args.decoder_only and not args.init: ap.error('--decoder-only needs --init')
    counts = args.n_measure, args.n_reference, args.batch_size or 1, args.steps or 1, args.var_steps or 1
    if min(counts) < 1 or args.n_iter < 0:
        ap.error("--n-measure, --n-reference, --batch-size, --steps and --var-steps must be at least 1, "
                 "and --n-iter at least 0")
    old = json.loads(Path(args.out).read_text())['models'] if args.out and Path(args.out).exists() else {}
    result = dict(experiment='formats', preset=args.preset, models=old)
    for name in args.models:
        result['models'][name] = measure_model(args, name)
        print_model(name, result['models'][name])
        if args.out: write_atomic(args.out, json.dumps(result, indent=1))
    return result

if __name__ == '__main__': main()
