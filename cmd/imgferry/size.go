package main

import (
	"fmt"
	"math"
	"strconv"

	"github.com/dustin/go-humanize"
)

// byteSize is the value of a flag that takes a number of bytes: 65536, 64KiB, 1.5G. As in qemu-img,
// K, M, G and T alone count in powers of 1024.
type byteSize int64

func (s *byteSize) String() string { return strconv.FormatInt(int64(*s), 10) }
func (*byteSize) Type() string     { return "size" }

func (s *byteSize) Set(text string) error {
	if n := len(text); n > 0 {
		switch text[n-1] {
		case 'k', 'K', 'm', 'M', 'g', 'G', 't', 'T':
			text += "iB"
		}
	}
	n, err := humanize.ParseBytes(text)
	if err != nil || n > math.MaxInt64 {
		return fmt.Errorf("%q is no size such as 65536, 64KiB or 1.5G", text)
	}
	*s = byteSize(n)
	return nil
}
