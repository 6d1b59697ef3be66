#!/usr/bin/python3
"""An independent ESP implementation (scapy's) for the tests of package esp.

    scapy_esp.py generate > scapy.json    packets sealed by scapy, with what is in them
    scapy_esp.py open < packets.json      [{suite, keymat, spi, esn, hi, packet}] -> [inner packet or ""]

Everything is hexadecimal. Packets are IP datagrams without Ethernet header.
Needs Debian's python3-scapy and python3-cryptography. Scapy leaves the upper
half of an extended sequence number out of separate ICVs, so CBC goes without ESN.
"""
import json
import random
import sys

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation

ALGORITHMS = {
    "aes128gcm16": ("AES-GCM", 20), "aes192gcm16": ("AES-GCM", 28), "aes256gcm16": ("AES-GCM", 36),
    "chacha20poly1305": ("CHACHA20-POLY1305", 36),
    "aes128-sha256": ("AES-CBC", 16), "aes192-sha256": ("AES-CBC", 24), "aes256-sha256": ("AES-CBC", 32),
}


def association(suite, keymat, spi, esn, hi, tunnel=None, nat=None):
    name, cut = ALGORITHMS[suite]
    more = {"auth_algo": "SHA2-256-128", "auth_key": keymat[cut:]} if name == "AES-CBC" else {}
    return SecurityAssociation(ESP, spi=spi, crypt_algo=name, crypt_key=keymat[:cut], tunnel_header=tunnel,
                               nat_t_header=nat, esn_en=esn, esn=hi, **more)


def generate():
    chance = random.Random(4303)
    vectors = []
    for suite, (name, cut) in ALGORITHMS.items():
        for outer in (4, 6):
            for inner in (4, 6):
                for encap in (False, True):
                    esn = name != "AES-CBC" and chance.random() < 0.5
                    keymat = chance.randbytes(cut + (32 if name == "AES-CBC" else 0))
                    hi = chance.randrange(1, 5) if esn else 0
                    spi, seq = chance.randrange(256, 1 << 32), chance.randrange(1, 1 << 31)
                    tunnel = (IP(src="192.0.2.1", dst="192.0.2.2") if outer == 4
                              else IPv6(src="2001:db8::1", dst="2001:db8::2"))
                    body = UDP(sport=1234, dport=4321) / chance.randbytes(chance.randrange(0, 200))
                    packet = (IP(src="198.51.100.1", dst="203.0.113.1") / body if inner == 4
                              else IPv6(src="2001:db8:a::1", dst="2001:db8:b::1") / body)
                    sa = association(suite, keymat, spi, esn, hi, tunnel, UDP(sport=4500, dport=4500) if encap else None)
                    iv = chance.randbytes(16 if name == "AES-CBC" else 8)
                    sealed = sa.encrypt(packet, seq_num=seq, iv=iv, esn_en=esn, esn=hi)
                    sealed = bytearray(bytes(sealed))
                    if outer == 4 and encap:  # scapy 2.5.0 computes the UDP length before ESP is behind it
                        sealed[24:26] = (len(sealed) - 20).to_bytes(2, "big")
                    vectors.append({
                        "suite": suite, "keymat": keymat.hex(), "spi": spi, "esn": esn, "hi": hi, "seq": seq,
                        "outer": outer, "encap": encap, "packet": sealed.hex(), "inner": bytes(packet).hex()})
    json.dump(vectors, sys.stdout, indent=1)
    print()


def opened(v):
    packet = bytes.fromhex(v["packet"])
    packet = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
    tunnel = IP() if packet.version == 4 else IPv6()
    sa = association(v["suite"], bytes.fromhex(v["keymat"]), v["spi"], v["esn"], v["hi"], tunnel)
    try:
        return bytes(sa.decrypt(packet)).hex()
    except Exception as problem:  # the caller reports which packet it was
        print(type(problem).__name__, problem, file=sys.stderr)
        return ""


if __name__ == "__main__":
    if sys.argv[1:] == ["generate"]:
        generate()
    elif sys.argv[1:] == ["open"]:
        json.dump([opened(v) for v in json.load(sys.stdin)], sys.stdout)
    else:
        sys.exit(__doc__)
