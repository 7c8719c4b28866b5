"""Fine-tune the decoder on sampled tokens:  python benchmarks/decoder.py --work FOLDER --out FILE.json

Decoder post-training of RobusTok (arXiv 2509.12474): encoder, codebook and transformer stay as they are, so existing
tokens stay valid, and the decoder learns to return the image of a note from tokens of which a part was sampled. The
last `--maps` maps of every training note are sampled by the transformer after the note's own coarser maps. Each note of
a batch keeps a share of its own tokens in these maps, drawn uniformly from 0 to 1.

Arms: the decoder as it is, further training on the notes' own tokens for the same steps, and training on sampled
tokens. All arms decode the same generated tokens of notes with the labels of unseen instruments, with the same phases,
so differences from the first arm are paired. Reported with 95 % intervals over notes: the image MSE of reconstructions
of unseen instruments; of their notes with sampled last maps; the share of generated notes within 50 cents of the
requested pitch (pYIN); and the Fréchet distance, density and coverage of generated notes. A decoder is better if the
interval of the pitch or the Fréchet distance of every seed is on its side, and the reconstruction is not worse.

--data names sources as scripts/reproduce_weights.py does, and the split is that of scripts/split.json. --work keeps one
file for each arm and seed: the same command continues where it stopped.
"""
import argparse, copy, json
import torch
import torch.nn.functional as F
from torch import nn
from levers import SCORES, add_arguments, run_arms, within_50_cents, write_summary
from mars.parts.device import pick_device, seed_all
from mars.parts.editing import edit_tokens
from mars.pipeline import Mars
from mars.studies.prediction import generate_images, study_data
from mars.train import TrainConfig, TrainingModule, default_callbacks, fit
from mars.training.log import RunLog
from mars.training.self_correction import encode_notes
from mars.training.tokens import Images
from reproduce_weights import MODEL, every, open_data, split_by_names

ARMS = 'packaged', 'own tokens', 'sampled tokens'

# ---- data

def open_sets(args):
    "Training notes, and notes of unseen instruments."
    patterns = json.loads(args.split.read_text())['model']
    train, valid, test = split_by_names(open_data(args.data, MODEL, args.renderer), patterns)
    return every(train, args.notes), every(valid + test, args.n)

def images_of(notes, m):
    "Images of all notes, (N, C, H, W), in half precision."
    images = Images(notes, m.wave_to_image, m.device, max_cached=0)
    return torch.cat([images.compute(range(i, min(i+64, len(notes))))[0].half() for i in range(0, len(notes), 64)])

def sample_last_maps(m, notes, latents, n_maps, seed):
    "Token maps of notes, of which the last n_maps are sampled after the notes' own coarser ones."
    lengths, parts = m.var.lengths, []
    free = [torch.full((1, n), k >= len(lengths) - n_maps) for k, n in enumerate(lengths)]
    labels = {k: v.to(m.device) for k, v in notes.targets.items() if k in m.var.label_embed.sizes}
    for i in range(0, len(latents), 32):
        batch = m.var.label_embed.check({k: v[i:i+32] for k, v in labels.items()}, None)
        parts.append(edit_tokens(m.var, latents[i:i+32], free, batch, seed=seed, first=i, **m.sampling()))
    return [torch.cat(maps) for maps in zip(*parts)]

class NoteTokens:
    "Images of notes, their own tokens, and tokens whose last maps are sampled."
    def __init__(self, m, notes, n_maps, seed):
        latents = encode_notes(notes, m)
        self.images, self.n_maps = images_of(notes, m), n_maps
        self.own = [torch.cat(t) for t in zip(*(m.tokenizer.quantizer.encode(f) for f in latents.split(64)))]
        self.sampled = sample_last_maps(m, notes, latents, n_maps, seed)

    def batch(self, rows, keep): # keep (B,): share of own tokens in the last maps -> (images, tokens)
        first, tokens = len(self.own) - self.n_maps, []
        for k, (own, sampled) in enumerate(zip(self.own, self.sampled)):
            kept = torch.rand(len(rows), own.shape[1]) < keep[:, None]
            tokens.append(own[rows] if k < first else torch.where(kept, own[rows], sampled[rows]))
        return self.images[rows].float(), tokens

