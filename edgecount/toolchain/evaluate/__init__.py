"""Measure against ground truth."""
