"""The inbox: batches of new pictures become part of data/raw, once each, or go to quarantine."""