# ---- training

class DecoderLoss(nn.Module):
    "Image MSE of decoded tokens; only the decoder has gradients."
    def __init__(self, tokenizer):
        super().__init__()
        self.decoder = tokenizer.decoder.requires_grad_(True)
        self.quantizer = [tokenizer.quantizer] # in a list: no parameters of this module

    def forward(self, image, tokens):
        with torch.no_grad(): z = self.quantizer[0].decode(tokens)
        loss = F.mse_loss(self.decoder(z), image)
        return loss, {}

def train_decoder(m, data, arm, seed, args):
    "Train the decoder of `m` in place."
    seed_all(seed)
    order = torch.Generator().manual_seed(seed)
    rows = [torch.randint(len(data.images), (args.batch_size,), generator=order) for _ in range(args.steps)]
    def batch(step, micro_batch):
        keep = torch.rand(args.batch_size) if arm == 'sampled tokens' else torch.ones(args.batch_size)
        return data.batch(rows[step], keep)
    train = TrainConfig(stage='tokenizer', steps=args.steps, batch_size=args.batch_size, lr=args.lr, ema=0.98,
                        warmup=args.steps//8, final_lr_ratio=0.05, precision=args.precision, seed=seed)
    module = TrainingModule(DecoderLoss(m.tokenizer), lambda net, b: net(*b))
    fit(module, batch, train, default_callbacks(train, RunLog(), progress=False))
    m.tokenizer.eval()

# ---- measurement

@torch.no_grad()
def decoded_mse(m, data, keep):
    "Image MSE of every note with a share of its own tokens in the last maps."
    out, n = [], len(data.images)
    torch.manual_seed(0)
    for i in range(0, n, 32):
        image, tokens = data.batch(torch.arange(i, min(i+32, n)), torch.full((min(32, n-i),), keep))
        out.append((m.tokenizer.decode(tokens) - image).square().flatten(1).mean(1))
    return torch.cat(out).tolist()

def measure(m, unseen, study, seed):
    "Scores of a decoder: plain numbers, and per-note lists for the paired differences."
    image = generate_images(m.var, study, seed, **m.sampling())
    errors = {'MSE': decoded_mse(m, unseen, 1.), 'MSE, sampled maps': decoded_mse(m, unseen, 0.)}
    scores = study.evaluator(image)
    return dict(notes={**errors, 'within 50 cents': within_50_cents(m, image, study)}, real=study.info['real'],
                scores={k: scores[k] for k in SCORES})

# ---- command

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--maps', type=int, default=3, help='last maps that are sampled; default: %(default)s')
    return add_arguments(ap, steps=300, batch_size=16, lr=1e-4, notes=2000)

def prepare(args):
    "The model, training notes, unseen notes, and the evaluator."
    m = Mars.from_pretrained(args.model, args.device or pick_device())
    train, unseen = open_sets(args)
    return m, NoteTokens(m, train, args.maps, 0), NoteTokens(m, unseen, args.maps, 1), study_data(m, unseen)

def run_arm(arm, seed, args, m, train, unseen, study):
    packaged = copy.deepcopy(m.tokenizer.decoder.state_dict())
    if arm != 'packaged': train_decoder(m, train, arm, seed, args)
    result = measure(m, unseen, study, seed)
    m.tokenizer.decoder.load_state_dict(packaged)
    return result

def main(argv=None):
    args = parser().parse_args(argv)
    runs = run_arms(args, ARMS, prepare, run_arm)
    settings = 'maps', 'steps', 'batch_size', 'lr', 'notes', 'n', 'seeds', 'precision'
    return write_summary(args, runs, 'packaged', settings)

if __name__ == '__main__': main()
