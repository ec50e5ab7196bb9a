"""Copies what a dirty bitmap shows from an NBD export to a file, with libnbd's asynchronous calls, as backup tools do:
bitmap-copy.py <uri> <bitmap> <file>"""
import os
import sys

import nbd

uri, bitmap, path = sys.argv[1:]
context = "qemu:dirty-bitmap:" + bitmap
client = nbd.NBD()
client.add_meta_context(context)
client.connect_uri(uri)
size = client.get_size()
target = os.open(path, os.O_RDWR)
work = []


def learn(_context, offset, entries, _error):
    for length, flags in zip(entries[0::2], entries[1::2]):
        if flags & 1:
            work.append((offset, length))
        offset += length


position = 0
while position < size:
    seen = []

    def note(name, offset, entries, error):
        if name == context:
            learn(name, offset, entries, error)
            seen.append(offset + sum(entries[0::2]))

    client.block_status(min(size - position, 1 << 31), position, note)
    position = max(seen)

REQUEST = 1 << 20
pieces = ((o, min(REQUEST, offset + length - o)) for offset, length in work for o in range(offset, offset + length, REQUEST))
under_way = 0
done = False
while not done or under_way > 0:
    while not done and under_way < 16:
        piece = next(pieces, None)
        if piece is None:
            done = True
            break
        offset, length = piece
        buffer = nbd.Buffer(length)

        def arrived(error, buffer=buffer, offset=offset):
            global under_way
            if error.value != 0:
                sys.exit("read failed")
            os.pwrite(target, buffer.to_bytearray(), offset)
            under_way -= 1
            return 1

        client.aio_pread(buffer, offset, arrived)
        under_way += 1
    if under_way > 0:
        client.poll(-1)
os.fdatasync(target)
client.shutdown()
