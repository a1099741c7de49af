"""Backbones: one file each, found by its name.

A backbone is a module with an attribute ``channels`` (three integers) that maps
(N, 3, H, W) to three feature maps at strides 8, 16 and 32.
"""
