"""Properties of channel multiplexing: a lossless permutation for all sizes, types and layouts, equivalent to a larger patch."""
import subprocess, sys
from dataclasses import FrozenInstanceError, asdict
from math import prod

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from mars.cmx import CMX, LAYOUTS, demultiplex, demultiplex_nd, fold_patch_weight, multiplex, multiplex_nd
from mars.cmx import unfold_patch_weight

settings.register_profile('mars', deadline=None, max_examples=25, derandomize=True, database=None)
settings.load_profile('mars')

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int8, torch.int16, torch.int32,
          torch.int64, torch.bool, torch.complex64, torch.complex128]
factor, size = st.integers(1, 4), st.integers(1, 4)
leads = st.lists(st.integers(0, 3), max_size=3)
layouts, dtypes, seeds = st.sampled_from(LAYOUTS), st.sampled_from(DTYPES), st.integers(0, 2**31)

def numbered(*shape): return torch.arange(prod(shape)).reshape(shape)
def random(shape, dtype, seed):
    g = torch.Generator().manual_seed(seed)
    if dtype.is_complex: return torch.randn(shape, dtype=dtype, generator=g)
    return (50*torch.rand(shape, generator=g)).to(dtype) if dtype != torch.bool else torch.rand(shape, generator=g) > .5

@st.composite
def folds(draw, max_axes=3):
    "Factors and a tensor shape that divides by them."
    factors = tuple(draw(st.lists(factor, min_size=1, max_size=max_axes)))
    grid = [draw(size) for _ in factors]
    return factors, (*draw(leads), draw(st.integers(1, 3)), *(f*g for f, g in zip(factors, grid)))


# the permutation

@given(leads, factor, factor, size, size, layouts, dtypes, seeds)
def test_round_trip_is_bit_exact(lead, f, t, h, w, layout, dtype, seed):
    x = random((*lead, 1, f*h, t*w), dtype, seed)
    y = multiplex(x, f, t, layout)
    assert y.shape == (*lead, f*t, h, w) and y.dtype == dtype
    back = demultiplex(y, f, t, layout)
    assert back.shape == x.shape and back.dtype == dtype and torch.equal(back, x)

