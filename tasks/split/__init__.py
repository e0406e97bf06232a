"""Room 5: says for each picture whether it trains, validates or tests."""
