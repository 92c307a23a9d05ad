"""Logits to metrics, calibrated confidence and the rule for "none of these"."""
