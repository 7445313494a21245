package formatstest_test

import (
	"fmt"

	"imgferry/formats/formatstest"
)

// The expected content of a disk of 1 TiB takes no memory.
func ExampleSparse() {
	content := formatstest.Sparse(formatstest.Piece{Offset: 1<<40 - 6, Data: []byte("end")})
	p := make([]byte, 8)
	n, err := content.ReadAt(p, 1<<40-8)
	fmt.Printf("%d %q %v\n", n, p, err)
	// Output: 8 "\x00\x00end\x00\x00\x00" <nil>
}