@given(folds(), layouts, dtypes, seeds)
def test_round_trip_in_any_number_of_axes(fold, layout, dtype, seed):
    factors, shape = fold
    n, x = len(factors), random(shape, dtype, seed)
    y = multiplex_nd(x, factors, layout)
    assert y.shape == (*shape[:-n-1], shape[-n-1]*prod(factors), *(s//f for s, f in zip(shape[-n:], factors)))
    assert torch.equal(demultiplex_nd(y, factors, layout), x)

@given(folds(), layouts)
def test_unfold_then_fold_round_trip(fold, layout):
    factors, shape = fold
    n = len(factors)
    y = numbered(*shape[:-n-1], shape[-n-1]*prod(factors), *shape[-n:])
    assert torch.equal(multiplex_nd(demultiplex_nd(y, factors, layout), factors, layout), y)

@given(folds(), layouts)
def test_values_are_permuted_never_changed(fold, layout):
    factors, shape = fold
    x = numbered(*shape)
    assert torch.equal(multiplex_nd(x, factors, layout).flatten().sort().values, x.flatten())

@given(folds(), layouts)
def test_leading_axes_do_not_mix(fold, layout):
    factors, shape = fold
    n, x = len(factors), numbered(*shape)
    y = multiplex_nd(x, factors, layout)
    rows = x.reshape(-1, *shape[-n-1:])
    if len(rows): assert torch.equal(torch.stack([multiplex_nd(r, factors, layout) for r in rows]), y.reshape(-1, *y.shape[-n-1:]))

@given(leads, factor, factor, size, size, layouts)
def test_multiplex_is_the_two_dimensional_case(lead, f, t, h, w, layout):
    x = numbered(*lead, 1, f*h, t*w)
    assert torch.equal(multiplex(x, f, t, layout), multiplex_nd(x, (f, t), layout))
    assert torch.equal(multiplex(x, f, t, layout), CMX(f, t, layout).fold(x))

@given(st.integers(2, 4), factor, factor, size, size, layouts)
def test_channels_of_one_source_are_adjacent(c, f, t, h, w, layout):
    x = numbered(c, f*h, t*w)
    each = torch.cat([multiplex(x[k:k+1], f, t, layout) for k in range(c)])
    assert torch.equal(multiplex_nd(x, (f, t), layout), each)


# the formulas

@given(factor, factor, size, size)
def test_interleave_formula(f, t, h, w):
    x = numbered(1, f*h, t*w)
    y = multiplex(x, f, t)
    for a in range(f):
        for b in range(t):
            assert torch.equal(y[a*t + b], x[0, a::f, b::t])
            assert all(y[a*t + b, i, j] == x[0, i*f + a, j*t + b] for i in range(h) for j in range(w))

@given(factor, factor, size, size)
def test_block_formula(f, t, h, w):
    x = numbered(1, f*h, t*w)
    y = multiplex(x, f, t, 'block')
    assert all(torch.equal(y[a*t + b], x[0, a*h:(a+1)*h, b*w:(b+1)*w]) for a in range(f) for b in range(t))

@given(factor, factor, size, size)
def test_checker_formula(f, t, h, w):
    x = numbered(1, f*h, t*w)
    y = multiplex(x, f, t, 'checker')
    assert all(y[a*t + b, i, j] == x[0, i*f + (a+j) % f, j*t + (b+i) % t]
               for a in range(f) for b in range(t) for i in range(h) for j in range(w))

@pytest.mark.parametrize('f,t', [(2, 1), (1, 2)])
def test_checker_of_two_channels_is_the_chessboard(f, t):
    ids = demultiplex(torch.arange(2)[:, None, None].expand(2, 8//f, 8//t), f, t, 'checker')[0]
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing='ij')
    assert torch.equal(ids, (rows + columns) % 2)

@given(st.integers(1, 4), size, size)
def test_square_interleave_is_pixel_unshuffle(r, h, w):
    x = numbered(2, 3, r*h, r*w).float()
    assert torch.equal(multiplex_nd(x, (r, r)), F.pixel_unshuffle(x, r))

@given(factor, factor, factor, factor, size, size)
def test_two_folds_equal_one_fold_up_to_channel_order(f, t, g, s, h, w):
    "The rule behind the larger patch: (f, t) then (g, s) is (f*g, t*s) with its channels in another order."
    x = numbered(1, f*g*h, t*s*w)
    once, twice = multiplex(x, f*g, t*s), multiplex_nd(multiplex(x, f, t), (g, s))
    assert torch.equal(twice.sort(0).values, once.sort(0).values)


# bits, gradients, plain operations

@pytest.mark.parametrize('layout', LAYOUTS)
def test_nan_and_special_values_keep_their_bits(layout):
    x = torch.tensor([float('nan'), -0., float('inf'), -float('inf'), 1e-45, 3.4e38]).reshape(1, 2, 3)
    back = demultiplex(multiplex(x, 2, 3, layout), 2, 3, layout)
    assert torch.equal(back.view(torch.int32), x.view(torch.int32))

@given(folds(max_axes=2), layouts, seeds)
def test_gradient_of_fold_is_unfold(fold, layout, seed):
    factors, shape = fold
    x = random(shape, torch.float64, seed).requires_grad_()
    y = multiplex_nd(x, factors, layout)
    grad = random(y.shape, torch.float64, seed + 1)
    assert torch.equal(torch.autograd.grad(y, x, grad)[0], demultiplex_nd(grad, factors, layout))
    z = grad.clone().requires_grad_()
    back = demultiplex_nd(z, factors, layout)
    assert torch.equal(torch.autograd.grad(back, z, x.detach())[0], multiplex_nd(x.detach(), factors, layout))

@pytest.mark.parametrize('layout', LAYOUTS)
def test_gradcheck(layout):
    x = torch.randn(2, 1, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: multiplex(x, 2, 3, layout), x)
    assert torch.autograd.gradgradcheck(lambda x: multiplex(x, 2, 3, layout)**2, x)

@pytest.mark.parametrize('layout', LAYOUTS)
def test_strided_and_expanded_inputs(layout):
    x = numbered(3, 1, 12, 8)
    for view in (x.transpose(-1, -2), x[..., ::2], x[:1].expand(4, -1, -1, -1)):
        assert torch.equal(multiplex(view, 2, 2, layout), multiplex(view.contiguous(), 2, 2, layout))
        assert torch.equal(demultiplex(multiplex(view, 2, 2, layout), 2, 2, layout), view)

def test_a_factor_of_one_copies_nothing():
    x = torch.zeros(4, 1, 8, 6)
    for f, t, layout in [(2, 1, 'interleave'), (1, 2, 'interleave'), (2, 1, 'block'), (1, 3, 'block'), (1, 1, 'interleave')]:
        y = multiplex(x, f, t, layout)
        assert y.data_ptr() == x.data_ptr() and demultiplex(y, f, t, layout).data_ptr() == x.data_ptr()

@pytest.mark.parametrize('layout', LAYOUTS)
def test_compiles_into_one_graph(layout):
    x, cmx = torch.randn(2, 1, 8, 8), CMX(2, 2, layout)
    step = torch.compile(lambda x: cmx.unfold(cmx.fold(x)*2), backend='eager', fullgraph=True)
    assert torch.equal(step(x), x*2)

@pytest.mark.parametrize('layout', LAYOUTS)
def test_meta_and_vmap(layout):
    assert multiplex(torch.empty(2, 1, 8, 8, device='meta'), 2, 4, layout).shape == (2, 8, 4, 2)
    x = numbered(3, 1, 8, 8)
    assert torch.equal(torch.vmap(lambda x: multiplex(x, 2, 4, layout))(x), multiplex(x, 2, 4, layout))


# CMX and fit

def test_cmx_is_a_frozen_dataclass():
    cmx = CMX()
    assert (cmx.f, cmx.t, cmx.layout, cmx.channels) == (2, 1, 'interleave', 2)
    assert cmx == CMX(2, 1) and cmx != CMX(1, 2) and len({cmx, CMX(2, 1), CMX(2, 1, 'block')}) == 2
    assert repr(cmx) == "CMX(f=2, t=1, layout='interleave')" and CMX(**asdict(cmx)) == cmx
    with pytest.raises(FrozenInstanceError): cmx.f = 3

@pytest.mark.parametrize('spec,image,channels', [
    ((512, 512), (256, 256), 4), ((512, 256), (256, 256), 2), ((256, 256), (128, 128), 4), ((512, 768), (256, 256), 6)])
def test_fit_finds_the_sizes_of_the_paper(spec, image, channels):
    cmx = CMX.fit(spec, image, channels=channels)
    assert cmx.channels == channels and cmx.image_shape(spec) == (channels, *image)
    assert cmx == CMX.fit(spec, (channels, *image)) == CMX.fit(spec_shape=spec, image_shape=image)

@given(factor, factor, size, size, layouts)
def test_fit_inverts_folding(f, t, h, w, layout):
    cmx = CMX.fit((f*h, t*w), (h, w), layout)
    assert cmx == CMX(f, t, layout)
    assert cmx.fold(torch.zeros(1, f*h, t*w)).shape == cmx.image_shape((f*h, t*w)) == (f*t, h, w)

@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(1, 20))
def test_fit_keeps_every_value_or_refuses(F_, T, H, W):
    if F_ % H or T % W:
        with pytest.raises(ValueError, match='do not fold into'): CMX.fit((F_, T), (H, W))
    else: assert prod(CMX.fit((F_, T), (H, W)).image_shape((F_, T))) == F_*T

@given(st.integers(0, 12))
def test_fit_checks_stated_channels(c):
    if c == 4: assert CMX.fit((512, 512), (256, 256), channels=c).channels == 4
    else:
        with pytest.raises(ValueError, match='use 4 channels'): CMX.fit((512, 512), (256, 256), channels=c)

x8 = torch.zeros(1, 8, 8)
@pytest.mark.parametrize('call,text', [
    (lambda: multiplex(torch.zeros(1, 513, 256), 2, 1), 'size 513 does not divide by factor 2: pad the axis to 514'),
    (lambda: multiplex(torch.zeros(1, 512, 251), 2, 2), 'size 251 does not divide'),
    (lambda: multiplex(torch.zeros(512, 256), 2, 1), 'no channel axis'),
    (lambda: multiplex(torch.zeros(2, 512, 256), 2, 1), 'must have 1 channel, got 2'),
    (lambda: multiplex([[1.]], 1, 1), 'input must be a tensor, got list'),
    (lambda: multiplex(x8, 2, 1, 'zigzag'), "layout must be one of interleave, block, checker, got 'zigzag'"),
    (lambda: multiplex(x8, 0, 1), 'integers >= 1, such as (2, 1), got (0, 1)'),
    (lambda: multiplex(x8, 2, -1), 'got (2, -1)'),
    (lambda: multiplex(x8, 2., 1), 'got (2.0, 1)'),
    (lambda: multiplex(x8, True, 1), 'got (True, 1)'),
    (lambda: demultiplex(torch.zeros(3, 4, 4), 2, 1), 'channels must be a multiple of 2'),
    (lambda: demultiplex(torch.zeros(4, 4, 4), 2, 1), 'y must have 2 channels for f=2 and t=1, got 4'),
    (lambda: demultiplex(torch.zeros(4, 4), 2, 2), 'no channel axis'),
    (lambda: demultiplex_nd(torch.zeros(6, 4, 4), (2, 2)), 'channels must be a multiple of 4'),
    (lambda: multiplex_nd(x8, ()), 'such as (2, 1), got ()'),
    (lambda: multiplex_nd(x8, 2), 'such as (2, 1), got 2'),
    (lambda: multiplex_nd(torch.zeros(8, 8, 8), (2, 2, 2)), 'no channel axis: use unsqueeze(-4)'),
    (lambda: CMX(0, 1), 'got (0, 1)'), (lambda: CMX(2, 1, None), 'layout must be one of interleave, block, checker, got None'),
    (lambda: CMX.fit((512, 512), (256, 256), channels=2), 'would lose 50% of the values of a 512x512 spectrogram: use 4 channels'),
    (lambda: CMX.fit((512, 512), (2, 256, 256)), 'would lose 50% of the values of a 512x512 spectrogram: use 4 channels'),
    (lambda: CMX.fit((512, 256), (256, 256), channels=4), 'would be partly empty of a 512x256 spectrogram: use 2 channels'),
    (lambda: CMX.fit((513, 256)), '513 bins do not fold into 256'),
    (lambda: CMX.fit((512, 251)), '251 frames do not fold into 256'),
    (lambda: CMX.fit((128, 256)), '128 bins do not fold into 256'),
    (lambda: CMX.fit((512, 256), 256), 'image_shape must be two integers >= 1, such as (512, 256), got 256'),
    (lambda: CMX.fit((512, 0), (256, 256)), 'spec_shape must be two integers >= 1'),
    (lambda: CMX.fit((512, 256), (2, 256, 256), channels=3), 'has 2 channels, got channels=3'),
    (lambda: unfold_patch_weight(torch.zeros(1, 2, 4, 4), CMX(2, 1, 'block')), 'no single rectangle'),
    (lambda: fold_patch_weight(torch.zeros(1, 1, 8, 4), CMX(2, 1, 'block')), 'no single rectangle'),
    (lambda: unfold_patch_weight(torch.zeros(1, 2, 3, 3), CMX(2, 1, 'checker')), 'shifts the chessboard'),
    (lambda: unfold_patch_weight(torch.zeros(1, 3, 4, 4), CMX(2, 1)), 'channels must be a multiple of 2'),
])
def test_invalid_input_raises_one_sentence(call, text):
    with pytest.raises(ValueError) as e: call()
    assert text in str(e.value) and '\n' not in str(e.value)


# the finding: before a linear patch embedding, a fold is a larger patch

def windows(image, h, w): return F.unfold(image.double()[None], (h, w), stride=(h, w))[0].sort(0).values

@given(factor, factor, st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8]), st.integers(1, 3), st.integers(1, 3), st.sampled_from(['interleave', 'checker']))
def test_patches_hold_the_same_pixels(f, t, h, w, rows, columns, layout):
    x = numbered(1, f*h*rows, t*w*columns)
    assert torch.equal(windows(multiplex(x, f, t, layout), h, w), windows(x, f*h, t*w))

