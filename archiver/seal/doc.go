// Package seal is the format of an object in the archive, in both directions.
//
// An object is a skippable frame with a JSON header, and after it one frame with the bytes:
//
//	57 2A 4D 18         magic: "W*M\x18", 0x184D2A57 little endian; zstd and lz4 skip 0x184D2A50 to 5F
//	u32 little endian   length of what follows, at most 4088; with these 8 bytes a multiple of 512
//	{"format":1,…}      JSON, printable ASCII, filled up with spaces and one line feed
//	28 B5 2F FD …       codec zstd: one zstd frame, or
//	04 22 4D 18 …       codec lz4: one lz4 frame of independent blocks; codec none: the same, of stored blocks, or
//	age-encryption…     encryption age: an age file (age-encryption.org/v1) that holds such a frame
//
// and nothing behind it. Tools that know nothing of us open what is not encrypted:
//
//	head -c 4096 object | strings -n 20 | head -1      the header
//	zstd -dc object > file,   lz4 -dc object > file    the bytes
//
// and with an identity what is encrypted, behind the header frame, whose length stands in bytes 4 to 7:
//
//	n=$(od -An -tu4 -j4 -N4 object)                              on a little endian machine
//	tail -c +$((n + 9)) object | age -d -i key.txt | zstd -dc > file
//
// The header says what the bytes are (name, system identifier, size, digest, commit times) and where they
// come from (member, term). The first HeaderRange bytes of an object are enough to read it, so a ranged
// read tells whether the archive has the bytes we have. A reader takes a header with keys that it does not
// know, and refuses a format number, codec or digest that it does not know. The digest is XXH3-128 of the
// plain bytes, as xxh128sum prints it: it finds damage and compares copies, and proves no author.
//
// The header stays in the clear when the bytes are encrypted, so nodes that have only public keys compare, list and count. It
// then also has a digest of the encrypted bytes, with which Check finds a cut or changed object without an identity, and as its last key
// one of its own text, which every reader checks.
// Who exchanges headers is found out: the digest of the plain bytes is held against them when they are opened.
//
// Sealing is done in whole before anything goes over a network:
//
//	sealer, err := seal.New(seal.Zstd)            // one for the program; recipients may follow; every method may be called concurrently
//	packed, err := sealer.Pack(file, size)        // one pass: digest and compression
//	defer packed.Close()                          // gives the memory back, also what Seal returned
//	if packed.Digest() == theirs { return }
//	sealed, err := packed.Seal(seal.Header{Name: …, SystemID: …})
//	err = store.Put(ctx, key, sealed)             // io.ReadSeeker, io.ReaderAt, Size
//
// A Packed holds its compressed bytes, in pieces of 128 KiB that the Sealer uses again, or above 64 MiB
// plain in a temp file without a name; a running Pack also holds one encoder, and 128 KiB for age. There are no goroutines.
// After Close every read fails, also one that an HTTP client is still at after its request was cancelled:
// such a read can never see the bytes of the next segment.
//
// Opening trusts nothing: windows, block sizes and the content are bounded by what this package writes, the
// frame has to end where the object does, and io.EOF comes only after size and digest were found right.
// Until then the bytes that were read are not to be used.
package seal
