"""What people read: comparisons of models, and figures."""
