"The `mars` command: one module per group of subcommands."
from .dispatch import main
