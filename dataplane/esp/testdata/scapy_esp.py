#!/usr/bin/python3
"""An independent ESP implementation (scapy's) for the tests of package esp.

    scapy_esp.py generate > scapy.json    packets sealed by scapy, with what is in them
    scapy_esp.py generate-transport > scapy_transport.json    the same in transport mode
    scapy_esp.py generate-gre > scapy_gre.json    the same of GRE and IP in IP in transport mode
    scapy_esp.py generate-ah > scapy_ah.json    the same of AH, in both modes
    scapy_esp.py generate-bundle > scapy_bundle.json    the same of AH around ESP in both modes
    scapy_esp.py open < packets.json      [{suite, keymat, spi, esn, hi, packet}] -> [inner packet or ""]

Everything is hexadecimal. Packets are IP datagrams without Ethernet header.
Needs Debian's python3-scapy and python3-cryptography. Scapy leaves the upper
half of an extended sequence number out of separate ICVs, so suites with HMAC go
without ESN.

Scapy 2.5.0 knows GCM with whole tags, ChaCha20-Poly1305, CBC, NULL and HMAC-SHA2. The
rest is put together below: truncated tags and implicit IVs are variants of its own
algorithms; GMAC is written over the AESGCM class of python3-cryptography.
"""
import json
import random
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import aead, algorithms, modes
from scapy.layers.inet import IP, UDP, IPOption_Router_Alert, IPOption_RR
from scapy.layers.inet6 import (HBHOptUnknown, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN,
                                RouterAlert)
from scapy.layers.ipsec import (AH, AUTH_ALGOS, CRYPT_ALGOS, ESP, AuthAlgo, CryptAlgo, IPSecIntegrityError,
                                SecurityAssociation, zero_mutable_fields)
from scapy.layers.l2 import GRE
from scapy.packet import Raw


class Implicit(CryptAlgo):
    """An algorithm whose IV is the sequence number, and is not sent (RFC 8750)."""

    def __init__(self, name, cipher, key_size):
        super().__init__(name, cipher=cipher, key_size=key_size, mode=None, salt_size=4, block_size=1, iv_size=0,
                         icv_size=16, format_mode_iv=lambda sa, iv, **kw: sa.crypt_salt + sa.implicit)

    def encrypt(self, sa, esp, key, icv_size=None, esn_en=False, esn=0):
        sa.implicit = struct.pack("!LL", esn if esn_en else 0, esp.seq)
        return super().encrypt(sa, esp, key, icv_size, esn_en, esn)

    def decrypt(self, sa, esp, key, icv_size=None, esn_en=False, esn=0):
        sa.implicit = struct.pack("!LL", esn if esn_en else 0, esp.seq)
        return super().decrypt(sa, esp, key, icv_size, esn_en, esn)


class GMAC(CryptAlgo):
    """AES-GMAC (RFC 4543): nothing is encrypted, everything is additional data."""

    def __init__(self):
        super().__init__("NULL-AES-GMAC", cipher=None, mode=None, key_size=(16, 24, 32), salt_size=4, iv_size=8,
                         icv_size=16)

    @staticmethod
    def covered(esp, rest, esn_en, esn):
        numbers = struct.pack("!LLL", esp.spi, esn, esp.seq) if esn_en else struct.pack("!LL", esp.spi, esp.seq)
        return numbers + rest

    def encrypt(self, sa, esp, key, icv_size=None, esn_en=False, esn=0):
        rest = esp.iv + esp.data_for_encryption()
        icv = aead.AESGCM(key).encrypt(sa.crypt_salt + esp.iv, b"", self.covered(esp, rest, esn_en, esn))
        return ESP(spi=esp.spi, seq=esp.seq, data=rest + icv)

    def decrypt(self, sa, esp, key, icv_size=None, esn_en=False, esn=0):
        rest, icv = esp.data[:-16], esp.data[-16:]
        try:
            aead.AESGCM(key).decrypt(sa.crypt_salt + rest[:8], icv, self.covered(esp, rest, esn_en, esn))
        except InvalidTag as problem:
            raise IPSecIntegrityError(problem)
        return super().decrypt(sa, esp, key, 16)


