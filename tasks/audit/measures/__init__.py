"""Tables of the audit: recall, gaps, calibration, fairness and what explains them."""
