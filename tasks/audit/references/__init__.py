"""Published results and demographics of training data to compare with."""
