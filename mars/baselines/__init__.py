"""The systems that MARS is compared with.

`import mars.baselines` registers them: `Mars.from_pretrained` then loads their folders, and their stages train by name.
"""
from . import next_token, masked, aar, magnet, flow, ddsp, diffwave, wavenet
