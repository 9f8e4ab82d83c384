"""The demo: the whole system on recorded real data, told in chapters; and the recorded API on its own."""
