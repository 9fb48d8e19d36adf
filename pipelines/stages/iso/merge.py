"""Merges the squashfs of each layer into one: merge.py TARGET EPOCH LAYER.squashfs…, the lowest layer first.

Compressed data is copied as it is, so this takes as long as copying; only inodes, directories and tables are written
anew. All layers must have the same block size, compressor and compressor options. Layers are stacked as overlayfs does
it: a character device 0:0 hides a name, a directory with the attribute trusted.overlay.opaque hides what is below it.

The format is that of the kernel's Documentation/filesystems/squashfs.rst, version 4.0; numbers are little-endian.
"""

import os
import struct
import sys

METADATA = 8192
NOTHING_64, NOTHING_32 = 2**64 - 1, 2**32 - 1
SUPERBLOCK = struct.Struct("<5I6H8Q")
MAGIC = 0x73717368
RAW_METADATA, RAW_BLOCK = 1 << 15, 1 << 24
FLAG_NO_XATTRS, FLAG_OPTIONS, FLAG_EXPORT, FLAG_DUPLICATES = 0x200, 0x400, 0x80, 0x40
DIRECTORY, FILE, SYMLINK, BLOCK_DEVICE, CHARACTER_DEVICE, FIFO, SOCKET = range(1, 8)
EXTENDED = 7
COMMON = struct.Struct("<4H2I")
OUT_OF_LINE, TRUSTED, OVERLAY = 0x100, 1, b"overlay."
OPAQUE = (TRUSTED, b"overlay.opaque", b"y")


def compressor(number):
    """What packs and unpacks one block, by the superblock's number for it."""
    if number == 1:
        import zlib

        return lambda data: zlib.compress(data, 9), zlib.decompress
    if number == 4:
        import lzma

        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": METADATA}]
        return (
            lambda data: lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters),
            lzma.decompress,
        )
    if number == 5:
        import lz4.block

        return (
            lambda data: lz4.block.compress(data, "high_compression", store_size=False),
            lambda data: lz4.block.decompress(data, uncompressed_size=METADATA),
        )
    if number == 6:
        import zstandard

        return zstandard.ZstdCompressor(level=15).compress, lambda data: zstandard.decompress(data, METADATA)
    sys.exit(f"compressor {number} of squashfs is not known")


class Node:
    """A file of any type, in the layer that it comes from."""

    __slots__ = (
        "layer", "kind", "mode", "uid", "gid", "time", "xattrs", "body", "size", "start", "blocks", "fragment",
        "offset", "sparse", "children", "names", "number", "place", "opaque",
    )  # fmt: skip


