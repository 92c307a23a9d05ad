"""A model in the making: distillation, the loop, checkpoints, and what is decided around them."""
