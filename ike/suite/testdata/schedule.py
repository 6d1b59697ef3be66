#!/usr/bin/env python3
"""Writes schedule.json: key schedules, protected messages and key exchanges of IKEv2, computed with Python's hashlib,
hmac and integers and with python3-cryptography, as RFC 7296, 2.14, 2.17, 2.18, 5282, 7634, 4868, 9242, 9370 and 3526
say. It shares nothing with the package that is tested against it.

    python3 schedule.py > schedule.json
"""
import hashlib, hmac, json, random

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

R = random.Random(7296)
PRFS = {5: "sha256", 6: "sha384", 7: "sha512"}
INTEGS = {12: ("sha256", 32, 16), 13: ("sha384", 48, 24), 14: ("sha512", 64, 32)}


def b(n):
    return bytes(R.randrange(256) for _ in range(n))


def prf(p, key, data):
    return hmac.new(key, data, PRFS[p]).digest()


def prf_plus(p, key, seed, n):
    out, t, i = b"", b"", 0
    while len(out) < n:
        i += 1
        t = prf(p, key, t + seed + bytes([i]))
        out += t
    return out[:n]


def encr_len(c):
    return c["keylen"] // 8 + (0 if c["encr"] == 12 else 4)


def seven(c, seed, ni, nr, spii, spir):
    h = hashlib.new(PRFS[c["prf"]]).digest_size
    a = INTEGS[c["integ"]][1] if c["integ"] else 0
    sizes = [h, a, a, encr_len(c), encr_len(c), h, h]
    out = prf_plus(c["prf"], seed, ni + nr + spii + spir, sum(sizes))
    keys = []
    for s in sizes:
        keys.append(out[:s])
        out = out[s:]
    return keys


def seal(c, e, a, header, iv, chain):
    """A message in an SK payload, whose first payload has type 41."""
    if c["encr"] == 12:
        pad = -(len(chain) + 1) % 16
        text = chain + bytes(pad) + bytes([pad])
        icv = INTEGS[c["integ"]][2]
        start = header + bytes([41, 0]) + (4 + 16 + len(text) + icv).to_bytes(2, "big")
        start = start[:24] + (len(start) + 16 + len(text) + icv).to_bytes(4, "big") + start[28:]
        enc = Cipher(algorithms.AES(e), modes.CBC(iv)).encryptor()
        body = start + iv + enc.update(text) + enc.finalize()
        return body + hmac.new(a, body, INTEGS[c["integ"]][0]).digest()[:icv]
    text = chain + b"\0"
    start = header + bytes([41, 0]) + (4 + 8 + len(text) + 16).to_bytes(2, "big")
    start = start[:24] + (len(start) + 8 + len(text) + 16).to_bytes(4, "big") + start[28:]
    key, salt = e[:-4], e[-4:]
    aead = ChaCha20Poly1305(key) if c["encr"] == 28 else AESGCM(key)
    return start + iv + aead.encrypt(salt + iv, text, start)


def schedule(c, esp):
    ni, nr, spii, spir = b(R.choice([16, 32, 33])), b(R.choice([16, 32, 256])), b(8), b(8)
    shared = b(R.choice([32, 48, 256]))
    keys = seven(c, prf(c["prf"], ni + nr, shared), ni, nr, spii, spir)
    d = keys[0]
    extra = b(32)
    inter = seven(c, prf(c["prf"], d, extra + ni + nr), ni, nr, spii, spir)
    mi, mr, nspii, nspir = b(24), b(32), b(8), b(8)
    s0, s1 = b(32), b(32)
    new = dict(c, prf=R.choice([5, 6, 7]))
    rekeyed = seven(new, prf(c["prf"], d, s0 + mi + mr + s1), mi, mr, nspii, nspir)
    n = encr_len(esp) + (INTEGS[esp["integ"]][1] if esp["integ"] else 0)
    child = prf_plus(c["prf"], d, mi + mr, 2 * n)
    child_pfs = prf_plus(c["prf"], d, s0 + mi + mr + s1, 2 * n)
    header = spii + spir + bytes([46, 0x20, 37, 0x08]) + (5).to_bytes(4, "big") + bytes(4)
    chain = bytes([0, 0, 0, 8, 0, 0]) + (16384).to_bytes(2, "big")
    iv = b(16) if c["encr"] == 12 else b(8)
    link1 = prf(c["prf"], keys[5], b"first")
    link2 = prf(c["prf"], inter[5], link1 + b"second")
    names = ["d", "ai", "ar", "ei", "er", "pi", "pr"]
    return {
        "choice": c, "esp": esp, "ni": ni.hex(), "nr": nr.hex(), "spii": spii.hex(), "spir": spir.hex(), "shared": shared.hex(),
        "keys": {k: v.hex() for k, v in zip(names, keys)},
        "extra": extra.hex(), "intermediate": {k: v.hex() for k, v in zip(names, inter)},
        "intauth": link2.hex(),
        "new_prf": new["prf"], "new_ni": mi.hex(), "new_nr": mr.hex(), "new_spii": nspii.hex(), "new_spir": nspir.hex(),
        "s0": s0.hex(), "s1": s1.hex(), "rekeyed": {k: v.hex() for k, v in zip(names, rekeyed)},
        "child": child.hex(), "child_pfs": child_pfs.hex(),
        "chain": chain.hex(), "message": seal(c, keys[3], keys[1], header, iv, chain).hex(),
    }


def pi(bits):
    """floor(2^bits * pi), by Machin's formula."""
    def arctan(x, unity):
        total = term = unity // x
        n, sign = 3, -1
        while term:
            term //= x * x
            total += sign * (term // n)
            sign, n = -sign, n + 2
        return total
    unity = 1 << (bits + 64)
    return (4 * (4 * arctan(5, unity) - arctan(239, unity))) >> 64


def modp(group, bits, k, length):
    p = 2**bits - 2**(bits - 64) - 1 + 2**64 * (pi(bits - 130) + k)
    x, y = b(length), b(length)
    # The package sets the top bit of an exponent.
    xn = int.from_bytes(x, "big") | 1 << (8 * length - 1)
    yn = int.from_bytes(y, "big") | 1 << (8 * length - 1)
    size = bits // 8
    return {
        "group": group, "prime": "%x" % p, "x": x.hex(), "y": y.hex(),
        "gx": pow(2, xn, p).to_bytes(size, "big").hex(), "gy": pow(2, yn, p).to_bytes(size, "big").hex(),
        "shared": pow(2, xn * yn, p).to_bytes(size, "big").hex(),
    }


def main():
    gcm = lambda bits, p: {"encr": 20, "keylen": bits, "integ": 0, "prf": p}
    cbc = lambda bits, i, p: {"encr": 12, "keylen": bits, "integ": i, "prf": p}
    chacha = lambda p: {"encr": 28, "keylen": 256, "integ": 0, "prf": p}
    ike = [gcm(128, 5), gcm(192, 6), gcm(256, 7), gcm(256, 6), chacha(5), chacha(7),
           cbc(128, 12, 5), cbc(192, 13, 6), cbc(256, 14, 7), cbc(256, 12, 6)]
    esp = [gcm(128, 0), gcm(192, 0), gcm(256, 0), chacha(0), cbc(128, 12, 0), cbc(192, 12, 0), cbc(256, 12, 0)]
    cases = [schedule(c, esp[i % len(esp)]) for i, c in enumerate(ike)]
    groups = [modp(14, 2048, 124476, 40), modp(15, 3072, 1690314, 53), modp(16, 4096, 240904, 60)]
    print(json.dumps({"schedules": cases, "modp": groups}, indent=1))


main()
