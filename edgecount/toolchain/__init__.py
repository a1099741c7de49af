"""Make a detector fast, and prove that it still counts right."""
