"""One exchange, one file, both sides of it, in the order of the RFC's diagram."""
