"""`python -m froster`, which is what `torchrun -m froster train …` starts."""

from froster.cli import main

main()