class Layer:
    """A squashfs file, read."""

    def __init__(self, path):
        self.path = path
        self.file = os.open(path, os.O_RDONLY)
        fields = SUPERBLOCK.unpack(self.read(0, SUPERBLOCK.size))
        (magic, _, _, self.block_size, fragments, self.compressor, _, self.flags, ids, major, _) = fields[:11]
        (self.root, _, id_table, xattr_table, self.inodes, self.directories, fragment_table, _) = fields[11:]
        if magic != MAGIC or major != 4:
            sys.exit(f"{path} is no squashfs of version 4")
        self.unpack = compressor(self.compressor)[1]
        self.options = b""
        if self.flags & FLAG_OPTIONS:
            size = struct.unpack("<H", self.read(SUPERBLOCK.size, 2))[0] & ~RAW_METADATA
            self.options = self.read(SUPERBLOCK.size, size + 2)
        self.blocks = {}
        self.nodes = {}
        self.ids = [number for (number,) in self.table(id_table, ids, "<I")]
        self.fragments = self.table(fragment_table, fragments, "<QII")
        self.xattrs = self.read_xattrs(xattr_table)

    def read(self, start, size):
        data = os.pread(self.file, size, start)
        if len(data) != size:
            sys.exit(f"{self.path} is cut short")
        return data

    def block(self, start):
        """The metadata block at a place, and where the next one is."""
        if start not in self.blocks:
            header = struct.unpack("<H", self.read(start, 2))[0]
            size = header & ~RAW_METADATA
            data = self.read(start + 2, size)
            self.blocks[start] = (data if header & RAW_METADATA else self.unpack(data), start + 2 + size)
        return self.blocks[start]

    def stream(self, start, offset):
        """A function that gives the next bytes of the metadata from a place on."""
        data, after = self.block(start)

        def take(size):
            nonlocal data, after, offset
            while len(data) - offset < size:
                more, after = self.block(after)
                data, offset = data[offset:] + more, 0
            offset += size
            return data[offset - size : offset]

        return take

    def table(self, start, count, form):
        """A table of so many entries, which lies in metadata blocks that a list of places names."""
        form = struct.Struct(form)
        if count == 0:
            return []
        blocks = -(-count * form.size // METADATA)
        places = struct.unpack(f"<{blocks}Q", self.read(start, 8 * blocks))
        data = b"".join(self.block(place)[0] for place in places)
        return list(form.iter_unpack(data[: count * form.size]))

    def read_xattrs(self, start):
        if start == NOTHING_64:
            return []
        values, count, _ = struct.unpack("<QII", self.read(start, 16))
        sets = []
        for place, number, _ in self.table(start + 16, count, "<QII"):
            take = self.stream(values + (place >> 16), place & 0xFFFF)
            pairs = []
            for _ in range(number):
                kind, size = struct.unpack("<HH", take(4))
                name = take(size)
                value = take(struct.unpack("<I", take(4))[0])
                if kind & OUT_OF_LINE:
                    (place,) = struct.unpack("<Q", value)
                    aside = self.stream(values + (place >> 16), place & 0xFFFF)
                    value = aside(struct.unpack("<I", aside(4))[0])
                pairs.append((kind & ~OUT_OF_LINE, name, value))
            sets.append(tuple(pairs))
        return sets

    def node(self, place):
        """The inode at a place; names of the same one give the same node."""
        if place in self.nodes:
            return self.nodes[place]
        take = self.stream(self.inodes + (place >> 16), place & 0xFFFF)
        unpack = lambda form: struct.unpack(form, take(struct.calcsize(form)))
        node = self.nodes[place] = Node()
        kind, node.mode, uid, gid, node.time, _ = COMMON.unpack(take(COMMON.size))
        node.layer, node.uid, node.gid = self, self.ids[uid], self.ids[gid]
        node.names, node.number, node.place = 0, None, None
        node.kind = kind - EXTENDED if kind > EXTENDED else kind
        node.body, node.children, xattrs = b"", None, NOTHING_32
        if kind == DIRECTORY:
            block, _, size, offset, _ = unpack("<IIHHI")
            node.children = (block, offset, size)
        elif kind == DIRECTORY + EXTENDED:
            _, size, block, _, _, offset, xattrs = unpack("<4I2HI")
            node.children = (block, offset, size)
        elif node.kind == FILE:
            if kind == FILE:
                node.start, node.fragment, node.offset, node.size = unpack("<4I")
                node.sparse = 0
            else:
                node.start, node.size, node.sparse, _, node.fragment, node.offset, xattrs = unpack("<3Q4I")
            whole = node.size // self.block_size if node.fragment != NOTHING_32 else -(-node.size // self.block_size)
            node.blocks = take(4 * whole)
        elif node.kind == SYMLINK:
            _, size = unpack("<II")
            node.body = take(size)
            if kind > EXTENDED:
                (xattrs,) = unpack("<I")
        else:
            take(4)
            if node.kind in (BLOCK_DEVICE, CHARACTER_DEVICE):
                node.body = take(4)
            if kind > EXTENDED:
                (xattrs,) = unpack("<I")
        pairs = () if xattrs == NOTHING_32 else self.xattrs[xattrs]
        # Overlay's own notes say something about this layer only.
        node.xattrs = tuple(sorted(pair for pair in pairs if pair[0] != TRUSTED or not pair[1].startswith(OVERLAY)))
        node.opaque = OPAQUE in pairs and place != self.root
        return node

    def entries(self, node):
        """Names and nodes of a directory."""
        block, offset, size = node.children
        # Two that are not there are counted, and one byte too many.
        left = size - 3
        take = self.stream(self.directories + block, offset) if left > 0 else None
        while left > 0:
            count, start, _ = struct.unpack("<III", take(12))
            left -= 12
            for _ in range(count + 1):
                place, _, _, length = struct.unpack("<HhHH", take(8))
                name = take(length + 1)
                left -= 8 + length + 1
                yield name, self.node(start << 16 | place)


def is_whiteout(node):
    return node.kind == CHARACTER_DEVICE and node.body == b"\0\0\0\0"


def merge(nodes):
    """The node that a name has, given what the layers have of it, the highest first. Fills in directories' children."""
    top = nodes[0]
    if top.kind != DIRECTORY:
        return None if is_whiteout(top) else top
    found = {}
    for node in nodes:
        # Whatever is no directory hides what is below it.
        if node.kind != DIRECTORY:
            break
        for name, child in node.layer.entries(node):
            found.setdefault(name, []).append(child)
        if node.opaque:
            break
    children = {}
    for name in sorted(found):
        child = merge(found[name])
        if child:
            children[name] = child
    top.children = children
    return top


class Metadata:
    """A run of metadata blocks, packed one after the other as they fill."""

    def __init__(self, pack):
        self.pack = pack
        self.waiting = bytearray()
        self.packed = []
        self.size = 0

    def place(self):
        """Where the next byte lies: its block's, in the run, and its own in the block."""
        return self.size, len(self.waiting)

    def write(self, data):
        self.waiting += data
        while len(self.waiting) >= METADATA:
            self.flush()

    def flush(self):
        block = bytes(self.waiting[:METADATA])
        if block:
            del self.waiting[:METADATA]
            packed = self.pack(block)
            header = len(packed)
            if header >= len(block):
                packed, header = block, len(block) | RAW_METADATA
            self.packed.append(struct.pack("<H", header) + packed)
            self.size += 2 + len(packed)

    def finish(self):
        self.flush()
        return b"".join(self.packed)


class Writer:
    """The merged squashfs."""

    def __init__(self, path, layers):
        self.file = open(path, "w+b")
        self.base = layers[0]
        self.pack = compressor(self.base.compressor)[0]
        self.ids, self.xattrs, self.fragments = {}, {}, []
        self.inodes, self.directories = Metadata(self.pack), Metadata(self.pack)
        self.file.write(bytes(SUPERBLOCK.size) + self.base.options)

    def copy(self, source, start, size):
        """Copies bytes of a layer to the end; gives where they are now."""
        at = self.file.tell()
        self.file.flush()
        left = size
        while left:
            copied = os.sendfile(self.file.fileno(), source, start + size - left, left)
            if copied == 0:
                sys.exit("a layer is cut short")
            left -= copied
        self.file.seek(at + size)
        return at

    def copy_data(self, layers, nodes):
        """Copies what the files hold, in the order that it has in its layer; equal files share it, as they did there."""
        for layer in layers:
            extents, fragments = {}, set()
            own = [node for node in nodes if node.kind == FILE and node.layer is layer]
            for node in own:
                sizes = struct.unpack(f"<{len(node.blocks) // 4}I", node.blocks)
                size = sum(size & ~RAW_BLOCK for size in sizes)
                if size:
                    extents[node.start] = max(size, extents.get(node.start, 0))
                if node.fragment != NOTHING_32:
                    fragments.add(node.fragment)
            for index in fragments:
                start, size, _ = layer.fragments[index]
                extents[start] = size & ~RAW_BLOCK
            moved = {}
            run = []
            for start in [*sorted(extents), None]:
                if run and start != run[-1] + extents[run[-1]]:
                    to = self.copy(layer.file, run[0], run[-1] + extents[run[-1]] - run[0])
                    moved.update((old, to + old - run[0]) for old in run)
                    run = []
                run.append(start)
            renamed = {}
            for index in sorted(fragments):
                renamed[index] = len(self.fragments)
                start, size, _ = layer.fragments[index]
                self.fragments.append((moved[start], size, 0))
            for node in own:
                node.start = moved.get(node.start, 0)
                node.fragment = renamed.get(node.fragment, NOTHING_32)

    def index(self, numbers, key):
        return numbers.setdefault(key, len(numbers))

    def add(self, node, parent):
        """Writes the inode of a node and of everything in it."""
        if node.kind == DIRECTORY:
            for child in node.children.values():
                if child.place is None:
                    self.add(child, node.number)
            listing = self.list(node)
        uid, gid = self.index(self.ids, node.uid), self.index(self.ids, node.gid)
        xattrs = self.index(self.xattrs, node.xattrs) if node.xattrs else NOTHING_32
        extended = xattrs != NOTHING_32
        pack = struct.pack
        if node.kind == DIRECTORY:
            block, offset, size, index = listing
            links = 2 + sum(child.kind == DIRECTORY for child in node.children.values())
            extended = extended or bool(index) or size > 0xFFFF
            if extended:
                body = pack("<4I2HI", links, size, block, parent, len(index), offset, xattrs) + b"".join(index)
            else:
                body = pack("<IIHHI", block, links, size, offset, parent)
        elif node.kind == FILE:
            extended = extended or node.names > 1 or node.sparse or max(node.start, node.size) > NOTHING_32
            if extended:
                body = pack(
                    "<3Q4I", node.start, node.size, node.sparse, node.names, node.fragment, node.offset, xattrs
                )
            else:
                body = pack("<4I", node.start, node.fragment, node.offset, node.size)
            body += node.blocks
        else:
            body = pack("<I", node.names)
            if node.kind == SYMLINK:
                body += pack("<I", len(node.body))
            body += node.body
            if extended:
                body += pack("<I", xattrs)
        block, offset = self.inodes.place()
        kind = node.kind + EXTENDED if extended else node.kind
        self.inodes.write(COMMON.pack(kind, node.mode, uid, gid, node.time, node.number) + body)
        node.place = (block, offset)

    def list(self, node):
        """Writes the names in a directory; gives block, offset and size of the list, and the index into a long one."""
        block, offset = self.directories.place()
        size, index, entries = 0, [], []

        def write_header():
            if entries:
                self.directories.write(struct.pack("<III", len(entries) - 1, start, base) + b"".join(entries))

        start = base = None
        for name, child in node.children.items():
            place = child.place
            if not entries or len(entries) == 256 or place[0] != start or abs(child.number - base) > 0x7FFF:
                write_header()
                entries, start, base = [], place[0], child.number
                # One finds a name by the first header of the metadata block that it is in.
                here = self.directories.place()[0]
                if here != (index[-1][0] if index else block):
                    index.append((here, struct.pack("<III", size, here, len(name) - 1) + name))
                size += 12
            entries.append(struct.pack("<HhHH", place[1], child.number - base, child.kind, len(name) - 1) + name)
            size += 8 + len(name)
        write_header()
        return block, offset, size + 3, [entry for _, entry in index]

    def write_table(self, entries, form, header=b""):
        """Writes a table in metadata blocks and behind it a header and the list of their places; gives where that is."""
        form = struct.Struct(form)
        data = b"".join(form.pack(*entry) for entry in entries)
        places = []
        for start in range(0, len(data), METADATA):
            places.append(self.file.tell())
            block = Metadata(self.pack)
            block.write(data[start : start + METADATA])
            self.file.write(block.finish())
        at = self.file.tell()
        self.file.write(header + struct.pack(f"<{len(places)}Q", *places))
        return at

    def write_xattrs(self):
        if not self.xattrs:
            return NOTHING_64
        values, sets = Metadata(self.pack), []
        for pairs in self.xattrs:
            block, offset = values.place()
            data = b"".join(
                struct.pack("<HH", kind, len(name)) + name + struct.pack("<I", len(value)) + value
                for kind, name, value in pairs
            )
            values.write(data)
            sets.append((block << 16 | offset, len(pairs), len(data)))
        at = self.file.tell()
        self.file.write(values.finish())
        return self.write_table(sets, "<QII", struct.pack("<QII", at, len(sets), 0))

    def finish(self, nodes, epoch):
        """Writes everything but the data; nodes are in the order of their numbers, the root is the first."""
        self.add(nodes[0], len(nodes) + 1)
        inodes = self.file.tell()
        self.file.write(self.inodes.finish())
        directories = self.file.tell()
        self.file.write(self.directories.finish())
        fragments = self.write_table(self.fragments, "<QII") if self.fragments else NOTHING_64
        places = [block << 16 | offset for block, offset in (node.place for node in nodes)]
        export = self.write_table([(place,) for place in places], "<Q")
        ids = self.write_table([(number,) for number in self.ids], "<I")
        xattrs = self.write_xattrs()
        if len(self.ids) > 0xFFFF:
            sys.exit(f"files have {len(self.ids)} owners and groups in all, and a squashfs can hold 65535")
        size = self.file.tell()
        self.file.write(bytes(-size % 4096))
        flags = FLAG_EXPORT | FLAG_DUPLICATES | self.base.flags & FLAG_OPTIONS
        if not self.xattrs:
            flags |= FLAG_NO_XATTRS
        self.file.seek(0)
        self.file.write(
            SUPERBLOCK.pack(
                MAGIC, len(nodes), epoch, self.base.block_size, len(self.fragments), self.base.compressor,
                self.base.block_size.bit_length() - 1, flags, len(self.ids), 4, 0,
                places[0], size, ids, xattrs, inodes, directories, fragments, export,
            )  # fmt: skip
        )
        self.file.close()


def number(root):
    """Every node once, the root first, numbered from 1; counts names. Children of a directory have numbers in a row."""
    nodes, waiting = [root], [root]
    root.number, root.names = 1, 1
    while waiting:
        for child in waiting.pop().children.values():
            child.names += 1
            if child.number is None:
                nodes.append(child)
                child.number = len(nodes)
                if child.kind == DIRECTORY:
                    waiting.append(child)
    return nodes


def main(target, epoch, *paths):
    # A path has up to 2048 parts.
    sys.setrecursionlimit(20_000)
    layers = [Layer(path) for path in paths]
    base = layers[0]
    for layer in layers:
        if (layer.block_size, layer.compressor, layer.options) != (base.block_size, base.compressor, base.options):
            sys.exit(f"{layer.path} is compressed in another way than {base.path}")
    nodes = number(merge([layer.node(layer.root) for layer in reversed(layers)]))
    writer = Writer(target, layers)
    writer.copy_data(layers, nodes)
    writer.finish(nodes, int(epoch))


if __name__ == "__main__":
    main(*sys.argv[1:])
