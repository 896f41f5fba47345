"""The client: profiles, connecting, staying connected."""
