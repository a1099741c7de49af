"""The CUDA pipeline."""
