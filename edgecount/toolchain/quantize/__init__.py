"""Quantisation: calibration, Q/DQ models, mixed precision, and what they cost."""
