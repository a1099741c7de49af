"""The evidence: one page that says what each precision of a model costs and gives."""
