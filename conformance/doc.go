// Package conformance holds no code, only tests: that every disk image which qemu-img can write reads
// here as it does there, byte by byte and run by run. The cases are generated; `make conformance`
// runs them.
package conformance
