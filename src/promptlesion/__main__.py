"""The command line as a module, which is how torchrun starts it: `torchrun -m promptlesion train ...`."""

from promptlesion.cli import main

main()