@given(st.integers(2, 4), factor, st.integers(2, 3))
def test_block_patches_hold_other_pixels(f, t, rows):
    x = numbered(1, f*4*rows, t*4*rows)
    assert not torch.equal(windows(multiplex(x, f, t, 'block'), 4, 4), windows(x, f*4, t*4))

@given(factor, factor, st.sampled_from(['interleave', 'checker']), seeds)
@settings(max_examples=15)
def test_a_permuted_convolution_gives_the_same_outputs(f, t, layout, seed):
    cmx, L = CMX(f, t, layout), 12
    x = random((2, 1, f*L*2, t*L*3), torch.float64, seed)/50
    weight = random((5, f*t, L, L), torch.float64, seed + 1)/50 - .5
    tall = unfold_patch_weight(weight, cmx)
    assert tall.shape == (5, 1, f*L, t*L) and torch.equal(fold_patch_weight(tall, cmx), weight)
    folded = F.conv2d(cmx.fold(x), weight, stride=L)
    assert torch.allclose(folded, F.conv2d(x, tall, stride=(f*L, t*L)), rtol=0, atol=1e-6*folded.abs().max().item())
    painted = F.conv_transpose2d(folded, weight, stride=L)
    direct = F.conv_transpose2d(folded, tall, stride=(f*L, t*L))
    assert torch.allclose(cmx.unfold(painted), direct, rtol=0, atol=1e-6*direct.abs().max().item())

@pytest.mark.parametrize('cmx', [CMX(2, 1), CMX(2, 2), CMX(2, 1, 'checker'), CMX(2, 2, 'checker')])
def test_the_patch_embedding_of_mars_in_float32(cmx):
    g = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, 512, 256, generator=g)*2 - 1
    weight = (torch.rand(32, cmx.channels, 16, 16, generator=g)*2 - 1)/(256*cmx.channels)**.5
    tall = unfold_patch_weight(weight, cmx)
    assert (F.conv2d(cmx.fold(x), weight, stride=16) - F.conv2d(x, tall, stride=tall.shape[-2:])).abs().max() < 5e-6
    assert torch.allclose(F.conv2d(cmx.fold(x).double(), weight.double(), stride=16),
                          F.conv2d(x.double(), tall.double(), stride=tall.shape[-2:]), rtol=0, atol=1e-6)


def test_import_needs_torch_only():
    code = ("import sys, torch; before = set(sys.modules); import mars.cmx; "
            "new = {m.split('.')[0] for m in set(sys.modules) - before} - {'mars'}; sys.exit(', '.join(sorted(new)) or 0)")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
