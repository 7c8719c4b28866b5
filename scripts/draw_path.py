"""Draw the path of a note for the front page:  python scripts/draw_path.py [--weights small]

Upper row, analysis: a recorded note as wave, spec, image and tokens. Lower row, synthesis: tokens that the packaged
model samples from labels alone, and their image, spec and wave. Writes nbs/images/path.svg and, for narrow screens,
path-tall.svg; prints their sizes. A few seconds.
"""
import argparse, base64, html, io, os
from functools import partial
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')
import matplotlib, numpy as np, soundfile as sf, torch
from matplotlib.image import imsave
from mars.data import FAMILIES, SOURCES
from mars.parts.conditioning import label_ids
from mars.pipeline import Mars

ROOT = Path(__file__).resolve().parent.parent
W, H = 150, 106  # size of a panel
INK, SOFT, WAVE, ARROW = '#22262b', '#666e78', '#22588f', '#c4532a'
STEPS = ([('LogSpectrogram', 'encode'), ('CMX', 'fold'), ('Tokenizer', 'encode')],
         [('LogSpectrogram', 'Griffin-Lim'), ('CMX', 'unfold'), ('Tokenizer', 'decode')])  # labels of the arrows
LABELS = dict(pitch=60, family='guitar', source='acoustic', velocity=100)
FONTS = "system-ui, 'Segoe UI', Roboto, 'Noto Sans', Arial, sans-serif"
TIP = ('<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="5" markerHeight="5" orient="auto">'
       f'<path d="M0 0L8 4L0 8z" fill="{ARROW}"/></marker></defs>')

# ---- SVG elements

def text(x, y, s, size=13, fill=INK, anchor='middle', weight=400):
    style = f'font-size="{size}" fill="{fill}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:.0f}" y="{y:.0f}" {style}>{html.escape(s)}</text>'

def arrow(x1, y1, x2, y2):
    style = f'stroke="{ARROW}" stroke-width="2" marker-end="url(#tip)"'
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" {style}/>'

def picture(x, y, w, h, pixels, cmap=None):
    "An array with values in [0, 1] as an embedded PNG."
    file = io.BytesIO()
    imsave(file, matplotlib.colormaps[cmap](pixels) if cmap else pixels, format='png')
    data, box = base64.b64encode(file.getvalue()).decode(), f'x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}"'
    style = 'preserveAspectRatio="none" style="image-rendering:pixelated"'
    return f'<image {box} {style} href="data:image/png;base64,{data}"/>'

def max_pool(x, rows, cols):
    "The largest value of each cell, which keeps thin partials visible."
    r, c = x.shape[0]//rows, x.shape[1]//cols
    return x[:rows*r, :cols*c].reshape(rows, r, cols, c).max((1, 3))

# ---- panels

def draw_wave(wave, x, y):
    parts = np.array_split(wave, W)
    upper = ' '.join(f'{x+i:.0f},{y+H/2-p.max()*H/2:.1f}' for i, p in enumerate(parts))
    lower = ' '.join(f'{x+i:.0f},{y+H/2-p.min()*H/2:.1f}' for i, p in reversed(list(enumerate(parts))))
    axis = f'<line x1="{x}" y1="{y+H/2}" x2="{x+W}" y2="{y+H/2}" stroke="#cfd3d8"/>'
    return f'{axis}<polygon points="{upper} {lower}" fill="{WAVE}" stroke="{WAVE}" stroke-width=".5"/>'

def draw_spec(spec, x, y): return picture(x, y, W, H, max_pool(spec[::-1]*.5+.5, 128, 128), 'magma')

def draw_image(image, x, y):
    "The channels as sheets, one behind the other."
    step, n, out = 14, min(len(image), 4), ''
    w, h = W-step*(n-1), H-step*(n-1)
    for i in reversed(range(n)):
        left, top = x+step*i, y+step*(n-1-i)
        out += picture(left, top, w, h, max_pool(image[n-1-i][::-1]*.5+.5, 64, 64), 'magma')
        out += f'<rect x="{left}" y="{top}" width="{w}" height="{h}" fill="none" stroke="#fff" stroke-width="1.5"/>'
    return out

def draw_tokens(tokens, scales, x, y):
    "The maps from coarse to fine, a colour for each code."
    sizes = np.linspace(.45, 1, len(scales))
    widths = [size*max(w/h, .22) for size, (h, w) in zip(sizes, scales)]
    unit = min((W-5*(len(scales)-1))/sum(widths), H)
    out, left = '', x
    for t, (h, w), size, width in zip(tokens, scales, sizes, widths):
        height = H*size if w == 1 else unit*size*min(1, h/w)
        codes = t.reshape(h, w).flip(0).numpy()
        colours = matplotlib.colormaps['turbo'](((codes*2654435761) % 2**32)/2**32)[..., :3]
        out += picture(left, y+H-height, unit*width, height, colours)
        left += unit*width+5
    return out

# ---- layout