class GMACSigner(AuthAlgo):
    """AES-GMAC for AH (RFC 4543, 4): the ICV is an IV of eight bytes and the tag. Scapy zeroes what changes on the way."""

    def __init__(self):
        super().__init__("AES-GMAC", mac=GMAC, digestmod=None, icv_size=24, key_size=(20, 28, 36))

    @staticmethod
    def tag(pkt, key, iv, sending, esn_en, esn):
        covered = bytes(zero_mutable_fields(pkt.copy(), sending=sending)) + (struct.pack("!L", esn) if esn_en else b"")
        return aead.AESGCM(key[:-4]).encrypt(key[-4:] + iv, b"", covered)

    def sign(self, pkt, key, esn_en=False, esn=0):
        iv = struct.pack("!LL", 0x49560000, pkt[AH].seq)
        pkt[AH].icv = iv + self.tag(pkt, key, iv, True, esn_en, esn)
        return pkt

    def verify(self, pkt, key, esn_en=False, esn=0):
        pkt[AH].padding, pkt[AH].icv = pkt[AH].icv[24:], pkt[AH].icv[:24]
        iv, icv = pkt[AH].icv[:8], pkt[AH].icv[8:]
        if self.tag(pkt, key, iv, False, esn_en, esn) != icv:
            raise IPSecIntegrityError("GMAC")


AUTH_ALGOS["AES-GMAC"] = GMACSigner()

for length in (8, 12):
    CRYPT_ALGOS["AES-GCM-%d" % length] = CryptAlgo(
        "AES-GCM-%d" % length, cipher=algorithms.AES, mode=modes.GCM, salt_size=4, block_size=1, iv_size=8,
        icv_size=length, format_mode_iv=lambda sa, iv, **kw: sa.crypt_salt + iv)
CRYPT_ALGOS["AES-GCM-IIV"] = Implicit("AES-GCM-IIV", aead.AESGCM, (16, 24, 32))
CRYPT_ALGOS["CHACHA20-POLY1305-IIV"] = Implicit("CHACHA20-POLY1305-IIV", aead.ChaCha20Poly1305, 32)
CRYPT_ALGOS["NULL-AES-GMAC"] = GMAC()

