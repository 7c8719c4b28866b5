"""Write a SoundFont of one sine in which programs differ by their tuning: known answers for the measured pitch."""
import struct
import numpy as np

COARSE, FINE, SCALE, MODES, SAMPLE, INSTRUMENT = 51, 52, 56, 54, 53, 41  # generator numbers, SoundFont 2.04 section 8.1.2
RATE, PERIODS = 44100, 240

def _chunk(name, data): return name + struct.pack('<I', len(data)) + data + b'\0'*(len(data) % 2)
def _list(name, *chunks): return _chunk(b'LIST', name + b''.join(chunks))
def _name(text): return text.encode().ljust(20, b'\0')

def write_soundfont(path, programs):
    "programs: number -> dict of generators, such as {COARSE: -12} in semitones or {SCALE: 50} in cents a key."
    period = RATE/(440*2**((60 - 69)/12))  # the sample sounds at key 60
    n = round(PERIODS*period)
    wave = np.rint(20000*np.sin(2*np.pi*np.arange(n)*PERIODS/n)).astype('<i2')
    phdr = pbag = pgen = inst = ibag = igen = b''
    for i, (program, generators) in enumerate(programs.items()):
        phdr += _name(f'program {program}') + struct.pack('<HHHIII', program, 0, i, 0, 0, 0)
        pbag += struct.pack('<HH', i, 0)
        pgen += struct.pack('<HH', INSTRUMENT, i)
        zone = {**generators, MODES: 1, SAMPLE: 0}
        inst += _name(f'program {program}') + struct.pack('<H', i)
        ibag += struct.pack('<HH', len(igen)//4, 0)
        igen += b''.join(struct.pack('<Hh', op, amount) for op, amount in zone.items())
    k = len(programs)
    phdr += _name('EOP') + struct.pack('<HHHIII', 0, 0, k, 0, 0, 0)
    pbag, ibag = pbag + struct.pack('<HH', k, 0), ibag + struct.pack('<HH', len(igen)//4, 0)
    inst += _name('EOI') + struct.pack('<H', k)
    shdr = _name('sine') + struct.pack('<IIIIIBbHH', 0, n, 0, n, RATE, 60, 0, 0, 1) + _name('EOS') + b'\0'*26
    end = b'\0'*4
    tables = dict(phdr=phdr, pbag=pbag, pmod=b'\0'*10, pgen=pgen + end, inst=inst, ibag=ibag, imod=b'\0'*10, igen=igen + end, shdr=shdr)
    info = _chunk(b'ifil', struct.pack('<HH', 2, 1)) + _chunk(b'isng', b'EMU8000\0') + _chunk(b'INAM', b'Sine\0\0')
    samples = _chunk(b'smpl', wave.tobytes() + b'\0'*92)
    body = b'sfbk' + _list(b'INFO', info) + _list(b'sdta', samples) + _list(b'pdta', *(_chunk(k.encode(), v) for k, v in tables.items()))
    path.write_bytes(_chunk(b'RIFF', body))
    return path
