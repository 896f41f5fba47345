"""Keys, certificates and CRLs made for a VPN: enough to run one without another tool."""