# By suite: encryption, length of its key, integrity or none.
ALGORITHMS = {
    "chacha20poly1305": ("CHACHA20-POLY1305", 36, None), "chacha20poly1305iiv": ("CHACHA20-POLY1305-IIV", 36, None),
}
for bits in (128, 192, 256):
    for word, name in (("gcm16", "AES-GCM"), ("gcm12", "AES-GCM-12"), ("gcm8", "AES-GCM-8"), ("gcm16iiv", "AES-GCM-IIV"),
                       ("gmac", "NULL-AES-GMAC")):
        ALGORITHMS["aes%d%s" % (bits, word)] = (name, bits // 8 + 4, None)
    for size in (256, 384, 512):
        ALGORITHMS["aes%d-sha%d" % (bits, size)] = ("AES-CBC", bits // 8, size)
for size in (256, 384, 512):
    ALGORITHMS["null-sha%d" % size] = ("NULL", 0, size)


# One suite of each shape.
TRANSPORT = ("aes128gcm16", "aes256gcm16iiv", "chacha20poly1305", "aes256-sha512", "aes128gmac", "null-sha256")


def association(suite, keymat, spi, esn, hi, tunnel=None, nat=None):
    name, cut, size = ALGORITHMS[suite]
    more = {"auth_algo": "SHA2-%d-%d" % (size, size // 2), "auth_key": keymat[cut:]} if size else {}
    return SecurityAssociation(ESP, spi=spi, crypt_algo=name, crypt_key=keymat[:cut], tunnel_header=tunnel,
                               nat_t_header=nat, esn_en=esn, esn=hi, **more)


def generate():
    chance = random.Random(4303)
    vectors = []
    for suite, (name, cut, size) in ALGORITHMS.items():
        for outer in (4, 6):
            for inner in (4, 6):
                for encap in (False, True):
                    esn = size is None and chance.random() < 0.5
                    keymat = chance.randbytes(cut + (size or 0) // 8)
                    hi = chance.randrange(1, 5) if esn else 0
                    spi, seq = chance.randrange(256, 1 << 32), chance.randrange(1, 1 << 31)
                    tunnel = (IP(src="192.0.2.1", dst="192.0.2.2") if outer == 4
                              else IPv6(src="2001:db8::1", dst="2001:db8::2"))
                    body = UDP(sport=1234, dport=4321) / chance.randbytes(chance.randrange(0, 200))
                    packet = (IP(src="198.51.100.1", dst="203.0.113.1") / body if inner == 4
                              else IPv6(src="2001:db8:a::1", dst="2001:db8:b::1") / body)
                    sa = association(suite, keymat, spi, esn, hi, tunnel, UDP(sport=4500, dport=4500) if encap else None)
                    iv = chance.randbytes(CRYPT_ALGOS[name].iv_size)
                    sealed = sa.encrypt(packet, seq_num=seq, iv=iv, esn_en=esn, esn=hi)
                    sealed = bytearray(bytes(sealed))
                    if outer == 4 and encap:  # scapy 2.5.0 computes the UDP length before ESP is behind it
                        sealed[24:26] = (len(sealed) - 20).to_bytes(2, "big")
                    vectors.append({
                        "suite": suite, "keymat": keymat.hex(), "spi": spi, "esn": esn, "hi": hi, "seq": seq,
                        "outer": outer, "encap": encap, "packet": sealed.hex(), "inner": bytes(packet).hex()})
    json.dump(vectors, sys.stdout, indent=1)
    print()


def datagrams(chance):
    """Datagrams with every header that may stand in front of ESP, and whether it goes into UDP."""
    def body():
        return UDP(sport=1234, dport=4321) / chance.randbytes(chance.randrange(0, 200))

    v4, v6 = IP(src="192.0.2.1", dst="192.0.2.2"), IPv6(src="2001:db8::1", dst="2001:db8::2")
    alert = IPOption_Router_Alert()
    hop = IPv6ExtHdrHopByHop(options=[RouterAlert()])
    routing = IPv6ExtHdrRouting(type=4, segleft=0, addresses=["2001:db8::2"])
    yield v4 / body(), False
    yield v4 / body(), True
    yield IP(src="192.0.2.1", dst="192.0.2.2", tos=0xb8, flags="DF", options=[alert]) / body(), False
    yield IP(src="192.0.2.1", dst="192.0.2.2", options=[alert, IPOption_RR(routers=["0.0.0.0"] * 3)]) / body(), True
    yield v6 / body(), False
    yield v6 / body(), True
    yield v6 / hop / body(), False
    yield v6 / hop / routing / body(), False
    yield v6 / hop / routing / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)]) / body(), False
    yield v6 / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)]) / body(), False


