"""What of a configuration file goes into a QR code: the keys that WireGuard's apps for phones read.

The apps refuse a whole file for one key that they do not know.
"""

from __future__ import annotations

from pywg.config.model import Config, Interface, strip


def for_phone(config: Config) -> tuple[Config, list[str]]:
    """The model of a loaded file with what phones know, and the names of the keys that were left out."""
    interface = config.interface
    left_out = [
        name
        for name, given in (
            ("FwMark", interface.fwmark),
            ("Table", interface.table),
            ("PreUp", interface.pre_up),
            ("PostUp", interface.post_up),
            ("PreDown", interface.pre_down),
            ("PostDown", interface.post_down),
            ("SaveConfig", interface.save_config),
            ("further endpoints", any(peer.more_endpoints for peer in config.peers)),
        )
        if given
    ]
    kept = Interface(
        interface.private_key,
        interface.listen_port,
        addresses=interface.addresses,
        dns_servers=interface.dns_servers,
        dns_search=interface.dns_search,
        mtu=interface.mtu,
    )
    return Config(kept, strip(config).peers), left_out
