"""Train SAT and RVQ at equal bits and measure reconstructions:  python benchmarks/wave_tokenizers.py --run FOLDER

Both tokenizers of waves have one body and are trained on random crops of 1 s of the notes of a SoundFont, two octaves
at one velocity; --data replaces them. Whole notes of instruments that no tokenizer has seen are encoded and decoded
in one piece. Prints and writes the share within 50 cents of the label by pYIN with Wilson's 95 % interval for the
notes and for each reconstruction, with octaves folded as well; and for reconstructions the share within 50 cents of
the pitch that pYIN finds in the original, the signal-to-noise ratio, the mel and STFT distances and the bit rate. The
run folder holds a tokenizer each in sat and rvq, as benchmarks/comparison.py takes them; an interrupted run
continues. --clips writes a few of these notes and their reconstructions as MP3.
"""
import argparse, json
from pathlib import Path
import numpy as np, torch
from mars.ablations import bits_per_note, thin
from mars.baselines.aar import SATConfig, rvq, train_sat
from mars.baselines.comparison import save_clips
from mars.baselines.seanet import mel_loss
from mars.cli.data import open_notes
from mars.data import SoundFontNotes
from mars.eval import cents_error, f0, log_mel_error, mel_distance, share_interval, stft_distance
from mars.evaluation.protocol import as_int16
from mars.parts.device import pick_device
from mars.parts.files import write_atomic
from mars.pipeline import Mars
from mars.studies.prediction import study_splits
from mars.train import TrainConfig
from mars.training.log import versions
from mars.training.tokens import spread
from common import device_name, print_table

LAYOUTS, N_CLIPS = dict(sat={}, rvq=rvq(4)), 3

def snr(reference, wave): # (B, N) each -> (B,) dB
    "Signal-to-noise ratio."
    return 10*torch.log10(reference.square().sum(1)/(reference - wave).square().sum(1).clamp(min=1e-12))

def pitches(wave): # (B, N) -> (B,) MIDI numbers, NaN where there is no pitch
    "Measure pitches by pYIN."
    return np.array([f0(w).midi for w in wave])

def agreement(midi, expected, fold=False): # (B,) each -> [share within 50 cents, low, high]
    "Compare pitches, or with `fold` their classes, with Wilson's interval."
    share = share_interval(np.abs(cents_error(midi, expected, fold)) <= 50)
    return [share.value, share.low, share.high]

def measure(reference, wave, pitch, midi): # (B, N), (B, N), labels (B,), measured pitches of the reference (B,) -> dict
    "Measure reconstructions."
    found, voiced = pitches(wave), ~np.isnan(midi)
    return dict(within=agreement(found, pitch), folded=agreement(found, pitch, True),
                as_original=agreement(found[voiced], midi[voiced]), snr=snr(reference, wave).median().item(),
                db_active=80*log_mel_error(reference, wave).active_mae,
                mel_loss=mel_loss(wave, reference).item(), mel_distance=float(mel_distance(reference, wave).mean()),
                stft_distance=float(stft_distance(reference, wave).mean()))

def reconstruct(m, waves): # pipeline, (B, N) -> (B, N) float32 on the CPU
    "Encode and decode whole notes."
    return torch.cat([m.reconstruct(w.to(m.device), prepare=False).cpu() for w in waves.split(16)])

def train(name, notes, folder, args, device): # -> pipeline
    "Train a tokenizer in a folder, or load the one that is there."
    if not (folder/'config.json').exists():
        fields = {k: v for k, v in dict(steps=args.steps, batch_size=args.batch_size).items() if v}
        settings = TrainConfig.preset(args.preset, 'sat', **fields)
        shape = SATConfig.preset(args.preset, **{**LAYOUTS[name], **args.shape})
        train_sat(notes, settings, shape, folder, device=device, progress=args.progress, resume=folder.exists())
    return Mars.from_pretrained(folder, device)

def training_log(folder, loss='recon'): # run folder, name of the loss -> dict: steps, seconds, curve
    "Summarise the log of a run folder."
    rows = [json.loads(line) for line in (folder/'metrics.jsonl').read_text().splitlines()]
    rows = [r for r in rows if loss in r]
    return dict(steps=rows[-1]['step'] + 1, seconds=rows[-1]['seconds'],
                curve={k: thin([r[k] for r in rows], 100) for k in ('step', loss)})

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('names', nargs='*', default=[*LAYOUTS], help='sat, rvq or both; default: both')
    ap.add_argument('--run', type=Path, required=True, help='folder of the tokenizers')
    ap.add_argument('--preset', default='small', help='tiny, small or paper; default: %(default)s')
    ap.add_argument('--steps', type=int, help="optimiser steps; default: the preset's")
    ap.add_argument('--batch-size', type=int, help="crops a step; default: the preset's")
    ap.add_argument('--shape', type=json.loads, default={}, metavar='JSON',
                    help='fields of both configs, such as {"time_weight": 0.1, "time_floor": 0}')
    ap.add_argument('--data', help="auto, additive, an .sf2 or .sf3 file, or a folder in NSynth's layout")
    ap.add_argument('--n', type=int, default=96, help='notes of new instruments; default: %(default)s')
    ap.add_argument('--device', help='cpu, cuda or mps; default: the first available of cuda, mps and cpu')
    ap.add_argument('--progress', action='store_true', help='show a bar')
    ap.add_argument('--out', type=Path, help='a JSON file')
    ap.add_argument('--clips', type=Path, help='folder of MP3 files; default: none are written')
    return ap

def open_data(name): # --data -> a source of mars.data
    "Open the notes, by default two octaves of a SoundFont at one velocity."
    if name: return open_notes(name, 'train', 'key')
    return SoundFontNotes(pitches=range(48, 72), velocities=(100,), label='key')

def main(argv=None, notes=None):
    "notes: in place of those of --data."
    args = parser().parse_args(argv)
    notes = notes or open_data(args.data)
    training, _, new, _ = study_splits(notes)
    device = pick_device(args.device)
    models = {n: train(n, training, args.run/n, args, device) for n in args.names}
    rows = torch.randperm(len(new), generator=torch.Generator().manual_seed(0))[:args.n].sort().values
    waves, labels = new.batch(rows.tolist())
    waves, pitch = waves.float()/32768, labels['pitch'].numpy()
    midi = pitches(waves)
    result = dict(info=dict(versions(device), device=device_name(device)), preset=args.preset,
                  source=', '.join(c.source for c in notes.credits),
                  notes=len(rows), instruments=len(new.instruments), training_notes=len(training),
                  rows=dict(notes=dict(within=agreement(midi, pitch), folded=agreement(midi, pitch, True))))
    some = spread(len(rows), N_CLIPS)
    clips = dict(notes=as_int16(waves[some]))
    for name, m in models.items():
        c, recon = m.tokenizer.cfg, reconstruct(m, waves)
        size = dict(kbps=bits_per_note(c)*c.sample_rate/c.n_samples/1000, tokens=c.n_tokens,
                    parameters=sum(p.numel() for p in m.tokenizer.parameters()))
        result['rows'][name] = dict(size, **measure(waves, recon, pitch, midi), training=training_log(args.run/name))
        clips[name] = as_int16(recon[some])
    if args.clips: save_clips(args.clips, clips, [new.notes[i] for i in rows[some].tolist()])
    if args.out: write_atomic(args.out, json.dumps(result, indent=1) + '\n')
    table = [dict(row=n, **{k: v[0] if isinstance(v, list) else v for k, v in r.items() if k != 'training'})
             for n, r in result['rows'].items()]
    print_table('reconstruction', table)
    return result

if __name__ == '__main__': main()