def generate_transport():
    chance = random.Random(4301)
    vectors = []
    for suite in TRANSPORT:
        name, cut, size = ALGORITHMS[suite]
        for packet, encap in datagrams(chance):
            keymat = chance.randbytes(cut + (size or 0) // 8)
            spi, seq = chance.randrange(256, 1 << 32), chance.randrange(1, 1 << 31)
            packet = packet.__class__(bytes(packet))
            sa = association(suite, keymat, spi, False, 0, None, UDP(sport=4500, dport=4500) if encap else None)
            sealed = sa.encrypt(packet.copy(), seq_num=seq, iv=chance.randbytes(CRYPT_ALGOS[name].iv_size))
            sealed = bytearray(bytes(sealed))
            if encap and packet.version == 4:
                header = (sealed[0] & 15) * 4
                sealed[header + 4:header + 6] = (len(sealed) - header).to_bytes(2, "big")
            vectors.append({
                "suite": suite, "keymat": keymat.hex(), "spi": spi, "esn": False, "hi": 0, "seq": seq, "outer": packet.version,
                "encap": encap, "transport": True, "packet": sealed.hex(), "inner": bytes(packet).hex()})
    json.dump(vectors, sys.stdout, indent=1)
    print()


def generate_gre():
    """What is inside is the packet behind the GRE header, if any, and behind the outer IP header."""
    chance = random.Random(2784)
    vectors = []
    for suite in TRANSPORT:
        name, cut, size = ALGORITHMS[suite]
        for outer in (4, 6):
            for inner in (4, 6):
                for header in (None, {}, {"key_present": 1, "key": 0xfeedbeef}, {"chksum_present": 1},
                               {"seqnum_present": 1, "seqence_number": 7},
                               {"chksum_present": 1, "key_present": 1, "key": 0, "seqnum_present": 1}):
                    keymat = chance.randbytes(cut + (size or 0) // 8)
                    spi, seq = chance.randrange(256, 1 << 32), chance.randrange(1, 1 << 31)
                    body = UDP(sport=1234, dport=4321) / chance.randbytes(chance.randrange(0, 200))
                    packet = (IP(src="198.51.100.1", dst="203.0.113.1") / body if inner == 4
                              else IPv6(src="2001:db8:a::1", dst="2001:db8:b::1") / body)
                    way = (IP(src="192.0.2.1", dst="192.0.2.2") if outer == 4
                           else IPv6(src="2001:db8::1", dst="2001:db8::2"))
                    carried = way / packet if header is None else way / GRE(**header) / packet
                    carried = carried.__class__(bytes(carried))
                    sa = association(suite, keymat, spi, False, 0)
                    sealed = sa.encrypt(carried, seq_num=seq, iv=chance.randbytes(CRYPT_ALGOS[name].iv_size))
                    vectors.append({
                        "suite": suite, "keymat": keymat.hex(), "spi": spi, "esn": False, "hi": 0, "seq": seq,
                        "outer": outer, "encap": False, "transport": True, "gre": header is not None,
                        "key": (header or {}).get("key"), "packet": bytes(sealed).hex(), "inner": bytes(packet).hex()})
    json.dump(vectors, sys.stdout, indent=1)
    print()


def signer(suite, keymat, spi, esn, hi, tunnel=None):
    size = 0 if suite.endswith("gmac") else int(suite[-3:])
    return SecurityAssociation(AH, spi=spi, auth_algo="SHA2-%d-%d" % (size, size // 2) if size else "AES-GMAC",
                               auth_key=keymat, tunnel_header=tunnel, esn_en=esn, esn=hi)


def generate_ah():
    chance = random.Random(4302)
    vectors = []
    mutable = HBHOptUnknown(otype=0x3e, optdata=b"change")
    lengths = {"null-sha256": 32, "null-sha384": 48, "null-sha512": 64, "aes128gmac": 20, "aes192gmac": 28, "aes256gmac": 36}
    for suite, length in lengths.items():
        for esn in (False, True):
            own = [packet for packet, encap in datagrams(chance) if not encap]
            own.append(IPv6(src="2001:db8::1", dst="2001:db8::2") / IPv6ExtHdrHopByHop(options=[mutable]) / UDP() / b"x")
            own.append(IP(src="192.0.2.1", dst="192.0.2.2", options=[IPOption_RR(routers=["0.0.0.0"] * 3)]) / UDP() / b"xy")
            inner = (IP(src="198.51.100.1", dst="203.0.113.1") / UDP() / chance.randbytes(33),
                     IPv6(src="2001:db8:a::1", dst="2001:db8:b::1") / UDP() / chance.randbytes(70))
            tunnels = (IP(src="192.0.2.1", dst="192.0.2.2", tos=0x28), IPv6(src="2001:db8::1", dst="2001:db8::2", fl=5))
            for packet, tunnel in [(p, None) for p in own] + [(p, t) for p in inner for t in tunnels]:
                keymat = chance.randbytes(length)
                spi, seq, hi = chance.randrange(256, 1 << 32), chance.randrange(1, 1 << 31), chance.randrange(1, 5) if esn else 0
                packet = packet.__class__(bytes(packet))
                sealed = signer(suite, keymat, spi, esn, hi, tunnel).encrypt(packet.copy(), seq_num=seq)
                vectors.append({
                    "suite": suite, "keymat": keymat.hex(), "spi": spi, "esn": esn, "hi": hi, "seq": seq,
                    "outer": (tunnel or packet).version, "encap": False, "transport": tunnel is None, "ah": True,
                    "packet": bytes(sealed).hex(), "inner": bytes(packet).hex()})
    json.dump(vectors, sys.stdout, indent=1)
    print()


class Around:
    """An algorithm for AH around ESP: scapy makes the ICV of ESP where it sees any, so here it sees bytes."""

    def __init__(self, inner):
        self.inner, self.icv_size = inner, inner.icv_size

    def sign(self, pkt, key, **esn):
        below, body = pkt[ESP].underlayer, bytes(pkt[ESP])
        below.remove_payload()
        below.add_payload(Raw(body))
        return self.inner.sign(pkt, key, **esn)


def generate_bundle():
    chance = random.Random(2401)
    vectors = []
    lengths = {"null-sha256": 32, "null-sha512": 64, "aes256gmac": 36}
    for suite in TRANSPORT:
        name, cut, size = ALGORITHMS[suite]
        for length, (ah_suite, ah_length) in enumerate(lengths.items()):
            own = [packet for packet, encap in datagrams(chance) if not encap]
            own = own[length::3]
            inner = (IP(src="198.51.100.1", dst="203.0.113.1") / UDP() / chance.randbytes(33),
                     IPv6(src="2001:db8:a::1", dst="2001:db8:b::1") / UDP() / chance.randbytes(70))
            tunnels = (IP(src="192.0.2.1", dst="192.0.2.2", tos=0x28), IPv6(src="2001:db8::1", dst="2001:db8::2", fl=5))
            for packet, tunnel in [(p, None) for p in own] + [(p, t) for p in inner for t in tunnels]:
                keymat, ah_keymat = chance.randbytes(cut + (size or 0) // 8), chance.randbytes(ah_length)
                spi, seq = chance.randrange(256, 1 << 32), chance.randrange(1, 1 << 31)
                ah_spi, ah_seq = chance.randrange(256, 1 << 32), chance.randrange(1, 1 << 31)
                esn, ah_esn = size is None and chance.random() < 0.5, chance.random() < 0.5
                hi, ah_hi = chance.randrange(1, 5) if esn else 0, chance.randrange(1, 5) if ah_esn else 0
                packet = packet.__class__(bytes(packet))
                sealed = association(suite, keymat, spi, esn, hi, tunnel).encrypt(
                    packet.copy(), seq_num=seq, iv=chance.randbytes(CRYPT_ALGOS[name].iv_size), esn_en=esn, esn=hi)
                around = signer(ah_suite, ah_keymat, ah_spi, ah_esn, ah_hi)
                around.auth_algo = Around(around.auth_algo)
                signed = around.encrypt(sealed, seq_num=ah_seq)
                vectors.append({
                    "suite": suite, "keymat": keymat.hex(), "spi": spi, "esn": esn, "hi": hi, "seq": seq,
                    "outer": (tunnel or packet).version, "encap": False, "transport": tunnel is None,
                    "bundle": {"suite": ah_suite, "keymat": ah_keymat.hex(), "spi": ah_spi, "esn": ah_esn, "hi": ah_hi,
                               "seq": ah_seq},
                    "packet": bytes(signed).hex(), "inner": bytes(packet).hex()})
    json.dump(vectors, sys.stdout, indent=1)
    print()


def opened(v):
    packet = bytes.fromhex(v["packet"])
    packet = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
    tunnel = None if v.get("transport") else IP() if packet.version == 4 else IPv6()
    make = signer if v.get("ah") else association
    sa = make(v["suite"], bytes.fromhex(v["keymat"]), v["spi"], v["esn"], v["hi"], tunnel)
    try:
        if b := v.get("bundle"):
            packet = signer(b["suite"], bytes.fromhex(b["keymat"]), b["spi"], b["esn"], b["hi"]).decrypt(packet)
            packet = packet.__class__(bytes(packet))
        packet = sa.decrypt(packet)
        if v.get("gre"):
            gre = packet.payload
            if not isinstance(gre, GRE) or (gre.key if gre.key_present else None) != v.get("key"):
                raise ValueError("not the GRE header that was asked for: " + repr(gre))
            packet = gre.payload
        return bytes(packet).hex()
    except Exception as problem:  # the caller reports which packet it was
        print(type(problem).__name__, problem, file=sys.stderr)
        return ""


if __name__ == "__main__":
    if sys.argv[1:] == ["generate"]:
        generate()
    elif sys.argv[1:] == ["generate-transport"]:
        generate_transport()
    elif sys.argv[1:] == ["generate-gre"]:
        generate_gre()
    elif sys.argv[1:] == ["generate-ah"]:
        generate_ah()
    elif sys.argv[1:] == ["generate-bundle"]:
        generate_bundle()
    elif sys.argv[1:] == ["open"]:
        json.dump([opened(v) for v in json.load(sys.stdin)], sys.stdout)
    else:
        sys.exit(__doc__)
