"""What the package says of weights that scripts/weights.sh made: their results/*-training.json, and `info` in config.json:

    python scripts/describe.py LOGS --name B --further B2 --beside A --model mars/weights/small --out results/small-training.json \\
      --data fl.sf3 --data ms.sf3 --data notes --data notes --data notes --data notes --renderer tinysoundfont --split scripts/split.json

LOGS is what came back, OUT/logs.tar.gz unpacked: NAME.jsonl, NAME.log and NAME.config.json of each run. --data, --split and --renderer must be
those of the training (the notes of --data that is named again count so often). Measured anew on a CPU, with --n notes a set: the tokenizer's error, the cross-entropy, the pitch.
--note is written into config.json as it stands.
"""
import argparse, json
from collections import Counter
from pathlib import Path
from release import measure, open_data, split_by_names
from mars.parts.files import write_whole
from mars.pipeline import Mars

KEEP = 'stage', 'step', 'lr', 'recon', 'vq', 'loss', 'grad_norm', 'revived', 'skipped', 'seconds', 'notes_per_second', 'memory_mib'

def curve(path, stage, most=50):
    "Some fifty rows of a stage's log, and its last."
    rows = [r for r in map(json.loads, path.read_text().splitlines()) if r['stage'] == stage]
    return [{k: round(v, 6) if isinstance(v, float) else v for k, v in r.items() if k in KEEP} for r in rows[::max(1, len(rows)//most)] + rows[-1:]]

def found(logs, name):
    "What a run measured at its end, which its log holds as JSON."
    said = (logs/f'{name}.log').read_text()
    return json.loads(said[said.index('{\n'):said.rindex('}')+1])

def sources(a, train, held, valid, test):
    "How many notes came from where, each counted once."
    return {Path(name).name: dict(notes=len(mine & keys(train)), times=n, instruments=len({i for i, *_ in mine & keys(train)}), held_out_pitches=len(mine & keys(held)), valid=len(mine & keys(valid)), test=len(mine & keys(test)))
            for name, n in Counter(a.data).items() for mine in [keys(open_data([name], a.quick, a.renderer))]}

def keys(notes): return {(n.instrument, n.pitch, n.velocity, n.note_str) for n in notes.notes}

def main(argv=None):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('logs', type=Path)
    ap.add_argument('--name', required=True, help='the run that was released')
    ap.add_argument('--further', help='a second run of its transformer')
    ap.add_argument('--beside', help='the run that was not')
    ap.add_argument('--model', type=Path, required=True, help='folder of the released weights; its config.json is rewritten')
    ap.add_argument('--out', type=Path, required=True, help='a JSON file')
    ap.add_argument('--data', action='append', required=True)
    ap.add_argument('--split', type=Path, required=True)
    ap.add_argument('--renderer', default='auto')
    ap.add_argument('--n', dest='measure', type=int, default=96)
    ap.add_argument('--note', default='')
    ap.add_argument('--quick', action='store_true', help='the notes of a rehearsal')
    a = ap.parse_args(argv)
    m = Mars.from_pretrained(a.model, 'cpu')
    a.top_k, a.cfg_scale = 20, 2. # of `measure`
    notes = open_data(a.data, a.quick, a.renderer)
    train, valid, test = split_by_names(notes, a.split)
    train, held = train.hold_out(m.info['data']['hold_out'])
    if len(train) != m.info['data']['notes']: raise SystemExit(f"{a.model} was trained on {m.info['data']['notes']} notes, and these are {len(train)}; give the --data, --split and --renderer of its training")
    results = measure(m, {'seen': train, 'seen, held out': held, 'valid': valid, 'test': test}, a)
    curves = lambda name: dict(tokenizer=curve(a.logs/f'{name}.jsonl', 'tokenizer'), transformer=curve(a.logs/f'{name}.jsonl', 'var'))
    out = dict(about=m.info['versions'], results=results, curves=curves(a.name) | (dict(transformer_further=curve(a.logs/f'{a.further}.jsonl', 'var')) if a.further else {}), before_further=found(a.logs, a.name))
    if a.beside:
        config = json.loads((a.logs/f'{a.beside}.config.json').read_text())
        out['beside'] = dict(tokenizer={k: config['tokenizer'][k] for k in ('patch', 'scales', 'lookup', 'codebook_size')}, var=dict(depth=config['var']['depth']), results=found(a.logs, a.beside), curves=curves(a.beside))
    write_whole(a.out, json.dumps(out, indent=1))
    config = json.loads((a.model/'config.json').read_text())
    config['info'] |= dict(results=results, **({'note': a.note} if a.note else {}))
    config['info']['data'] |= dict(credits=sorted({f'{c.source} ({c.licence}): {c.attribution}' for c in notes.credits}), sources=sources(a, train, held, valid, test), renderer=a.renderer)
    write_whole(a.model/'config.json', json.dumps(config, indent=1))
    print(json.dumps(dict(results, sources=config['info']['data']['sources']), indent=1))
    return out

if __name__ == '__main__': main()
