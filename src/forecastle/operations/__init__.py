"""What an operator does beside the flows: prune, back up, restore, migrate."""
