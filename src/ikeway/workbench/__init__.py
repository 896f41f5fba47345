"""For protocol engineers: what a peer speaks, stand-in peers that show every plaintext, recordings and what becomes of
them."""