class Layout:
    "Positions of the panels: two rows of four, or two columns on narrow screens (`tall`)."
    def __init__(self, tall):
        self.tall, self.gap = tall, 56 if tall else 114
        if tall: self.width, self.height = 2*W+3*22+20, 4*(H+44)+3*self.gap+140
        else: self.width, self.height = 4*W+3*self.gap+40, 2*(H+44)+132

    def at(self, row, i):
        "Left and top of panel i of a row."
        if self.tall: return 22+row*(W+42), 40+i*(H+44+self.gap)
        return 20+i*(W+self.gap), 34+row*(H+44+88)

    def titles(self):
        if self.tall: places = (97, 22, 'middle'), (self.at(1, 0)[0]+W/2, 22, 'middle')
        else: places = (20, 20, 'start'), (20, self.at(1, 0)[1]-14, 'start')
        return [text(x, y, s, 13, SOFT, anchor) for s, (x, y, anchor) in zip(('analysis', 'synthesis'), places)]

    def step(self, row, i, above, below):
        "The arrow between panels i and i + 1, in the direction of the row, and its two labels."
        (x, y), (x2, y2) = self.at(row, i), self.at(row, i+1)
        if self.tall:
            start, end = (x+34, y+H+44), (x+34, y2-8)
            labels = [text(x+46, y+H+68, above, 12, INK, 'start'), text(x+46, y+H+84, below, 12, SOFT, 'start')]
        else:
            start, end = (x+W+10, y+H/2), (x2-10, y+H/2)
            middle = (x+W+x2)/2
            labels = [text(middle, y+H/2-9, above, 12), text(middle, y+H/2+18, below, 12, SOFT)]
        if row == 1: start, end = end, start
        return [arrow(*start, *end), *labels]

    def transformer(self, labels):
        "The arrow of the transformer, from the tokens of the analysis to those of the synthesis."
        (x, y), (x2, y2) = self.at(0, 3), self.at(1, 3)
        if self.tall:
            y, style = y+H+42, f'fill="none" stroke="{ARROW}" stroke-width="2" marker-end="url(#tip)"'
            return [f'<path d="M{x+W/2} {y} v22 H{x2+W/2} V{y+8}" {style}/>',
                    text(self.width/2, y+42, 'VAR: each map from the coarser ones', 12),
                    text(self.width/2, y+58, 'and the labels', 12), text(self.width/2, y+76, labels, 12, SOFT)]
        return [arrow(x+W/2, y+H+42, x+W/2, y2-12),
                text(x+W/2-12, y+H+62, 'VAR: each map from the coarser', 12, INK, 'end'),
                text(x+W/2-12, y+H+78, 'ones and the labels', 12, INK, 'end'),
                text(x+W/2-12, y+H+95, labels, 12, SOFT, 'end')]

def draw(stages, tall, labels):
    "The SVG; `stages` are two rows of four (name, shape, drawing function)."
    layout = Layout(tall)
    out = layout.titles()
    for row, panels in enumerate(stages):
        for i, (name, shape, draw_panel) in enumerate(panels):
            x, y = layout.at(row, i)
            out += [draw_panel(x, y), text(x+W/2, y+H+18, name, 14, INK, weight=600),
                    text(x+W/2, y+H+35, shape, 12, SOFT)]
        for i, step in enumerate(STEPS[row]): out += layout.step(row, i, *step)
    out += layout.transformer(labels)
    size = f'viewBox="0 0 {layout.width} {layout.height}" width="{layout.width}" height="{layout.height}"'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{FONTS}">{TIP}'
            f'<rect width="{layout.width}" height="{layout.height}" rx="8" fill="#fff"/>{"".join(out)}</svg>\n')

# ---- the note

def times(shape): return ' × '.join(map(str, shape))

def make_panels(m, wave, spec, tokens):
    "The four panels of a row: (name, shape, drawing function)."
    scales, image = m.tokenizer.cfg.scales, m.cmx.fold(spec)[0].numpy()
    scaled = wave[0].numpy()/max(1e-4, float(wave.abs().max()))*.95
    n_codes = sum(h*w for h, w in scales)
    return [('wave', f'{m.n_samples/m.sample_rate:.0f} s at {m.sample_rate/1000:.0f} kHz', partial(draw_wave, scaled)),
            ('spec', f'1 × {times(spec.shape[2:])}', partial(draw_spec, spec[0, 0].numpy())),
            ('image', times(image.shape), partial(draw_image, image)),
            ('tokens', f'{len(scales)} maps, {n_codes} codes',
             partial(draw_tokens, [t[0].cpu() for t in tokens], scales))]

@torch.no_grad()
def analysis(m):
    "Panels of the recorded guitar note."
    wave = torch.from_numpy(sf.read(ROOT/'nbs'/'images'/'guitar.flac', dtype='float32')[0])[None]
    wave = torch.nn.functional.pad(wave, (0, max(0, m.n_samples-wave.shape[1])))[:, :m.n_samples]
    return make_panels(m, wave, m.spectrogram.encode(wave), m.encode(wave))

@torch.no_grad()
def synthesis(m):
    "Panels of a note that is generated from labels."
    names = dict(family=FAMILIES, source=SOURCES)
    labels = {k: torch.tensor([label_ids(v, names.get(k))]) for k, v in LABELS.items()}
    tokens = m.var.generate(labels, 1, seed=0, cfg_scale=1., top_k=20)
    spec = m.tokens_to_spec(tokens).cpu()
    return make_panels(m, m.spec_to_wave(spec), spec, tokens)

def main(argv=None):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--weights', default='small', help='a run folder or packaged weights; default: %(default)s')
    ap.add_argument('--out', type=Path, default=ROOT/'nbs'/'images', help='default: nbs/images')
    args = ap.parse_args(argv)
    m = Mars.from_pretrained(args.weights)
    stages, labels = [analysis(m), synthesis(m)], '{family}, pitch {pitch}, velocity {velocity}'.format(**LABELS)
    for name, tall in (('path.svg', False), ('path-tall.svg', True)):
        (args.out/name).write_text(draw(stages, tall, labels), encoding='utf-8')
        print(name, (args.out/name).stat().st_size//1024, 'KiB')

if __name__ == '__main__': main()
