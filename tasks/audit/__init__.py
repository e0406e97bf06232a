"""Recall by age, gender and emotion, before and after fine-tuning, with intervals."""
