"""Train SAT and RVQ at equal bits and measure reconstructions:  python benchmarks/wave_tokenizers.py --run FOLDER

Both tokenizers of waves have one body and are trained on random crops of 1 s of the notes of a SoundFont, two octaves at
one velocity; --data replaces them. Whole notes of instruments that no tokenizer has seen are encoded and decoded in one
piece. Prints and writes for the notes themselves and for each reconstruction the share within 50 cents of the label by
pYIN with Wilson's 95 % interval, the signal-to-noise ratio, the mel and STFT distances and the bit rate. The run folder
holds a tokenizer each in sat and rvq, as benchmarks/comparison.py takes them; an interrupted run continues.
"""
import argparse, json
from dataclasses import asdict
from pathlib import Path
import numpy as np, torch
from mars.ablations import bits_per_note
from mars.baselines.aar import SATConfig, rvq, train_sat
from mars.baselines.seanet import mel_loss
from mars.cli.data import open_notes
from mars.data import SoundFontNotes
from mars.eval import cents_error, f0, log_mel_error, mel_distance, share_interval, stft_distance
from mars.parts.device import pick_device
from mars.parts.files import write_atomic
from mars.pipeline import Mars
from mars.studies.prediction import study_splits
from mars.train import TrainConfig
from mars.training.log import versions
from common import device_name, print_table

LAYOUTS = dict(sat={}, rvq=rvq(4))

def snr(reference, wave): # (B, N) each -> (B,) dB
    "Signal-to-noise ratio."
    return 10*torch.log10(reference.square().sum(1)/(reference - wave).square().sum(1).clamp(min=1e-12))

def measure(reference, wave, pitch): # (B, N), (B, N), (B,) -> dict
    "Measure reconstructions, or with `reference` itself the notes."
    midi = np.array([f0(w).midi for w in wave])
    cents = np.abs(cents_error(midi, pitch))
    within = share_interval(cents <= 50)
    out = dict(within=[within.value, within.low, within.high], median_cents=float(np.nanmedian(cents)))
    if wave is reference: return out
    return dict(out, snr=snr(reference, wave).median().item(), db_active=80*log_mel_error(reference, wave).active_mae,
                mel_loss=mel_loss(wave, reference).item(), mel_distance=float(mel_distance(reference, wave).mean()),
                stft_distance=float(stft_distance(reference, wave).mean()))

def reconstruct(m, waves): # pipeline, (B, N) -> (B, N) float32 on the CPU
    "Encode and decode whole notes."
    return torch.cat([m.reconstruct(w.to(m.device), prepare=False).cpu() for w in waves.split(16)])

def train(name, notes, folder, preset, fields, device, progress): # -> pipeline
    "Train a tokenizer in a folder, or load the one that is there."
    if not (folder/'config.json').exists():
        settings = TrainConfig.preset(preset, 'sat', **fields)
        shape = SATConfig.preset(preset, **LAYOUTS[name])
        train_sat(notes, settings, shape, folder, device=device, progress=progress, resume=folder.exists())
    return Mars.from_pretrained(folder, device)

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('names', nargs='*', default=[*LAYOUTS], help='sat, rvq or both; default: both')
    ap.add_argument('--run', type=Path, required=True, help='folder of the tokenizers')
    ap.add_argument('--preset', default='small', help='tiny, small or paper; default: %(default)s')
    ap.add_argument('--steps', type=int, help="optimiser steps; default: the preset's")
    ap.add_argument('--batch-size', type=int, help="crops a step; default: the preset's")
    ap.add_argument('--data', help="auto, additive, an .sf2 or .sf3 file, or a folder in NSynth's layout")
    ap.add_argument('--n', type=int, default=96, help='notes of new instruments; default: %(default)s')
    ap.add_argument('--device', help='cpu, cuda or mps; default: the first available of cuda, mps and cpu')
    ap.add_argument('--progress', action='store_true', help='show a bar')
    ap.add_argument('--out', type=Path, help='a JSON file')
    return ap

def main(argv=None):
    args = parser().parse_args(argv)
    notes = open_notes(args.data, 'train', 'key') if args.data else \
        SoundFontNotes(pitches=range(48, 72), velocities=(100,), label='key')
    training, _, new, _ = study_splits(notes)
    fields = {k: v for k, v in dict(steps=args.steps, batch_size=args.batch_size).items() if v}
    device = pick_device(args.device)
    models = {n: train(n, training, args.run/n, args.preset, fields, device, args.progress) for n in args.names}
    rows = torch.randperm(len(new), generator=torch.Generator().manual_seed(0))[:args.n].sort().values
    waves, labels = new.batch(rows.tolist())
    waves, pitch = waves.float()/32768, labels['pitch'].numpy()
    result = dict(info=dict(versions(device), device=device_name(device)), preset=args.preset, source=', '.join(c.source for c in notes.credits),
                  notes=len(rows), instruments=len(new.instruments), training_notes=len(training),
                  rows={'notes': measure(waves, waves, pitch)})
    for name, m in models.items():
        c = m.tokenizer.cfg
        size = dict(kbps=bits_per_note(c)*c.sample_rate/c.n_samples/1000, tokens=c.n_tokens,
                    parameters=sum(p.numel() for p in m.tokenizer.parameters()))
        result['rows'][name] = dict(size, training=m.info['train'] if 'train' in m.info else fields,
                                    **measure(waves, reconstruct(m, waves), pitch))
    if args.out: write_atomic(args.out, json.dumps(result, indent=1) + '\n')
    table = [dict(row=n, **{k: v for k, v in r.items() if isinstance(v, (int, float))}, within=r['within'][0])
             for n, r in result['rows'].items()]
    print_table('reconstruction', table)
    return result

if __name__ == '__main__': main()
