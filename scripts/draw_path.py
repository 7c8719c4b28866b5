"""Draw the path of a note for the front page from the weights of the package:  python scripts/draw_path.py

Above, a note of the demo is read: wave, spec, image, tokens. Below, a note is written from labels alone: the transformer's
tokens, image, spec, wave. It writes nbs/images/path.svg and path-tall.svg, the same for narrow screens. A few seconds.
"""
import argparse, base64, html, io, os
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')
import matplotlib, numpy as np, soundfile as sf, torch
from matplotlib.image import imsave
from mars.data import FAMILIES, SOURCES
from mars.parts.conditioning import label_ids
from mars.pipeline import Mars

ROOT = Path(__file__).resolve().parent.parent
W, H = 150, 106  # of a panel
INK, SOFT, WAVE, ARROW = '#22262b', '#666e78', '#22588f', '#c4532a'
WORDS = [('LogSpectrogram', 'encode'), ('CMX', 'fold'), ('Tokenizer', 'encode')], [('LogSpectrogram', 'Griffin-Lim'), ('CMX', 'unfold'), ('Tokenizer', 'decode')]

def text(x, y, s, size=13, fill=INK, anchor='middle', weight=400):
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" font-weight="{weight}">{html.escape(s)}</text>'

def picture(x, y, w, h, pixels, cmap=None):
    "An array in [0, 1] as a PNG inside the SVG"
    file = io.BytesIO()
    imsave(file, matplotlib.colormaps[cmap](pixels) if cmap else pixels, format='png')
    data = base64.b64encode(file.getvalue()).decode()
    return f'<image x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" preserveAspectRatio="none" style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'

def shrink(x, rows, cols):
    "The largest value of each cell, so that thin partials stay"
    r, c = x.shape[0]//rows, x.shape[1]//cols
    return x[:rows*r, :cols*c].reshape(rows, r, cols, c).max((1, 3))

def draw_wave(x, y, wave):
    parts = np.array_split(wave, W)
    up = ' '.join(f'{x+i:.0f},{y+H/2-p.max()*H/2:.1f}' for i, p in enumerate(parts))
    down = ' '.join(f'{x+i:.0f},{y+H/2-p.min()*H/2:.1f}' for i, p in reversed(list(enumerate(parts))))
    return f'<line x1="{x}" y1="{y+H/2}" x2="{x+W}" y2="{y+H/2}" stroke="#cfd3d8"/><polygon points="{up} {down}" fill="{WAVE}" stroke="{WAVE}" stroke-width=".5"/>'

def draw_spec(x, y, spec): return picture(x, y, W, H, shrink(spec[::-1]*.5+.5, 128, 128), 'magma')

def draw_image(x, y, image):
    "The channels as sheets behind each other"
    step, n = 14, min(len(image), 4)
    w, h = W-step*(n-1), H-step*(n-1)
    return ''.join(picture(x+step*i, y+step*(n-1-i), w, h, shrink(image[n-1-i][::-1]*.5+.5, 64, 64), 'magma') +
        f'<rect x="{x+step*i}" y="{y+step*(n-1-i)}" width="{w}" height="{h}" fill="none" stroke="#fff" stroke-width="1.5"/>' for i in reversed(range(n)))

def draw_tokens(x, y, tokens, scales):
    "The maps from coarse to fine, a colour for each code"
    grow = np.linspace(.45, 1, len(scales))
    wide = [g*max(w/h, .22) for g, (h, w) in zip(grow, scales)]
    unit = min((W-5*(len(scales)-1))/sum(wide), H)
    out, left = '', x
    for t, (h, w), g, b in zip(tokens, scales, grow, wide):
        high = H*g if w == 1 else unit*g*min(1, h/w)
        codes = t.reshape(h, w).flip(0).numpy()
        colours = matplotlib.colormaps['turbo'](((codes*2654435761) % 2**32)/2**32)[..., :3]
        out += picture(left, y+H-high, unit*b, high, colours)
        left += unit*b+5
    return out

