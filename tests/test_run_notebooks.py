"""scripts/run_notebooks.py: what becomes of the outputs of a notebook."""
import base64, io, sys
from pathlib import Path

import numpy as np, pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent

@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT/'scripts'))
    pytest.importorskip('nbclient')
    import run_notebooks
    yield run_notebooks
    del sys.modules['run_notebooks']

def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, 'PNG')
    return base64.b64encode(out.getvalue()).decode() + '\n'

def pixels(png): return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert('RGB'), float)

def test_figures_get_a_palette_and_photographs_stay(script):
    rng = np.random.default_rng(0)
    x = np.clip(rng.normal(128, 60, (200, 200)), 0, 255)
    figure = png(np.stack([x, x**2/255, 255 - x], -1))  # a colour map
    small = script.with_palette(figure)
    assert len(small) < .7*len(figure) and np.sqrt(((pixels(small) - pixels(figure))**2).mean()) < 4
    assert script.with_palette(small) == small
    photograph = png(rng.integers(0, 256, (200, 200, 3)))
    assert script.with_palette(photograph) == photograph

def test_small_pictures_and_other_outputs_stay(script):
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook, new_output
    dot = png(np.zeros((4, 4, 3)))
    outputs = [new_output('display_data', {'image/png': dot}), new_output('stream', text='x'), new_output('display_data', {'text/html': '<b>x</b>'})]
    nb = new_notebook(cells=[new_code_cell('1', outputs=outputs)])
    assert script.compress_outputs(nbformat.from_dict(nb)).cells[0].outputs == outputs
