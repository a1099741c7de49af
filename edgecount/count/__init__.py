"""Lines, zones, occupancy and the ledger."""
