"""Fine-tuning on children, by one of several strategies."""
