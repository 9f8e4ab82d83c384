"""The HTTP service: what is served, how it is answered, and the page a person looks at."""