def arrow(x1, y1, x2, y2): return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{ARROW}" stroke-width="2" marker-end="url(#tip)"/>'

def draw(stages, tall, labels):
    "The SVG; `stages` are two rows of four (name, shape, drawing function)"
    gap = 56 if tall else 114
    width, height = (2*W+3*22+20, 4*(H+44)+3*gap+140) if tall else (4*W+3*gap+40, 2*(H+44)+132)
    def at(row, i): return (22+row*(W+42), 40+i*(H+44+gap)) if tall else (20+i*(W+gap), 34+row*(H+44+88))
    out = [text(*((97, 22) if tall else (20, 20)), 'analysis', 13, SOFT, 'middle' if tall else 'start')]
    out += [text(*((at(1, 0)[0]+W/2, 22) if tall else (20, at(1, 0)[1]-14)), 'synthesis', 13, SOFT, 'middle' if tall else 'start')]
    for row, line in enumerate(stages):
        for i, (name, shape, paint) in enumerate(line):
            x, y = at(row, i)
            out += [paint(x, y), text(x+W/2, y+H+18, name, 14, INK, weight=600), text(x+W/2, y+H+35, shape, 12, SOFT)]
        for i, (above, below) in enumerate(WORDS[row]):
            (x, y), (x2, y2) = at(row, i), at(row, i+1)
            if tall:
                ends = (x+34, y+H+44, x+34, y2-8)
                out += [arrow(*(ends if row == 0 else (ends[0], ends[3], ends[2], ends[1]))), text(x+46, y+H+68, above, 12, INK, 'start'), text(x+46, y+H+84, below, 12, SOFT, 'start')]
            else:
                ends = (x+W+10, y+H/2, x2-10, y+H/2)
                out += [arrow(*(ends if row == 0 else (ends[2], ends[1], ends[0], ends[3]))), text((x+W+x2)/2, y+H/2-9, above, 12), text((x+W+x2)/2, y+H/2+18, below, 12, SOFT)]
    # The transformer stands between the maps that it is trained on and those that it predicts
    (x, y), (x2, y2) = at(0, 3), at(1, 3)
    if tall:
        y = y+H+42
        out += [f'<path d="M{x+W/2} {y} v22 H{x2+W/2} V{y+8}" fill="none" stroke="{ARROW}" stroke-width="2" marker-end="url(#tip)"/>',
            text(width/2, y+42, 'VAR: each map from the coarser ones', 12), text(width/2, y+58, 'and the labels', 12), text(width/2, y+76, labels, 12, SOFT)]
    else:
        out += [arrow(x+W/2, y+H+42, x+W/2, y2-12), text(x+W/2-12, y+H+62, 'VAR: each map from the coarser', 12, INK, 'end'),
            text(x+W/2-12, y+H+78, 'ones and the labels', 12, INK, 'end'), text(x+W/2-12, y+H+95, labels, 12, SOFT, 'end')]
    tip = f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="5" markerHeight="5" orient="auto"><path d="M0 0L8 4L0 8z" fill="{ARROW}"/></marker></defs>'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="system-ui, \'Segoe UI\', Roboto, \'Noto Sans\', Arial, sans-serif">'
            f'{tip}<rect width="{width}" height="{height}" rx="8" fill="#fff"/>{"".join(out)}</svg>\n')

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--weights', default='small')
    ap.add_argument('--out', type=Path, default=ROOT/'nbs'/'images')
    args = ap.parse_args()
    m = Mars.from_pretrained(args.weights)
    asked = dict(pitch=60, family='guitar', source='acoustic', velocity=100)
    with torch.no_grad():
        read = torch.from_numpy(sf.read(ROOT/'nbs'/'images'/'guitar.flac', dtype='float32')[0])[None]
        read = torch.nn.functional.pad(read, (0, max(0, m.n_samples-read.shape[1])))[:, :m.n_samples]
        spec = m.spectrogram.encode(read)
        labels = {k: torch.tensor([label_ids(v, dict(family=FAMILIES, source=SOURCES).get(k))]) for k, v in asked.items()}
        made = m.var.generate(labels, 1, seed=0, cfg_scale=1., top_k=20)
        tokens, written = [m.encode(read), made], m.tokens_to_spec(made).cpu()
        wave = m.spec_to_wave(written)
    scales, K = m.tokenizer.cfg.scales, len(m.tokenizer.cfg.scales)
    def line(wave, spec, tokens):
        image = m.cmx.fold(spec)[0].numpy()
        return [('wave', f'{m.n_samples/m.sample_rate:.0f} s at {m.sample_rate/1000:.0f} kHz', lambda x, y: draw_wave(x, y, wave[0].numpy()/max(1e-4, float(wave.abs().max()))*.95)),
            ('spec', '1 × '+' × '.join(map(str, spec.shape[2:])), lambda x, y: draw_spec(x, y, spec[0, 0].numpy())),
            ('image', ' × '.join(map(str, image.shape)), lambda x, y: draw_image(x, y, image)),
            ('tokens', f'{K} maps, {sum(h*w for h, w in scales)} codes', lambda x, y: draw_tokens(x, y, [t[0].cpu() for t in tokens], scales))]
    stages = [line(read, spec, tokens[0]), line(wave, written, tokens[1])]
    said = f'{asked["family"]}, pitch {asked["pitch"]}, velocity {asked["velocity"]}'
    for name, tall in (('path.svg', False), ('path-tall.svg', True)):
        (args.out/name).write_text(draw(stages, tall, said), encoding='utf-8')
        print(name, (args.out/name).stat().st_size//1024, 'KiB')

if __name__ == '__main__': main()
