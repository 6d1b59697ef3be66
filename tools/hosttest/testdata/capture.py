#!/usr/bin/python3
"""Reads a pcapng file with scapy: a line of JSON for each packet, with the name of its interface and its comment.

Scapy 2.5.0 knows no names of interfaces, options with code 2 of the blocks that describe them, and wants a line feed in comments, options with code 1 of
the blocks of packets.
"""
import json
import struct
import sys

from scapy.layers.inet import IP
from scapy.layers.l2 import Ether  # noqa: F401, what the frames are
from scapy.utils import PcapNgReader


def option(options, order, wanted):
    while len(options) >= 4:
        code, length = struct.unpack(order + "HH", options[:4])
        if code == wanted:
            return options[4:4 + length].decode()
        options = options[4 + (length + 3) // 4 * 4:]
    return None


class Reader(PcapNgReader):
    names = []
    interface = comment = None

    def _read_block_idb(self, block, *rest):
        self.names = self.names + [option(block[8:], self.endian, 2)]
        return super()._read_block_idb(block, *rest)

    def _read_block_epb(self, block, size):
        number, _, _, length = struct.unpack(self.endian + "4I", block[:16])
        self.interface, self.comment = self.names[number], option(block[20 + (length + 3) // 4 * 4:], self.endian, 1)
        return super()._read_block_epb(block, size)


reader = Reader(sys.argv[1])
for frame in reader:
    print(json.dumps({"interface": reader.interface, "comment": reader.comment, "protocol": frame[IP].proto, "src": frame[IP].src, "dst": frame[IP].dst}))
