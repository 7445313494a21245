#!/usr/bin/env python3
"""Makes the raw deflate streams beside it with C zlib: NAME-CRC.deflate, CRC of what is in them."""
import os, random, zlib

here = os.path.dirname(os.path.abspath(__file__))
rnd = random.Random(7)
words = [bytes(rnd.choices(b"etaoinshrdlu", k=rnd.randrange(1, 9))) for _ in range(300)]
contents = {
    "empty": b"",
    "zeros": bytes(65536),
    "words": b" ".join(rnd.choices(words, k=900)),
    "skewed": bytes(min(255, int(rnd.expovariate(0.05))) for _ in range(3000)),
    "random": rnd.randbytes(1200),
    "period": bytes(range(7)) * 700 + bytes(range(3)) * 500 + bytes(range(40)) * 60,
    "far": (lambda p: p + bytes(32768 - 500) + p)(rnd.randbytes(500)),
}
contents["mixed"] = contents["zeros"][:5000] + contents["words"][:2500] + contents["random"][:700]
ways = {
    "1": (1, 15, zlib.Z_DEFAULT_STRATEGY), "6-window12": (6, 12, zlib.Z_DEFAULT_STRATEGY),
    "9": (9, 15, zlib.Z_DEFAULT_STRATEGY), "huffman": (6, 15, zlib.Z_HUFFMAN_ONLY),
    "rle": (6, 15, zlib.Z_RLE), "fixed": (6, 15, zlib.Z_FIXED), "0": (0, 15, zlib.Z_DEFAULT_STRATEGY),
    "flushed": (6, 15, zlib.Z_DEFAULT_STRATEGY),
}
for name, content in contents.items():
    for way, (level, window, strategy) in ways.items():
        if way == "0" and len(content) > 10000 or way == "huffman" and name == "far":
            continue
        z = zlib.compressobj(level, zlib.DEFLATED, -window, 8, strategy)
        out = b""
        for i in range(0, len(content), 1000 if way == "flushed" else 1 << 30):
            out += z.compress(content[i:i + (1000 if way == "flushed" else 1 << 30)])
            if way == "flushed":
                out += z.flush(zlib.Z_SYNC_FLUSH if i % 2000 else zlib.Z_FULL_FLUSH)
        out += z.flush()
        with open(os.path.join(here, f"{name}-{way}-{zlib.crc32(content):08x}.deflate"), "wb") as f:
            f.write(out)
