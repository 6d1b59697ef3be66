#!/usr/bin/python3
"""A router with hosts behind it, out of scapy: GRE in ESP in transport mode, AES-GCM without extended sequence numbers.

    router.py '{"iface": ..., "me": ..., "peer": ..., "mac": ..., "spi_in": ..., "spi_out": ..., "key_in": ..., "key_out": ..., "gre_key": ...}'

It opens what the peer sends it, prints a line of JSON for each packet, answers echo requests in both families as the host that was asked, and says
something to all routers of the link when it is spoken to there. Echo requests to BAD are answered with another key in the GRE header.
"""
import json
import sys

from scapy.config import conf
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.layers.l2 import GRE, Ether

BAD = "198.51.100.166"

a = json.loads(sys.argv[1])
inbound, outbound = (SecurityAssociation(ESP, spi=a["spi_" + way], crypt_algo="AES-GCM", crypt_key=bytes.fromhex(a["key_" + way]))
                     for way in ("in", "out"))
socket = conf.L2socket(iface=a["iface"])


def send(inner, key):
    carried = IP(src=a["me"], dst=a["peer"], ttl=64) / GRE(key_present=1, key=key, chksum_present=1) / inner
    socket.send(Ether(dst=a["mac"]) / outbound.encrypt(IP(bytes(carried))))


def answer(packet):
    if IP in packet and ICMP in packet and packet[ICMP].type == 8:
        icmp = packet[ICMP].copy()
        icmp.type, icmp.chksum = 0, None
        return IP(src=packet.dst, dst=packet.src, ttl=64) / icmp
    if ICMPv6EchoRequest in packet:
        request = packet[ICMPv6EchoRequest]
        return IPv6(src=packet.dst, dst=packet.src, hlim=64) / ICMPv6EchoReply(id=request.id, seq=request.seq, data=request.data)
    return None


print(json.dumps({"ready": True}), flush=True)
while True:
    frame = socket.recv()
    if frame is None or IP not in frame or frame[IP].dst != a["me"] or frame[IP].proto != 50:
        continue
    try:
        opened = inbound.decrypt(frame[IP])
        gre = opened[GRE]
        inner = gre.payload
        print(json.dumps({"key": gre.key if gre.key_present else None, "sequence": gre.seqnum_present, "src": inner.src, "dst": inner.dst, "ttl": getattr(inner, "ttl", 0) or inner.hlim,
                          "df": "DF" in str(opened.flags)}), flush=True)
        reply = answer(inner)
        if reply is not None:
            send(reply, a["gre_key"] + (inner.dst == BAD))
    except Exception as e:  # whatever is wrong with it, the test reads it
        print(json.dumps({"error": repr(e)}), flush=True)
