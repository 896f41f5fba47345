"""RADIUS: the users, addresses and accounts that a company keeps elsewhere (RFC 2865, 2866, 2869, 3579, 5176).

    gateway (NAS)                                            RADIUS server
    Access-Request {EAP-Message} -->
                                     <-- Access-Challenge {EAP-Message, State}         `login`
    Access-Request {EAP-Message, State} -->
                                     <-- Access-Accept {EAP-Message, MS-MPPE keys, Framed-IP-Address, Class, ...}
    Accounting-Request {Start}   -->                                                   `accounting`
                                     <-- Accounting-Response
                                     <-- Disconnect-Request, CoA-Request               `dynamic`
    Disconnect-ACK, CoA-ACK      -->

`packets` is the wire format (by pyrad), `attributes` what stands in it; `port`, `server` and `group` carry requests to
the servers; `service` joins it all to the gateway. Whatever imports pyrad is imported only where RADIUS is configured.
"""
