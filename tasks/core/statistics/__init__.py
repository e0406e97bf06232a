"""Statistics clustered by subject: recalls, their differences, intervals and tests."""
