"""Fit the mel-PCA of the package: mars/weights/melpca/melpca.safetensors.

    OMP_NUM_THREADS=1 python benchmarks/melpca.py --out melpca.safetensors

Training notes of Fluid (R3), pitches 36-96, all instruments but those that `split_by_instrument(valid=0.06, test=0.14, seed=0)` holds out. A minute and a half on one core, once the notes are rendered.
"""
import argparse
from mars.data import SoundFontNotes
from mars.evaluation.protocol import MelPCA, NoteSet

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', required=True, help='a .safetensors file')
    a = p.parse_args(argv)
    train = SoundFontNotes(pitches=range(36, 97)).split_by_instrument(valid=0.06, test=0.14, seed=0).train
    pca = MelPCA().fit(NoteSet(train, name='the training notes'))
    pca.save(a.out)
    print(f'{pca.digest}: {pca.explained:.1%} of the variance of {len(train)} notes of {len(train.instruments)} instruments')

if __name__ == '__main__': main()
