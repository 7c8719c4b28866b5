"""The systems that MARS is compared with. `import mars.baselines` registers them, so that their folders can be loaded by
`Mars.from_pretrained` and their stages trained by name."""
from . import next_token, masked, aar, magnet, flow
