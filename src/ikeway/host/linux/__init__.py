"""The host's network on Linux: rtnetlink, sysctl, nftables, systemd-resolved and resolv.conf."""
